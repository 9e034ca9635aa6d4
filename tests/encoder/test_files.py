"""Files and folders are replaced whole, or stay as they were."""

import sys
from pathlib import Path

import pytest

from lookalike.encoder.files import atomic_replace_dir, atomic_write


def write(target: Path, text: str) -> None:
    with atomic_replace_dir(target) as fresh:
        assert list(fresh.iterdir()) == []
        (fresh / "file").write_text(text)


def test_folder_appears_when_the_block_ends_well(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "er"
    for text in ("one", "two"):
        write(target, text)
        assert (target / "file").read_text() == text
        assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_folder_stays_when_the_block_raises(tmp_path: Path, error: type[BaseException]) -> None:
    def fail() -> None:
        with atomic_replace_dir(tmp_path / "folder") as fresh:
            (fresh / "file").write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert list(tmp_path.iterdir()) == []
    write(tmp_path / "folder", "old")
    with pytest.raises(error):
        fail()
    assert (tmp_path / "folder" / "file").read_text() == "old"
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


def test_old_folder_comes_back_when_the_new_one_cannot_take_its_place(tmp_path: Path) -> None:
    def lose() -> None:
        with atomic_replace_dir(tmp_path / "folder") as fresh:
            fresh.rmdir()

    write(tmp_path / "folder", "old")
    with pytest.raises(FileNotFoundError):
        lose()
    assert (tmp_path / "folder" / "file").read_text() == "old"
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


def test_writer_that_was_quicker_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    with atomic_replace_dir(target) as fresh:
        (fresh / "file").write_text("last")
        write(target, "quicker")
    assert (target / "file").read_text() == "last"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("durable", [False, True])
def test_file_is_replaced_and_no_temporary_file_is_left(tmp_path: Path, durable: bool) -> None:
    for data in (b"one", b"two"):
        atomic_write(tmp_path / "deep" / "file", data, durable=durable)
        assert (tmp_path / "deep" / "file").read_bytes() == data
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["file"]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are not listed here")
def test_where_nothing_can_be_locked_a_file_is_closed_before_it_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.replace

    def as_on_windows(part: Path, target: Path) -> Path:
        if part in [link.resolve() for link in Path("/proc/self/fd").iterdir()]:
            raise PermissionError(13, "it is being used by another process", str(part))
        return rename(part, target)

    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setattr(Path, "replace", as_on_windows)
    atomic_write(tmp_path / "file", b"new", durable=True)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"new"
