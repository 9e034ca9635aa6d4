"""Whatever lies in a folder: each bad file is named with its reason, and no good one is lost for it."""

import io
import json
import os
import shutil
import struct
import subprocess
import threading
import unicodedata
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lookalike.encoder.embed.workers import read_file
from lookalike.encoder.runtime import Model
from lookalike.indexer.open import open_store
from lookalike.indexer.sources import as_path
from lookalike.indexer.store import VectorStore
from lookalike.indexer.sync.report import SyncEvent
from tests.fixtures.command import COMMAND, lookalike
from tests.fixtures.photos import NAME, cuttings, index, photograph, stored, write_photos


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Model:
    return Model.open(tiny_model, threads=1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[VectorStore]:
    with open_store(str(tmp_path / "store")) as opened:
        yield opened


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_photos(tmp_path / "photos")
    return tmp_path / "photos"


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header claims so many pixels, and that holds one row of zeros at most."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(bytes(3 * width + 1)))
    return b"\x89PNG\r\n\x1a\n" + header + rows + chunk(b"IEND", b"")


def png(number: int) -> bytes:
    return png_file(Image.fromarray(cuttings()[number]))


def png_file(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


BAD: dict[bytes, tuple[bytes, str]] = {
    b"empty.jpg": (b"", "the file is empty (0 bytes)"),
    b"cut.jpg": (photograph(3)[:900], "this JPEG file is damaged, cut short"),
    b"cut.png": (png(3)[:2000], "this PNG file is damaged, cut short"),
    b"text.jpg": (b"Dear Ada,\n", "not an image in a supported format"),
    b"page.png": (b"<!doctype html><title>404</title>", "not an image in a supported format"),
    b"bomb.png": (png_of_size(60_000, 60_000), "60000x60000 is 3600000000 pixels, above the limit"),
    b"none.png": (png_of_size(0, 0), "damaged, cut short"),
    b"two\nlines.jpg": (b"", "the file is empty"),
    b"bad \xff bytes.jpg": (b"", "the file is empty"),
}
LINKS = {"circle.jpg": "circle.jpg", "dangling.jpg": "nowhere.jpg"}


def write_bad(folder: Path) -> None:
    """Beside and between the good ones, so that they share a batch."""
    for name, (data, _) in BAD.items():
        (folder / os.fsdecode(name)).write_bytes(data)
    for link, target in LINKS.items():
        (folder / link).symlink_to(target)
    os.mkfifo(folder / "pipe.jpg")
    (folder / "folder.jpg").mkdir()


def write_odd(folder: Path) -> list[str]:
    """What looks bad and is not; return the names."""
    pictures = {
        "a PNG.jpg": png(10),
        "a JPEG.png": photograph(11),
        "one.png": png_file(Image.new("RGB", (1, 1), (250, 20, 90))),
        "wide.png": png_file(Image.new("RGB", (30_000, 1), (20, 250, 90))),
        "high.jpg.png": png_file(Image.new("L", (1, 30_000), 200)),
        'quote\'d "twice" `and` $HOME\\x41.jpg': photograph(12),
        "line\nbreak\ttab\r.jpg": photograph(13),
        os.fsdecode(b"latin-1 \xe9.jpg"): photograph(14),
        unicodedata.normalize("NFC", "Émilie.jpg"): photograph(15),
        unicodedata.normalize("NFD", "Émilie.jpg"): photograph(0),
        "-rf.jpg": photograph(1),
        " .jpg": photograph(2),
        "\N{RIGHT-TO-LEFT OVERRIDE}gpj.jpg": photograph(3),
        "\N{ROLLING ON THE FLOOR LAUGHING}.JPG": photograph(4),
    }
    for name, data in pictures.items():
        (folder / name).write_bytes(data)
    return list(pictures)


def test_every_kind_is_named_in_the_report_and_costs_no_neighbour(
    tiny_model: Path, model: Model, photos: Path, tmp_path: Path
) -> None:
    write_bad(photos)
    odd = write_odd(photos)
    words = ["index", "photos", "--model", str(tiny_model), "--collection", NAME, "--json"]
    done = lookalike(*words, "--report", "out.jsonl", cwd=tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (3, False), done.stderr
    events = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert all(event.keys() == {"status", "path", "root", "reason"} for event in events)
    assert {(event["status"], event["root"]) for event in events} == {("failed", "photos")}
    said = {event["path"].removeprefix(f"{photos}/"): event["reason"] for event in events}
    expected = {
        **{os.fsdecode(name): reason for name, (_, reason) in BAD.items()},
        "circle.jpg": "Too many levels of symbolic links",
        "dangling.jpg": "No such file or directory",
        "pipe.jpg": "it is not a file",
    }
    escapes = {"two\nlines.jpg": r"two\nlines.jpg", "bad \udcff bytes.jpg": r"bad \udcff bytes.jpg"}
    assert said.keys() == {escapes.get(name, name) for name in expected}
    for name, reason in expected.items():
        assert reason in said[escapes.get(name, name)]
    report = json.loads(done.stdout)
    assert (report["added"], len(report["failed"])) == (9 + len(odd), len(expected))
    assert {each["path"]: each["reason"] for each in report["failed"]} == {
        event["path"]: event["reason"] for event in events
    }
    assert done.stderr.count("failed: ") == len(done.stderr.splitlines()) - 1 == len(expected)
    with open_store(str(tmp_path / ".lookalike")) as store, open_store(str(tmp_path / "clean")) as clean:
        found = {os.fspath(as_path(record.payload["path"])) for record in store.scroll(NAME)}
        assert found == {os.fspath(path.relative_to(photos)) for path in photos.rglob("*") if is_good(path)}
        assert {Path(name).name for name in found} >= set(odd)
        for path in photos.rglob("*"):
            if not is_good(path) and (path.is_symlink() or not path.is_dir()):
                path.unlink()
        assert index(clean, model, photos).failed == []
        assert stored(store) == stored(clean)
        assert index(store, model, photos, prune=True).unchanged == 9 + len(odd)


def is_good(path: Path) -> bool:
    return path.is_file() and os.fsencode(path.name) not in BAD and path.name not in LINKS


def test_names_from_a_list_are_those_of_the_folder(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    odd = write_odd(tmp_path / "photos")
    words = ["index", "--model", str(tiny_model), "--collection", NAME]
    whole = lookalike(*words, "photos", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    names = b"\0".join(b"photos/" + os.fsencode(name) for name in [*odd, "gone.jpg"])
    listed = subprocess.run(
        [COMMAND, *words, "--files-from", "-", "-0", "--json"],
        input=names, cwd=tmp_path, capture_output=True, check=False,
    )  # fmt: skip
    assert listed.returncode == 3, listed.stderr
    report = json.loads(listed.stdout)
    assert (report["unchanged"], report["added"]) == (len(odd), 0)
    assert [Path(each["path"]).name for each in report["failed"]] == ["gone.jpg"]


def test_what_happens_between_listing_and_reading_costs_nobody_else(
    store: VectorStore, model: Model, photos: Path
) -> None:
    gone, other, torn, piped, folder = (
        photos / "Hypatia" / f"a{number}.jpg" for number in range(5)
    )  # listed among the good ones
    for file in (gone, other, torn, piped, folder):
        file.write_bytes(photograph(9))

    def meanwhile(_: int) -> None:
        gone.unlink()
        other.write_bytes(photograph(10))
        torn.write_bytes(photograph(11)[:500])
        piped.unlink()
        os.mkfifo(piped)
        folder.unlink()
        folder.mkdir()

    events: list[SyncEvent] = []
    report = index(store, model, photos, on_total=meanwhile, on_event=events.append)
    assert report.added == 10
    assert {Path(path).name for path, _ in report.failed} == {
        file.name for file in (gone, torn, piped, folder)
    }
    assert [event.status for event in events].count("failed") == 4
    shutil.rmtree(folder)
    with open_store(f"{store.address}-clean") as clean:
        index(clean, model, photos)
        assert stored(store) == stored(clean)  # the bytes that were read, not those that were listed
    torn.write_bytes(photograph(11))
    again = index(store, model, photos)
    assert (again.added, again.unchanged, len(again.failed)) == (1, 10, 1)


def test_a_file_rewritten_all_the_time_ends_as_it_is_at_the_end(
    store: VectorStore, model: Model, photos: Path
) -> None:
    busy, stop = photos / "Hypatia" / "busy.jpg", threading.Event()
    busy.write_bytes(photograph(9))

    def rewrite() -> None:
        number = 0
        while not stop.is_set():
            busy.write_bytes(photograph(number := (number + 1) % 16))

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        for _ in range(5):
            report = index(store, model, photos)
            assert {Path(path).name for path, _ in report.failed} <= {"busy.jpg"}
    finally:
        stop.set()
        writer.join()
    assert index(store, model, photos).failed == []
    with open_store(f"{store.address}-clean") as clean:
        index(clean, model, photos)
        assert stored(store) == stored(clean)


def test_a_pipe_that_takes_the_place_of_a_file_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, picture = tmp_path / "a.jpg", photograph(0)
    file.write_bytes(picture)
    assert read_file(file)[0] == picture
    opened = os.open

    def replaced_before_it_is_opened(path: Path, flags: int) -> int:
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "pipe").replace(path)
        return opened(path, flags)

    monkeypatch.setattr(os, "open", replaced_before_it_is_opened)
    with pytest.raises(OSError, match="it is not a file"):
        read_file(file)


@pytest.mark.parametrize("words", [["photos/pipe.jpg"], ["photos/circle.jpg"], ["photos/empty.jpg"]])
def test_a_bad_file_named_alone_is_the_same(tiny_model: Path, tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "photos").mkdir()
    write_bad(tmp_path / "photos")
    done = lookalike("index", *words, "--model", tiny_model, "--collection", NAME, "--json", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert [each["path"] for each in report["failed"]] == [str(tmp_path / words[0])]


def test_a_report_that_cannot_be_written_is_one_line(tiny_model: Path, photos: Path) -> None:
    (photos / "empty.jpg").touch()
    words = ["index", "photos", "--model", str(tiny_model), "--collection", NAME]
    done = lookalike(*words, "--report", "/dev/full", cwd=photos.parent)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    again = lookalike(*words, cwd=photos.parent)
    assert (again.returncode, "9 unchanged" in again.stderr) == (3, True)
