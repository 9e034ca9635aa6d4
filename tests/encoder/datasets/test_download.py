"""Downloads end whole or not at all, whatever the network does."""

import hashlib
import io
import os
import random
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest

from lookalike.encoder.datasets import cache_folder, only_one
from lookalike.encoder.datasets import download as downloads
from lookalike.encoder.datasets.download import RemoteFile, fetch, unpack
from lookalike.encoder.errors import DataError, InvalidArgumentError
from tests.conftest import FileServer

CONTENT = random.Random(0).randbytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "PAUSE", 0.0)


def remote(*urls: str) -> RemoteFile:
    return RemoteFile(name="faces.bin", urls=urls, sha256=SHA256)


@pytest.fixture
def file(server: FileServer) -> RemoteFile:
    server.files["faces.bin"] = CONTENT
    return remote(f"{server.url}/faces.bin")


def only_file(folder: Path) -> str:
    (path,) = folder.iterdir()
    return path.name


def test_a_file_arrives_whole_and_is_not_fetched_twice(
    file: RemoteFile, server: FileServer, tmp_path: Path
) -> None:
    path = fetch(file, tmp_path / "new")
    assert path == tmp_path / "new" / "faces.bin"
    assert path.read_bytes() == CONTENT
    assert fetch(file, tmp_path / "new") == path
    assert server.served == [("faces.bin", 200, len(CONTENT))]
    assert only_file(tmp_path / "new") == "faces.bin"


