"""Reads end, whatever is named: devices, pipes, files of any size, archives that unpack to gigabytes."""

import contextlib
import io
import os
import threading
import zipfile
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from lookalike.encoder.bundle import Bundle
from lookalike.encoder.bundle.storage import npz_bytes, read_npz
from lookalike.encoder.datasets.download import RemoteFile, fetch
from lookalike.encoder.errors import BundleError, DataError
from lookalike.encoder.files import read_bounded, read_stream
from lookalike.indexer.sources import read_list, read_payload
from tests.fixtures.command import lookalike, one_line
from tests.fixtures.photos import NAME, make_home

ENDLESS = Path("/dev/zero")


def holes(file: Path) -> None:
    with file.open("wb") as out:
        out.truncate(1 << 40)


def linked(file: Path) -> None:
    file.symlink_to(ENDLESS)


SPOILED: dict[str, Callable[[Path], None]] = {
    "link to a device": linked,
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
    "a tebibyte of holes": holes,
    "circle": lambda file: file.symlink_to(file),
}


@pytest.fixture(params=list(SPOILED.values()), ids=list(SPOILED))
def spoil(request: pytest.FixtureRequest) -> Callable[[Path], None]:
    """Put something in the place of a file."""
    made: Callable[[Path], None] = request.param
    return made


@pytest.fixture
def bad(spoil: Callable[[Path], None], tmp_path: Path) -> Path:
    spoil(tmp_path / "bad")
    return tmp_path / "bad"


def test_only_files_are_read_and_no_more_than_is_allowed(bad: Path, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"\w") as caught:
        read_bounded(bad)
    assert caught.value.strerror
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bounded(tmp_path / "a", most=5) == b"12345"
    with pytest.raises(OSError, match="5 bytes are more than 4"):
        read_bounded(tmp_path / "a", most=4)


