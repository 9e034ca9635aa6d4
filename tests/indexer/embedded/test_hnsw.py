"""The search index of an embedded collection: nearly exact, built beside the searches, safe to kill."""

import json
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lookalike.indexer.embedded.shard
from lookalike.encoder.errors import StoreError
from lookalike.indexer.embedded import EdgeStore
from lookalike.indexer.embedded.hnsw import build_in_child, build_in_subprocess
from lookalike.indexer.embedded.shard import Shard
from lookalike.indexer.store import Condition, Filter, Layout
from lookalike.indexer.sync import index_when_large
from tests.fixtures import shards
from tests.fixtures.shards import POINTS, builders, is_whole, shard_folders, until
from tests.fixtures.stores import SPEC, Vectors, point_ids, random_vectors, unit

folder = shards.folder


def recall(store: EdgeStore, vectors: Vectors, queries: Vectors, *, where: Filter | None = None) -> float:
    """Share of the ten best of vectors[i], stored as point_ids(n)[i], that are among the hits."""
    ids = point_ids(len(vectors))
    rows = list(range(len(vectors))) if where is None else list(range(0, len(vectors), 10))
    best = [{ids[rows[i]] for i in np.argsort(-row)[:10]} for row in queries @ vectors[rows].T]
    found = [{hit.id for hit in hits} for hits in store.search("c", queries, k=10, where=where)]
    return sum(len(a & b) for a, b in zip(best, found, strict=True)) / (10 * len(queries))


