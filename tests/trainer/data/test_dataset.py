"""Data sets: who is on which side, and the cache of pixels."""

import hashlib
import os
import random
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lookalike.encoder.datasets import LFW, share_of
from lookalike.encoder.detect import LFW_FRAME
from lookalike.encoder.errors import DataError
from lookalike.encoder.images import LFW_CROP, Crop, ImageSpec, encode_png, read_pixels
from lookalike.trainer.data import Dataset, Split, open_dataset, read_pixel_cache
from tests.fixtures.people import portraits, write_people

SPEC = ImageSpec(size=16)

READER = """
import hashlib, sys
from lookalike.encoder.images.preprocess import ImageSpec
from lookalike.trainer.data.dataset import open_dataset, read_pixel_cache
pixels = read_pixel_cache(open_dataset(sys.argv[1]), ImageSpec(size=16))
print(hashlib.sha256(pixels.images.tobytes()).hexdigest(), len(pixels.failures))
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test alone."""
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pixels"


@pytest.fixture
def people(tmp_path: Path) -> Path:
    return write_people(tmp_path / "people", people=6, each=3)


def people_of(dataset: Dataset, split: Split) -> list[set[str]]:
    """Who is in each part: train, validation, held-out."""
    parts = (split.train, split.validation, split.held_out)
    return [{dataset.people[index] for index in indices} for indices in parts]


def assert_apart(dataset: Dataset, split: Split) -> None:
    """Every image is in one part, and nobody in two."""
    everyone = np.concatenate([split.train, split.validation, split.held_out])
    assert sorted(everyone) == list(range(len(dataset.paths)))
    assert sum(map(len, people_of(dataset, split))) == len(set(dataset.people))


@pytest.mark.lfw
def test_lfw_holds_out_everybody_in_folds_1_to_5(lfw: LFW) -> None:
    dataset = open_dataset("lfw")
    assert (dataset.name, dataset.root, dataset.crop) == ("lfw", lfw.root, LFW_CROP)
    assert (dataset.frame_within(LFW_CROP), dataset.frame_within(Crop())) == (LFW_FRAME, None)
    assert len(dataset.paths) == 13233
    assert len(dataset.held_out) == 2086
    split = dataset.split(range(13233))
    assert len(split.held_out) == 5373
    assert len(split.train) + len(split.validation) == 7860
    assert 0.03 < len(split.validation) / 7860 < 0.07
    assert_apart(dataset, split)
    _, _, held_out = people_of(dataset, split)
    assert held_out == dataset.held_out


def test_share_is_the_first_8_bytes_of_the_names_sha256() -> None:
    # printf Ada | sha256sum
    assert share_of("Ada") == 0x99A563AB2F6E21E9 / 2**64
    assert share_of(os.fsdecode(b"caf\xe9")) == 0xDAFD66C0B98965E6 / 2**64
    assert 0 <= share_of("") < 1


def test_folder_is_split_by_person(tmp_path: Path) -> None:
    dataset = open_dataset(str(write_people(tmp_path, people=40, each=2)))
    split = dataset.split(range(80))
    assert_apart(dataset, split)
    assert dataset.crop == Crop()
    assert dataset.frame_within(Crop()) is None
    framed = replace(dataset, frame=LFW_FRAME)
    assert (framed.frame_within(Crop()), framed.frame_within(LFW_CROP)) == (LFW_FRAME, None)
    assert [path.as_posix() for path in dataset.paths] == sorted(path.as_posix() for path in dataset.paths)
    train, validation, held_out = people_of(dataset, split)
    assert held_out == {f"person-{i}" for i in range(40) if share_of(f"person-{i}") < 0.15}
    assert validation == {name for name in train | validation if share_of(f"validation {name}") < 0.08} or (
        len(validation) == 1
    )


def test_person_stays_on_a_side_whoever_joins(tmp_path: Path) -> None:
    names = [f"person-{i}" for i in range(400)]
    few, many = (
        Dataset("x", tmp_path, tuple(map(Path, some)), tuple(some), frozenset(some[::10]), Crop())
        for some in (names[:200], names)
    )
    for one, more in zip(
        people_of(few, few.split(range(200))), people_of(many, many.split(range(400))), strict=True
    ):
        assert one == more & set(names[:200])


def test_pictures_without_folders_are_people_of_their_own(tmp_path: Path) -> None:
    for index, pixels in enumerate(portraits(30, 1)):
        (tmp_path / f"{index}.png").write_bytes(encode_png(pixels))
    dataset = open_dataset(str(tmp_path))
    assert dataset.people == tuple(path.as_posix() for path in dataset.paths)
    split = dataset.split(range(30))
    assert_apart(dataset, split)


