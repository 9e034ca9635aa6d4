"""An embedded collection to build indexes of, here and in processes that are killed. Not a test.

A test module takes the fixture in by ``folder = shards.folder``.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lookalike.indexer.embedded.store import EdgeStore
from tests.stores import SPEC, fill, point_ids, random_vectors, unit

ROOT = Path(__file__).parents[1]
POINTS = 3000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store with a collection `c` of some thousand points and no index."""
    with EdgeStore(str(tmp_path / "store")) as store:
        store.create("c", SPEC)
        fill(store, "c", POINTS)
    return tmp_path / "store"


def start(script: str, *words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def shard_folders(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "c").iterdir() if path.is_dir())


def is_whole(store: EdgeStore) -> None:
    ids, vectors = point_ids(POINTS), unit(random_vectors(POINTS))
    found = {record.id: record for record in store.scroll("c", with_vectors=True)}
    assert store.count("c") == len(found) == POINTS
    for n in range(0, POINTS, 7):
        record = found[ids[n]]
        assert record.payload == {"n": n, "person": f"p{n % 3}"}
        np.testing.assert_allclose(record.vector, vectors[n], atol=1e-6)  # type: ignore[arg-type]  # it was asked for


def until(holds: Callable[[], bool], *, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def builders(folder: Path) -> list[int]:
    """The processes that build an index of this store."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if len(words) > 5 and b"build_as_child" in words[3] and str(folder).encode() in words[5]:
            found.append(int(process.name))
    return found
