"""What ``VectorStore`` promises, sentence by sentence, of every implementation.

With QDRANT_URL in the environment a real server is held to it too.
"""

import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from qdrant_client import QdrantClient

from encoder.errors import (
    CollectionExistsError,
    CollectionNotFoundError,
    LookalikeError,
    ModelMismatchError,
    OptionError,
    StoreError,
    VectorError,
)
from indexer.edge import EdgeStore
from indexer.server import ServerStore
from indexer.store import CollectionSpec, Condition, Filter, Record, VectorStore, open_store

D = 8
SPEC = CollectionSpec(
    model_id="a" * 64, model_name="faces", dimension=D, crop="none", roots={"lfw": "/data/lfw", "Ä 漢": "b"}
)
Op = Literal["=", "!=", "<", "<=", ">", ">="]
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
            made = ServerStore(QdrantClient(":memory:"), address=":memory:")
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


def test_create_describe_drop(store: VectorStore, name: str) -> None:
    assert name in store.names()
    assert store.names() == sorted(store.names())
    assert store.describe(name) == SPEC
    assert (store.count(name), list(store.scroll(name))) == (0, [])
    assert store.search(name, random_vectors(2), k=3) == [[], []]
    with pytest.raises(CollectionExistsError, match=name):
        store.create(name, SPEC)
    fill(store, name, 5)
    store.drop(name)
    assert name not in store.names()
    store.create(name, replace(SPEC, dimension=3))
    assert (store.describe(name).dimension, store.count(name)) == (3, 0)
    store.upsert(name, point_ids(1), np.ones((1, 3), np.float32), [{}])


def test_redescribe_replaces_roots_and_nothing_else(store: VectorStore, name: str) -> None:
    fill(store, name, 3)
    moved = replace(SPEC, roots={"other": "/elsewhere"})
    store.redescribe(name, moved)
    assert store.describe(name) == moved  # the roots that were left out are gone
    for wrong in ({"model_id": "b" * 64}, {"dimension": D + 1}, {"crop": "face"}, {"metric": "dot"}):
        with pytest.raises(ModelMismatchError):
            store.redescribe(name, replace(moved, **wrong))
    assert (store.describe(name), store.count(name)) == (moved, 3)


@pytest.mark.parametrize("wrong", ["", ".hidden", "-x", "a/b", "../up", "a b", "ä", "x" * 65, "a\n"])
def test_names_that_break_the_rule(store: VectorStore, wrong: str) -> None:
    with pytest.raises(OptionError, match="collection name"):
        store.create(wrong, SPEC)
    with pytest.raises(CollectionNotFoundError):
        store.describe(wrong)


CALLS: dict[str, Callable[[VectorStore, str], object]] = {
    "describe": lambda s, n: s.describe(n),
    "redescribe": lambda s, n: s.redescribe(n, SPEC),
    "drop": lambda s, n: s.drop(n),
    "upsert": lambda s, n: s.upsert(n, point_ids(1), random_vectors(1), [{}]),
    "delete": lambda s, n: s.delete(n, point_ids(1)),
    "search": lambda s, n: s.search(n, random_vectors(1), k=1),
    "scroll": lambda s, n: s.scroll(n),
    "count": lambda s, n: s.count(n),
    "flush": lambda s, n: s.flush(n),
}


@pytest.mark.parametrize("call", CALLS)
def test_missing_collection_and_closed_store(store: VectorStore, call: str) -> None:
    with pytest.raises(CollectionNotFoundError, match="absent") as caught:
        CALLS[call](store, "absent")
    assert "\n" not in str(caught.value)
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        CALLS[call](store, "absent")


def test_close_stops_a_scroll_and_every_method(store: VectorStore, name: str) -> None:
    fill(store, name, 1500)
    records = store.scroll(name)
    next(records)
    store.close()
    with pytest.raises(StoreError, match="closed"):
        list(records)
    with pytest.raises(StoreError, match="closed"):
        store.names()
    with pytest.raises(StoreError, match="closed"):
        store.create("another", SPEC)
    assert store.address


