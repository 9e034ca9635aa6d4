"""Collections of faces over HTTP: filled by a job, searched with whole photographs, shown face by face."""

import base64
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from lookalike.encoder.images import encode_png
from lookalike.indexer.sources import item_id
from lookalike.indexer.sync.faces import face_id
from tests.fixtures.face_photos import without_extra
from tests.fixtures.face_pictures import SIDE, face_picture, write_picture
from tests.fixtures.service import API, client_of, problem

LOOKS = {"Ada/one.png": (0,), "none.png": (), "three.png": (1, 8, 11)}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    for name, looks in LOOKS.items():
        write_picture(home / "photos" / name, looks)
    return home


@pytest.fixture(scope="module")
def client(home: Path, tiny_model: Path) -> Iterator[httpx.Client]:
    """A service whose collection ``c`` holds the faces of photos/."""
    with client_of(home, tiny_model, "faces") as opened:
        report = indexed(opened, home, faces=True)
        assert (report["added"], report["faces"], report["without_face"]) == (3, 4, 1)
        yield opened


def indexed(client: httpx.Client, home: Path, **options: Any) -> dict[str, Any]:
    """Run a job to its end and return its report, or its problem."""
    asked = {"source": str(home / "photos"), "collection": "c", "model": "faces", **options}
    sent = client.post(f"{API}/index", json=asked)
    assert sent.status_code == 202, sent.text
    for _ in range(600):
        job: dict[str, Any] = client.get(f"{API}/jobs/{sent.json()['id']}").json()
        if job["ended"] is not None:
            return dict(job["report"] or job["problem"])
        time.sleep(0.05)
    raise AssertionError("the job does not end")


def text(*looks: int) -> str:
    return base64.b64encode(encode_png(face_picture(*looks))).decode()


def search(client: httpx.Client, **asked: Any) -> httpx.Response:
    return client.post(f"{API}/search", json={"collection": "c", "k": 1, **asked})


def answers(client: httpx.Client, **asked: Any) -> list[dict[str, Any]]:
    response = search(client, **asked)
    assert response.status_code == 200, response.text
    return list(response.json()["answers"])


def test_a_job_again_changes_nothing_and_what_does_not_fit_is_refused(
    client: httpx.Client, home: Path
) -> None:
    again = indexed(client, home, faces=True)
    assert (again["unchanged"], again["added"]) == (3, 0)
    assert indexed(client, home)["unchanged"] == 3  # it is remembered
    assert indexed(client, home, crop="full")["code"] == "model-mismatch"
    wrong = {"source": str(home / "photos"), "collection": "d", "faces": True}
    for more in ({"crop": "full"}, {"face_threshold": 0.01}, {"faces": False, "face_threshold": 0.7}):
        problem(client.post(f"{API}/index", json=wrong | more), 422, "invalid-request")
    problem(client.post(f"{API}/index", json=wrong | {"model": "tiny"}), 422, "invalid-request")
    with without_extra():
        problem(client.post(f"{API}/index", json=wrong), 501, "extra-missing")


def test_the_main_face_one_by_number_or_each(client: httpx.Client) -> None:
    three = text(1, 8, 11)
    (main,) = answers(client, images=[three])
    assert main["face"]["count"] == 3
    (one,) = answers(client, images=[three], face=2)
    assert one["face"]["number"] == one["results"][0]["payload"]["face"]["number"] == 2
    every = answers(client, images=[three], all_faces=True)
    assert [each["face"]["number"] for each in every] == [1, 2, 3]
    assert [each["results"][0]["payload"]["face"]["number"] for each in every] == [1, 2, 3]
    form = client.post(
        f"{API}/search",
        data={"collection": "c", "face": "2", "k": "1"},
        files={"image": ("a.png", base64.b64decode(three))},
    )
    assert form.json()["answers"][0]["face"]["number"] == 2


def test_an_image_without_the_face_is_a_problem_that_says_what_to_do(client: httpx.Client) -> None:
    none = problem(search(client, images=[text()]), 422, "image-unreadable")
    assert "no face was found" in none["detail"]
    far = problem(search(client, images=[text(0)], face=2), 422, "image-unreadable")
    assert "it has 1 faces, not 2" in far["detail"]
    bad, good = answers(client, images=[text(), text(0)])
    assert "no face was found" in bad["error"]
    assert good["results"][0]["path"] == "Ada/one.png"
    assert answers(client, images=[text()], crop="full")[0]["results"]
    for more in ({"face": 0}, {"face": 1, "all_faces": True}, {"faces": True, "crop": "full"}):
        problem(search(client, images=[text(0)], **more), 422, "invalid-request")


