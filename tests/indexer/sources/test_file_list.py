"""Lists of files, archives and tables: what is named is found, what is malformed is told with its line."""

import io
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from lookalike.encoder.errors import DataError, InvalidArgumentError
from lookalike.indexer.sources import (
    FileList,
    Source,
    SourceFilter,
    located,
    person_pattern,
    read_list,
    read_payload,
    read_tables,
)
from lookalike.indexer.sources.source import list_source
from lookalike.indexer.sources.tar import Member, find_members
from tests.fixtures.photos import photograph, write_photos


def listed(files: Iterable[Path], **options: Any) -> Source:
    return list_source(files, **({"root": None, "root_name": None, "known_roots": {}} | options))


def test_a_list_has_a_name_on_each_line_or_between_nul(tmp_path: Path) -> None:
    (tmp_path / "lines").write_bytes(b"a.jpg\r\n\nb c.jpg\n\xff.jpg")
    assert read_list(str(tmp_path / "lines"), nul=False) == [
        Path("a.jpg"),
        Path("b c.jpg"),
        Path(os.fsdecode(b"\xff.jpg")),
    ]
    (tmp_path / "nul").write_bytes(b"a\n.jpg\0b.jpg\0")
    assert read_list(str(tmp_path / "nul"), nul=True) == [Path("a\n.jpg"), Path("b.jpg")]


def test_a_list_that_names_nothing_or_is_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"\n\n")
    with pytest.raises(DataError, match="needs at least one name"):
        read_list(str(tmp_path / "empty"), nul=False)
    with pytest.raises(DataError, match="--files-from is a file or -"):
        read_list(str(tmp_path / "no\nwhere"), nul=False)


def test_listed_files_are_the_items_their_folder_has(tmp_path: Path) -> None:
    files = write_photos(tmp_path / "photos")
    source = listed([files[0], files[5], files[0]])
    assert (source.root_name, source.root) == ("photos", (tmp_path / "photos").resolve())
    whole = {item.id for item in Source("photos", source.root).items()}
    items = list(source.items())
    assert [item.file for item in items] == [files[0].resolve(), files[5].resolve()]
    assert {item.id for item in items} < whole
    assert not source.covers("Hypatia/9.jpg")


def test_a_list_is_read_whenever_its_files_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photos(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    names = ["photos/Hypatia/0.jpg", "./photos/Hypatia/1.jpg", "photos/../photos/Hypatia/0.jpg"]
    (tmp_path / "list").write_text("\n".join(names * 2))
    source = listed(FileList("list", nul=False), root=tmp_path)
    assert source.listed is not None
    assert len(source.listed) == 2
    for _ in range(2):
        assert [item.path for item in source.items()] == ["photos/Hypatia/0.jpg", "photos/Hypatia/1.jpg"]
    (tmp_path / "list").write_text("photos/Hypatia/2.jpg")
    assert [item.path for item in source.items()] == ["photos/Hypatia/2.jpg"]
    (tmp_path / "list").write_text("/etc/hosts.jpg")
    with pytest.raises(InvalidArgumentError, match=r"/etc/hosts\.jpg does not"):
        list(source.items())


def test_listed_files_belong_to_the_root_that_is_known_or_named(tmp_path: Path) -> None:
    files = write_photos(tmp_path / "photos")
    known = {"mine": str(tmp_path.resolve())}
    assert listed(files[:2], known_roots=known).root_name == "mine"
    named = listed(files[:2], root=tmp_path, root_name="all")
    assert [item.path for item in named.items()] == ["photos/Ada_Lovelace/0.jpg", "photos/Ada_Lovelace/1.jpg"]
    with pytest.raises(
        InvalidArgumentError, match=r"lie under --root .*Hypatia, .* does not; name a folder above"
    ):
        listed(files[:2], root=tmp_path / "photos" / "Hypatia")


def test_a_link_that_is_listed_keeps_its_own_name(tmp_path: Path) -> None:
    file = write_photos(tmp_path / "photos")[0]
    (tmp_path / "photos" / "link.jpg").symlink_to(file)
    assert [item.path for item in listed([tmp_path / "photos" / "link.jpg"]).items()] == ["link.jpg"]


@pytest.mark.parametrize(
    ("pattern", "path", "person"),
    [
        (r"(?P<person>[a-z]+)_\d+", "x/ada_12.jpg", "ada"),
        (r"/(\w+)-", "x/Ada-1.jpg", "Ada"),
        (r"[A-Z]\w+", "x/Ada-1.jpg", "Ada"),
        (r"nobody", "x/Ada-1.jpg", None),
        (r"(z)?Ada", "x/Ada-1.jpg", None),
    ],
)
def test_who_it_is_can_be_read_from_the_path(pattern: str, path: str, person: str | None) -> None:
    assert SourceFilter(person=person_pattern(pattern)).person_in(path, "folder") == person
    assert SourceFilter().person_in(path, "folder") == "folder"


def test_a_pattern_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match=r"--person-from is a regular expression, '\(' is not"):
        person_pattern("(")