def test_payloads_come_back_as_they_went_in(store: VectorStore, name: str) -> None:
    payload = {
        "text": "é漢😀\0\u2028 \"'\\",
        "": "empty key",
        "größe [0].x": 1,
        "whole": [0, -1, 2**53, -(2**53)],
        "broken": [0.1, -0.0, 1e300, 5e-324, 1.0],
        "flags": [True, False, None],
        "nested": {"a": [{"b": [[], {}]}], "Smiling": 0.75},
    }
    store.upsert(name, point_ids(1), random_vectors(1), [payload])
    (record,) = store.scroll(name)
    assert record.payload == payload
    assert repr(sorted(record.payload.items())) == repr(sorted(payload.items()))  # 1 is not 1.0 is not True
    (hits,) = store.search(name, random_vectors(1), k=1)
    assert hits[0].payload == payload
    store.upsert(name, point_ids(1), random_vectors(1), [{"person": "b"}])
    assert [r.payload for r in store.scroll(name)] == [{"person": "b"}]


@pytest.mark.parametrize(
    "value",
    ["\udcff", {"a": ["\udcff"]}, {"\udcff": 1}, float("nan"), [float("inf")], b"x", 2**63, np.float64(1)],
)
def test_payloads_that_would_not_come_back(store: VectorStore, name: str, value: object) -> None:
    with pytest.raises(StoreError, match="field 'path'") as caught:
        store.upsert(name, point_ids(2), random_vectors(2), [{}, {"ok": 1, "path": value}])
    assert "\n" not in str(caught.value)
    assert store.count(name) == 0


def test_upsert_is_idempotent_and_replaces(store: VectorStore, name: str) -> None:
    ids, vectors = fill(store, name, 600)
    before = everything(store, name)
    fill(store, name, 600)
    again = list(store.scroll(name, with_vectors=True))
    assert [(r.id, r.payload, r.vector) for r in again] == before
    store.upsert(name, ids[:1], -vectors[:1], [{}])
    assert store.count(name) == 600
    (hits,) = store.search(name, -vectors[:1], k=1)
    assert (hits[0].id, hits[0].payload) == (ids[0], {})
    store.upsert(name, [ids[1], ids[1]], vectors[:2], [{"n": "first"}, {"n": "last"}])
    assert [r.payload for r in store.scroll(name) if r.id == ids[1]] == [{"n": "last"}]
    store.upsert(name, [], vectors[:0], [])
    store.flush(name)
    assert store.count(name) == 600


def test_ids_come_back_in_one_form(store: VectorStore, name: str) -> None:
    (key,) = point_ids(1)
    store.upsert(name, [key.replace("-", "").upper()], random_vectors(1), [{}])
    assert [r.id for r in store.scroll(name)] == [key]
    assert store.count(name, where=Filter(not_ids=(key.upper(),))) == 0
    for wrong in ("7", "", "x" * 36):
        with pytest.raises(StoreError, match="UUID"):
            store.upsert(name, [key, wrong], random_vectors(2), [{}, {}])
        with pytest.raises(StoreError, match="UUID"):
            store.delete(name, [wrong])
    store.delete(name, [key.replace("-", "")])
    assert store.count(name) == 0


def test_delete(store: VectorStore, name: str) -> None:
    ids, _ = fill(store, name, 10)
    store.delete(name, [])
    store.delete(name, [*ids[:4], *point_ids(3, seed=1), ids[0]])
    assert [r.id for r in store.scroll(name)] == sorted(ids[4:])
    store.delete(name, ids[:4])
    assert store.count(name) == 6


def test_refused_vectors_store_nothing(store: VectorStore, name: str) -> None:
    good = random_vectors(300)
    for row, value in ((299, np.nan), (299, np.inf), (0, -np.inf), (150, 0.0)):
        bad = good.copy()
        bad[row] = value if value == 0 else bad[row]
        bad[row, 3] = value
        with pytest.raises(VectorError, match=f"row {row}"):
            store.upsert(name, point_ids(300), bad, [{}] * 300)
        with pytest.raises(VectorError, match=f"row {row}"):
            store.search(name, bad, k=1)
    for shape in ((2, D - 1), (2, D + 1), (D,), (1, 2, D)):
        with pytest.raises(VectorError, match="shape"):
            store.upsert(name, point_ids(2), np.ones(shape, np.float32), [{}, {}])
        with pytest.raises(VectorError, match="shape"):
            store.search(name, np.ones(shape, np.float32), k=1)
    for ids, payloads in ((299, 300), (300, 299)):
        with pytest.raises(StoreError, match="as many of each"):
            store.upsert(name, point_ids(ids), good, [{}] * payloads)
    assert store.count(name) == 0