def test_items_are_faces_and_a_picture_without_one_is_none(client: httpx.Client) -> None:
    second, none = face_id("photos", "three.png", 2), item_id("photos", "none.png")

    def get(path: str) -> httpx.Response:
        return client.get(f"{API}/items/{path}", params={"collection": "c", "side": "64"})

    shown = get(f"{second}/thumbnail")
    assert shown.status_code == 200, shown.text
    with Image.open(io.BytesIO(shown.content)) as image:
        assert image.size == (64, 64)
        head = Image.fromarray(face_picture(8)).resize((64, 64))
        apart = np.abs(np.asarray(image, np.float32).mean((0, 1)) - np.asarray(head, np.float32).mean((0, 1)))
        assert apart.max() < 25
    with Image.open(io.BytesIO(get(f"{second}/image").content)) as image:
        assert image.size == (3 * SIDE, SIDE)
    for path in ("", "/thumbnail", "/image"):
        problem(get(f"{none}{path}"), 404, "item-not-found")
    for _ in range(8):
        found = client.get(f"{API}/items/random", params={"collection": "c"}).json()
        assert found["payload"]["path"] != "none.png"


def test_more_like_a_face(client: httpx.Client) -> None:
    second, none = face_id("photos", "three.png", 2), item_id("photos", "none.png")
    for more in ({}, {"add": ["Smiling=0.1"]}):
        (answer,) = answers(client, item=second, exclude_self=False, **more)
        assert answer["results"][0]["payload"]["face"]["number"] == 2
        assert answer["face"]["number"] == 2
    problem(search(client, item=none), 404, "item-not-found")


def edited(client: httpx.Client, **asked: Any) -> list[list[str]]:
    response = client.post(f"{API}/edit", json={"model": "faces", "add": ["Smiling=1"], **asked})
    assert response.status_code == 200, response.text
    return list(response.json()["rows"])


def test_a_face_of_a_photograph_is_edited_or_the_face_that_an_item_is(client: httpx.Client) -> None:
    three = text(1, 8, 11)
    each = [edited(client, images=[three], face=number) for number in (1, 2, 3)]
    main = edited(client, images=[three], faces=True)
    assert main in each
    assert main != edited(client, images=[three])
    assert len({rows[0][0] for rows in each}) == 3
    item = {"item": face_id("photos", "three.png", 2), "collection": "c"}
    assert edited(client, **item) == each[1]
    assert edited(client, **item, face=3) == each[2]
    assert edited(client, **item, crop="full") == edited(client, images=[three], crop="full")
    none = {"item": item_id("photos", "none.png"), "collection": "c", "add": ["Smiling"]}
    problem(client.post(f"{API}/edit", json=none), 404, "item-not-found")


def test_a_face_is_reconstructed_and_interpolated(client: httpx.Client) -> None:
    one, three = text(0), text(1, 8, 11)
    asked = {"model": "faces", "images": [one, three]}
    whole = client.post(f"{API}/reconstruct", json=asked).json()["images"]
    faces = client.post(f"{API}/reconstruct", json=asked | {"faces": True}).json()["images"]
    assert [each["original"] for each in whole] != [each["original"] for each in faces]
    (row,) = client.post(f"{API}/interpolate", json=asked | {"faces": True, "steps": 3}).json()["rows"]
    assert [row[0], row[2]] == [each["reconstruction"] for each in faces]


def test_what_cannot_be_edited_is_a_problem(client: httpx.Client) -> None:
    asked = {"model": "faces", "add": ["Smiling=1"], "images": [text(0)]}
    for route in ("edit", "reconstruct"):
        some = asked if route == "edit" else {key: asked[key] for key in ("model", "images")}
        for more in ({"face": 0}, {"faces": True, "crop": "full"}, {"face": 1, "crop": "full"}):
            problem(client.post(f"{API}/{route}", json=some | more), 422, "invalid-request")
        far = problem(client.post(f"{API}/{route}", json=some | {"face": 2}), 422, "image-unreadable")
        assert "it has 1 faces, not 2" in far["detail"]
        with without_extra():
            problem(client.post(f"{API}/{route}", json=some | {"faces": True}), 501, "extra-missing")
    tiny = {"model": "tiny", "images": [text(0)], "faces": True}
    said = problem(client.post(f"{API}/reconstruct", json=tiny), 422, "invalid-request")
    assert "does not say where faces lie" in said["detail"]


def test_faces_are_counted(client: httpx.Client) -> None:
    (row,) = client.get(f"{API}/collections").json()["collections"]
    assert (row["name"], row["count"], row["crop"]) == ("c", 4, "faces:yunet-2023mar:0.8")
    facets = client.get(f"{API}/facets", params={"collection": "c", "field": "path"}).json()
    assert facets["values"] == [{"value": "three.png", "count": 3}, {"value": "Ada/one.png", "count": 1}]
