"""What ``VectorStore`` promises, sentence by sentence, of every implementation."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from lookalike.encoder.errors import (
    CollectionExistsError,
    CollectionNotFoundError,
    InvalidArgumentError,
    LookalikeError,
    ModelMismatchError,
    StoreError,
    VectorError,
)
from lookalike.indexer.store import Filter, StorageConfig, VectorStore
from tests.fixtures import stores
from tests.fixtures.qdrant_stub import serving
from tests.fixtures.stores import SPEC, D, everything, fill, point_ids, random_vectors, unit

store, name = stores.store, stores.name


def test_create_describe_drop(store: VectorStore, name: str) -> None:
    assert name in store.list_collections()
    assert store.list_collections() == sorted(store.list_collections())
    assert store.info(name) == SPEC
    assert (store.count(name), list(store.scroll(name))) == (0, [])
    assert store.search(name, random_vectors(2), k=3) == [[], []]
    with pytest.raises(CollectionExistsError, match=name):
        store.create(name, SPEC)
    fill(store, name, 5)
    store.delete_collection(name)
    assert name not in store.list_collections()
    store.create(name, replace(SPEC, dimension=3))
    assert (store.info(name).dimension, store.count(name)) == (3, 0)
    store.upsert(name, point_ids(1), np.ones((1, 3), np.float32), [{}])


def test_an_alias_stands_for_a_collection_in_everything(store: VectorStore, name: str) -> None:
    alias = f"alias-{name}"
    store.set_alias(alias, name)
    assert store.aliases()[alias] == name
    assert alias not in store.list_collections()
    assert store.info(alias) == SPEC
    ids, vectors = fill(store, alias, 30)
    assert store.count(alias) == store.count(name) == 30
    assert store.search(alias, vectors[:1], k=1)[0][0].id == ids[0]
    assert store.get(alias, ids[:1]).keys() == {ids[0]}
    store.delete(alias, ids[:1])
    assert len(list(store.scroll(alias))) == 29
    assert store.index_state(alias).points == 29
    store.update_info(alias, replace(SPEC, roots={"new": "/new"}))
    assert store.info(name).roots == {"new": "/new"}
    store.flush(alias)
    store.build_index(alias)
    store.set_alias(alias, None)
    assert alias not in store.aliases()
    with pytest.raises(CollectionNotFoundError, match=alias):
        store.info(alias)
    assert store.count(name) == 29


def test_whoever_asks_by_an_alias_reads_what_it_was_switched_to(store: VectorStore, name: str) -> None:
    alias, other = f"alias-{name}", f"other-{name}"
    store.create(other, replace(SPEC, dimension=3, model_id="b" * 64))
    store.upsert(other, point_ids(1, seed=9), np.ones((1, 3), np.float32), [{}])
    fill(store, name, 10)
    store.set_alias(alias, name)
    assert (store.count(alias), store.info(alias)) == (10, SPEC)
    pages = store.scroll(alias)
    seen = [next(pages).id]
    store.set_alias(alias, other)
    assert store.info(alias).model_id == "b" * 64
    assert store.search(alias, np.ones((1, 3), np.float32), k=1)[0][0].id == point_ids(1, seed=9)[0]
    with pytest.raises(VectorError):  # of the old one's dimension
        store.search(alias, random_vectors(1), k=1)
    assert sorted([*seen, *(record.id for record in pages)]) == sorted(point_ids(10))  # what it began with
    store.set_alias(alias, None)
    store.delete_collection(other)


def test_what_an_alias_stands_for_is_not_dropped(store: VectorStore, name: str) -> None:
    alias = f"alias-{name}"
    store.set_alias(alias, name)
    with pytest.raises(StoreError, match=f"is what {alias} stands for; .*switch {alias} OTHER") as caught:
        store.delete_collection(name)
    assert "\n" not in str(caught.value)
    with pytest.raises(StoreError, match=f"alias of collection '{name}'; .*switch {alias} --remove"):
        store.delete_collection(alias)
    assert store.count(alias) == 0
    store.set_alias(alias, None)
    store.delete_collection(name)


def test_names_and_aliases_are_one_set(store: VectorStore, name: str) -> None:
    alias, third = f"alias-{name}", f"third-{name}"
    store.set_alias(alias, name)
    with pytest.raises(CollectionExistsError, match="is an alias of collection"):
        store.create(alias, SPEC)
    with pytest.raises(CollectionExistsError, match="is a collection"):
        store.set_alias(name, name)
    for target in ("absent", None):
        with pytest.raises(CollectionNotFoundError, match="absent"):
            store.set_alias("absent" if target is None else third, target)
    with pytest.raises(InvalidArgumentError, match="collection name"):
        store.set_alias("../up", name)
    store.set_alias(third, alias)  # to what that stands for
    assert store.aliases()[third] == name
    store.set_alias(third, None)
    store.set_alias(alias, None)


def test_a_layout_changes_no_answer(store: VectorStore) -> None:
    options = StorageConfig(quantization="int8", on_disk=True, hnsw_m=24, hnsw_payload_m=8, expect=10**9)
    name = f"test-{point_ids(1, seed=5)[0]}"
    store.create(name, SPEC, options)
    ids, vectors = fill(store, name, 300)
    for hits, row in zip(store.search(name, vectors[:20], k=3), unit(vectors[:20]), strict=True):
        assert [hit.id for hit in hits] == [ids[n] for n in np.argsort(-(unit(vectors) @ row))[:3]]
    store.delete_collection(name)


def test_redescribe_replaces_roots_and_nothing_else(store: VectorStore, name: str) -> None:
    fill(store, name, 3)
    moved = replace(SPEC, roots={"other": "/elsewhere"})
    store.update_info(name, moved)
    assert store.info(name) == moved  # the roots that were left out are gone
    for wrong in ({"model_id": "b" * 64}, {"dimension": D + 1}, {"crop": "face"}, {"metric": "dot"}):
        with pytest.raises(ModelMismatchError):
            store.update_info(name, replace(moved, **wrong))
    assert (store.info(name), store.count(name)) == (moved, 3)


@pytest.mark.parametrize("wrong", ["", ".hidden", "-x", "a/b", "../up", "a b", "ä", "x" * 65, "a\n"])
def test_names_that_break_the_rule(store: VectorStore, wrong: str) -> None:
    with pytest.raises(InvalidArgumentError, match="collection name"):
        store.create(wrong, SPEC)
    with pytest.raises(CollectionNotFoundError):
        store.info(wrong)


CALLS: dict[str, Callable[[VectorStore, str], object]] = {
    "set_alias": lambda s, n: s.set_alias("alias", n),
    "info": lambda s, n: s.info(n),
    "update_info": lambda s, n: s.update_info(n, SPEC),
    "delete_collection": lambda s, n: s.delete_collection(n),
    "upsert": lambda s, n: s.upsert(n, point_ids(1), random_vectors(1), [{}]),
    "delete": lambda s, n: s.delete(n, point_ids(1)),
    "get": lambda s, n: s.get(n, point_ids(1)),
    "search": lambda s, n: s.search(n, random_vectors(1), k=1),
    "scroll": lambda s, n: s.scroll(n),
    "count": lambda s, n: s.count(n),
    "index_state": lambda s, n: s.index_state(n),
    "build_index": lambda s, n: s.build_index(n),
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
        store.list_collections()
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


@pytest.mark.parametrize("with_vectors", [False, True])
def test_fetch_returns_what_is_there(store: VectorStore, name: str, with_vectors: bool) -> None:
    fill(store, name, 5)
    there = {record.id: record for record in store.scroll(name, with_vectors=True)}
    wanted = [*point_ids(3), "00000000-0000-0000-0000-000000000000"]
    found = store.get(name, wanted, with_vectors=with_vectors)
    assert found.keys() == {each for each in wanted if each in there}
    assert len(found) == 3
    for point, record in found.items():
        assert (record.id, record.payload) == (point, there[point].payload)
        assert (record.vector is not None) == with_vectors
        if record.vector is not None and (expected := there[point].vector) is not None:
            np.testing.assert_array_equal(record.vector, expected)
    assert store.get(name, []) == {}


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
        with pytest.raises(InvalidArgumentError, match="k must"):
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


def test_every_error_is_ours(store: VectorStore, name: str) -> None:
    with pytest.raises(LookalikeError) as caught:
        store.create("huge", replace(SPEC, dimension=10**9))
    assert "\n" not in str(caught.value)
    assert "huge" not in store.list_collections()


def test_an_index_changes_no_answer(store: VectorStore, name: str) -> None:
    ids, vectors = fill(store, name, 600)
    before = everything(store, name)
    queries = random_vectors(5, seed=1)
    found = store.search(name, queries, k=5)
    state = store.index_state(name)
    assert (state.points, state.indexed, state.unindexed) == (600, 0, 600)
    assert state.to_json()["index"] == {"search": "exact", "indexed": 0}
    store.build_index(name)
    assert [(r.id, r.payload, r.vector) for r in store.scroll(name, with_vectors=True)] == before
    for hits, again in zip(found, store.search(name, queries, k=5), strict=True):
        assert [hit.id for hit in hits] == [hit.id for hit in again]
        np.testing.assert_allclose([hit.score for hit in hits], [hit.score for hit in again], atol=1e-5)
    store.delete(name, ids[:1])
    store.upsert(name, ids[1:2], -vectors[1:2], [{}])
    assert store.index_state(name).points == 599
    assert store.search(name, -vectors[1:2], k=1)[0][0].id == ids[1]


def test_tests_leave_nothing_on_a_server() -> None:
    def failing_test(url: str) -> None:
        with stores.tidied(url) as store:
            store.create("one", SPEC)
            store.create("two", SPEC)
            store.set_alias("alias", "one")
            store.set_alias("gone", "one")
            store.set_alias("gone", None)
            store.close()
            raise AssertionError

    with serving() as stub:
        stub.collections["theirs"] = {}
        with pytest.raises(AssertionError):
            failing_test(stub.url)
        assert (list(stub.collections), stub.aliases) == (["theirs"], {})
