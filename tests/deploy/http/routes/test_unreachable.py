"""A collection that the server of the store does not answer for has a word of its own over HTTP."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lookalike.indexer.server import ServerStore
from tests.fixtures.qdrant_stub import Stub, serving
from tests.fixtures.service import API, client_of, problem
from tests.fixtures.stores import SPEC


@pytest.fixture
def stub() -> Iterator[Stub]:
    """A server with the collections c and d, where the shards of c do not answer."""
    with serving() as stub:
        with ServerStore.connect(stub.url) as store:
            store.create("c", SPEC)
            store.create("d", SPEC)
        stub.fault = lambda asked: 500 if asked.path.startswith("/collections/c") else None
        yield stub


def test_it_is_unreachable_and_no_other_is(stub: Stub, tmp_path: Path, tiny_model: Path) -> None:
    with client_of(tmp_path, tiny_model, store=stub.url) as client:
        told = client.get(f"{API}/collections").json()
        assert [each["name"] for each in told["collections"]] == ["d"]
        assert (told["damaged"], told["held"]) == ([], [])
        (closed,) = told["unreachable"]
        assert closed["name"] == "c"
        assert closed["reason"].startswith("the server failed (500: on purpose)")
        ready = client.get("/readyz").json()
        assert ready["status"] == "degraded"
        assert (ready["unreachable"], ready["damaged"], ready["held"]) == (1, 0, 0)


def test_where_none_answers_the_service_is_not_ready(stub: Stub, tmp_path: Path, tiny_model: Path) -> None:
    with client_of(tmp_path, tiny_model, store=stub.url) as client:
        stub.fault = lambda asked: 500 if asked.path.startswith("/collections/") else None
        about = problem(client.get("/readyz"), 503, "not-ready")
        assert "0 are damaged, 2 do not answer, 0 are held by another process" in about["detail"]