@pytest.mark.parametrize("count", [3, 4, 5, 8, 20])
def test_three_people_or_more_are_enough_for_three_parts(tmp_path: Path, count: int) -> None:
    for turn in range(20):  # by chance, the hashes of so few names leave a part empty, or hold nearly all
        root = tmp_path / str(turn)
        for name in range(count):
            (root / f"{turn}-{name}").mkdir(parents=True)
            for number in range(2):
                (root / f"{turn}-{name}" / f"{number}.png").touch()
        dataset = open_dataset(str(root))
        split = dataset.split(range(2 * count))
        assert_apart(dataset, split)
        assert len(split.train) >= 2
        assert len(split.held_out) <= 2 * max(1, count // 3)


def test_two_people_are_too_few(tmp_path: Path) -> None:
    dataset = open_dataset(str(write_people(tmp_path / "two", people=2, each=3)))
    with pytest.raises(DataError, match=r"three people or more .* gives 0 train, 3 validation, 3 held-out"):
        dataset.split(range(6))


def test_one_image_is_too_few_to_train_on(tmp_path: Path) -> None:
    dataset = open_dataset(str(write_people(tmp_path / "three", people=3, each=1)))
    with pytest.raises(DataError, match="gives 1 train, 1 validation, 1 held-out images; add images"):
        dataset.split(range(3))


@pytest.mark.parametrize("source", ["nowhere", "cifar", "file"])
def test_what_is_no_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="lfw, mnist or a folder of images"):
        open_dataset(source)


def test_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    with pytest.raises(DataError, match="needs images"):
        open_dataset(str(tmp_path))


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("spec", [SPEC, ImageSpec(size=9, channels=1, crop=Crop(fraction=0.7))])
def test_rows_are_what_read_pixels_gives(people: Path, spec: ImageSpec) -> None:
    dataset = open_dataset(str(people))
    pixels = read_pixel_cache(dataset, spec)
    assert pixels.images.shape == (18, *spec.shape)
    assert pixels.images.dtype == np.uint8
    assert pixels.failures == {}
    assert pixels.usable == list(range(18))
    for row, path in zip(pixels.images, dataset.paths, strict=True):
        np.testing.assert_array_equal(row, read_pixels((people / path).read_bytes(), spec, name="x"))


@pytest.mark.usefixtures("cache")
def test_second_call_reads_no_image(people: Path) -> None:
    dataset = open_dataset(str(people))
    before = read_pixel_cache(dataset, SPEC)
    file = people / dataset.paths[0]
    status = file.stat()
    file.write_bytes(bytes(status.st_size))  # no picture, but to the listing it is the same file
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    again = read_pixel_cache(dataset, SPEC)
    assert again.fingerprint == before.fingerprint
    assert again.failures == {}
    np.testing.assert_array_equal(again.images, before.images)


@pytest.mark.usefixtures("cache")
def test_changed_added_or_renamed_files_are_seen(people: Path) -> None:
    seen = [read_pixel_cache(open_dataset(str(people)), SPEC)]
    file = people / "person-0" / "0.png"
    for change in (
        lambda: file.write_bytes(encode_png(np.full((16, 16, 3), 200, np.uint8))),
        lambda: shutil.copy(file, people / "person-0" / "new.png"),
        lambda: file.rename(file.with_name("renamed.png")),
        file.with_name("renamed.png").unlink,
    ):
        change()
        seen.append(read_pixel_cache(open_dataset(str(people)), SPEC))
    assert len({pixels.fingerprint for pixels in seen}) == 5
    assert (seen[1].images[0] == 200).all()
    assert [len(pixels.images) for pixels in seen] == [18, 18, 19, 19, 18]


@pytest.mark.parametrize("emptied", [False, True], ids=["same cache", "another machine"])
def test_a_copy_of_a_data_set_is_the_same_data(cache: Path, people: Path, emptied: bool) -> None:
    (people / "person-0" / "bad.png").write_bytes(b"no picture")
    before = read_pixel_cache(open_dataset(str(people)), SPEC)
    copy = people.with_name("copy") / people.name
    shutil.copytree(people, copy)
    for number, file in enumerate(copy.rglob("*.png")):
        os.utime(file, (number, number))
    if emptied:
        shutil.rmtree(cache)
    again = read_pixel_cache(open_dataset(str(copy)), SPEC)
    assert again.fingerprint == before.fingerprint
    # A file that cannot be read is no black image.
    black = encode_png(np.zeros((16, 16, 3), np.uint8))
    (copy / "person-0" / "bad.png").write_bytes(black)
    other = read_pixel_cache(open_dataset(str(copy)), SPEC)
    assert other.fingerprint != before.fingerprint


def test_a_cache_without_a_fingerprint_gets_the_same_one(cache: Path, people: Path) -> None:
    before = read_pixel_cache(open_dataset(str(people)), SPEC)
    (file,) = cache.glob("*/fingerprint.txt")
    file.unlink()  # as an earlier version left it
    assert read_pixel_cache(open_dataset(str(people)), SPEC).fingerprint == before.fingerprint


@pytest.mark.usefixtures("cache")
def test_other_framing_has_other_pixels(people: Path) -> None:
    dataset = open_dataset(str(people))
    whole, part = (
        read_pixel_cache(dataset, replace(SPEC, crop=Crop(fraction=fraction))) for fraction in (1.0, 0.5)
    )
    assert whole.fingerprint != part.fingerprint
    assert not np.array_equal(whole.images, part.images)


