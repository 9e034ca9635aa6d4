"""Copies among the results of a search over HTTP have one place, however the query is given."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from lookalike.encoder.runtime import Model
from lookalike.indexer.open import open_store
from tests.fixtures.photos import NAME, make_home, photograph
from tests.fixtures.service import API, client_of, problem

COPIES = "copies"


def item(number: int) -> str:
    return f"00000000-0000-0000-0000-{number:012x}"


@pytest.fixture(scope="module")
def home(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve items: four pictures, three copies of each."""
    home = make_home(tmp_path_factory.mktemp("home"), tiny_model)
    rng = np.random.default_rng(0)
    with open_store(str(home / ".lookalike")) as store:
        spec = store.info(NAME)
        store.create(COPIES, spec)
        pictures = np.repeat(np.eye(spec.dimension)[:4], 3, axis=0)
        vectors = pictures + rng.normal(0, 0.01, pictures.shape)
        payloads = [
            {
                "root": "photos",
                "path": f"{n}.jpg",
                "sha256": f"{n}",
                "size": 1,
                "mtime_ns": 1,
                "person": "Ada",
            }
            for n in range(12)
        ]
        store.upsert(COPIES, [item(n) for n in range(12)], vectors.astype(np.float32), payloads)
    return home


@pytest.fixture(scope="module")
def client(home: Path, tiny_model: Path) -> Iterator[httpx.Client]:
    with client_of(home, tiny_model) as opened:
        yield opened


def query(kind: str, model: Model) -> dict[str, Any]:
    vector = np.linspace(1, 0.1, model.bundle.spec.embedding)
    queries: dict[str, dict[str, Any]] = {
        "item": {"item": item(0), "exclude_self": False},
        "like": {"like": [item(0), item(3)], "exclude_self": False},
        "vectors": {"vectors": [vector.tolist()], "model_id": model.model_id},
    }
    return queries[kind]


def pictures(answer: httpx.Response) -> list[int]:
    """Which of the pictures each result shows."""
    assert answer.status_code == 200, answer.text
    (only,) = answer.json()["answers"]
    return [int(str(result["path"]).partition(".")[0]) // 3 for result in only["results"]]


@pytest.mark.parametrize("kind", ["item", "like", "vectors"])
def test_copies_have_one_place(client: httpx.Client, tiny_model: Path, kind: str) -> None:
    asked = {"collection": COPIES, "k": 12, **query(kind, Model.open(tiny_model))}
    everything = pictures(client.post(f"{API}/search", json=asked))
    folded = pictures(client.post(f"{API}/search", json={**asked, "fold_duplicates": True}))
    assert sorted(everything) == sorted([0, 1, 2, 3] * 3)
    assert folded == list(dict.fromkeys(everything))
    second = {**asked, "fold_duplicates": True, "k": 2, "offset": 2}
    assert pictures(client.post(f"{API}/search", json=second)) == folded[2:]


def test_copies_have_one_place_among_the_results_of_a_file(client: httpx.Client) -> None:
    files = {"image": ("me.jpg", photograph(4))}
    for fold, count in ((False, 12), (True, 4)):
        data = {"collection": COPIES, "k": 12, "fold_duplicates": fold}
        found = pictures(client.post(f"{API}/search", data=data, files=files))
        assert len(found) == count
        assert len(set(found)) == 4


def test_results_are_folded_in_one_way(client: httpx.Client) -> None:
    asked = {"collection": COPIES, "item": item(0), "fold_duplicates": True, "group_by": "person"}
    told = problem(client.post(f"{API}/search", json=asked), 422, "invalid-request")
    assert "send group_by or fold_duplicates, not both" in told["detail"]
