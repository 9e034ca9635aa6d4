"""Words in a search over HTTP: alone, with pictures, with likes; and what cannot be."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import lookalike as la
from tests.fixtures.service import API, client_of
from tests.fixtures.two_towers import make_two_towers, write_colors


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("words")
    make_two_towers(folder)
    write_colors(folder / "photos")
    with la.open_store(str(folder / ".lookalike")) as store:
        la.index(folder / "photos", model=folder / "colors", store=store, collection="photos")
    return folder


@pytest.fixture(scope="module")
def client(home: Path) -> Iterator[httpx.Client]:
    with client_of(home, home / "colors") as opened:
        yield opened


def search(client: httpx.Client, **asked: Any) -> dict[str, Any]:
    told = client.post(f"{API}/search", json={"collection": "photos", "k": 3, **asked})
    assert told.status_code == 200, told.text
    (answer,) = told.json()["answers"]
    return dict(answer)


def best(answer: dict[str, Any]) -> str:
    return str(answer["results"][0]["path"]).partition("-")[0]


@pytest.mark.parametrize("color", ["red", "green", "blue"])
def test_words_find_pictures(client: httpx.Client, color: str) -> None:
    answer = search(client, text=f"a {color} thing")
    assert (best(answer), answer["query"]) == (color, f"a {color} thing")
    assert {result["probability"] for result in answer["results"]} == {None}


def test_words_are_combined_with_pictures_and_items(client: httpx.Client, home: Path) -> None:
    picture = base64.b64encode((home / "photos" / "gray-0.png").read_bytes()).decode()
    assert best(search(client, text="blue", images=[picture])) == "blue"
    items = search(client, text="red")["results"]
    green = search(client, text="green")["results"][0]["id"]
    assert best(search(client, text="green", like=[green], unlike=[items[0]["id"]])) == "green"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"text": ""}, "text"),
        ({"text": "x" * 1001}, "text"),
        ({}, "text or an item"),
        ({"text": "red", "vectors": [[1, 0, 0]], "model_id": "m"}, "vectors or images or items"),
        ({"text": "red", "item": "00000000-0000-0000-0000-000000000000"}, "text or an item"),
    ],
)
def test_what_cannot_be_is_said(client: httpx.Client, asked: dict[str, Any], said: str) -> None:
    told = client.post(f"{API}/search", json={"collection": "photos", **asked})
    assert 400 <= told.status_code < 500
    assert said in told.text


def test_a_model_without_a_text_tower_refuses_words(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    with la.open_store(str(tmp_path / ".lookalike")) as store:
        la.index(home / "photos", model=tiny_model, store=store, collection="photos")
    with client_of(tmp_path, tiny_model) as client:
        told = client.post(f"{API}/search", json={"collection": "photos", "text": "red"})
    assert told.status_code in (400, 422)
    assert "takes no text" in told.json()["detail"]
