"""Images to vectors and back to results; two images compared; pages; likes and unlikes."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from lookalike.encoder.images import Crop
from lookalike.encoder.runtime import Model
from lookalike.searcher.generation import sample
from lookalike.searcher.search import compare
from tests.fixtures.photos import NAME, make_home, photograph
from tests.fixtures.service import API, client_of, problem


@pytest.fixture(scope="module")
def home(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("home"), tiny_model)


@pytest.fixture(scope="module")
def client(home: Path, tiny_model: Path) -> Iterator[httpx.Client]:
    with client_of(home, tiny_model, "faces") as opened:
        yield opened


def text(number: int) -> str:
    return base64.b64encode(photograph(number)).decode()


def face(number: int) -> bytes:
    """A face that the shipped model generates, as PNG: it is like what that model was trained on."""
    file = io.BytesIO()
    Image.fromarray(sample(Model.open("faces"), number + 1, seed=0)[number]).save(file, "PNG")
    return file.getvalue()


def embedded(client: httpx.Client, *numbers: int, **more: Any) -> dict[str, Any]:
    told = client.post(
        f"{API}/embed", json={"model": "tiny", "images": [text(each) for each in numbers], **more}
    )
    assert told.status_code == 200, told.text
    values: dict[str, Any] = told.json()
    return values


def search(client: httpx.Client, **asked: Any) -> list[dict[str, Any]]:
    told = client.post(f"{API}/search", json={"collection": NAME, **asked})
    assert told.status_code == 200, told.text
    answers: list[dict[str, Any]] = told.json()["answers"]
    return answers


def found(answer: dict[str, Any]) -> list[tuple[int, str]]:
    return [(each["rank"], each["id"]) for each in answer["results"]]


def test_vectors_are_those_of_the_model_in_either_form(client: httpx.Client, tiny_model: Path) -> None:
    model = Model.open(tiny_model)
    numbers, packed = embedded(client, 4, 1), embedded(client, 4, 1, encoding="base64")
    assert (numbers["model_id"], numbers["dimension"]) == (model.model_id, model.bundle.spec.embedding)
    for one, other in zip(numbers["embeddings"], packed["embeddings"], strict=True):
        exact = np.frombuffer(base64.b64decode(other["vector"]), "<f4")
        assert (np.array(one["vector"], np.float32) == exact).all()
        assert np.linalg.norm(exact) == pytest.approx(1, abs=1e-5)
        assert (one["name"], one["warning"]) == (other["name"], None)
    form = client.post(f"{API}/embed", data={"model": "tiny"}, files={"image": ("me.jpg", photograph(4))})
    alone = form.json()["embeddings"][0]["vector"]
    assert alone == pytest.approx(numbers["embeddings"][0]["vector"], abs=1e-6)
    uri = f"data:image/jpeg;base64,{text(4)}"
    again = client.post(f"{API}/embed", json={"model": "tiny", "images": [uri]}).json()
    assert again["embeddings"][0]["vector"] == alone


@pytest.mark.parametrize("encoding", ["float", "base64"])
@pytest.mark.parametrize(
    "more", [{}, {"k": 2, "offset": 3}, {"group_by": "person"}, {"where": "person=Hypatia"}]
)
def test_a_vector_finds_what_its_image_finds(
    client: httpx.Client, encoding: str, more: dict[str, Any]
) -> None:
    whole = embedded(client, 4, 1, encoding=encoding)
    vectors = [each["vector"] for each in whole["embeddings"]]
    answers = search(client, vectors=vectors, model_id=whole["model_id"], **more)
    images = search(client, images=[text(4), text(1)], **more)
    assert [answer["query"] for answer in answers] == ["vector-1", "vector-2"]
    assert [found(answer) for answer in answers] == [found(answer) for answer in images]


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"model_id": None}, "invalid-request", "send vectors together with their model_id"),
        (
            {"model_id": "0" * 64},
            "vectors-mismatch",
            "the vectors are of model 000000000000, ",
        ),
        (
            {"vectors": [[1.0, 2.0]]},
            "invalid-request",
            "vectors: number 1 has 2 values, this ",
        ),
        ({"vectors": []}, "invalid-request", "vectors"),
        ({"vectors": ["AAAA="]}, "invalid-request", "vectors: number 1 is not float32 values in Base64"),
        ({"vectors": ["%"]}, "invalid-request", "vectors: number 1 is not float32 values in Base64"),
        ({"vectors": "zero"}, "vector-unusable", ""),
        ({"vectors": "large"}, "vector-unusable", ""),
        ({"images": ["AAAA"]}, "invalid-request", "send vectors or images or items"),
        ({"like": ["0" * 32]}, "invalid-request", "send vectors or images or items"),
        ({"crop": "full"}, "invalid-request", "crop is for images, not for vectors"),
        ({"denoise": True}, "invalid-request", "denoise is for images, not for vectors"),
    ],
)
def test_vectors_that_do_not_fit_are_told_apart(
    client: httpx.Client, change: dict[str, Any], code: str, said: str
) -> None:
    whole = embedded(client, 4)
    size = whole["dimension"]
    asked = {
        "collection": NAME,
        "vectors": [whole["embeddings"][0]["vector"]],
        "model_id": whole["model_id"],
        **change,
    }
    asked["vectors"] = {"zero": [[0.0] * size], "large": [[1e300] * size]}.get(
        str(asked["vectors"]), asked["vectors"]
    )
    told = client.post(f"{API}/search", json=asked)
    assert said in problem(told, 409 if code == "vectors-mismatch" else 422, code)["detail"]


def test_pages_are_the_whole(client: httpx.Client) -> None:
    whole = search(client, images=[text(4)], k=9)[0]
    pages = [search(client, images=[text(4)], k=4, offset=offset)[0] for offset in (0, 4, 8)]
    assert [each for page in pages for each in found(page)] == found(whole)
    assert search(client, images=[text(4)], offset=9)[0]["results"] == []
    asked = {"collection": NAME, "images": [text(4)], "offset": -1}
    problem(client.post(f"{API}/search", json=asked), 422, "invalid-request")
    item = whole["results"][0]["id"]
    assert found(search(client, item=item, offset=2, k=2)[0]) == found(search(client, item=item)[0])[2:4]


def test_the_query_itself_is_the_same_file(client: httpx.Client) -> None:
    (answer,) = search(client, images=[text(4)])
    assert [each["same_file"] for each in answer["results"]] == [True] + [False] * 8
    assert {each["match"] for each in answer["results"]} == {None}  # not calibrated


def test_likes_and_unlikes_are_one_query(client: httpx.Client) -> None:
    first, *_, last = (each["id"] for each in search(client, images=[text(4)])[0]["results"])
    (alone,) = search(client, images=[text(4)], unlike=[last], k=9)
    (items,) = search(client, like=[first], unlike=[last], exclude_self=False, k=9)
    assert found(alone) == found(items)
    (item,) = search(client, item=first, unlike=[last], exclude_self=False, k=9)
    assert found(item) == found(items)
    assert items["like"] == [items["results"][0]["path"]]
    assert items["results"][-1]["id"] == last
    (others,) = search(client, like=[first, last])
    assert not {first, last} & {each["id"] for each in others["results"]}
    form = client.post(
        f"{API}/search",
        data={"collection": NAME, "k": "9", "unlike": [last]},
        files={"image": ("image-1", photograph(4))},
    )
    assert found(form.json()["answers"][0]) == found(alone)


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        ({"unlike": ["0" * 32]}, 422, "invalid-request"),
        ({"like": ["0" * 32]}, 404, "item-not-found"),
        ({"like": ["x"]}, 422, "invalid-request"),
        ({"like": ["0" * 32], "prior": 0.5}, 422, "invalid-request"),
        ({"like": ["0" * 32], "all_faces": True}, 422, "invalid-request"),
        ({"like": ["0" * 32] * 65}, 422, "invalid-request"),
    ],
)
def test_likes_that_cannot_be_are_said(
    client: httpx.Client, asked: dict[str, Any], status: int, code: str
) -> None:
    problem(client.post(f"{API}/search", json={"collection": NAME, **asked}), status, code)


def test_two_images_are_compared_as_a_search_would(client: httpx.Client) -> None:
    told = client.post(f"{API}/compare", json={"model": "tiny", "images": [text(4), text(1)]}).json()
    by_id = {each["path"]: each for each in search(client, images=[text(4)])[0]["results"]}
    assert any(told["score"] == pytest.approx(each["score"], abs=1e-4) for each in by_id.values())
    assert (told["probability"], told["match"], told["same_file"]) == (None, None, False)
    same = client.post(f"{API}/compare", json={"model": "tiny", "images": [text(4), text(4)]}).json()
    assert same["score"] == pytest.approx(1, abs=1e-5)
    assert same["same_file"]
    unlike = client.post(f"{API}/compare", json={"images": [text(4), text(4)]}).json()
    assert (unlike["probability"], unlike["match"], unlike["warning"] is None) == (None, False, False)
    faces = [base64.b64encode(face(0)).decode()] * 2
    calibrated = client.post(f"{API}/compare", json={"images": faces, "crop": "full"}).json()
    assert calibrated["probability"] > 0.9  # of the same picture, at an even prior
    assert (calibrated["match"], calibrated["warning"]) == (True, None)


def test_python_compares_as_the_service_does(client: httpx.Client, tmp_path: Path) -> None:
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    for number, file in enumerate(files):
        file.write_bytes(face(number))
    said = compare(Model.open("faces"), *files, prior=0.2, crop=Crop()).to_json()
    images = [base64.b64encode(file.read_bytes()).decode() for file in files]
    told = client.post(f"{API}/compare", json={"images": images, "prior": 0.2, "crop": "full"}).json()
    assert told["score"] == pytest.approx(said["score"], abs=1e-5)
    assert told["probability"] == pytest.approx(said["probability"], rel=1e-2)
    assert (told["match"], told["same_file"]) == (said["match"], False)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"images": []}, "invalid-request"),
        ({"images": [""] * 3}, "invalid-request"),
        ({"images": ["", ""]}, "image-unreadable"),
        ({"images": ["", ""], "crop": "full", "faces": True}, "invalid-request"),
        ({"images": ["", ""], "prior": 0.5, "model": "tiny"}, "invalid-request"),
    ],
)
def test_what_cannot_be_compared_is_said(client: httpx.Client, asked: dict[str, Any], code: str) -> None:
    problem(client.post(f"{API}/compare", json=asked), 422, code)