def test_a_pipe_is_read_where_that_is_allowed_and_no_further(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for size, most in ((10, 20), (20, 20), (100_000, 20)):
        writer = threading.Thread(target=_feed, args=(tmp_path / "pipe", size))
        writer.start()
        try:
            assert read_bounded(tmp_path / "pipe", most=most, pipe=True) == bytes(size)
        except OSError as error:
            assert "more than 20 bytes" in str(error)  # noqa: PT017  # of the largest only
            assert size > most
        writer.join()


def _feed(pipe: Path, size: int) -> None:
    with contextlib.suppress(BrokenPipeError):
        pipe.write_bytes(bytes(size))


def test_an_endless_stream_is_given_up() -> None:
    with ENDLESS.open("rb") as stream, pytest.raises(OSError, match="there are more than 5000 bytes"):
        read_stream(stream, most=5000)
    assert read_stream(io.BytesIO(b"123"), most=3) == b"123"


@pytest.mark.parametrize(
    "name", ["encoder.onnx", "latents.npz", "golden.npz", "calibration.json", "attributes.npz"]
)
def test_a_bundle_with_anything_for_a_file_is_refused(
    copy: Path, spoil: Callable[[Path], None], name: str
) -> None:
    (copy / name).unlink(missing_ok=True)
    spoil(copy / name)
    with pytest.raises(BundleError, match=name) as caught:
        Bundle.open(copy)
    assert "\n" not in str(caught.value)


def test_a_bundle_whose_description_is_anything_is_refused(copy: Path, spoil: Callable[[Path], None]) -> None:
    (copy / "bundle.json").unlink()
    spoil(copy / "bundle.json")
    with pytest.raises(BundleError):
        Bundle.open(copy)


def test_lists_and_tables_are_files_or_pipes(bad: Path, tmp_path: Path) -> None:
    if bad.is_fifo():
        pytest.skip("a pipe is read until it ends")
    for suffix in ("csv", "jsonl"):
        table = bad.rename(tmp_path / f"bad.{suffix}")
        with pytest.raises(DataError) as caught:
            read_payload(table)
        assert "\n" not in str(caught.value)
        bad = table
    with pytest.raises(DataError, match="cannot be read"):
        read_list(str(bad), nul=False)


def npy(header: str, data: bytes = b"") -> bytes:
    """An array file with any header."""
    text = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def packed(content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mean.npy", content)
    return out.getvalue()


def bomb(size: int) -> bytes:
    """An archive of a few megabytes that unpacks to much more."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("mean.npy", "w", force_zip64=True) as member,
    ):
        member.write(npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({size // 4},)}}"))
        for _ in range(size >> 24):
            member.write(bytes(1 << 24))
    return out.getvalue()


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000, 1000000)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '|V0', 'fortran_order': False, 'shape': (1000000000000,)}",
        "{'descr': '<U1000000000', 'fortran_order': False, 'shape': (1000,)}",
        "(" * 9000,
        "[" * 5000,
        "{" * 300,
        "",
    ],
)
def test_the_header_of_an_array_may_say_anything(header: str) -> None:
    with pytest.raises(ValueError, match=r"a.npz does not hold the arrays mean") as caught:
        read_npz("a.npz", {"a.npz": packed(npy(header, bytes(4)))}, "mean")
    assert "\n" not in str(caught.value)


def test_an_archive_that_unpacks_to_much_more_is_refused_before_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lookalike.encoder.bundle.storage._MOST_UNPACKED", 1 << 23)
    data = bomb(1 << 24)
    assert len(data) < 1 << 15
    with pytest.raises(ValueError, match=r"they unpack to 16,777,3.. bytes, the limit is 8,388,608"):
        read_npz("a.npz", {"a.npz": data}, "mean")


def test_arrays_of_every_kind_come_back(tmp_path: Path) -> None:
    arrays = {
        "whole": np.arange(6, dtype=np.uint8).reshape(2, 3),
        "turned": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        "single": np.array(5, np.int64),
        "none": np.empty((0, 4), np.float32),
        "text": np.array("ä漢"),
        "big": np.arange(3, dtype=">f4"),
    }
    read = read_npz("a.npz", {"a.npz": npz_bytes(**arrays)}, *arrays)
    for array, expected in zip(read, arrays.values(), strict=True):
        assert (array.dtype, array.shape) == (expected.dtype, expected.shape)
        assert (array == expected).all()
        assert array.flags.writeable


class _Endless(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(bytes(1 << 16))
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name is inherited
        pass


def test_an_endless_download_is_given_up_and_leaves_nothing(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Endless) as listener:
        listener.daemon_threads = True
        threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        url = f"http://127.0.0.1:{listener.server_port}/a"
        file = RemoteFile(name="a", urls=(url, url), sha256="0" * 64, most=1 << 20)
        with pytest.raises(DataError, match=r"sent more than 1048576 bytes; .*sent more than") as caught:
            fetch(file, tmp_path / "cache")
        listener.shutdown()
    assert "\n" not in str(caught.value)
    assert not any((tmp_path / "cache").iterdir())


@pytest.fixture(scope="module")
def home(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("home"), tiny_model)


def test_commands_name_what_they_cannot_read_and_go_on(home: Path, tiny_model: Path, bad: Path) -> None:
    if bad.is_fifo():
        pytest.skip("a pipe is read until it ends")
    search = ("search", bad, "--collection", NAME)
    assert "cannot be read" in one_line(lookalike(*search, cwd=home))
    found = lookalike(*search, "me.jpg", cwd=home)
    assert (found.returncode, len(found.stderr.splitlines())) == (3, 1)
    assert "me.jpg" in found.stdout
    drawn = lookalike("reconstruct", bad, "--model", tiny_model, "--out", "x.png", cwd=home)
    assert drawn.returncode != 0
    assert "cannot be read" in drawn.stderr
    assert "Traceback" not in drawn.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("index", "--files-from", "/dev/zero", "--collection", "x"),
        ("index", "photos", "--payload", "/dev/zero", "--collection", "x"),
        ("index", "photos", "--attributes", "/dev/zero", "--collection", "x"),
        ("models", "import", "/dev/zero", "--out", "imported"),
        ("models", "import", "/dev/zero", "imported"),
    ],
)
def test_a_device_in_the_place_of_an_option_is_one_line(home: Path, words: tuple[str, ...]) -> None:
    done = lookalike(*words, cwd=home)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("error", [MemoryError, RecursionError])
@pytest.mark.parametrize(
    "place",
    [
        "lookalike.encoder.bundle.storage.read_bounded",
        "lookalike.encoder.runtime.session._run",
        "lookalike.indexer.embedded.shard.Shard.query",
    ],
)
def test_too_little_memory_is_one_line_and_no_word_of_damage(
    home: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception], place: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(place, fail)
    done = lookalike("search", "me.jpg", "--collection", NAME, cwd=home)
    assert done.returncode == 1
    line = one_line(done)
    assert line.startswith("lookalike: ")
    assert "damaged" not in line
    assert ("memory" in line) is (error is MemoryError)
