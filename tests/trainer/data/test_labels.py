"""Classes: subfolders and attributes, and splits that fit them."""

from pathlib import Path

import numpy as np
import pytest

from lookalike.encoder.datasets import LFW, MNIST
from lookalike.encoder.errors import DataError, InvalidArgumentError
from lookalike.encoder.images import ImageSpec
from lookalike.trainer.data import (
    by_attribute,
    by_subfolder,
    default_shape,
    open_dataset,
    read_pixel_cache,
    subfolders_are_classes,
)
from tests.fixtures.class_images import CLASSES, write_classes
from tests.fixtures.digit_files import made_up_images, made_up_labels, write_digits
from tests.fixtures.people import write_people


def test_subfolders_become_classes_and_each_picture_is_placed_by_itself(tmp_path: Path) -> None:
    plain = open_dataset(str(write_classes(tmp_path / "shapes")))
    assert (plain.classes, plain.labels) == ((), ())
    dataset = by_subfolder(plain)
    assert dataset.classes == CLASSES
    assert [CLASSES[label] for label in dataset.labels] == [path.parent.name for path in dataset.paths]
    split = dataset.split(range(72))
    for rows in (split.train, split.validation, split.held_out):
        assert {dataset.labels[row] for row in rows} == {0, 1, 2}
    again = by_subfolder(open_dataset(str(tmp_path / "shapes"))).split(range(72))
    np.testing.assert_array_equal(split.held_out, again.held_out)


def test_pictures_beside_the_subfolders_have_no_class(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "shapes", each=2)
    (root / "ring" / "0.png").rename(root / "0.png")
    dataset = by_subfolder(open_dataset(str(root)))
    assert dataset.labels.count(-1) == 1


def test_one_subfolder_is_no_class(tmp_path: Path) -> None:
    dataset = open_dataset(str(write_people(tmp_path / "people", people=1)))
    assert by_subfolder(dataset) == dataset


def test_as_many_subfolders_as_people_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lookalike.trainer.data.labels._MAX_CLASSES", 3)
    dataset = open_dataset(str(write_people(tmp_path / "people", people=4, each=1)))
    with pytest.raises(DataError, match="has 4; are they people"):
        by_subfolder(dataset)


@pytest.mark.parametrize(
    ("people", "each", "expected"),
    [(1, 30, False), (2, 9, False), (2, 10, True), (7, 12, True), (101, 10, False)],
)
def test_few_full_subfolders_look_like_classes(
    tmp_path: Path, people: int, each: int, expected: bool
) -> None:
    files = [tmp_path / "root" / f"folder {index // each}" / f"{index}.png" for index in range(people * each)]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    assert subfolders_are_classes(open_dataset(str(tmp_path / "root"))) is expected


def test_images_without_subfolders_and_labelled_ones_get_no_classes(tmp_path: Path) -> None:
    for index in range(40):
        (tmp_path / f"{index}.png").touch()
    assert not subfolders_are_classes(open_dataset(str(tmp_path)))
    labelled = by_subfolder(open_dataset(str(write_classes(tmp_path / "shapes"))))
    assert not subfolders_are_classes(labelled)


TABLE = "# attributes\n#\tperson\timagenum\tMale\tSmiling\n"


def small_lfw(folder: Path, scores: dict[str, str]) -> Path:
    """Write an LFW of a picture each of these people, with their scores of Smiling."""
    root = folder / "lfw" / "lfw-deepfunneled"
    write_people(root, people=len(scores), each=1)
    lines = [TABLE.splitlines()[0], TABLE.splitlines()[1]]
    for index, (person, score) in enumerate(scores.items()):
        (root / f"person-{index}").rename(root / person)
        (root / person / "0.png").rename(root / person / f"{person}_0001.jpg")
        lines.append(f"{person.replace('_', ' ')}\t1\t0.5\t{score}")
    (folder / "lfw" / "lfw_attributes.txt").write_text("\n".join(lines) + "\n")
    pairs = [f"{a}\t1\t{b}\t1" for a, b in zip(scores, list(scores)[1:], strict=False)]
    (folder / "lfw" / "pairs.txt").write_text("1\t1\n" + f"{next(iter(scores))}\t1\t1\n" + pairs[0] + "\n")
    return folder


def test_attribute_makes_two_classes_and_people_stay_on_their_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = {"Ada_A": "1.5", "Bob_B": "-0.2", "Cyd_C": "0", "Dee_D": "", "Eve_E": "0.1"}
    monkeypatch.setenv("LOOKALIKE_DATA", str(small_lfw(tmp_path, scores)))
    plain = open_dataset("lfw")
    dataset = by_attribute(plain, "Smiling")
    assert dataset.classes == ("not Smiling", "Smiling")
    assert dataset.labels == (1, 0, 0, -1, 1)
    assert (dataset.people, dataset.held_out) == (plain.people, plain.held_out)
    assert by_subfolder(plain) == plain
    with pytest.raises(InvalidArgumentError, match="no attribute 'Wise'; there are Male, Smiling"):
        by_attribute(plain, "Wise")
    with pytest.raises(DataError, match="with and without Male"):
        by_attribute(plain, "Male")


def test_attribute_of_a_folder_is_refused(tmp_path: Path) -> None:
    dataset = open_dataset(str(write_classes(tmp_path / "shapes", each=2)))
    with pytest.raises(InvalidArgumentError, match="reads the table of lfw, shapes has none"):
        by_attribute(dataset, "Smiling")


@pytest.mark.lfw
def test_smiles_of_lfw(lfw: LFW) -> None:
    dataset = by_attribute(open_dataset("lfw"), "Smiling")
    labels = np.array(dataset.labels)
    assert len(labels) == 13233
    known = labels[labels >= 0]
    assert len(known) >= 3780  # of the official table nearly all
    assert 0.1 < known.mean() < 0.9


def test_digits_are_split_as_published_and_read_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_digits(tmp_path / "MNIST" / "raw")
    monkeypatch.setenv("LOOKALIKE_DATA", str(tmp_path))
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))
    dataset = open_dataset("mnist")
    assert (dataset.name, dataset.mirrored, dataset.classes) == ("mnist", False, tuple("0123456789"))
    assert by_subfolder(dataset) == dataset
    split = dataset.split(range(50))
    assert [rows.tolist() for rows in (split.train, split.validation, split.held_out)] == [
        list(range(20)),
        list(range(20, 30)),
        list(range(30, 50)),
    ]
    expected = np.concatenate([made_up_images("train"), made_up_images("test")])
    size, channels = default_shape("mnist")
    pixels = read_pixel_cache(dataset, ImageSpec(size=size, channels=channels))
    np.testing.assert_array_equal(pixels.images[..., 0], expected)
    assert dataset.labels == (*made_up_labels("train"), *made_up_labels("test"))
    assert pixels.fingerprint == read_pixel_cache(dataset, ImageSpec(size=28, channels=1)).fingerprint
    assert read_pixel_cache(dataset, ImageSpec(size=32)).images.shape == (50, 32, 32, 3)


@pytest.mark.mnist
def test_real_digits_train_on_55000_and_hold_the_test_digits_out(mnist: MNIST) -> None:
    dataset = open_dataset("mnist")
    split = dataset.split(range(70_000))
    assert [len(rows) for rows in (split.train, split.validation, split.held_out)] == [55_000, 5_000, 10_000]
    assert split.held_out.min() == 60_000
    assert split.validation.min() == 55_000
    assert dataset.labels[60_000] == mnist.labels("test")[0] == 7
