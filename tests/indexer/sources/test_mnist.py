"""Digits of MNIST are pictures like others: indexed, found, shown and verified where they lie."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from lookalike.encoder.datasets import MNIST
from lookalike.encoder.errors import DataError, InvalidArgumentError
from lookalike.encoder.images import ImageSpec, encode_png, read_pixels
from lookalike.encoder.runtime import Model
from lookalike.indexer.maintenance import verify
from lookalike.indexer.open import open_store
from lookalike.indexer.parquet import export_latents, load_latents
from lookalike.indexer.sources import (
    MnistImage,
    Source,
    SourceFilter,
    SourceList,
    item_id,
    located,
    person_pattern,
)
from lookalike.indexer.sources.mnist import find_mnist_images
from lookalike.indexer.sources.source import open_source
from lookalike.indexer.store import VectorStore
from lookalike.indexer.sync import SyncReport, sync
from lookalike.indexer.sync.report import SyncEvent
from tests.fixtures.command import lookalike, one_line
from tests.fixtures.digit_files import made_up_images, made_up_labels, write_digits
from tests.fixtures.photos import photograph, stored

NAME = "digits"
EXACT = ImageSpec(size=28, channels=1)


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Model:
    return Model.open(tiny_model)


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Made-up digits where LOOKALIKE_DATA says."""
    monkeypatch.setenv("LOOKALIKE_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return write_digits(tmp_path / "data" / "MNIST" / "raw")


def mnist(split: str | None = None, **reading: object) -> Source:
    chosen = SourceFilter(**reading)  # type: ignore[arg-type]  # as the caller has it
    sources = SourceList(sources=["mnist"], split=split, filter=chosen)  # type: ignore[arg-type]  # likewise
    (source,) = sources.open({})
    return source


def index(store: VectorStore, model: Model, source: Source, **options: object) -> SyncReport:
    return sync(store, NAME, model, source, **options)  # type: ignore[arg-type]  # likewise


@pytest.mark.parametrize("packed", [False, True])
def test_a_digit_is_a_picture_of_exactly_its_pixels(packed: bool, tmp_path: Path) -> None:
    folder = write_digits(tmp_path, packed=packed)
    found = list(find_mnist_images(folder, ["test"]))
    assert [label for _, label in found] == [str(label) for label in made_up_labels("test")]
    for (digit, _), image in zip(found, made_up_images("test"), strict=True):
        data, facts = digit.read()
        assert np.array_equal(read_pixels(data, EXACT, name="digit")[:, :, 0], image)
        assert (facts.size, facts.mtime_ns) == (digit.size, digit.mtime_ns) == (len(data), digit.mtime_ns)
        # Nothing of the machine is in it: packed or not, the same bytes everywhere.
        assert data == b"P5\n28 28\n255\n" + image.tobytes()
        assert facts.sha256 == hashlib.sha256(data).hexdigest()
    assert str(found[3][0]) == f"{folder}/test/00003.pgm"


def test_a_digit_is_located_by_its_name(tmp_path: Path) -> None:
    folder = write_digits(tmp_path)
    for digit, _ in find_mnist_images(folder, ["train", "test"]):
        assert located(folder / digit.name) == digit
    for name in ("test/00020.pgm", "test/000003.pgm", "train/99999.pgm"):
        with pytest.raises(FileNotFoundError):
            located(folder / name)
    for name in ("test/00003.png", "test/3.pgm", "dev/00003.pgm", "00003.pgm", "test/0000\u0663.pgm"):
        assert located(folder / name) == folder / name
    (folder / "test").mkdir()
    (folder / "test" / "00003.pgm").write_bytes(b"a file of its own")
    assert located(folder / "test" / "00003.pgm") == folder / "test" / "00003.pgm"
    assert located(tmp_path / "elsewhere" / "test" / "00003.pgm") == tmp_path / "elsewhere/test/00003.pgm"


def test_files_that_change_meanwhile_spoil_nothing_else(tmp_path: Path) -> None:
    folder = write_digits(tmp_path)
    digit = list(find_mnist_images(folder, ["test"]))[-1][0]
    later = MnistImage(folder, "test", 20, digit.mtime_ns)
    with pytest.raises(OSError, match="has become shorter"):
        later.read()
    images = MNIST(folder).images_file("test")
    images.write_bytes(images.read_bytes()[:-1])
    assert digit.read()  # what was read stays as it was
    with pytest.raises(OSError, match="hold 20x28x28 bytes"):
        MnistImage(folder, "test", 0, images.stat().st_mtime_ns).read()
    with pytest.raises(DataError, match="hold 20x28x28 bytes"):
        list(find_mnist_images(folder, ["test"]))
    with pytest.raises(DataError, match="hold 20x28x28 bytes"):
        located(folder / "test" / "00003.pgm")


def test_items_have_stable_names_and_their_class_for_a_person(raw: Path) -> None:
    items = list(mnist("test").items())
    assert [(item.path, item.person) for item in items[7:12]] == [
        ("test/00007.pgm", "7"), ("test/00008.pgm", "8"), ("test/00009.pgm", "9"),
        ("test/00010.pgm", "0"), ("test/00011.pgm", "1"),
    ]  # fmt: skip
    assert [item.id for item in items] == [item_id("mnist", item.path) for item in items]
    assert items[0].file == raw.resolve() / "test" / "00000.pgm"
    everything = [item.path for item in mnist().items()]
    assert everything == [item.path for item in mnist("all").items()]
    assert everything == [item.path for split in ("train", "test") for item in mnist(split).items()]


def test_items_are_chosen_as_those_of_a_folder(raw: Path) -> None:
    some = mnist(include=("test/*",), exclude=("*[13579].pgm",))
    assert [item.path for item in some.items()] == [f"test/{number:05d}.pgm" for number in range(0, 20, 2)]
    assert some.covers("test/00000.pgm")
    assert not some.covers("train/00000.pgm")
    assert not some.covers("test/00001.pgm")
    assert not mnist("test").covers("train/00000.pgm")
    named = mnist("test", person=person_pattern("[a-z]+"), payload={"test/00001.pgm": {"odd": True}})
    items = list(named.items())
    assert {item.person for item in items} == {"test"}
    assert [item.payload for item in items[:2]] == [{}, {"odd": True}]


def test_a_folder_called_mnist_goes_before_the_data_set(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "a.jpg").write_bytes(photograph(0))
    assert [item.path for item in open_source("mnist", root_name=None, known_roots={}).items()] == ["a.jpg"]
    with pytest.raises(InvalidArgumentError, match="--split is of mnist, 'mnist' is another source"):
        mnist("test")


def test_indexing_twice_equals_once_and_splits_leave_each_other_alone(
    model: Model, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(str(tmp_path / "store")) as store:
        assert index(store, model, mnist("test")).added == 20
        before = stored(store, NAME)
        again = index(store, model, mnist("test"))
        assert (again.added, again.changed, again.unchanged) == (0, 0, 20)
        assert index(store, model, mnist("test"), checksum=True).unchanged == 20
        assert stored(store, NAME) == before
        told: list[SyncEvent] = []
        both = index(store, model, mnist("train"), prune=True, on_event=told.append)
        assert (both.added, both.missing) == (30, 0)
        assert {event.status for event in told} == {"added"}
        assert index(store, model, mnist(), dry_run=True).unchanged == store.count(NAME) == 50
        # The collection knows where the digits lie; another copy of them is named.
        elsewhere = write_digits(tmp_path / "copy" / "MNIST" / "raw", packed=True)
        known = store.info(NAME).roots
        assert known == {"mnist": str(raw.resolve())}
        monkeypatch.setenv("LOOKALIKE_DATA", str(tmp_path / "copy"))
        with pytest.raises(
            InvalidArgumentError, match="pass --root-name mnist if that folder has moved here"
        ):
            open_source("mnist", root_name=None, known_roots=known)
        moved = index(store, model, open_source("mnist", root_name="mnist", known_roots=known), checksum=True)
        assert moved.unchanged == 50
        assert store.info(NAME).roots == {"mnist": str(elsewhere.resolve())}


def test_prune_removes_digits_that_are_gone(model: Model, raw: Path, tmp_path: Path) -> None:
    with open_store(str(tmp_path / "store")) as store:
        index(store, model, mnist())
        none_of_the_threes = mnist(exclude=("test/00003.pgm",))
        assert index(store, model, none_of_the_threes, prune=True).missing == 0  # left out, so left alone
        data = MNIST(raw)
        for file, size in ((data.images_file("test"), 784), (data.labels_file("test"), 1)):
            content = bytearray(file.read_bytes()[:-size])
            content[7] -= 1  # the header's count
            file.write_bytes(content)
        report = index(store, model, mnist(), prune=True)
        assert (report.missing, report.unchanged, report.changed) == (1, 30, 19)  # its file has a new time
        assert store.count(NAME) == 49
        assert item_id("mnist", "test/00019.pgm") not in stored(store, NAME).payloads


def test_verify_compares_digits_with_their_file(model: Model, raw: Path, tmp_path: Path) -> None:
    with open_store(str(tmp_path / "store")) as store:
        index(store, model, mnist("test"))
        for checksum in (False, True):
            fine = verify(store, NAME, model=model, checksum=checksum)
            assert (fine.items, fine.sampled, fine.issues) == (20, 20, [])
        images = MNIST(raw).images_file("test")
        content = bytearray(images.read_bytes())
        content[-1] ^= 255
        images.write_bytes(content)
        report = verify(store, NAME, checksum=True)
        assert [(found.kind, found.path) for found in report.issues] == [("changed", "mnist/test/00019.pgm")]
        images.write_bytes(content[:-1])
        assert verify(store, NAME).counts["unreadable"] == 20
        images.unlink()
        assert verify(store, NAME).counts["missing"] == 20


def test_a_file_of_latents_says_the_same(model: Model, raw: Path, tmp_path: Path) -> None:
    with open_store(str(tmp_path / "store")) as store:
        index(store, model, mnist("test"))
        direct = stored(store, NAME)
        out = tmp_path / "latents.parquet"
        assert export_latents(model, [mnist("test")], out).rows == 20
        assert export_latents(model, [mnist("test")], out).unchanged
        load_latents(store, "loaded", [out])
        assert stored(store, "loaded") == direct


def test_the_commands_take_digits_by_name(tiny_model: Path, raw: Path, tmp_path: Path) -> None:
    words = ["index", "mnist", "--split", "test", "--collection", NAME, "--model", str(tiny_model)]
    env = {"LOOKALIKE_DATA": str(tmp_path / "data")}
    dry = lookalike(*words, "--dry-run", cwd=tmp_path, env=env)
    assert one_line(dry).startswith("digits: dry run, nothing was changed; it would be 20 added")
    first = lookalike(*words, "--report", "report.jsonl", cwd=tmp_path, env=env)
    assert one_line(first).startswith("digits: 20 added, 0 changed, 0 unchanged, 0 missing, 0 failed; ")
    assert one_line(lookalike(*words, cwd=tmp_path, env=env)).startswith(
        "digits: 0 added, 0 changed, 20 unch"
    )
    (tmp_path / "seven.png").write_bytes(encode_png(made_up_images("test")[7]))
    found = lookalike(
        *("search", "seven.png", "--collection", NAME, "-n", "3", "--json", "--sheet", "sheet.png"),
        cwd=tmp_path,
    )
    assert found.returncode == 0, found.stderr
    (answer,) = [json.loads(line) for line in found.stdout.splitlines()]
    best = (answer["results"] if isinstance(answer, dict) else answer[0]["results"])[0]
    assert (best["path"], best["person"]) == ("test/00007.pgm", "7")
    assert best["score"] > 0.999
    verified = lookalike("collections", "verify", NAME, cwd=tmp_path)
    assert verified.returncode == 0, verified.stderr
    written = lookalike(
        *("embed", "mnist", "--split", "train", "--out", "l.parquet", "--model", tiny_model),
        cwd=tmp_path,
        env=env,
    )
    assert one_line(written).startswith("l.parquet: 30 rows; 30 embedded")


@pytest.mark.mnist
def test_the_real_digits_are_items(mnist: MNIST) -> None:
    items = list(open_source("mnist", root_name=None, known_roots={}).items())
    assert len(items) == len({item.id for item in items}) == 70_000
    assert [items[at].path for at in (0, 59_999, 60_000, 69_999)] == [
        "train/00000.pgm", "train/59999.pgm", "test/00000.pgm", "test/09999.pgm",
    ]  # fmt: skip
    assert "".join(str(item.person) for item in items[60_000:60_010]) == "7210414959"
    assert items[0].member is not None
    pixels = read_pixels(items[0].member.read()[0], EXACT, name="digit")
    assert np.array_equal(pixels[:, :, 0], mnist.images("train")[0])
