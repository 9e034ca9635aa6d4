"""Archives of unknown origin: members that lead out, never end or have bad headers fail, others do not."""

import io
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lookalike.encoder.errors import DataError
from lookalike.encoder.files import MAX_BYTES
from lookalike.encoder.runtime import Model
from lookalike.indexer.sources import as_path, file_below, leads_out, located
from lookalike.indexer.sources.source import open_source
from lookalike.indexer.sources.tar import Member, Refused, find_members
from lookalike.indexer.store import VectorStore
from tests.fixtures import stores
from tests.fixtures.photos import NAME, index, photograph

store = stores.store
Change = Callable[[tarfile.TarInfo], Any]


def member(name: str, change: Change = lambda info: None, data: bytes = b"") -> bytes:
    """A member as it lies in an archive: its headers, and its content in whole blocks."""
    data = data or photograph(0)
    info = tarfile.TarInfo(name)
    info.size, info.mtime = len(data), 12
    change(info)
    padding = bytes(-len(data) % 512)
    return info.tobuf(tarfile.PAX_FORMAT) + data + padding


def write(file: Path, *members: bytes) -> Path:
    file.write_bytes(b"".join(members) + bytes(1024))
    return file


def pax(**headers: str) -> Change:
    def change(info: tarfile.TarInfo) -> None:
        info.pax_headers = headers

    return change


OUTSIDE = {
    *("/etc/a.jpg", "//etc/a.jpg", "../a.jpg", "x/../../a.jpg", "x/../a.jpg", "..//a.jpg", "./../a.jpg"),
    *("/../a.jpg", "a\0/b.jpg"),
}
IMPOSSIBLE: dict[str, Change] = {
    **{
        f"mtime {value}": pax(mtime=value)
        for value in ("inf", "-inf", "nan", "1e300", "-1e300", "9223372037")
    },
    "sparse": pax(
        **{
            "GNU.sparse.major": "0",
            "GNU.sparse.minor": "1",
            "GNU.sparse.map": "0,10",
            "GNU.sparse.size": "10",
        }
    ),
}


@pytest.mark.parametrize("name", sorted(OUTSIDE))
def test_a_member_that_leads_out_is_refused_and_its_neighbours_are_read(tmp_path: Path, name: str) -> None:
    archive = write(
        tmp_path / "a.tar", member("good.jpg"), member("b.jpg", pax(path=name)), member("x/last.jpg")
    )
    first, bad, last = find_members(archive)
    assert isinstance(bad, Refused)
    assert not leads_out(bad.name)
    assert "/" not in bad.name
    with pytest.raises(OSError, match="its name leads out of the archive"):
        bad.read()
    assert [first.read()[0], last.read()[0]] == [photograph(0)] * 2
    with pytest.raises(FileNotFoundError):
        located(archive / bad.name)


@pytest.mark.parametrize("kind", IMPOSSIBLE)
def test_a_member_with_an_impossible_header_is_refused(tmp_path: Path, kind: str) -> None:
    archive = write(
        tmp_path / "a.tar", member("good.jpg"), member("b.jpg", IMPOSSIBLE[kind]), member("c.jpg")
    )
    found = {each.name: each for each in find_members(archive)}
    assert found.keys() == {"good.jpg", "b.jpg", "c.jpg"}
    assert isinstance(found["b.jpg"], Refused)
    assert isinstance(found["c.jpg"], Member)


def test_the_run_names_each_refused_member_and_stores_the_rest(
    store: VectorStore, tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "etc").mkdir()
    outside = tmp_path / "etc" / "secret.jpg"
    outside.write_bytes(photograph(7))
    archive = write(
        tmp_path / "a.tar",
        member("good.jpg"),
        member("b.jpg", pax(path=str(outside))),
        member("c.jpg", pax(path="../etc/secret.jpg")),
        member("d.jpg", pax(mtime="nan")),
    )
    model = Model.open(tiny_model)
    for _ in range(2):
        report = index(store, model, archive)
        assert (report.added + report.unchanged, len(report.failed)) == (1, 3)
        assert all("\n" not in reason and "cannot be read (" in reason for _, reason in report.failed)
    assert [record.payload["path"] for record in store.scroll(NAME)] == ["a.tar/good.jpg"]


def _sparse_tar(file: Path, size: int, *, kind: bytes = tarfile.REGTYPE) -> Path:
    """An archive with a member of any size that takes no space."""
    with file.open("wb") as out:
        info = tarfile.TarInfo("big.jpg")
        info.size, info.type = size, kind
        out.write(info.tobuf(tarfile.GNU_FORMAT))
        out.seek(size, io.SEEK_CUR)
        out.write(bytes(-size % 512) + member("good.jpg") + bytes(1024))
    return file


