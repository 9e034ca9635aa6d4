"""Which files under a folder are pictures, the same on every walk."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.encoder.errors import DataError
from lookalike.encoder.images import IMAGE_SUFFIXES, find_images


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
