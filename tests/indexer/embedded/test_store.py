"""What only the embedded store promises: durability, one holder at a time, and a folder that stays sane."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lookalike.encoder.errors import (
    CollectionExistsError,
    CollectionNotFoundError,
    StoreBusyError,
    StoreError,
)
from lookalike.indexer.embedded import EdgeStore
from lookalike.indexer.embedded.files import map_errors
from lookalike.indexer.store import CollectionSpec
from tests.fixtures.processes import child_env
from tests.fixtures.stores import SPEC, D, fill, point_ids, random_vectors

ROOT = Path(__file__).parents[3]
WRITER = """
import sys
from lookalike.indexer.embedded.store import EdgeStore
from tests.fixtures.stores import point_ids, random_vectors
ids, vectors = point_ids(20_000), random_vectors(20_000)
store = EdgeStore(sys.argv[1])
for start in range(0, len(ids), 50):
    part = slice(start, start + 50)
    store.upsert("c", ids[part], vectors[part], [{"n": n} for n in range(start, start + 50)])
    print(start + 50, flush=True)
"""
HOLDER = """
import sys
from lookalike.indexer.embedded.store import EdgeStore
store = EdgeStore(sys.argv[1])
store.count("c")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store with an empty collection `c`."""
    with EdgeStore(str(tmp_path / "store")) as store:
        store.create("c", SPEC)
    return tmp_path / "store"


@pytest.fixture
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the collection open."""
    with run(HOLDER, folder) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        yield child
        child.communicate("")


def run(script: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=child_env(),
    )


def spec_file(folder: Path) -> Path:
    return folder / "c" / "collection.json"


def test_reopen_after_close(folder: Path) -> None:
    with EdgeStore(str(folder)) as store:
        ids, vectors = fill(store, "c", 300)
        address = store.address
    with EdgeStore(address) as store:
        assert (store.list_collections(), store.info("c"), store.count("c")) == (["c"], SPEC, 300)
        assert store.search("c", vectors[7:8], k=1)[0][0].id == ids[7]


@pytest.mark.parametrize("attempt", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2))])
def test_killed_while_writing_loses_nothing_acknowledged(folder: Path, attempt: int) -> None:
    with run(WRITER, folder) as child:
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(random.uniform(0.05, 1))
        child.send_signal(signal.SIGKILL)
        acknowledged = 50 + 50 * len(child.stdout.read().split())
    ids, vectors = point_ids(20_000), random_vectors(20_000)
    with EdgeStore(str(folder)) as store:
        assert store.info("c") == SPEC
        found = {record.id: record for record in store.scroll("c", with_vectors=True)}
        assert acknowledged <= store.count("c") == len(found)
        for n in range(acknowledged):
            record = found[ids[n]]
            assert record.payload == {"n": n}
            assert record.vector is not None
            assert record.vector @ vectors[n] == pytest.approx(np.linalg.norm(vectors[n]), rel=1e-5)
        store.upsert("c", ids[:100], vectors[:100], [{}] * 100)  # and it can be written on


def test_a_second_process_is_told_so_at_once(folder: Path, holder: subprocess.Popen[str]) -> None:
    with EdgeStore(str(folder)) as store:
        assert store.list_collections() == ["c"]
        assert store.info("c") == SPEC  # these need no vectors
        began = time.monotonic()
        for call in (
            store.count,
            store.scroll,
            store.delete_collection,
            lambda name: store.update_info(name, SPEC),
        ):
            with pytest.raises(StoreBusyError, match="in use by another process") as caught:
                call("c")
            assert str(folder) in str(caught.value)
            assert "\n" not in str(caught.value)
        assert time.monotonic() - began < 2
        holder.communicate("")
        assert store.count("c") == 0


def test_a_second_store_in_this_process_is_told_so(folder: Path) -> None:
    with EdgeStore(str(folder)) as first, EdgeStore(str(folder)) as second:
        assert first.count("c") == 0
        with pytest.raises(StoreBusyError):
            second.count("c")
        first.close()
        assert second.count("c") == 0


