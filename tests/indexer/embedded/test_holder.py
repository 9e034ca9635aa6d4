"""Who has a collection open is told to others; whatever the file says, the lock decides."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from lookalike.encoder.errors import StoreBusyError
from lookalike.indexer.embedded import EdgeStore
from lookalike.indexer.store import CollectionSpec
from tests.fixtures.processes import child_env

SPEC: Final = CollectionSpec(model_id="m", model_name="m", dimension=4, crop="full")
HOLD: Final = """
import sys
from lookalike.indexer.embedded import EdgeStore
with EdgeStore(sys.argv[1]) as store:
    store.hold(served_at="http://127.0.0.1:8000/")
    print("open", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    with EdgeStore(str(folder)) as store:
        store.create("c", SPEC)
        store.create("d", SPEC)
    return folder


@pytest.fixture(scope="module")
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has all collections open."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=child_env(),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process
        process.communicate("")


def refused(folder: Path) -> str:
    with EdgeStore(str(folder)) as store, pytest.raises(StoreBusyError) as caught:
        store.hold()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_holder_is_named_with_its_address(folder: Path, holder: subprocess.Popen[str]) -> None:
    for name in ("c", "d"):
        with EdgeStore(str(folder)) as store, pytest.raises(StoreBusyError) as caught:
            store.count(name)
        told = (
            f"in use by another process (pid {holder.pid}, which serves it at http://127.0.0.1:8000/); wait"
        )
        assert told in str(caught.value)
    assert told in refused(folder)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b'{"pid": "no"}', b'{"pid": 1, "served_at": 3}', b"\xff" * 9000],
)
def test_whatever_the_file_says_the_lock_decides(
    folder: Path, holder: subprocess.Popen[str], content: bytes
) -> None:
    (folder / "c" / "holder.json").write_bytes(content)
    told = refused(folder)
    assert "in use by another process" in told
    assert "serves" not in told


def test_the_file_is_there_as_long_as_the_collection_is_open(tmp_path: Path) -> None:
    file = tmp_path / "c" / "holder.json"
    with EdgeStore(str(tmp_path)) as store:
        store.create("c", SPEC)
        assert not file.exists()
        store.count("c")
        assert f'"pid": {os.getpid()}' in file.read_text()
        store.hold(served_at="http://here/")
        assert "http://here/" in file.read_text()
    assert not file.exists()
    file.write_text('{"pid": 1}')  # of a process that was killed
    with EdgeStore(str(tmp_path)) as store:
        assert store.count("c") == 0


def test_a_damaged_collection_does_not_keep_the_others_from_being_held(tmp_path: Path) -> None:
    with EdgeStore(str(tmp_path)) as store:
        for name in ("a", "b"):
            store.create(name, SPEC)
    (tmp_path / "a" / "collection.json").write_text("{")
    with EdgeStore(str(tmp_path)) as store:
        store.hold()
        assert (tmp_path / "b" / "holder.json").exists()