def test_search_is_exact_cosine(store: VectorStore, name: str) -> None:
    ids, vectors = fill(store, name, 500)
    queries = random_vectors(70, seed=1) * 100
    cosine = unit(queries) @ unit(vectors).T
    found = store.search(name, queries, k=10)
    assert len(found) == 70
    for row, hits in zip(cosine, found, strict=True):
        best = np.argsort(-row)[:10]
        assert [hit.id for hit in hits] == [ids[i] for i in best]
        np.testing.assert_allclose([hit.score for hit in hits], row[best], atol=1e-5)
        assert [hit.payload["n"] for hit in hits] == best.tolist()
    assert len(store.search(name, queries[:1], k=10_000)[0]) == 500
    assert store.search(name, queries[:0], k=1) == []
    for k in (0, -1):
        with pytest.raises(OptionError, match="k must"):
            store.search(name, queries, k=k)


def test_very_short_and_very_long_vectors(store: VectorStore, name: str) -> None:
    vectors = unit(random_vectors(4))
    scales = np.array([[1e-38], [1e-25], [1e25], [1e37]], np.float32)
    store.upsert(name, point_ids(4), vectors * scales, [{}] * 4)
    for record in store.scroll(name, with_vectors=True):
        assert record.vector is not None
        np.testing.assert_allclose(record.vector, vectors[point_ids(4).index(record.id)], atol=1e-6)


def test_equal_scores_come_in_the_order_of_ids(store: VectorStore, name: str) -> None:
    ids = point_ids(40)
    near, far = np.eye(D, dtype=np.float32)[[0, 1]]
    store.upsert(name, ids, np.stack([near] * 30 + [far] * 10), [{}] * 40)
    for k in (1, 7, 29, 30, 35, 40):
        (hits,) = store.search(name, near[None], k=k)
        assert [hit.id for hit in hits] == (sorted(ids[:30]) + sorted(ids[30:]))[:k]


FIELDS: list[dict[str, Any]] = [
    {"s": "a", "i": 1, "b": True, "f": 0.5, "deep": {"Eyes Open": 1}, "list": [1, 5]},
    {"s": "A", "i": 2, "b": False, "f": -0.5, "deep": {"Eyes Open": 2}, "list": []},
    {"s": "é😀", "i": 2**53, "b": True, "f": 2, "deep": {}},
    {},
    {"s": None, "i": "1", "b": 1, "f": True, "deep": 1},
]


@pytest.mark.parametrize(
    ("key", "op", "value", "passing"),
    [
        ("s", "=", "a", [0]),
        ("s", "=", "é😀", [2]),
        ("s", "!=", "a", [1, 2, 3, 4]),
        ("i", "=", 1, [0]),
        ("i", "=", 2**53, [2]),
        ("i", "!=", 2, [0, 2, 3, 4]),
        ("b", "=", True, [0, 2]),
        ("b", "=", False, [1]),
        ("b", "!=", True, [1, 3, 4]),
        ("f", "<", 0.5, [1]),
        ("f", "<=", 0.5, [0, 1]),
        ("f", ">", 0.5, [2]),
        ("f", ">=", 0.5, [0, 2]),
        ("i", ">", 1, [1, 2]),
        ("deep.Eyes Open", "=", 2, [1]),
        ("list", "=", 5, [0]),
        ("list", ">", 4, [0]),
        ("none", "=", 1, []),
        ("none", "<", 1, []),
        ("none", "!=", 1, [0, 1, 2, 3, 4]),
    ],
)
def test_conditions(
    store: VectorStore, name: str, key: str, op: Op, value: str | float, passing: list[int]
) -> None:
    ids = point_ids(5)
    store.upsert(name, ids, random_vectors(5), FIELDS)
    where = Filter((Condition(key, op, value),))
    expected = sorted(ids[i] for i in passing)
    assert [r.id for r in store.scroll(name, where=where)] == expected
    assert sorted(h.id for h in store.search(name, random_vectors(1), k=9, where=where)[0]) == expected
    assert store.count(name, where=where) == len(expected)
    less = replace(where, not_ids=tuple(expected[:1]))
    assert [r.id for r in store.scroll(name, where=less)] == expected[1:]


