"""Which files under a folder are pictures, the same on every walk."""

import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.encoder.errors import DataError, ImageError
from lookalike.encoder.images import (
    IMAGE_SUFFIXES,
    decode,
    decode_rgb,
    encode_png,
    find,
    find_images,
    skipped_summary,
)
from tests.fixtures.heic import TURNED_HEIC
from tests.fixtures.photos import photograph
from tests.fixtures.raw import dng

PNG = encode_png(np.zeros((4, 4, 3), np.uint8))
JPEG = photograph(0)


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def found(root: Path) -> list[str]:
    return [path.as_posix() for path in find_images(root)]


def test_pictures_come_folder_by_folder_in_sorted_order(tmp_path: Path) -> None:
    make(tmp_path, "b/2.jpg", "b/10.jpg", "a/z.png", "z.gif", "a/a/x.webp", "B/1.jpg", "ä.bmp")
    assert found(tmp_path) == ["z.gif", "ä.bmp", "B/1.jpg", "a/z.png", "a/a/x.webp", "b/10.jpg", "b/2.jpg"]


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
def test_suffixes_are_known_in_any_case(tmp_path: Path, suffix: str) -> None:
    names = sorted([f"a{suffix}", f"b{suffix.upper()}", f"c.x{suffix.title()}"])
    make(tmp_path, *names)
    assert found(tmp_path) == names


def test_what_is_no_picture_by_name_is_left_out(tmp_path: Path) -> None:
    make(tmp_path, "a.txt", "jpg", "a.jpg.part", "a.jpg ", "Thumbs.db", "a.pdf", ".jpg", "a.")
    (tmp_path / "folder.jpg").mkdir()
    assert found(tmp_path) == []


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    make(tmp_path, ".a.jpg", "._b.jpg", ".cache/c.jpg", "d/.e/f.jpg", "d/g.jpg")
    assert found(tmp_path) == ["d/g.jpg"]


def test_hidden_root_that_is_asked_for_is_searched(tmp_path: Path) -> None:
    make(tmp_path, ".photos/a.jpg")
    assert found(tmp_path / ".photos") == ["a.jpg"]


def test_links_to_files_are_followed_and_links_to_folders_are_not(tmp_path: Path) -> None:
    make(tmp_path / "root", "a/a.jpg")
    make(tmp_path, "elsewhere/b.jpg")
    (tmp_path / "root" / "link.jpg").symlink_to(tmp_path / "elsewhere" / "b.jpg")
    (tmp_path / "root" / "broken.jpg").symlink_to("nowhere")  # named as a failure where it is read
    (tmp_path / "root" / "a" / "up").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "elsewhere").symlink_to(tmp_path / "elsewhere")
    assert found(tmp_path / "root") == ["broken.jpg", "link.jpg", "a/a.jpg"]


def test_root_may_be_written_in_any_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "my fötos/a b.jpg", "my fötos/c/d.jpg")
    (tmp_path / "link").symlink_to("my fötos")
    monkeypatch.chdir(tmp_path)
    for root in ("my fötos", "my fötos/", "./my fötos/../my fötos", str(tmp_path / "my fötos"), "link"):
        assert found(Path(root)) == ["a b.jpg", "c/d.jpg"]
    monkeypatch.chdir("my fötos")
    assert found(Path()) == found(Path.cwd()) == ["a b.jpg", "c/d.jpg"]


