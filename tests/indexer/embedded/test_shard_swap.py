"""One shard takes the place of another: killed at any moment, the old one or the new one is there."""

import random
import signal
import sys
import time
from pathlib import Path

import pytest

from lookalike.encoder.errors import StoreBusyError, StoreError
from lookalike.indexer.embedded import EdgeStore
from tests.fixtures import shards
from tests.fixtures.shards import POINTS, builders, is_whole, shard_folders, start, until

folder = shards.folder
BUILDER = """
import sys
from lookalike.indexer.embedded.store import EdgeStore
store = EdgeStore(sys.argv[1])
store.count("c")
print("building", flush=True)
store.build_index("c")
print("built", flush=True)
"""
STEP = """
import os, signal, sys
from lookalike.indexer.embedded import shard, store as embedded_store
modules = {"store": embedded_store, "shard_swap": shard}
module, step, when = modules[sys.argv[2]], sys.argv[3], sys.argv[4]
store = embedded_store.EdgeStore(sys.argv[1])
store.count("c")
taken = getattr(module, step)
def last(*args, **kwargs):
    if when == "after":
        taken(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(module, step, last)
store.build_index("c")
"""
READER = """
import sys, time
from lookalike.encoder.errors import StoreBusyError
from lookalike.indexer.embedded.store import EdgeStore
for _ in range(40):
    try:
        with EdgeStore(sys.argv[1]) as store:
            assert store.count("c") == int(sys.argv[2])
    except StoreBusyError:
        time.sleep(0.02)
print("fine")
"""


@pytest.mark.parametrize("attempt", [0, 1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3, 4))])
def test_killed_while_building_it_leaves_what_was_there(folder: Path, attempt: int) -> None:
    with start(BUILDER, folder) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "building\n"
        if attempt == 0:  # while it copies
            until(lambda: len(shard_folders(folder)) == 2)
        elif attempt == 1 and sys.platform == "linux":  # while the other process starts or builds
            until(lambda: len(builders(folder)) == 1)
        else:
            time.sleep(random.uniform(0, 1.5))
        child.send_signal(signal.SIGKILL)
        child.wait()
    with EdgeStore(str(folder)) as store:
        is_whole(store)
        assert store.index_state("c").indexed in ((0,) if attempt == 0 else (0, POINTS))
        assert len(shard_folders(folder)) == 1  # what was left over is gone
        store.build_index("c")
        is_whole(store)
        assert store.index_state("c").indexed == POINTS
        assert len(shard_folders(folder)) == 1


@pytest.mark.parametrize(
    ("module", "step", "when", "indexed"),
    [
        ("store", "build_in_subprocess", "before", 0),
        ("store", "build_in_subprocess", "after", 0),
        ("shard_swap", "atomic_write", "before", 0),
        ("store", "replace_shard", "after", POINTS),
        ("store", "remove_stale_shards", "before", POINTS),
        ("store", "remove_stale_shards", "after", POINTS),
    ],
)
def test_killed_at_any_step_of_the_change_one_of_the_two_is_there(
    folder: Path, module: str, step: str, when: str, indexed: int
) -> None:
    with start(STEP, folder, module, step, when) as child:
        _, failed = child.communicate(timeout=60)
    assert child.returncode == -signal.SIGKILL, failed
    with EdgeStore(str(folder)) as store:
        is_whole(store)
        assert store.index_state("c").indexed == indexed
        assert len(shard_folders(folder)) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it builds to the end, for nobody")
def test_who_builds_ends_with_who_asked(folder: Path) -> None:
    with start(BUILDER, folder) as child:
        until(lambda: len(builders(folder)) == 1)
        child.kill()
        child.wait()
    until(lambda: not builders(folder), seconds=10)


def test_other_processes_find_the_old_or_the_new_and_nothing_between(folder: Path) -> None:
    with start(READER, folder, POINTS) as reader, EdgeStore(str(folder)) as store:
        for _ in range(4):
            try:
                store.build_index("c")
            except StoreBusyError:
                time.sleep(0.02)
            store.close()
            time.sleep(0.05)  # the reader gets its turn
            store = EdgeStore(str(folder))
        store.close()
        said, failed = reader.communicate(timeout=60)
    assert said == "fine\n", failed


@pytest.mark.parametrize("content", [b"", b"../../elsewhere", b"\xff", b"shard-1"])
def test_a_damaged_name_of_the_shard_is_said(folder: Path, content: bytes) -> None:
    with EdgeStore(str(folder)) as store:
        store.build_index("c")
    (folder / "c" / "shard.name").write_bytes(content)
    with EdgeStore(str(folder)) as store:
        with pytest.raises(StoreError, match=r"shard\.name is damaged") as caught:
            store.count("c")
        assert "\n" not in str(caught.value)
        assert len(shard_folders(folder)) == 1  # nothing is swept away
        store.delete_collection("c")
        assert list(folder.iterdir()) == []