def test_filters_join_their_conditions(store: VectorStore, name: str) -> None:
    ids, vectors = fill(store, name, 30)
    where = Filter((Condition("person", "=", "p1"), Condition("n", "<", 20), Condition("n", "!=", 4)))
    expected = sorted(ids[i] for i in range(20) if i % 3 == 1 and i != 4)
    assert [r.id for r in store.scroll(name, where=where)] == expected
    assert store.count(name, where=Filter()) == store.count(name, where=None) == 30
    (hits,) = store.search(name, vectors[:1], k=1, where=Filter(not_ids=(ids[0],)))
    assert hits[0].id != ids[0]


@pytest.mark.parametrize(
    ("key", "op", "value"),
    [
        ("", "=", 1),
        ("a..b", "=", 1),
        ('a"', "=", 1),
        ("\udcff", "=", 1),
        ("a", "=", 0.5),
        ("a", "=", 2**63),
        ("a", "=", "\udcff"),
        ("a", "<", "x"),
        ("a", ">", True),
    ],
)
def test_conditions_that_cannot_be(key: str, op: Op, value: str | float) -> None:
    with pytest.raises(OptionError):
        Condition(key, op, value)


@pytest.mark.parametrize("with_vectors", [False, True])
def test_scroll_pages_in_the_order_of_ids(store: VectorStore, name: str, with_vectors: bool) -> None:
    ids, vectors = fill(store, name, 2500)
    records = list(store.scroll(name, with_vectors=with_vectors))
    assert [r.id for r in records] == sorted(ids)
    expected = dict(zip(ids, unit(vectors), strict=True))
    for record in records:
        assert ids[record.payload["n"]] == record.id
        if with_vectors:
            assert record.vector is not None
            assert record.vector.dtype == np.float32
            assert record.vector.shape == (D,)
            np.testing.assert_allclose(record.vector, expected[record.id], atol=1e-6)
        else:
            assert record.vector is None
    assert store.count(name) == 2500


VALUES = {
    "word": st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
    "size": st.integers(-3, 3),
    "share": st.floats(-2, 2),
    "flag": st.booleans(),
}
PAYLOADS = st.fixed_dictionaries({}, optional=VALUES)


@st.composite
def conditions(draw: st.DrawFn) -> Condition:
    key = draw(st.sampled_from(sorted(VALUES)))
    value: Any = draw(VALUES[key])
    ops: list[Op] = ["=", "!="] if key in ("word", "flag") else ["<", "<=", ">", ">="]
    return Condition(key, draw(st.sampled_from([*ops, "="] if key == "size" else ops)), value)


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[VectorStore, VectorStore]]:
    """Both stores with an empty collection `c`."""
    with (
        tempfile.TemporaryDirectory() as folder,
        EdgeStore(folder) as edge,
        ServerStore(QdrantClient(":memory:"), address=":memory:") as server,
    ):
        for store in (edge, server):
            store.create("c", SPEC)
        yield edge, server


@settings(max_examples=15, deadline=None)
@given(
    payloads=st.lists(PAYLOADS, min_size=1, max_size=12),
    seed=st.integers(0, 2**32 - 1),
    wheres=st.lists(st.lists(conditions(), max_size=2), min_size=1, max_size=4),
    k=st.integers(1, 15),
)
def test_both_stores_answer_the_same(
    pair: tuple[VectorStore, VectorStore],
    payloads: list[dict[str, Any]],
    seed: int,
    wheres: list[list[Condition]],
    k: int,
) -> None:
    ids, vectors, query = (
        point_ids(len(payloads)),
        random_vectors(len(payloads), seed=seed),
        random_vectors(1),
    )
    for store in pair:
        store.delete("c", point_ids(12))
        store.upsert("c", ids, vectors, payloads)
    for where in [Filter(tuple(each), not_ids=tuple(ids[:1])) for each in wheres]:
        ours, theirs = (s.search("c", query, k=k, where=where)[0] for s in pair)
        assert [(h.id, h.payload) for h in ours] == [(h.id, h.payload) for h in theirs]
        np.testing.assert_allclose([h.score for h in ours], [h.score for h in theirs], atol=1e-5)
        records: list[list[Record]] = [list(s.scroll("c", where=where)) for s in pair]
        assert records[0] == records[1]
        assert [s.count("c", where=where) for s in pair] == [len(records[0])] * 2


def test_every_error_is_ours(store: VectorStore, name: str) -> None:
    with pytest.raises(LookalikeError) as caught:
        store.create("huge", replace(SPEC, dimension=10**9))
    assert "\n" not in str(caught.value)
    assert "huge" not in store.names()