def test_selection_looks_at_paths_and_names() -> None:
    reading = SourceFilter(include=("*.jpg", "b/*"), exclude=("*thumb*",))
    taken = [p for p in ("a.jpg", "b/x.png", "c/x.png", "c/thumb.jpg", ".a.jpg") if reading.accepts(p)]
    assert taken == ["a.jpg", "b/x.png"]
    assert reading.accepts(".a.jpg", named=True)


def test_a_csv_and_json_lines_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        '\ufeffpath,age,name,Smiling\n"a,b.jpg",36,"Ada ""Countess""",-0.5\nc.jpg,,x,\n'
    )
    (tmp_path / "a.jsonl").write_text(
        '{"path": "a,b.jpg", "age": 36, "name": "Ada \\"Countess\\"", "Smiling": -0.5}\n\n'
        '{"path": "c.jpg", "name": "x"}\n'
    )
    expected = {
        "a,b.jpg": {"age": 36, "name": 'Ada "Countess"', "Smiling": -0.5},
        "c.jpg": {"name": "x"},
    }
    assert read_payload(tmp_path / "a.csv") == read_payload(tmp_path / "a.jsonl") == expected


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "file,age\nx,1\n", "a.csv:1 must be a header with the column path"),
        ("a.csv", "path,age\nx,1,2\n", "a.csv:2 must have as many cells"),
        ("a.csv", "path,age\nx\n", "a.csv:2 must have as many cells"),
        ("a.csv", "path,age\nx,1\nx,2\n", "a.csv:3 must name each image once"),
        ("a.csv", "path,sha256\nx,1\n", "a.csv:2 must leave sha256 to the index"),
        ("a.csv", "path,age\n,1\n", "a.csv:2 must name an image"),
        ("a.jsonl", '{"path": "x"}\n[1]\n', "a.jsonl:2 must be a JSON object"),
        ("a.jsonl", '{"path": "x", "age": NaN}\n', "a.jsonl:1 must be JSON"),
        ("a.jsonl", '{"path": 3}\n', "a.jsonl:1 must name an image"),
        ("a.jsonl", "{\n", "a.jsonl:1 must be JSON"),
    ],
)
def test_malformed_tables_are_told_with_their_line(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as caught:
        read_payload(tmp_path / name)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_table_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a table must be readable"):
        read_payload(tmp_path / "none.csv")
    assert read_tables(None, None) is None


def test_scores_and_a_table_are_joined(tmp_path: Path) -> None:
    (tmp_path / "scores.txt").write_text("# made up\n#\tperson\timagenum\tMale\nAda Lovelace\t1\t-2.5\n")
    path = "Ada_Lovelace/Ada_Lovelace_0001.jpg"
    (tmp_path / "a.csv").write_text(f"path,born\n{path},1815\n")
    assert read_tables(tmp_path / "a.csv", tmp_path / "scores.txt") == {path: {"Male": -2.5, "born": 1815}}


def tar(file: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(file, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mtime = 12
            archive.addfile(info, io.BytesIO(data))
    return file


def test_members_are_read_where_they_lie_and_the_last_of_a_name_counts(tmp_path: Path) -> None:
    one, other = photograph(0), photograph(1)
    archive = tar(
        tmp_path / "a.tar",
        [("./x/0.jpg", one), ("x/0.txt", b"hello"), ("x/1.jpg", one), ("x/1.jpg", other)],
    )
    members = list(find_members(archive))
    assert [member.name for member in members] == ["x/0.jpg", "x/1.jpg"]
    assert [member.read()[0] for member in members] == [one, other]
    assert members[0].mtime_ns == 12_000_000_000
    assert str(members[0]) == f"{archive}/x/0.jpg"


def test_an_archive_that_is_cut_or_compressed_is_refused_on_one_line(tmp_path: Path) -> None:
    archive = tar(tmp_path / "a.tar", [("0.jpg", photograph(0)), ("1.jpg", photograph(1))])
    data = archive.read_bytes()
    member = list(find_members(archive))[1]
    assert isinstance(member, Member)
    archive.write_bytes(data[: member.start + 10])
    with pytest.raises(DataError, match="whole, uncompressed tar file"):
        list(find_members(archive))
    with pytest.raises(OSError, match="ends inside it"):
        member.read()
    archive.write_bytes(b"\x1f\x8b" + data)
    with pytest.raises(DataError, match="unpack a compressed one with gunzip first"):
        list(find_members(archive))


def test_what_lies_in_an_archive_is_located_there(tmp_path: Path) -> None:
    archive = tar(tmp_path / "a.tar", [("x/0.jpg", photograph(0))])
    (member,) = find_members(archive)
    assert located(archive / "x" / "0.jpg") == member
    assert located(tmp_path / "b.jpg") == tmp_path / "b.jpg"
    with pytest.raises(FileNotFoundError):
        located(archive / "x" / "1.jpg")
    tar(archive, [("x/1.jpg", photograph(1)), ("x/2.jpg", photograph(2))])
    assert isinstance(located(archive / "x" / "1.jpg"), Member)
