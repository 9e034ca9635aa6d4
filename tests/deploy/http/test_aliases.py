"""A model takes the place of another while the service answers: by an alias, without a moment between."""

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.fixtures.command import lookalike
from tests.fixtures.photos import NAME, make_home, photograph
from tests.fixtures.service import API, client_of, problem
from tests.fixtures.tiny_models import make_bundle


@pytest.fixture
def home(tiny_model: Path, tmp_path: Path) -> Path:
    return make_home(tmp_path, tiny_model)


@pytest.fixture
def client(home: Path, tiny_model: Path) -> Iterator[httpx.Client]:
    with client_of(home, tiny_model) as opened:
        yield opened


def asked(client: httpx.Client, collection: str = "family") -> httpx.Response:
    return client.post(f"{API}/search", data={"collection": collection}, files={"image": photograph(4)})


def test_the_switch_is_seen_at_once_and_nothing_fails_meanwhile(client: httpx.Client, home: Path) -> None:
    problem(asked(client), 404, "collection-not-found")
    assert lookalike("collections", "switch", "family", NAME, cwd=home).returncode == 0
    before = asked(client)
    assert before.status_code == 200, before.text
    newer = make_bundle(home / "newer", seed=1).folder  # the service has never heard of it
    made = lookalike("index", "photos", "--model", str(newer), "--collection", "second", cwd=home)
    assert made.returncode == 0, made.stderr
    statuses: list[int] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            statuses.append(asked(client).status_code)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        assert lookalike("collections", "switch", "family", "second", cwd=home).returncode == 0
        after = asked(client)
    finally:
        done.set()
        asking.join()
    assert set(statuses) == {200}
    assert after.json() != before.json()
    assert _scores(after) == _scores(asked(client, "second"))
    assert _scores(before) == _scores(asked(client, NAME))
    assert newer.name in [model["name"] for model in client.get(f"{API}/models").json()["models"]]
    listed = client.get(f"{API}/collections").json()["collections"]
    assert {row["name"]: row["aliases"] for row in listed} == {NAME: [], "second": ["family"]}


def _scores(response: httpx.Response) -> list[float]:
    (answer,) = response.json()["answers"]
    return [hit["score"] for hit in answer["results"]]