@pytest.mark.parametrize("size", [MAX_BYTES + 1, 1 << 40])
def test_a_giant_member_is_refused_without_being_read(tmp_path: Path, size: int) -> None:
    try:
        archive = _sparse_tar(tmp_path / "a.tar", size)
    except OSError:
        pytest.skip("this disk has no files with holes")
    big, good = find_members(archive)
    assert isinstance(big, Refused)
    assert good.read()[0] == photograph(0)


@pytest.mark.parametrize(
    "kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK]
)
def test_a_giant_header_is_not_read(tmp_path: Path, kind: bytes) -> None:
    try:
        archive = _sparse_tar(tmp_path / "a.tar", 1 << 36, kind=kind)
    except OSError:
        pytest.skip("this disk has no files with holes")
    with pytest.raises(DataError, match=r"a header of \d+ bytes"):
        list(find_members(archive))


def test_headers_of_headers_end(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, record = tarfile.XHDTYPE, b"20 comment=abcdefgh\n"
    info.size = len(record)
    chain = (info.tobuf(tarfile.USTAR_FORMAT) + record.ljust(512, b"\0")) * 3000
    with pytest.raises(DataError, match="headers of headers") as caught:
        list(find_members(write(tmp_path / "a.tar", chain, member("a.jpg"))))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", ["-512", "-1024", "-5120", "inf", "1e9", "x", "99999999999999999999"])
def test_an_impossible_size_ends_too(tmp_path: Path, size: str) -> None:
    archive = write(tmp_path / "a.tar", member("a.jpg"), member("b.jpg", pax(size=size)), member("c.jpg"))
    try:
        found = list(find_members(archive))
    except DataError as error:
        assert "\n" not in str(error)  # noqa: PT017  # either is fine
    else:
        assert found[0].name == "a.jpg"


def test_archives_with_random_damage_are_read_or_refused_on_one_line(tmp_path: Path) -> None:
    whole = write(
        tmp_path / "a.tar",
        member("a.jpg", pax(mtime="12.5", comment="x" * 600)),
        member("n" * 200 + ".jpg"),
        member("b.jpg", IMPOSSIBLE["sparse"]),
    ).read_bytes()
    rng = random.Random(0)
    headers = [at for at in range(0, len(whole), 512) if whole[at + 257 : at + 262] == b"ustar"]
    for _ in range(400):
        bad = bytearray(whole)
        start = rng.choice(headers)
        for _ in range(rng.randrange(1, 4)):
            bad[start + rng.randrange(1024)] = rng.randrange(256)
        header = bad[start : start + 512]
        header[148:156] = b" " * 8
        if rng.random() < 0.7:  # a checksum that fits, so that the damage is looked at
            bad[start + 148 : start + 156] = b"%06o\0 " % sum(header)
        (tmp_path / "b.tar").write_bytes(bad)
        try:
            found = list(find_members(tmp_path / "b.tar"))
        except DataError as error:
            assert "\n" not in str(error)  # noqa: PT017  # either is fine
            continue
        for each in found:
            assert not leads_out(each.name)
            assert 0 <= each.size <= MAX_BYTES
            assert abs(each.mtime_ns) < 2**63


def test_a_refused_member_is_an_item_below_its_archive(tmp_path: Path) -> None:
    archive = write(tmp_path / "a.tar", *(member("b.jpg", pax(path=name)) for name in OUTSIDE))
    items = list(open_source(str(archive), known_roots={}).items())
    assert len(items) == len(OUTSIDE)
    for item in items:
        assert item.path.startswith("a.tar/")
        assert file_below(str(tmp_path), item.path).is_relative_to(archive)


@pytest.mark.parametrize(
    "path",
    [
        *("/etc/a.jpg", "../a.jpg", "a/../../b.jpg", "..", "", ".", "./.", "a\0.jpg", "/"),
        *(
            "\\x2fetc\\x2fpasswd",
            "\\x2e\\x2e/a.jpg",
            "x\\x2f..\\x2f..\\x2fa.jpg",
            "a\\x00.jpg",
            "\\x2e",
            "a/\\x2e\\x2e",
        ),
    ],
)
def test_a_path_that_leads_out_is_known_after_it_is_decoded(path: str) -> None:
    assert leads_out(path)
    with pytest.raises(DataError, match="an item's path leads from its root to an image"):
        file_below("/photos", path)


@pytest.mark.parametrize(
    "path", ["a.jpg", "a/b.jpg", "..a.jpg", "a../b", "\\xff.jpg", "a\\x5cx2f.jpg", "...", "ä/漢"]
)
def test_a_path_that_stays_inside_is_a_file_there(path: str) -> None:
    assert not leads_out(path)
    assert file_below("/photos", path) == Path("/photos") / as_path(path)