@pytest.mark.parametrize("count", [4000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_random_vectors_are_found_as_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    rng = np.random.default_rng(0)
    vectors, queries = (unit(rng.normal(size=(n, 64)).astype(np.float32)) for n in (count, 200))
    ids = point_ids(len(vectors))
    told: list[str] = []
    with EdgeStore(str(tmp_path)) as store:
        store.create("c", replace(SPEC, dimension=64))
        store.upsert("c", ids, vectors, [{"tenth": n % 10} for n in range(len(ids))])
        assert recall(store, vectors, queries) == 1
        assert not index_when_large(store, "c", log=told.append)  # 100,000 by default
        assert not index_when_large(store, "c", above=count, log=told.append)
        assert (store.index_state("c").indexed, told) == (0, [])
        assert index_when_large(store, "c", above=count - 1, log=told.append)
        assert told == [f"c: building the search index of {count} vectors"]
        assert store.index_state("c").indexed == count
        assert not index_when_large(store, "c", above=0)
        assert recall(store, vectors, queries) >= 0.99
        tenth = Filter((Condition("tenth", "=", 0),))
        assert recall(store, vectors, queries, where=tenth) == 1
        with monkeypatch.context() as patch:
            patch.setattr(
                lookalike.indexer.embedded.shard, "EXACT_UP_TO", count - 1
            )  # so that the graph is searched
            assert recall(store, vectors, queries, where=tenth) >= 0.98
            patch.setattr(lookalike.indexer.embedded.shard, "EF_SEARCH", 12)
            assert recall(store, vectors, queries) < 0.98
            assert recall(store, vectors, queries, where=tenth) < 0.995  # it is the graph that was searched
        (hits,) = store.search("c", queries[:1], k=1000)
        cosine = np.sort(vectors @ queries[0])[::-1][:1000]
        np.testing.assert_allclose([hit.score for hit in hits], cosine, atol=1e-5)
        (others,) = store.search("c", queries[:1], k=9, where=Filter(not_ids=(hits[0].id,)))
        assert [hit.id for hit in others] == [hit.id for hit in hits[1:10]]


def test_numbers_beside_the_vectors_are_indexed_and_compared_as_before(folder: Path) -> None:
    odd: list[dict[str, Any]] = [{"year": year} for year in (1999, 2001.5, "2002", [1, 2003], True)]
    odd[0]["a b"] = 0.5
    ids = point_ids(len(odd), seed=3)
    asked = [
        Filter((Condition("year", ">", 1999),)),
        Filter((Condition("year", "<=", 1999),)),
        Filter((Condition("year", "=", 1999),)),
        Filter((Condition("a b", "<", 1),)),
    ]
    with EdgeStore(str(folder)) as store:
        store.upsert("c", ids, random_vectors(len(odd), seed=3), odd)

        def found() -> list[set[str]]:
            hits = (store.search("c", random_vectors(1), k=9, where=each)[0] for each in asked)
            return [{hit.id for hit in each} for each in hits]

        before = found()
        assert before == [{ids[1], ids[3]}, {ids[0], ids[3]}, {ids[0]}, {ids[0]}]
        store.build_index("c")
        assert found() == before
    shard = Shard.load(folder / "c" / shard_folders(folder)[0], Layout())
    assert shard.indexed_fields() == {"a b", "n", "person", "year"}
    shard.close()


def test_what_changes_after_the_index_was_built_is_found(folder: Path) -> None:
    with EdgeStore(str(folder)) as store:
        store.build_index("c")
        is_whole(store)
        ids, vectors = point_ids(POINTS + 100), random_vectors(POINTS)
        added = random_vectors(100, seed=1)
        store.upsert("c", ids[POINTS:], added, [{}] * 100)
        store.upsert("c", ids[:1], -vectors[:1], [{}])
        store.delete("c", ids[1:2])
        state = store.index_state("c")
        assert (state.points, state.indexed, state.unindexed) == (POINTS + 99, POINTS, 99)
        assert state.disk_bytes is not None
        assert state.disk_bytes > 100_000
        for turn in range(2):
            assert store.search("c", added[7:8], k=1)[0][0].id == ids[POINTS + 7]
            assert store.search("c", -vectors[:1], k=1)[0][0].id == ids[0]
            assert store.search("c", vectors[1:2], k=1)[0][0].id != ids[1]
            if turn == 0:
                assert index_when_large(store, "c", above=98)
        assert store.index_state("c").unindexed == 0
    with EdgeStore(str(folder)) as store:
        assert (store.count("c"), store.index_state("c").indexed) == (POINTS + 99, POINTS + 99)


def test_searches_go_on_and_writes_wait(folder: Path) -> None:
    answered: list[float] = []
    done = threading.Event()
    with EdgeStore(str(folder)) as store:
        pages = store.scroll("c")
        first = next(pages)

        def ask() -> None:
            while not done.is_set():
                assert len(store.search("c", random_vectors(1), k=5)[0]) == 5
                answered.append(time.monotonic())

        def write() -> None:
            time.sleep(0.05)
            store.upsert("c", point_ids(1, seed=9), random_vectors(1, seed=9), [{}])

        threads = [threading.Thread(target=work) for work in (ask, write)]
        for thread in threads:
            thread.start()
        began = time.monotonic()
        store.build_index("c")
        took = time.monotonic() - began
        done.set()
        for thread in threads:
            thread.join()
        assert len(answered) > 10
        assert np.diff(answered).max() < max(0.5 * took, 0.1)
        assert len({first.id} | {record.id for record in pages}) >= POINTS  # over the change, none is lost
        assert store.search("c", random_vectors(1, seed=9), k=1)[0][0].id == point_ids(1, seed=9)[0]
        assert store.count("c") == POINTS + 1


@pytest.mark.skipif(sys.platform != "linux", reason="looks for it in /proc")
def test_when_the_building_process_dies_that_is_said_and_all_is_as_before(folder: Path) -> None:
    def kill() -> None:
        until(lambda: len(builders(folder)) == 1)
        os.kill(builders(folder)[0], signal.SIGKILL)

    with EdgeStore(str(folder)) as store:
        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(
            StoreError, match=r"could not be built \(exit -9\); it is searched without one"
        ) as caught:
            store.build_index("c")
        killer.join()
        assert "\n" not in str(caught.value)
        assert shard_folders(folder) == ["shard"]
        is_whole(store)
        store.build_index("c")
        is_whole(store)


def test_a_reason_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(fresh: Path, dimension: int, layout: Layout) -> None:
        (fresh / "edge_config.json").write_text("{")
        build_in_subprocess(fresh, dimension, layout)

    monkeypatch.setattr("lookalike.indexer.embedded.store.build_in_subprocess", spoil)
    with EdgeStore(str(folder)) as store:
        with pytest.raises(StoreError, match="could not be built") as caught:
            store.build_index("c")
        assert "\n" not in str(caught.value)
        is_whole(store)


def test_an_index_that_lost_points_is_not_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(fresh: Path, dimension: int, layout: Layout) -> None:
        shard = Shard.load(fresh, layout)
        shard.delete(point_ids(5))
        shard.close()

    monkeypatch.setattr("lookalike.indexer.embedded.store.build_in_subprocess", lose)
    with EdgeStore(str(folder)) as store:
        with pytest.raises(
            StoreError, match=f"has {POINTS} points, its new index {POINTS - 5}; nothing was changed"
        ):
            store.build_index("c")
        is_whole(store)


def test_a_store_closed_meanwhile_changes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = EdgeStore(str(folder))
    monkeypatch.setattr(
        "lookalike.indexer.embedded.store.build_in_subprocess", lambda fresh, dimension, layout: store.close()
    )
    with pytest.raises(StoreError, match="is closed"):
        store.build_index("c")
    with EdgeStore(str(folder)) as again:
        is_whole(again)
        assert shard_folders(folder) == ["shard"]


def test_a_folder_where_the_user_stands_is_not_ours(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lookalike").mkdir()
    (tmp_path / "lookalike" / "__init__.py").write_text("raise SystemExit('not this one')")
    monkeypatch.chdir(tmp_path)
    with EdgeStore(str(folder)) as store:
        store.build_index("c")
        assert store.index_state("c").indexed == POINTS


def test_elsewhere_a_program_may_stand_between_who_asks_and_who_builds(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(fresh: Path, dimension: int, layout: Layout) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "platform", "win32")  # where a virtual environment has such a program
            build_in_child(str(fresh), dimension, os.getpid(), json.dumps(layout.to_json()))

    monkeypatch.setattr("lookalike.indexer.embedded.store.build_in_subprocess", build)
    with EdgeStore(str(folder)) as store:
        store.build_index("c")
        assert store.index_state("c").indexed == POINTS
        is_whole(store)
