"""The map of a collection over HTTP: in bounds, in time, and stopped when nobody wants it."""

import importlib.util
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from lookalike.indexer.open import open_store
from tests.fixtures.photos import NAME, PEOPLE, make_home
from tests.fixtures.processes import children
from tests.fixtures.service import API, client_of, problem

MANY, FEW = "many", "few"


@pytest.fixture(scope="module")
def home(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled(tmp_path_factory.mktemp("home"), tiny_model)


def filled(folder: Path, tiny_model: Path) -> Path:
    """Photos has nine photographs, many 150 items, of which one is named, and few two."""
    home = make_home(folder, tiny_model)
    rng = np.random.default_rng(0)
    with open_store(str(home / ".lookalike")) as store:
        spec = store.info(NAME)
        for name, count in ((MANY, 150), (FEW, 2)):
            own = {"root": "photos", "sha256": "x", "size": 1, "mtime_ns": 1}
            payloads = [{**own, "path": f"{number}.jpg", "n": number} for number in range(count)]
            payloads[0] |= {"person": "Ada", "cluster": 7, "cluster_name": "Ada Lovelace"}
            store.create(name, spec)
            vectors = rng.standard_normal((count, spec.dimension)).astype(np.float32)
            store.upsert(name, [f"{number:032x}" for number in range(count)], vectors, payloads)
    return home


@pytest.fixture(scope="module")
def client(home: Path, tiny_model: Path) -> Iterator[httpx.Client]:
    with client_of(home, tiny_model) as opened:
        yield opened


def test_each_item_has_a_place_and_what_a_tooltip_says(client: httpx.Client) -> None:
    told = client.get(f"{API}/collections/{NAME}/map").json()
    assert (told["method"], told["total"], len(told["points"])) == ("pca", 9, 9)
    places = np.array([(point["x"], point["y"]) for point in told["points"]])
    assert (places.min(axis=0) == 0).all()
    assert (places.max(axis=0) == 1).all()
    assert {point["name"] for point in told["points"]} == set(PEOPLE)
    point = told["points"][0]
    item = client.get(f"{API}/items/{point['id']}?collection={NAME}").json()
    assert item["payload"]["path"] == point["path"]
    named = client.get(f"{API}/collections/{MANY}/map?method=pca").json()["points"]
    assert [point["name"] for point in named] == ["Ada Lovelace", *[None] * 149]


def test_a_map_is_of_a_sample_and_of_what_is_asked_for(client: httpx.Client) -> None:
    some = client.get(f"{API}/collections/{MANY}/map?method=pca&limit=20").json()
    assert (len(some["points"]), some["total"]) == (20, 150)
    assert client.get(f"{API}/collections/{MANY}/map?method=pca&limit=20").json() == some
    client.put(f"{API}/aliases/all", json={"collection": MANY})
    low = client.get(f"{API}/collections/all/map", params={"where": "n<30"}).json()
    assert (len(low["points"]), low["total"], low["method"]) == (30, 30, "pca")


@pytest.mark.parametrize(
    ("query", "status", "code", "words"),
    [
        (f"{MANY}/map?limit=2", 422, "invalid-request", "limit"),
        (f"{MANY}/map?limit=5001", 422, "invalid-request", "limit"),
        (f"{MANY}/map?method=tsne", 422, "invalid-request", "method"),
        (f"{MANY}/map?where=none%3D1", 422, "invalid-request", "no item of many has a field"),
        (f"{FEW}/map", 422, "invalid-request", "needs 3 images or more, few has 2"),
        ("none/map", 404, "collection-not-found", ""),
    ],
)
def test_a_map_that_cannot_be_is_said(
    client: httpx.Client, query: str, status: int, code: str, words: str
) -> None:
    assert words in problem(client.get(f"{API}/collections/{query}"), status, code)["detail"]


def test_without_umap_there_is_a_map_all_the_same(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)  # as where it is not installed
    assert client.get(f"{API}/collections/{MANY}/map").json()["method"] == "pca"
    problem(client.get(f"{API}/collections/{MANY}/map?method=umap"), 501, "extra-missing")


@pytest.mark.slow
def test_a_map_that_takes_too_long_is_made_by_principal_components(tmp_path: Path, tiny_model: Path) -> None:
    before = children()
    with client_of(filled(tmp_path, tiny_model), tiny_model, seconds=8) as client:
        for least, most in ((6.4, 60), (0, 6.4)):  # it is not tried twice
            began = time.monotonic()
            told = client.get(f"{API}/collections/{MANY}/map")
            assert told.status_code == 200, told.text
            assert (told.json()["method"], len(told.json()["points"])) == ("pca", 150)
            assert least <= time.monotonic() - began < most
    assert children() <= before


def test_a_map_is_stopped_when_the_client_leaves(client: httpx.Client) -> None:
    before = children()
    with pytest.raises(httpx.ReadTimeout):
        client.get(f"{API}/collections/{MANY}/map", timeout=0.5)
    due = time.monotonic() + 5
    while not children() <= before:
        assert time.monotonic() < due, "UMAP goes on"
        time.sleep(0.05)
    assert client.get(f"{API}/collections/{NAME}/map").status_code == 200


@pytest.mark.slow
def test_umap_is_the_default_where_it_is_installed(tmp_path: Path, tiny_model: Path) -> None:
    with client_of(filled(tmp_path, tiny_model), tiny_model, seconds=600) as client:
        told = client.get(f"{API}/collections/{MANY}/map", timeout=600).json()
        assert (told["method"], len(told["points"])) == ("umap", 150)
        began = time.monotonic()
        assert client.get(f"{API}/collections/{MANY}/map").json() == told
        assert time.monotonic() - began < 5  # it is remembered
