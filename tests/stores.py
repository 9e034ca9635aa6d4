"""Every store there is, as fixtures, and points to put into it.

With QDRANT_URL in the environment a real server is among them. A test module takes the fixtures in by
``store, name = stores.store, stores.name``.
"""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from qdrant_client import QdrantClient

from lookalike.encoder.errors import StoreError
from lookalike.indexer.server.client import Server
from lookalike.indexer.server.store import ServerStore
from lookalike.indexer.store.base import CollectionSpec, VectorStore, open_store

D = 8
SPEC = CollectionSpec(
    model_id="a" * 64, model_name="faces", dimension=D, crop="none", roots={"lfw": "/data/lfw", "Ä 漢": "b"}
)
Vectors = NDArray[np.float32]
SERVER = pytest.param(
    "server", marks=pytest.mark.skipif("QDRANT_URL" not in os.environ, reason="no QDRANT_URL")
)


@pytest.fixture(params=["edge", "memory", SERVER])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VectorStore]:
    made: VectorStore
    match request.param:
        case "edge":
            made = open_store(str(tmp_path / "store"))
        case "memory":
            made = ServerStore(Server(QdrantClient(":memory:"), ":memory:", in_memory=True))
        case _:
            made = open_store(os.environ["QDRANT_URL"])
    with made:
        yield made


@pytest.fixture
def name(store: VectorStore) -> Iterator[str]:
    """An empty collection; a real server is left as it was."""
    made = f"test-{uuid.uuid4()}"
    store.create(made, SPEC)
    yield made
    try:
        store.drop(made)
    except StoreError:
        assert made not in _names_if_open(store)


def _names_if_open(store: VectorStore) -> list[str]:
    try:
        return store.names()
    except StoreError:
        return []


def point_ids(n: int, *, seed: int = 0) -> list[str]:
    return [str(uuid.uuid5(uuid.NAMESPACE_URL, f"{seed}/{i}")) for i in range(n)]


def random_vectors(n: int, *, seed: int = 0) -> Vectors:
    return np.random.default_rng(seed).normal(size=(n, D)).astype(np.float32)


def unit(vectors: Vectors) -> Vectors:
    rows: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return rows


def fill(store: VectorStore, name: str, n: int) -> tuple[list[str], Vectors]:
    ids, vectors = point_ids(n), random_vectors(n)
    store.upsert(name, ids, vectors, [{"n": i, "person": f"p{i % 3}"} for i in range(n)])
    return ids, vectors


def everything(store: VectorStore, name: str) -> list[tuple[str, dict[str, Any], Any]]:
    found = store.scroll(name, with_vectors=True)
    return [
        (r.id, dict(r.payload), None if r.vector is None else pytest.approx(r.vector, abs=1e-6))
        for r in found
    ]
