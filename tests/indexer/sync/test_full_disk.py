"""A disk without room costs one line and no picture: what is stored stays, the next run completes it."""

import ctypes
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from lookalike.encoder.errors import StoreError
from lookalike.encoder.runtime import Model
from lookalike.indexer.embedded import files as disk
from lookalike.indexer.open import open_store
from tests.fixtures.command import COMMAND, lookalike, one_line
from tests.fixtures.photos import NAME, index, stored, write_many, write_photos

MIB = 1 << 20


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A real disk of 100 MiB; only the superuser of Linux can have one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    library = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
    if library is None or library.mount(b"none", os.fsencode(folder), b"tmpfs", 0, b"size=100m"):
        pytest.skip("no file system can be mounted here")
    yield folder
    assert library.umount2(os.fsencode(folder), 2) == 0  # also where a failed test still holds it


def fill(folder: Path, *, leave: int) -> Path:
    """Take all room but so many bytes."""
    status = os.statvfs(folder)
    filler = folder / "filler"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize - leave)
    return filler


def words_for(model: Path, store: Path) -> list[str | Path]:
    return ["index", "photos", "--model", model, "--collection", NAME, "--store", store]


@pytest.mark.parametrize("leave", [0, 47 * MIB, 50 * MIB, 52 * MIB])
def test_wherever_room_ends_it_is_one_line_and_the_next_run_completes(
    small: Path, tiny_model: Path, tmp_path: Path, leave: int
) -> None:
    write_many(tmp_path / "photos", 300)
    filler = fill(small, leave=leave)
    done = lookalike(*words_for(tiny_model, small / "store"), cwd=tmp_path)
    assert done.returncode == 1
    assert f"store {small / 'store'}" in one_line(done)
    assert "its disk is full" in done.stderr
    filler.unlink()
    done = lookalike(*words_for(tiny_model, small / "store"), cwd=tmp_path)
    assert (done.returncode, done.stderr.split(";")[0]) == (
        0,
        f"{NAME}: 300 added, 0 changed, 0 unchanged, 0 missing, 0 failed",
    )


def test_a_disk_that_fills_up_keeps_what_was_stored(
    small: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lookalike.encoder.embed.pipeline._BATCH", 16)
    monkeypatch.setattr(sys.modules["lookalike.indexer.sync.sync"], "_DURABLE_TOGETHER", 48)
    write_many(tmp_path / "photos", 300)
    model, fillers = Model.open(tiny_model, threads=1), list[Path]()

    def fill_up(_: int) -> None:
        if not fillers:
            fillers.append(fill(small, leave=4 * MIB))

    with (
        open_store(str(small / "store")) as store,
        pytest.raises(StoreError, match=r"4\.0 MiB free, 48\.\d needed\); make room and run it again"),
    ):
        index(store, model, tmp_path / "photos", on_progress=fill_up)
    fillers[0].unlink()
    with open_store(str(small / "store")) as store, open_store(str(tmp_path / "clean")) as clean:
        assert store.count(NAME) == 48
        report = index(store, model, tmp_path / "photos")
        assert (report.unchanged, report.added) == (48, 252)
        index(clean, model, tmp_path / "photos")
        assert stored(store) == stored(clean)


def test_on_a_full_disk_every_command_says_so_and_a_collection_can_be_deleted(
    small: Path, tiny_model: Path, tmp_path: Path
) -> None:
    write_photos(tmp_path / "photos")
    place: list[str | Path] = ["--store", small / "store"]
    assert lookalike(*words_for(tiny_model, small / "store"), cwd=tmp_path).returncode == 0
    fill(small, leave=0)
    picture = next((tmp_path / "photos").rglob("*.jpg"))
    refused: list[list[str | Path]] = [
        ["search", picture, "--collection", NAME, *place],
        ["collections", "show", NAME, *place],
        words_for(tiny_model, small / "store"),
    ]
    for words in refused:
        done = lookalike(*words, cwd=tmp_path)
        assert done.returncode == 1
        assert "its disk is full (0.0 MiB free, 48.0 needed)" in one_line(done)
    done = lookalike("collections", "delete", NAME, "--yes", *place, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, f"deleted {NAME}: an unknown number of items\n")
    assert not (small / "store" / NAME).exists()


@pytest.mark.parametrize(("kib", "there"), [(1, False), (20_000, False), (1, True)])
def test_files_that_may_not_grow_are_one_line_and_the_next_run_completes(
    tiny_model: Path, tmp_path: Path, kib: int, there: bool
) -> None:
    write_photos(tmp_path / "photos")
    words = words_for(tiny_model, tmp_path / "store")
    if there:
        assert lookalike(*words, cwd=tmp_path).returncode == 0
        write_many(tmp_path / "photos" / "more", 300)
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (kib * 1024, kib * 1024))
    done = subprocess.run(
        [COMMAND, *words], cwd=tmp_path, preexec_fn=limit, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert re.search(r"File ?too ?large", one_line(done), re.IGNORECASE)
    done = lookalike(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(each.name for each in (tmp_path / "store").iterdir()) == [NAME]
    model = Model.open(tiny_model)
    with open_store(str(tmp_path / "store")) as store, open_store(str(tmp_path / "clean")) as clean:
        index(clean, model, tmp_path / "photos")
        assert stored(store) == stored(clean)


def test_room_is_asked_for_with_what_is_written(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    disk.check_disk_space(tmp_path)
    with pytest.raises(StoreError, match=r"its disk is full \(\d+\.\d MiB free, \d+\.\d needed\)"):
        disk.check_disk_space(tmp_path, free)
    with pytest.raises(StoreError, match="No such file"):
        disk.check_disk_space(tmp_path / "gone")