@pytest.mark.usefixtures("cache")
def test_unreadable_files_are_named_and_in_no_part(people: Path) -> None:
    (people / "person-0" / "0.png").write_bytes(b"no picture")
    (people / "person-1" / "1.png").unlink()
    (people / "person-1" / "1.png").symlink_to("nowhere")
    os.mkfifo(people / "person-2" / "pipe.png")  # reading it would wait for ever
    dataset = open_dataset(str(people))
    for _ in range(2):  # as decoded, and as remembered
        pixels = read_pixel_cache(dataset, SPEC)
        failed = {dataset.paths[index].as_posix(): reason for index, reason in pixels.failures.items()}
        assert failed.keys() == {"person-0/0.png", "person-1/1.png", "person-2/pipe.png"}
        assert all(name in reason for name, reason in failed.items())
        assert "not a file or a broken link" in failed["person-1/1.png"]
        split = dataset.split(pixels.usable)
        everyone = np.concatenate([split.train, split.validation, split.held_out])
        assert sorted(everyone) == sorted(set(range(19)) - pixels.failures.keys())


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("readable", [True, False])
def test_odd_names_are_names(tmp_path: Path, readable: bool) -> None:
    picture = encode_png(portraits(1, 1)[0]) if readable else b"no picture"
    names = [
        b"new\nline.png",
        b"caf\xe9.png",
        b"tab\tstop.png",
        b"0\t.png",
        b"-x\r\x1c.png",
        b"\xe2\x80\xa8.png",
    ]
    folder = tmp_path / os.fsdecode(b"f\xf6ld\ner")
    folder.mkdir()
    for name in names:
        try:
            (folder / os.fsdecode(name)).write_bytes(picture)
        except OSError:
            pytest.skip("this file system takes only UTF-8")
    dataset = open_dataset(str(folder))
    assert dataset.name == r"f\udcf6ld\ner"
    for _ in range(2):
        pixels = read_pixel_cache(dataset, SPEC)
        assert pixels.images.shape == (6, 16, 16, 3)
        assert sorted(pixels.failures) == ([] if readable else list(range(6)))
        for reason in pixels.failures.values():
            assert reason.isprintable()
    assert_apart(dataset, dataset.split(range(6)))


@pytest.mark.slow
def test_reader_that_is_killed_leaves_nothing_half(tmp_path: Path, cache: Path) -> None:
    folder = write_people(tmp_path / "people", people=1, each=1)
    (first,) = folder.rglob("*.png")
    for number in range(1, 4000):
        os.link(first, first.with_name(f"{number}.png"))
    with subprocess.Popen([sys.executable, "-c", READER, folder], stdout=subprocess.PIPE) as reader:
        while not list(cache.glob("*/*.part")):
            assert reader.poll() is None
            time.sleep(0.001)
        time.sleep(random.Random(0).uniform(0, 0.05))
        reader.kill()
        reader.wait()
    assert not list(cache.glob("*/*.npy"))
    dataset = open_dataset(str(folder))
    pixels = read_pixel_cache(dataset, SPEC)
    assert pixels.failures == {}
    expected = read_pixels(first.read_bytes(), SPEC, name="x")
    assert (pixels.images == expected).all()
    found = {path.name for path in cache.glob("*/*")}
    assert found == {".lock", "failed.tsv", "fingerprint.txt", "pixels.npy"}


@pytest.mark.slow
def test_two_processes_at_once_agree(tmp_path: Path, cache: Path) -> None:
    folder = write_people(tmp_path / "people", people=20, each=20)
    for broken in ("person-3/3.png", "person-7/7.png"):
        (folder / broken).write_bytes(b"no picture")
    readers = [
        subprocess.Popen([sys.executable, "-c", READER, folder], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    answers = [reader.communicate()[0] for reader in readers]
    assert [reader.returncode for reader in readers] == [0, 0]
    here = read_pixel_cache(open_dataset(str(folder)), SPEC)
    assert answers == [f"{hashlib.sha256(here.images.tobytes()).hexdigest()} 2\n"] * 2
    assert len(list(cache.iterdir())) == 1


def test_disk_without_room_is_an_error_and_no_crash(
    people: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = shutil.disk_usage(people)._replace(free=18 * 16 * 16 * 3 - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)  # we have no disk to fill
    with pytest.raises(DataError, match=r"decoded images need 0\.0 GB .* LOOKALIKE_CACHE"):
        read_pixel_cache(open_dataset(str(people)), SPEC)
    assert {path.name for path in cache.glob("*/*")} == {".lock"}


def test_cache_that_cannot_be_written_is_an_error(people: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_CACHE", str(people / "person-0" / "0.png"))
    with pytest.raises(DataError, match="LOOKALIKE_CACHE"):
        read_pixel_cache(open_dataset(str(people)), SPEC)