def test_half_made_collection(tmp_path: Path) -> None:
    with EdgeStore(str(tmp_path)) as store:
        (tmp_path / "c" / "shard" / "wal").mkdir(parents=True)
        (tmp_path / "c" / "collection.json.new").write_text("{")
        stale, fresh = tmp_path / ".making-c-1", tmp_path / ".making-c-2"
        for left in (stale, fresh, tmp_path / ".dropped-c-1"):
            left.mkdir()
        os.utime(stale, (0, 0))
        assert store.list_collections() == []
        with pytest.raises(CollectionNotFoundError):
            store.info("c")
        store.create("c", SPEC)
        assert store.count("c") == 0
        # A create that another process is busy with is left alone.
        assert sorted(p.name for p in tmp_path.iterdir()) == [fresh.name, "c"]


def test_create_leaves_a_strangers_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").write_bytes(b"x")
    with EdgeStore(str(tmp_path)) as store:
        with pytest.raises(StoreError, match="not a lookalike collection"):
            store.create("photos", SPEC)
        assert store.list_collections() == []
    assert [p.name for p in tmp_path.rglob("*")] == ["photos", "me.jpg"]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[]", b"{}", json.dumps(SPEC.to_json() | {"dimension": "8"}).encode()],
)
def test_damaged_spec(folder: Path, content: bytes) -> None:
    spec_file(folder).write_bytes(content)
    with EdgeStore(str(folder)) as store:
        assert store.list_collections() == ["c"]
        for call in (store.info, store.count):
            with pytest.raises(StoreError, match=r"collection\.json is") as caught:
                call("c")
            assert "\n" not in str(caught.value)
        store.delete_collection("c")
        assert store.list_collections() == []


def test_spec_of_a_later_version(folder: Path) -> None:
    spec_file(folder).write_text(json.dumps(SPEC.to_json() | {"format": 99, "new": 1}))
    with EdgeStore(str(folder)) as store, pytest.raises(StoreError, match="later lookalike"):
        store.info("c")


def test_missing_shard(folder: Path) -> None:
    (folder / "c" / "shard").rename(folder / "elsewhere")
    with EdgeStore(str(folder)) as store:
        with pytest.raises(StoreError, match="does not exist") as caught:
            store.count("c")
        assert "\n" not in str(caught.value)
        store.delete_collection("c")


def test_drop_leaves_nothing(folder: Path) -> None:
    with EdgeStore(str(folder)) as store:
        fill(store, "c", 5)
        store.delete_collection("c")
        assert list(folder.iterdir()) == []


def test_reading_makes_no_folder(tmp_path: Path) -> None:
    with EdgeStore(str(tmp_path / "none")) as store:
        assert store.list_collections() == []
        for call in (store.info, store.count, store.delete_collection, store.scroll, store.flush):
            with pytest.raises(CollectionNotFoundError):
                call("c")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with EdgeStore(str(tmp_path / "file")) as store:
        for call in (store.list_collections, lambda: store.create("c", SPEC)):
            with pytest.raises(StoreError, match="check that it is a folder"):
                call()


def test_many_points_at_once(folder: Path) -> None:
    n = 10_000
    with EdgeStore(str(folder)) as store:
        store.upsert("c", point_ids(n), random_vectors(n), [{"path": "x" * 3000}] * n)
        assert store.count("c") == n


def test_two_creators_of_one_name(tmp_path: Path) -> None:
    with EdgeStore(str(tmp_path)) as one, EdgeStore(str(tmp_path)) as other:
        one.create("c", CollectionSpec(model_id="m", model_name="m", dimension=D, crop="none"))
        with pytest.raises(CollectionExistsError):
            other.create("c", SPEC)
        assert other.info("c").model_id == "m"


@pytest.mark.parametrize(
    ("library", "home"), [("qdrant_edge", "embedded/shard"), ("qdrant_client", "server/client")]
)
def test_each_library_is_named_in_one_module(library: str, home: str) -> None:
    rooms = ("encoder", "trainer", "indexer", "searcher", "deploy")
    naming = [p for room in rooms for p in (ROOT / room).rglob("*.py") if library in p.read_text()]
    assert naming == [ROOT / "indexer" / f"{home}.py"]


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES, errno.EROFS])
def test_a_store_that_cannot_be_written_says_so(tmp_path: Path, number: int) -> None:
    def fail() -> None:  # as Qdrant Edge does where a disk is read-only
        with map_errors(tmp_path):
            raise Exception(f"Service runtime error: Failed to open: some text (os error {number})")  # noqa: TRY002

    with pytest.raises(StoreError) as told:
        fail()
    assert f"must be writable, also for searching, but: {os.strerror(number)}" in str(told.value)
    assert "damaged" not in str(told.value)
