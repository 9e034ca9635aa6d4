"""The command that serves, under load: quick, plain when it is too much, ending well, losing nothing."""

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from lookalike.indexer.open import open_store
from tests.fixtures.http_clients import Answer, Crowd, Load, form
from tests.fixtures.photos import NAME, make_home, photograph, write_many
from tests.fixtures.service import API, Running, running

MANY = 4000


@pytest.fixture
def home(tiny_model: Path, tmp_path: Path) -> Path:
    return make_home(tmp_path / "home", tiny_model)


def searches() -> list[bytes]:
    return [form(f"{API}/search", {"collection": NAME}, photograph(number)) for number in range(16)]


class Clients:
    """A crowd that searches on a thread of its own until it is told to stop, or the service has gone."""

    def __init__(self, service: Running, clients: int, **told: Any) -> None:
        self.load = Load()
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._ask, args=[Crowd(service.url, searches(), **told), clients]
        )
        self._thread.start()

    def _ask(self, crowd: Crowd, clients: int) -> None:
        self.load = crowd.drive(clients, count=1_000_000, stop=self._stop)

    def ended(self) -> Load:
        self._stop.set()
        self._thread.join()
        return self.load


def until(holds: Callable[[], bool], *, seconds: float = 60) -> None:
    due = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < due, "it never came to that"
        time.sleep(0.005)


def test_an_answer_on_an_open_connection_waits_for_no_acknowledgement(home: Path, tiny_model: Path) -> None:
    with running(home, tiny_model) as service:
        asked = [b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"]
        load = Crowd(service.url, asked).drive(1, count=100)
    assert load.statuses == {200: 100}
    # A client's system puts an acknowledgement off by 40 ms, all but the first few.
    assert sorted(load.latencies[20:])[10] < 0.035


@pytest.mark.slow
def test_asked_too_much_it_says_so_and_when_that_is_over_it_answers(home: Path, tiny_model: Path) -> None:
    refused: list[Answer] = []

    def heard(answer: Answer) -> None:
        if answer.status != 200:
            refused.append(answer)

    with (
        running(home, tiny_model, "--workers", "1", "--queue-size", "2") as service,
        service.client() as client,
    ):
        clients = Clients(service, 32, on_answer=heard)
        until(lambda: len(refused) > 500)
        assert client.get("/readyz").status_code == 200
        load = clients.ended()
        assert load.statuses.keys() == {200, 503}
        assert not load.lost
        for answer in refused:
            assert (answer.status, b"\r\nretry-after: 1" in answer.head) == (503, True)
            assert b'"code": "busy"' in answer.body
        after = Crowd(service.url, searches()).drive(1, count=100)
        assert after.statuses == {200: 100}
        told = client.get("/metrics").text
        assert f'route="/api/v1/search",status="503"}} {len(refused)}' in told
        assert "lookalike_waiting 0.0" in told


@pytest.mark.slow
@pytest.mark.parametrize("clients", [1, 8, 32])
def test_told_to_end_it_answers_what_it_was_asked_before(home: Path, tiny_model: Path, clients: int) -> None:
    with running(home, tiny_model) as service:
        answers = Counter[int]()
        crowd = Clients(service, clients, on_answer=lambda answer: answers.update([answer.status]))
        until(lambda: answers[200] > 20 * clients)
        told = time.perf_counter()
        code = service.stop()
        ended = time.perf_counter()
        load = crowd.ended()
    assert code in (0, -signal.SIGTERM)
    assert ended - told < 30
    assert load.statuses.keys() == {200}
    assert [sent for sent in load.lost if sent < told] == []
    # None was lost but those that came just when the connection was ended, one each at most.
    assert len(load.lost) <= clients
    with open_store(str(home / ".lookalike")) as store:  # let go whole
        assert store.count(NAME) == 9


def jobs_done(client: httpx.Client, job: str) -> int:
    done: int = client.get(f"{API}/jobs/{job}").json()["done"]
    return done


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
def test_killed_under_load_the_same_job_again_does_the_rest(
    home: Path, tiny_model: Path, share: float
) -> None:
    write_many(home / "many", MANY)
    body = {"source": str(home / "many"), "collection": "new", "model": tiny_model.name}
    with running(home, tiny_model) as service, service.client() as client:
        crowd = Clients(service, 4)
        job = client.post(f"{API}/index", json=body).json()["id"]
        done = 0
        while done <= share * MANY:
            done = jobs_done(client, job)
        service.stop(signal.SIGKILL)
        crowd.ended()
    with open_store(str(home / ".lookalike")) as store:
        stored = store.count("new")
        assert 0 < done <= stored <= MANY
        assert store.count(NAME) == 9
    with running(home, tiny_model) as service, service.client() as client:
        job = client.post(f"{API}/index", json=body).json()["id"]
        until(lambda: client.get(f"{API}/jobs/{job}").json()["ended"] is not None)
        told = client.get(f"{API}/jobs/{job}").json()
        assert (told["state"], told["report"]["failed"]) == ("done", [])
        assert (told["report"]["unchanged"], told["report"]["added"]) == (stored, MANY - stored)
        (found,) = [
            each for each in client.get(f"{API}/collections").json()["collections"] if each["name"] == "new"
        ]
        assert found["count"] == MANY
        assert Crowd(service.url, searches()).drive(4, count=40).statuses == {200: 40}