def test_names_that_are_no_utf8_are_found(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    try:
        (tmp_path / name).touch()
    except OSError:
        pytest.skip("this file system takes only UTF-8")
    assert [path.name for path in find_images(tmp_path)] == [name]


@settings(max_examples=25, deadline=None)
@given(
    names=st.sets(st.text("aB1.-é", min_size=1, max_size=6).map(lambda stem: f"{stem}.jpg"), max_size=8),
    folders=st.sets(st.sampled_from(["x", "x/y", "z", "x/.h"]), max_size=4),
)
def test_every_picture_is_found_once(
    tmp_path_factory: pytest.TempPathFactory, names: set[str], folders: set[str]
) -> None:
    root = tmp_path_factory.mktemp("tree")
    made = {f"{folder}/{name}" for folder in folders for name in names}
    make(root, *made)
    visible = {path for path in made if not any(part.startswith(".") for part in path.split("/"))}
    walk = found(root)
    assert len(walk) == len(visible)
    assert set(walk) == visible
    assert walk == found(root)
    shutil.rmtree(root)


def test_folder_that_cannot_be_listed_stops_the_search(tmp_path: Path) -> None:
    # To pass over it would make its pictures look deleted.
    make(tmp_path, "a/1.jpg", "b/2.jpg", "file")
    walk = find_images(tmp_path)
    assert next(walk) == Path("a/1.jpg")
    shutil.rmtree(tmp_path / "b")
    with pytest.raises(DataError, match=r"/b cannot be read \(No such file or directory\)"):
        list(walk)
    for root in (tmp_path / "b", tmp_path / "file"):
        with pytest.raises(DataError, match="cannot be read"):
            list(find_images(root))


def skipped_in(root: Path, *, hidden: bool = False) -> dict[str, str]:
    passed: dict[str, str] = {}
    list(find_images(root, hidden=hidden, on_skipped=lambda path, kind: passed.setdefault(path, kind)))
    return passed


def test_what_is_passed_over_is_told(tmp_path: Path) -> None:
    make(
        tmp_path,
        "a.jpg",
        "b.ZIP",
        "c/d.zip",
        "c/README",
        "c/.hidden.zip",
        "e.",
        ".f/g.txt",
        "h.i j k l m n o p",
    )
    (tmp_path / "away").symlink_to(tmp_path / "c")
    assert skipped_in(tmp_path) == {
        "b.ZIP": ".zip",
        "c/d.zip": ".zip",
        "c/README": "without a suffix",
        "e.": "without a suffix",
        "h.i j k l m n o p": "without a suffix",
        "away": "link to a folder",
    }
    assert skipped_in(tmp_path, hidden=True).keys() - skipped_in(tmp_path) == {"c/.hidden.zip", ".f/g.txt"}


def test_the_summary_tells_kinds_the_most_frequent_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "_OTHER_ENDINGS", (".heic", ".heif", ".hif"))
    counts = {".zip": 3, ".heic": 9, "link to a folder": 2}
    assert skipped_summary(counts) == (
        "14 files skipped: 9 .heic (pip install 'lookalike[heic]'), 3 .zip, 2 links to folders"
    )
    assert skipped_summary({}) == ""
    assert skipped_summary({"link to a folder": 1}) == "1 file skipped: 1 link to a folder"
    many = {f".{letter}": 2 for letter in "abcdefghij"}
    assert skipped_summary(many).endswith("2 .g, 2 .h, 4 others")


def test_without_the_package_a_jpeg_called_heic_is_found_and_heic_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "HEIC")
    make(tmp_path, "empty.heic", "folder.heic/x")
    for name, content in {
        "real.heic": TURNED_HEIC,
        "jpeg.HEIC": JPEG,
        "png.hif": PNG,
        "jpeg.txt": JPEG,
    }.items():
        (tmp_path / name).write_bytes(content)
    os.mkfifo(tmp_path / "pipe.heic")  # would wait for ever
    assert found(tmp_path) == ["jpeg.HEIC", "png.hif"]
    assert skipped_in(tmp_path) == {
        "empty.heic": ".heic",
        "real.heic": ".heic",
        "pipe.heic": ".heic",
        "jpeg.txt": ".txt",
        "folder.heic/x": "without a suffix",
    }


def without(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """As on a machine on which what this format needs is not installed."""
    known = tuple(each for each in find.formats() if each.kind != kind)
    for module in (find, decode):
        monkeypatch.setattr(module, "formats", lambda: known)
    suffixes = frozenset(suffix for each in known for suffix in each.suffixes)
    monkeypatch.setattr(find, "IMAGE_SUFFIXES", suffixes)
    monkeypatch.setattr(find, "_ENDINGS", tuple(suffixes))
    monkeypatch.setattr(find, "_OTHER_ENDINGS", find.suffixes_of(kind))


def test_without_the_package_heic_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    assert decode_rgb(TURNED_HEIC, name="x.heic").shape == (64, 80, 3)
    without(monkeypatch, "HEIC")
    with pytest.raises(ImageError) as caught:
        decode_rgb(TURNED_HEIC, name="x.heic")
    assert str(caught.value) == "x.heic: reading HEIC needs another package; pip install 'lookalike[heic]'"


def test_without_the_package_raw_files_say_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "RAW")
    raw = dng(np.full((32, 48, 3), 90, np.uint8))
    for name, content in {"a.dng": raw, "b.NEF": raw, "jpeg.cr2": JPEG, "raw.tif": raw}.items():
        (tmp_path / name).write_bytes(content)
    assert found(tmp_path) == ["jpeg.cr2", "raw.tif"]
    kinds = skipped_in(tmp_path)
    assert kinds == {"a.dng": ".dng", "b.NEF": ".nef"}
    assert skipped_summary(Counter(kinds.values())) == (
        "2 files skipped: 1 .dng (pip install 'lookalike[raw]'), 1 .nef (pip install 'lookalike[raw]')"
    )
    with pytest.raises(ImageError) as caught:
        decode_rgb(raw, name="a.dng")
    assert str(caught.value) == "a.dng: reading RAW needs another package; pip install 'lookalike[raw]'"
