"""What a filter lets through, the same in every store."""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient

from lookalike.encoder.errors import InvalidArgumentError
from lookalike.indexer.embedded import EdgeStore
from lookalike.indexer.server import ServerStore
from lookalike.indexer.server.client import Server
from lookalike.indexer.store import Condition, Filter, Record, VectorStore, check_fields
from lookalike.indexer.store.filters import Op
from tests.fixtures import stores
from tests.fixtures.stores import SPEC, fill, point_ids, random_vectors

store, name = stores.store, stores.name


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
        ("f", "=", 0.5, [0]),
        ("f", "!=", 0.5, [1, 2, 3, 4]),
        ("f", "=", 2.0, [2]),
        ("i", "=", 1.0, [0]),
        ("i", "!=", 1.0, [1, 2, 3, 4]),
        ("s", "~", "a", [0]),
        ("s", "~", "😀", [2]),
        ("i", "~", "1", [4]),
        ("none", "~", "a", []),
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
        ("a\\b", "=", 1),
        ("a\\", "=", 1),
        ("\udcff", "=", 1),
        ("a", "=", float("nan")),
        ("a", "~", ""),
        ("a", "~", 1),
        ("a", "=", 2**63),
        ("a", "=", "\udcff"),
        ("a", "<", "x"),
        ("a", ">", True),
    ],
)
def test_conditions_that_cannot_be(key: str, op: Op, value: str | float) -> None:
    with pytest.raises(InvalidArgumentError):
        Condition(key, op, value)


ODD_KEYS = ("a b", "a[0]", "a[", "]", "a-b", "ü", "山", "a\nb", "'", "$", "*", "a/b", "{}", "0", "-", "a:b")


@pytest.mark.parametrize("key", ODD_KEYS)
def test_any_name_without_quote_and_backslash_can_be_asked_for(
    store: VectorStore, name: str, key: str
) -> None:
    ids = point_ids(2)
    store.upsert(name, ids, random_vectors(2), [{key: 1}, {f"{key}x": 1}])
    assert store.count(name, where=Filter((Condition(key, "=", 1),))) == 1
    assert store.count(name, where=Filter(present=(key,))) == 1


def test_presence_of_a_field(store: VectorStore, name: str) -> None:
    ids = point_ids(5)
    store.upsert(name, ids, random_vectors(5), FIELDS)
    for key, count in (("s", 3), ("i", 4), ("list", 1), ("deep.Eyes Open", 2), ("none", 0)):
        assert store.count(name, where=Filter(present=(key,))) == count, key


@pytest.mark.parametrize("op", ["=", "!="])
def test_a_field_that_no_item_has_is_told(store: VectorStore, name: str, op: Op) -> None:
    store.upsert(name, point_ids(5), random_vectors(5), FIELDS)
    for key in ("s", "deep.Eyes Open"):
        check_fields(store, name, Filter((Condition(key, op, 1),)))
    for key, near in (("deep.Eyes open", "deep.Eyes Open"), ("lst", "list"), ("S", "s, i, b, f, deep")):
        with pytest.raises(InvalidArgumentError, match=f"no item of {name} has a field '{key}'; .*{near}"):
            check_fields(store, name, Filter((Condition("s", "=", 1), Condition(key, op, 1))))


def test_a_rare_field_is_one(store: VectorStore, name: str) -> None:
    ids, _ = fill(store, name, 300)
    check_fields(store, name, Filter((Condition("n", "=", 1),)))
    store.upsert(name, [max(ids)], random_vectors(1), [{"rare": 1}])
    check_fields(store, name, Filter((Condition("rare", "=", 2),)))


def test_an_empty_collection_has_any_field(store: VectorStore, name: str) -> None:
    check_fields(store, name, Filter((Condition("any", "=", 1),)))


VALUES = {
    "word": st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
    "size": st.integers(-3, 3),
    # Few digits: Edge may change the last place of a float (see Payload).
    "share": st.integers(-512, 512).map(lambda n: n / 256),
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
        ServerStore(Server(QdrantClient(":memory:"), ":memory:", in_memory=True)) as server,
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
