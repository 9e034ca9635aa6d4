"""Several URLs of one cluster: where one does not answer, the next does."""

import socket

import pytest

from lookalike.encoder.errors import InvalidArgumentError, StoreError, StoreUnreachableError
from lookalike.indexer.open import open_store
from lookalike.indexer.server.failover import Failover
from tests.fixtures.qdrant_stub import Answer, Asked, serving
from tests.fixtures.stores import SPEC, point_ids, random_vectors


def nowhere() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_the_first_that_answers_is_asked() -> None:
    with serving() as stub, open_store(f"{nowhere()}, {stub.url}") as store:
        store.create("c", SPEC)
        store.upsert("c", point_ids(300), random_vectors(300), [{}] * 300)
        assert (store.count("c"), store.list_collections()) == (300, ["c"])
        assert store.address.endswith(stub.url)


@pytest.mark.parametrize("status", [0, 500, 503])
def test_one_that_stops_answering_is_left(status: int) -> None:
    with serving() as one, serving() as other:
        other.collections, other.points, other.indexes = one.collections, one.points, one.indexes
        other.placed, other.aliases, other.queue = one.placed, one.aliases, one.queue
        with open_store(f"{one.url},{other.url}") as store:
            store.create("c", SPEC)
            assert not other.asked
            one.fault = lambda _: status
            store.upsert("c", point_ids(10), random_vectors(10), [{}] * 10)
            store.set_alias("faces", "c")
            assert store.count("faces") == 10


def test_none_answers() -> None:
    address = f"{nowhere()},{nowhere()}"
    with pytest.raises(StoreUnreachableError, match="no Qdrant server answers at") as told:
        open_store(address)
    assert address in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("address", ["http://a:6333,b:6333", "http://a:6333,/tmp/store", "http://a,ftp://b"])
def test_all_are_urls(address: str) -> None:
    with pytest.raises(InvalidArgumentError, match="each begins with http:// or https://"):
        open_store(address)


def test_a_key_is_sent_to_none_in_clear_text() -> None:
    with pytest.raises(StoreUnreachableError, match=r"not sent to http://qdrant\.example\.com"):
        open_store("http://127.0.0.1:6333,http://qdrant.example.com:6333", api_key="secret")


def test_what_is_refused_is_not_asked_of_others() -> None:
    with serving() as one, serving() as other, open_store(f"{one.url},{other.url}") as store:
        store.create("c", SPEC)
        real = one.answer

        def answer(asked: Asked) -> Answer:
            return (400, {"status": {"error": "no"}, "time": 0.0}) if asked.upserts else real(asked)

        one.answer = answer  # type: ignore[method-assign]  # for this test
        with pytest.raises(StoreError, match="400: no"):
            store.upsert("c", point_ids(1), random_vectors(1), [{}])
        assert not other.asked


def test_clients_are_made_when_needed_and_closed() -> None:
    made: list[str] = []
    closed: list[str] = []

    class Client:
        def __init__(self, url: str) -> None:
            self.url = url
            made.append(url)

        def ask(self, what: str) -> str:
            if self.url == "a":
                raise ConnectionError(what)
            return f"{self.url}: {what}"

        def close(self) -> None:
            closed.append(self.url)

    clients = Failover(["a", "b", "c"], Client, lambda error: isinstance(error, ConnectionError))
    assert [clients.ask("x"), clients.ask("y")] == ["b: x", "b: y"]
    clients.close()
    assert (made, sorted(closed)) == (["a", "b"], ["a", "b"])
