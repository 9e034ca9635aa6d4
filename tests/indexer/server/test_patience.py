"""Reads wait while a server fails for a moment, but not where that was no use; limits of strict mode."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lookalike.encoder.errors import (
    InvalidArgumentError,
    StoreError,
    StoreUnavailableError,
    StoreUnreachableError,
)
from lookalike.indexer.server import ServerStore
from lookalike.indexer.server.upload import PAUSES, Patience
from lookalike.indexer.store import StorageConfig, closed_by, opening_error, value_counts
from tests.fixtures.qdrant_stub import Asked, Stub, serving
from tests.fixtures.stores import SPEC, point_ids, random_vectors

READS: dict[str, Callable[[ServerStore], Any]] = {
    "search": lambda store: store.search("c", random_vectors(1), k=1),
    "count": lambda store: store.count("c"),
    "scroll": lambda store: next(store.scroll("c")),
    "get": lambda store: store.get("c", point_ids(1)),
    "info": lambda store: store.info("c"),
    "index state": lambda store: store.index_state("c"),
    "aliases": lambda store: store.aliases(),
    "list": lambda store: store.list_collections(),
    "values": lambda store: value_counts(store, "c", "person"),
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lookalike.indexer.server.upload.PAUSES", (0.05, 0.1, 2.0))


@pytest.fixture
def stub() -> Iterator[Stub]:
    with serving() as stub:
        yield stub


@pytest.fixture
def store(stub: Stub) -> Iterator[ServerStore]:
    with ServerStore.connect(stub.url) as store:
        store.create("c", SPEC)
        store.upsert("c", point_ids(9), random_vectors(9), [{"person": "Ada"}] * 9)
        yield store


@pytest.mark.parametrize("status", [0, 500, 503])
@pytest.mark.parametrize("read", READS)
def test_a_read_waits_while_a_leader_is_chosen(
    stub: Stub, store: ServerStore, read: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lookalike.indexer.server.upload.PAUSES", (0.05, 0.1, 30.0))
    expected, failures = READS[read](store), [status] * 2
    stub.fault = lambda _: failures.pop() if failures else None
    assert repr(READS[read](store)) == repr(expected)
    assert not failures


@pytest.mark.parametrize("status", [0, 500])
def test_so_do_a_creation_and_a_first_write(
    stub: Stub, store: ServerStore, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lookalike.indexer.server.upload.PAUSES", (0.05, 0.1, 30.0))
    failures = [status] * 2
    stub.fault = lambda asked: failures.pop() if failures and asked.method == "GET" else None
    store.create("new", SPEC)
    assert not failures
    with ServerStore.connect(stub.url) as other:
        failures += [status] * 2
        other.upsert("new", point_ids(3), random_vectors(3), [{}] * 3)
        assert other.count("new") == 3
    assert not failures


@pytest.mark.parametrize("read", ["search", "count", "aliases"])
def test_a_read_that_waited_in_vain_is_told_once_and_later_ones_at_once(
    stub: Stub, store: ServerStore, read: str
) -> None:
    stub.fault = lambda _: 503
    began = time.monotonic()
    with pytest.raises(StoreUnreachableError, match="failed \\(503: on purpose\\)"):
        READS[read](store)
    assert 2.1 < time.monotonic() - began < 60
    stub.asked.clear()
    for _ in range(3):
        with pytest.raises(StoreUnreachableError):
            READS[read](store)
    assert len(stub.asked) == 3  # none was repeated
    stub.fault = lambda _: None
    READS[read](store)
    failures = [503] * 2
    stub.fault = lambda _: failures.pop() if failures else None
    READS[read](store)  # it has patience again


def test_a_read_that_took_long_is_not_repeated() -> None:
    tries: list[float] = []

    def slow() -> None:
        tries.append(time.monotonic())
        time.sleep(2.2)
        raise StoreUnavailableError("no answer in time")

    with pytest.raises(StoreUnavailableError):
        Patience().read("c", slow)
    assert len(tries) == 1


def test_it_is_the_patience_of_writes() -> None:
    assert 15 <= sum(PAUSES) <= 16


def test_a_collection_that_does_not_answer_is_told_at_once(stub: Stub, store: ServerStore) -> None:
    store.create("d", SPEC)
    stub.fault = lambda asked: 500 if asked.path.startswith("/collections/c") else None
    stub.asked.clear()
    error = opening_error(store, "c")
    assert error is not None
    assert closed_by(error) == "unreachable"
    assert len(stub.of("/collections/c")) == 1
    assert opening_error(store, "d") is None


@pytest.mark.parametrize("quantization", ["none", "binary"])
def test_requests_keep_within_the_limits_of_strict_mode(stub: Stub, quantization: Any) -> None:
    stub.limits = {
        "max_query_limit": 10,
        "upsert_max_batchsize": 7,
        "search_max_batchsize": 2,
        "search_max_hnsw_ef": 64,
        "search_max_oversampling": 2,
        "condition_max_size": 20,
    }
    with ServerStore.connect(stub.url) as store:
        store.create("c", SPEC, StorageConfig(quantization=quantization))
        store.upsert("c", point_ids(50), random_vectors(50), [{"person": f"{n % 5}"} for n in range(50)])
        assert (store.count("c"), len(list(store.scroll("c")))) == (50, 50)
        assert [len(hits) for hits in store.search("c", random_vectors(5), k=10)] == [10] * 5
        assert value_counts(store, "c", "person") == [(str(n), 10) for n in range(5)]
        with pytest.raises(InvalidArgumentError) as told:
            store.search("c", random_vectors(1), k=11)
    assert str(told.value) == (
        'the strict mode of c refuses this: Limit exceeded 11 > 10 for "limit"; Reduce the "limit" parameter '
        "to or below 10, or have its strict_mode_config changed"
    )


def test_people_are_counted_by_the_server(stub: Stub, store: ServerStore) -> None:
    stub.asked.clear()
    assert value_counts(store, "c", "person") == [("Ada", 9)]
    assert stub.of("/facet")
    assert not stub.of("/scroll")
    real = stub.answer

    def answer(asked: Asked) -> Any:
        if asked.path.endswith("/points"):
            return (
                403,
                {"status": {"error": "Forbidden: Max points count limit of 9 reached! Help: Delete points."}},
            )
        return real(asked)

    stub.answer = answer  # type: ignore[method-assign]  # for this test
    with pytest.raises(StoreError, match="Max points count limit of 9 reached!; Delete points, or have"):
        store.upsert("c", point_ids(1), random_vectors(1), [{}])