def test_md5_will_do_when_there_is_nothing_better(server: FileServer, tmp_path: Path) -> None:
    server.files["faces.bin"] = CONTENT
    md5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
    file = RemoteFile(name="faces.bin", urls=(f"{server.url}/faces.bin",), md5=md5.upper())
    assert fetch(file, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("length", [1, 150_000, len(CONTENT) - 1, len(CONTENT)])
def test_a_part_is_gone_on_with(length: int, file: RemoteFile, server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "faces.bin.part").write_bytes(CONTENT[:length])
    assert fetch(file, tmp_path).read_bytes() == CONTENT
    assert server.bytes_served == len(CONTENT) - length
    assert only_file(tmp_path) == "faces.bin"


@pytest.mark.parametrize(
    "part", [CONTENT + b"x", b"x" + CONTENT[1:], b"x" * 1000], ids=["longer", "as long", "shorter"]
)
@pytest.mark.parametrize("ranges", [True, False])
def test_a_part_that_is_wrong_is_dropped(
    part: bytes, ranges: bool, file: RemoteFile, server: FileServer, tmp_path: Path
) -> None:
    server.ranges = ranges
    (tmp_path / "faces.bin.part").write_bytes(part)
    assert fetch(file, tmp_path).read_bytes() == CONTENT


def test_a_server_that_ignores_range_starts_over(
    file: RemoteFile, server: FileServer, tmp_path: Path
) -> None:
    server.ranges = False
    (tmp_path / "faces.bin.part").write_bytes(CONTENT[:1000])
    assert fetch(file, tmp_path).read_bytes() == CONTENT
    assert server.bytes_served == len(CONTENT)


def test_a_dropped_connection_is_taken_up_again(file: RemoteFile, server: FileServer, tmp_path: Path) -> None:
    server.cut_after = 50_000
    assert fetch(file, tmp_path).read_bytes() == CONTENT
    assert [count for _, _, count in server.served] == [50_000] * 6


@pytest.mark.parametrize(("ranges", "cut"), [(True, 0), (False, 50_000)])
def test_a_mirror_that_never_gets_further_is_given_up(
    ranges: bool, cut: int, file: RemoteFile, server: FileServer, tmp_path: Path
) -> None:
    server.ranges, server.cut_after = ranges, cut
    with pytest.raises(DataError, match="cut off again and again"):
        fetch(file, tmp_path)
    assert len(server.served) <= 1 + downloads.STALLS
    assert not (tmp_path / "faces.bin").exists()


def test_wrong_bytes_are_refused_at_once(file: RemoteFile, server: FileServer, tmp_path: Path) -> None:
    server.files["faces.bin"] = b"a page that says: log in first"
    with pytest.raises(DataError, match=f"digest [0-9a-f]{{64}} instead of {SHA256}"):
        fetch(file, tmp_path)
    assert len(server.served) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_changed_file_is_fetched_again(file: RemoteFile, tmp_path: Path) -> None:
    (tmp_path / "faces.bin").write_bytes(b"damaged")
    assert fetch(file, tmp_path).read_bytes() == CONTENT


def test_bytes_are_kept_as_sent_whatever_encoding_is_claimed(
    file: RemoteFile, server: FileServer, tmp_path: Path
) -> None:
    server.encoding = "x-gzip"
    assert fetch(file, tmp_path).read_bytes() == CONTENT


def test_mirrors_are_asked_in_turn(server: FileServer, tmp_path: Path) -> None:
    server.files |= {"wrong": b"wrong", "right": CONTENT}
    urls = [f"{server.url}/{name}" for name in ("missing", "wrong", "right", "never asked")]
    assert fetch(remote(*urls), tmp_path).read_bytes() == CONTENT
    assert [name for name, _, _ in server.served] == ["missing", "wrong", "right"]


def test_the_reasons_of_all_mirrors_are_told_on_one_line(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "TIMEOUTS", (1.0, 0.1))
    server.wait = 0.3
    with pytest.raises(DataError) as slow:
        fetch(remote(f"{server.url}/slow"), tmp_path)
    assert f"{server.url}/slow: TimeoutError: timed out" in str(slow.value)
    server.wait = 0.0
    with pytest.raises(DataError) as caught:
        fetch(remote(f"{server.url}/missing", "http://127.0.0.1:9/closed", "gopher://127.0.0.1/x"), tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    assert f"{server.url}/missing: answered 404 Not Found; " in message
    assert "http://127.0.0.1:9/closed: ConnectionRefusedError" in message
    assert "gopher://127.0.0.1/x: InvalidSchema" in message
    assert "LOOKALIKE_MIRRORS" in message


@pytest.mark.parametrize("separator", [",", " ", ", "])
def test_mirrors_of_the_environment_replace_all_others(
    separator: str, file: RemoteFile, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["near/faces.bin"] = CONTENT
    monkeypatch.setenv("LOOKALIKE_MIRRORS", separator.join([f"{server.url}/far", f"{server.url}/near/"]))
    assert fetch(file, tmp_path).read_bytes() == CONTENT
    assert [(name, status) for name, status, _ in server.served] == [
        ("far/faces.bin", 404),
        ("near/faces.bin", 200),
    ]


def test_a_kill_in_the_middle_costs_nothing(file: RemoteFile, server: FileServer, tmp_path: Path) -> None:
    server.pace = 0.03
    code = (
        "from pathlib import Path; from lookalike.encoder.datasets.download import *; "
        f"fetch({file!r}, Path({str(tmp_path)!r}))"
    )
    child = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[3])
    part = tmp_path / "faces.bin.part"
    deadline = time.monotonic() + 30
    while not part.exists() or part.stat().st_size < 60_000:
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.kill()
    child.wait()
    assert only_file(tmp_path) == "faces.bin.part"
    arrived = part.stat().st_size
    assert arrived < len(CONTENT)
    server.pace = 0.0
    assert fetch(file, tmp_path).read_bytes() == CONTENT
    assert server.served[-1] == ("faces.bin", 206, len(CONTENT) - arrived)


def test_the_bar_is_only_for_terminals(
    file: RemoteFile, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fetch(file, tmp_path, progress=True)
    assert capfd.readouterr() == ("", "")


def test_a_folder_that_cannot_be_is_told(file: RemoteFile, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="LOOKALIKE_CACHE"):
        fetch(file, tmp_path / "file")
    with pytest.raises(DataError, match="LOOKALIKE_CACHE"), only_one(tmp_path / "file"):
        pass


@pytest.mark.parametrize(("name", "sha256"), [("faces.bin", None), ("../faces.bin", SHA256)])
def test_a_remote_file_has_a_digest_and_a_plain_name(name: str, sha256: str | None, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="a digest and a name without a folder"):
        fetch(RemoteFile(name=name, urls=(), sha256=sha256), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_the_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("LOOKALIKE_CACHE")
    assert cache_folder().name == "lookalike" or os.name == "nt"


def test_one_at_a_time(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    order: list[str] = []

    def second() -> None:
        with only_one(tmp_path):
            order.append("second")

    other = threading.Thread(target=second)
    with only_one(tmp_path):
        other.start()
        time.sleep(0.1)
        order.append("first")
    other.join()
    assert order == ["first", "second"]


def archive_of(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("prefix", ["wrapping/", ""])
def test_an_archive_becomes_the_folder(prefix: str, tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "a.tgz", {f"{prefix}one/1.txt": b"1", f"{prefix}two/2.txt": b"2"})
    (tmp_path / "deep" / ".faces.unpacking" / "left by a kill").mkdir(parents=True)
    folder = unpack(archive, tmp_path / "deep" / "faces")
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.txt")) == [
        "one/1.txt",
        "two/2.txt",
    ]
    assert only_file(tmp_path / "deep") == "faces"


@pytest.mark.parametrize("evil", ["../evil", "a/../../evil"])
def test_members_that_climb_out_are_refused(evil: str, tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "a.tgz", {"a/fine": b"1", evil: b"2"})
    with pytest.raises(DataError, match="outside the destination"):
        unpack(archive, tmp_path / "deep" / "faces")
    assert not list(tmp_path.rglob("evil"))
    assert not list((tmp_path / "deep").iterdir())


@pytest.mark.parametrize("keep", [0, 40, -20_000])
def test_a_damaged_archive_is_refused_and_leaves_nothing(keep: int, tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "a.tgz", {"a/1": CONTENT})
    archive.write_bytes(archive.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"a\.tgz must be a tar archive"):
        unpack(archive, tmp_path / "faces")
    assert only_file(tmp_path) == "a.tgz"


def test_a_folder_in_the_way_is_left_alone(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "a.tgz", {"a/1": b"1"})
    (tmp_path / "faces").mkdir()
    with pytest.raises(DataError, match="exists; remove it"):
        unpack(archive, tmp_path / "faces")
