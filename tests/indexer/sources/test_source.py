"""Where pictures come from, and what makes an item the same item tomorrow."""

import os
import unicodedata
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.encoder.errors import DataError, InvalidArgumentError
from lookalike.indexer.sources import Item, Source, as_path, as_text, item_id
from lookalike.indexer.sources.source import open_source
from tests.fixtures.photos import photograph, write_photos


def open_(source: Path | str, **options: object) -> Source:
    known = options.get("known", {})
    name = options.get("root_name")
    assert isinstance(known, dict)
    assert name is None or isinstance(name, str)
    return open_source(str(source), root_name=name, known_roots=known)


def items(source: Path | str, **options: object) -> list[Item]:
    return list(open_(source, **options).items())


def put(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(photograph(0))
    return file


def test_an_id_is_the_same_on_every_machine() -> None:
    # By hand (RFC 9562, 5.5): SHA-1 over the namespace's bytes and the name, version and variant set.
    assert item_id("photos", "Ada/one.jpg") == "6340fe30-9d7f-5f40-aa4b-239796443eb0"
    assert item_id("photos", "Ada/one.jpg") != item_id("photosAda", "one.jpg")


def test_items_of_a_folder_are_sorted_relative_and_know_their_person(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", each=1)
    put(tmp_path / "photos" / "alone.PNG")
    found = items(tmp_path / "photos")
    assert [(item.path, item.person) for item in found] == [
        ("alone.PNG", None),
        ("Ada_Lovelace/0.jpg", "Ada_Lovelace"),
        ("Hypatia/0.jpg", "Hypatia"),
        ("Émilie_du_Châtelet/0.jpg", "Émilie_du_Châtelet"),
    ]
    assert [item.id for item in found] == [item_id("photos", item.path) for item in found]


def test_a_folder_written_in_many_ways_is_one_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "photos" / "a.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    ways = ["photos", "photos/", "./photos", "link", "photos/../photos", str(tmp_path / "photos")]
    assert len({(open_(way).root_name, open_(way).root) for way in ways}) == 1
    monkeypatch.chdir(tmp_path / "photos")
    assert open_(".") == open_(tmp_path / "photos")


def test_a_single_file_is_the_item_that_its_folder_has(tmp_path: Path) -> None:
    file = put(tmp_path / "photos" / "a.jpg")
    put(tmp_path / "photos" / "b.jpg")
    assert items(file) == items(file.parent)[:1]


def test_a_linked_file_keeps_the_name_of_its_link(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere" / "real.jpg")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "link.jpg").symlink_to(tmp_path / "elsewhere" / "real.jpg")
    assert items(tmp_path / "photos" / "link.jpg") == items(tmp_path / "photos")
    assert [item.path for item in items(tmp_path / "photos")] == ["link.jpg"]


def test_links_to_folders_and_loops_are_not_followed(tmp_path: Path) -> None:
    put(tmp_path / "photos" / "a.jpg")
    (tmp_path / "photos" / "again").symlink_to(tmp_path / "photos")
    assert [item.path for item in items(tmp_path / "photos")] == ["a.jpg"]


def test_hidden_files_and_other_kinds_of_file_are_left_out(tmp_path: Path) -> None:
    for name in ("a.jpg", ".hidden.jpg", "notes.txt", ".thumbnails/b.jpg", "c.jpg.part"):
        put(tmp_path / "photos" / name)
    assert [item.path for item in items(tmp_path / "photos")] == ["a.jpg"]


def test_what_is_not_there_is_refused_on_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"a folder, an image file, a tar archive, lfw or mnist; '.*no\\nwhere' does not exist",
    ):
        open_(tmp_path / "no\nwhere")


def test_an_empty_source_is_not_the_current_folder() -> None:
    with pytest.raises(DataError, match="'' does not exist"):
        open_("")


@pytest.mark.parametrize("name", ["", "line\nbreak", "\udcff"])
def test_a_root_name_is_something_people_can_type(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="a root name is one or more printable characters"):
        open_(tmp_path, root_name=name)


def test_two_folders_of_one_name_need_two_root_names(tmp_path: Path) -> None:
    for above in ("mine", "yours"):
        put(tmp_path / above / "photos" / "a.jpg")
    known = {"photos": str(tmp_path / "mine" / "photos")}
    with pytest.raises(
        InvalidArgumentError, match=r"knows 'photos' as .*mine.photos, not .*yours.photos; pass --root"
    ):
        open_(tmp_path / "yours" / "photos", known=known)
    yours = items(tmp_path / "yours" / "photos", known=known, root_name="yours")
    assert yours[0].id != items(tmp_path / "mine" / "photos", known=known)[0].id


def test_a_moved_folder_keeps_its_items_under_its_root_name(tmp_path: Path) -> None:
    put(tmp_path / "photos" / "a.jpg")
    known = {"photos": str(tmp_path / "photos")}
    before = items(tmp_path / "photos", known=known)
    (tmp_path / "photos").rename(tmp_path / "pictures")
    after = items(tmp_path / "pictures", known=known, root_name="photos")
    assert [item.id for item in after] == [item.id for item in before]


def test_a_known_root_keeps_its_name_whatever_its_folder_is_called(tmp_path: Path) -> None:
    put(tmp_path / "photos" / "a.jpg")
    assert open_(tmp_path / "photos", known={"family": str(tmp_path / "photos")}).root_name == "family"


def test_what_lies_in_a_known_root_is_part_of_it(tmp_path: Path) -> None:
    file = write_photos(tmp_path / "photos")[0]
    known = {"all": str(tmp_path), "photos": str(tmp_path / "photos")}
    whole = items(tmp_path / "photos", known=known)
    part = open_(file.parent, known=known)
    assert list(part.items()) == whole[:3]
    assert items(file, known=known) == whole[:1]
    assert part.covers("Ada_Lovelace/9.jpg")
    assert not part.covers("Ada_Lovelace_2/9.jpg")
    assert not open_(file, known=known).covers("Ada_Lovelace/0.jpg")
    assert open_(file.parent, known=known, root_name="apart").root_name == "apart"


def test_names_of_any_bytes_become_text_and_come_back(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/na\xefve"
    names = [
        b"line\nbreak.jpg",
        b"'quo\"tes'.jpg",
        b"by\xfftes.jpg",
        rb"by\xfftes.jpg",
        "漢字 🙂.jpg".encode(),
    ]
    for name in names:
        put(Path(os.fsdecode(folder + b"/" + name)))
    found = items(Path(os.fsdecode(folder)))
    assert len({item.id for item in found}) == len(names)
    for item in found:
        item.path.encode()
        assert as_path(item.path) == Path(item.file.name)
    assert {open_(Path(os.fsdecode(folder))).root_name} == {r"na\xefve"}


@given(st.binary(min_size=1).filter(lambda name: not {0, ord("/")} & set(name)))
def test_every_name_comes_back_from_its_text(name: bytes) -> None:
    path = Path(os.fsdecode(name))
    assert as_path(as_text(path)) == path


def test_one_name_in_two_normal_forms_is_two_items(tmp_path: Path) -> None:
    forms = {unicodedata.normalize(form, "Zoë.jpg") for form in ("NFC", "NFD")}
    for name in forms:
        put(tmp_path / "photos" / name)
    if len(list((tmp_path / "photos").iterdir())) == 1:
        pytest.skip("this file system takes both for one name")
    assert len({item.id for item in items(tmp_path / "photos")}) == 2


def test_a_folder_called_lfw_goes_before_the_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "lfw" / "a.jpg")
    monkeypatch.chdir(tmp_path)
    assert open_("lfw").root == (tmp_path / "lfw").resolve()


@pytest.mark.lfw
def test_lfw_by_name_and_by_folder_are_one_root(
    lfw_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    by_name = open_("lfw")
    folder = str(by_name.root)
    assert (by_name.root_name, by_name.root.parent) == ("lfw", lfw_folder.resolve())
    assert open_(folder, known={"lfw": folder}) == by_name
    assert open_("lfw", known={"faces": folder}).root_name == "faces"
    first = next(by_name.items())
    assert (first.path, first.person) == ("AJ_Cook/AJ_Cook_0001.jpg", "AJ_Cook")


def test_lfw_that_is_nowhere_is_said_on_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOOKALIKE_DATA", str(tmp_path))
    monkeypatch.setenv("LOOKALIKE_MIRRORS", "http://127.0.0.1:9")
    with pytest.raises(DataError, match="LOOKALIKE_DATA") as caught:
        open_("lfw")
    assert "\n" not in str(caught.value)


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])))
def test_id_is_the_uuid_of_the_rfc(root: str, path: str) -> None:
    namespace = uuid.UUID("6d2a1f0e-6c4b-5e53-9d0e-3a6a3d1f7c11")
    assert item_id(root, path) == str(uuid.uuid5(namespace, f"{root}\0{path}"))
