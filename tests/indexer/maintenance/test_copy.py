"""A collection copied from any store to any other: nothing is lost, nothing is written twice."""

import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from qdrant_client import QdrantClient

from lookalike.encoder.errors import (
    CollectionNotFoundError,
    InvalidArgumentError,
    ModelMismatchError,
    StoreError,
)
from lookalike.indexer.embedded import EdgeStore
from lookalike.indexer.maintenance import copy_collection
from lookalike.indexer.maintenance.copy import CopyReport
from lookalike.indexer.open import open_store
from lookalike.indexer.server import ServerStore
from lookalike.indexer.server.client import Server
from lookalike.indexer.store import Payload, VectorStore
from tests.fixtures import stores
from tests.fixtures.stores import SPEC, D, everything, fill, point_ids, random_vectors

store, name = stores.store, stores.name
ROOT = Path(__file__).parents[3]
COPIER = """
import sys
from lookalike.indexer.maintenance.copy import copy_collection
from lookalike.indexer.open import open_store
with open_store(sys.argv[1]) as source, open_store(sys.argv[2]) as target:
    copy_collection(source, "c", target, "d", on_progress=lambda n: print(n, flush=True))
"""


@pytest.fixture(params=["edge", "memory"])
def other(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VectorStore]:
    made: VectorStore
    if request.param == "edge":
        made = open_store(str(tmp_path / "other"))
    else:
        made = ServerStore(Server(QdrantClient(":memory:"), ":other:", in_memory=True))
    with made:
        yield made


def copied(*arguments: object) -> tuple[int, int, int]:
    report: CopyReport = copy_collection(*arguments)  # type: ignore[arg-type]  # they are passed on
    return report.copied, report.unchanged, report.count


def test_there_and_back_nothing_has_changed(store: VectorStore, name: str, other: VectorStore) -> None:
    fill(store, name, 2500)
    store.upsert(name, point_ids(1), random_vectors(1), [{"text": "é漢", "list": [1, None, {"a": True}]}])
    before = everything(store, name)
    told: list[int] = []
    progress: list[int] = []
    report = copy_collection(store, name, other, "there", on_total=told.append, on_progress=progress.append)
    assert (report.copied, report.unchanged, report.count) == (2500, 0, 2500)
    assert (told, sum(progress)) == ([2500], 2500)
    assert len(progress) == (1 if other.piece > 2500 else 3)
    assert other.info("there") == store.info(name)
    store.delete_collection(name)
    assert copied(other, "there", store, name) == (2500, 0, 2500)
    assert [(r.id, r.payload, r.vector) for r in store.scroll(name, with_vectors=True)] == before
    assert store.info(name) == SPEC


def test_a_copy_under_another_name_in_the_same_store(store: VectorStore, name: str) -> None:
    fill(store, name, 30)
    target = f"{name}-2"
    assert copied(store, name, store, target) == (30, 0, 30)
    assert [(r.id, r.payload, r.vector) for r in store.scroll(target, with_vectors=True)] == everything(
        store, name
    )
    store.delete_collection(target)
    with pytest.raises(InvalidArgumentError, match="not onto itself"):
        copy_collection(store, name, store, name)
    assert store.count(name) == 30


def test_run_again_it_writes_only_what_differs(store: VectorStore, name: str, other: VectorStore) -> None:
    ids, vectors = fill(store, name, 1200)
    assert copied(store, name, other, "there") == (1200, 0, 1200)
    assert copied(store, name, other, "there") == (0, 1200, 1200)
    other.delete("there", ids[:10])
    other.upsert("there", ids[10:11], -vectors[10:11], [{"n": 10, "person": "p1"}])
    other.upsert("there", ids[11:12], vectors[11:12], [{"n": 11}])
    extra = point_ids(3, seed=5)
    other.upsert("there", extra, random_vectors(3, seed=5), [{}] * 3)
    assert copied(store, name, other, "there") == (12, 1188, 1203)  # and what was only there stays
    other.delete("there", extra)
    assert [(r.id, r.payload, r.vector) for r in other.scroll("there", with_vectors=True)] == everything(
        store, name
    )


def test_an_empty_collection_is_copied_too(store: VectorStore, name: str, other: VectorStore) -> None:
    assert copied(store, name, other, "there") == (0, 0, 0)
    assert other.info("there") == SPEC


