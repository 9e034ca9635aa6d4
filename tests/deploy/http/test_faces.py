"""``POST /faces`` answers what the command prints, within the limits of the service."""

import base64
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from lookalike.encoder.detect import face_finder
from lookalike.encoder.images import encode_png
from tests.fixtures.face_photos import group, no_face, without_extra
from tests.fixtures.photos import make_home
from tests.fixtures.service import API, client_of, problem

LIMIT = 400_000
"""Pixels."""


@pytest.fixture(scope="module")
def client(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    home = make_home(tmp_path_factory.mktemp("home"), tiny_model)
    with client_of(home, tiny_model, "faces", max_pixels=LIMIT) as opened:
        yield opened


def as_text(data: bytes) -> str:
    return base64.b64encode(data).decode()


TWO, NONE = encode_png(group(2)), encode_png(no_face())


def test_faces_are_where_the_finder_sees_them(client: httpx.Client) -> None:
    files = [("image", (name, data)) for name, data in (("two.png", TWO), ("wall.png", NONE))]
    sent = client.post(f"{API}/faces", files=files)
    assert sent.status_code == 200, sent.text
    two, none = sent.json()["images"]
    assert (two["name"], two["width"], two["height"], two["count"]) == ("two.png", 512, 256, 2)
    assert two["faces"] == [face.to_json() for face in face_finder().find(group(2), threshold=0.6)]
    assert (none["count"], none["faces"], none["main"]) == (0, [], None)
    text = client.post(f"{API}/faces", json={"images": [as_text(TWO)], "threshold": 0.6})
    assert text.json()["images"][0] | {"name": "two.png"} == two
    strict = client.post(f"{API}/faces", data={"threshold": "0.99"}, files={"image": ("two.png", TWO)})
    assert strict.json()["images"][0]["count"] == 0


def test_the_main_face_is_the_one_that_a_query_takes(client: httpx.Client) -> None:
    for small, main in ((0, 2), (1, 1)):
        photo = group(2).copy()
        photo[:, 256 * small : 256 * (small + 1)] = np.pad(group(1)[::2, ::2], ((64,), (64,), (0,)), "edge")
        files = {"image": encode_png(photo)}
        (told,) = client.post(f"{API}/faces", files=files).json()["images"]
        assert (told["count"], told["main"]) == (2, main)
        images = [
            client.post(f"{API}/reconstruct", data=data, files=files).json()["images"][0]["original"]
            for data in ({"faces": "true"}, {"face": str(main)}, {"face": str(3 - main)})
        ]
        assert images[0] == images[1] != images[2]


def test_one_that_cannot_be_read_is_told_beside_the_others(client: httpx.Client) -> None:
    files = [("image", (name, data)) for name, data in (("bad.jpg", b"no picture"), ("two.png", TWO))]
    bad, two = client.post(f"{API}/faces", files=files).json()["images"]
    assert "not an image" in bad["error"]
    assert (bad["count"], bad["width"], two["count"]) == (0, None, 2)
    assert "error" not in two
    assert bad["main"] is None
    problem(client.post(f"{API}/faces", files=files[:1]), 422, "image-unreadable")


def test_what_is_refused(client: httpx.Client) -> None:
    problem(client.post(f"{API}/faces", json={}), 422, "invalid-request")
    for threshold in (0.05, 1, "NaN"):
        body = {"images": [as_text(TWO)], "threshold": threshold}
        problem(client.post(f"{API}/faces", json=body), 422, "invalid-request")
    problem(client.post(f"{API}/faces", json={"images": [as_text(TWO)] * 17}), 422, "invalid-request")
    problem(client.post(f"{API}/faces", json={"images": ["?"]}), 422, "invalid-request")
    problem(client.post(f"{API}/faces", content=b"x"), 415, "media-type")
    large = encode_png(group(7))
    problem(client.post(f"{API}/faces", files={"image": ("large.png", large)}), 413, "image-too-large")


def test_without_the_extra_it_is_a_problem_of_its_own(client: httpx.Client) -> None:
    with without_extra():
        problem(client.post(f"{API}/faces", files={"image": ("two.png", TWO)}), 501, "extra-missing")
    assert client.post(f"{API}/faces", files={"image": ("two.png", TWO)}).status_code == 200


def test_it_is_described_timed_and_models_name_their_frame(client: httpx.Client) -> None:
    path = client.get(f"{API}/openapi.json").json()["paths"][f"{API}/faces"]["post"]
    body = path["requestBody"]["content"]
    assert set(body) == {"application/json", "multipart/form-data"}
    assert path["responses"].keys() >= {"200", "413", "415", "422", "501", "503"}
    client.post(f"{API}/faces", files={"image": ("two.png", TWO)})
    assert 'lookalike_step_seconds_count{step="faces"}' in client.get("/metrics").text
    frames = {model["name"]: model["frame"] for model in client.get(f"{API}/models").json()["models"]}
    assert frames["faces"] == "lfw"
    assert frames["digits"] is None