@pytest.mark.parametrize("change", [{"model_id": "b" * 64}, {"crop": "full"}, {"dimension": D + 1}])
def test_a_target_of_another_model_is_refused(
    store: VectorStore, name: str, other: VectorStore, change: dict[str, object]
) -> None:
    fill(store, name, 3)
    other.create("there", replace(SPEC, **change))  # type: ignore[arg-type]  # each fits its field
    with pytest.raises(ModelMismatchError, match="copy to another name") as caught:
        copy_collection(store, name, other, "there")
    assert "\n" not in str(caught.value)
    assert other.count("there") == 0


def test_roots_are_joined_and_never_mixed_up(store: VectorStore, name: str, other: VectorStore) -> None:
    fill(store, name, 3)
    other.create("there", replace(SPEC, roots={"mine": "/mine"}))
    copy_collection(store, name, other, "there")
    assert other.info("there").roots == {"mine": "/mine", **SPEC.roots}
    other.create("elsewhere", replace(SPEC, roots={"lfw": "/elsewhere"}))
    with pytest.raises(
        InvalidArgumentError, match="calls /data/lfw the root 'lfw', 'elsewhere' calls /elsewhere so"
    ):
        copy_collection(store, name, other, "elsewhere")
    assert other.count("elsewhere") == 0


def test_what_is_not_there_or_cannot_be_named(store: VectorStore, name: str, other: VectorStore) -> None:
    with pytest.raises(CollectionNotFoundError):
        copy_collection(store, "absent", other, "there")
    with pytest.raises(InvalidArgumentError, match="collection name"):
        copy_collection(store, name, other, "a/b")
    assert other.list_collections() == []


class _LosingStore(EdgeStore):
    """A store that another writer deletes from."""

    def upsert(
        self, name: str, ids: Sequence[str], vectors: NDArray[np.float32], payloads: Sequence[Payload]
    ) -> None:
        super().upsert(name, ids, vectors, payloads)
        self.delete(name, ids[:1])


def test_counts_that_do_not_agree_are_said(store: VectorStore, name: str, tmp_path: Path) -> None:
    fill(store, name, 50)
    with (
        _LosingStore(str(tmp_path / "losing")) as losing,
        pytest.raises(StoreError, match=r"has 49 where 50 belong; .* run this again") as caught,
    ):
        copy_collection(store, name, losing, "there")
    assert "\n" not in str(caught.value)


def test_killed_anywhere_and_run_again_equals_once(tmp_path: Path) -> None:
    source, target = (str(tmp_path / where) for where in ("source", "target"))
    with open_store(source) as opened:
        opened.create("c", SPEC)
        fill(opened, "c", 8000)
    done = 0
    for pages in (1, 3):
        with subprocess.Popen(
            [sys.executable, "-c", COPIER, source, target], stdout=subprocess.PIPE, cwd=ROOT
        ) as child:
            assert child.stdout is not None
            for _ in range(pages):
                child.stdout.readline()
            time.sleep(0.01)
            child.send_signal(signal.SIGKILL)
        with open_store(target) as left:
            assert done < left.count("d") < 8000
            done = left.count("d")
    with open_store(source) as opened, open_store(target) as other:
        report = copy_collection(opened, "c", other, "d")
        assert (report.unchanged, report.copied, report.count) == (done, 8000 - done, 8000)
        expected, got = (
            [(r.id, r.payload, r.vector) for r in where.scroll(collection, with_vectors=True)]
            for where, collection in ((opened, "c"), (other, "d"))
        )
        for one, two in zip(expected, got, strict=True):
            assert one[:2] == two[:2]
            np.testing.assert_allclose(one[2], two[2], atol=1e-6)  # type: ignore[arg-type]  # they were asked for


def test_memory_does_not_grow_with_the_collection(tmp_path: Path) -> None:
    def peak(count: int, work: Callable[[VectorStore], object]) -> int:
        with open_store(str(tmp_path / str(count))) as opened:
            opened.create("c", SPEC)
            fill(opened, "c", count)
            tracemalloc.start()
            work(opened)
            _, most = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            return most

    small, large = (peak(n, lambda s: copy_collection(s, "c", s, "d")) for n in (2000, 8000))
    assert large < 1.5 * small
