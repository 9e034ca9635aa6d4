"""Pairs that are read and pairs that are drawn: people on one side, the same again for a seed."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from lookalike.deploy.evaluation import (
    Folds,
    LabeledImages,
    held_out_people,
    lfw_folds,
    open_labeled,
    read_folds,
    sample_folds,
)
from lookalike.deploy.evaluation.pairs import Fold, split_people
from lookalike.encoder.errors import DataError, InvalidArgumentError


def gallery(*sizes: int) -> LabeledImages:
    """People of as many images; nothing lies where their paths lead."""
    paths = [f"p{person}/p{person}_{i + 1:04d}.jpg" for person, size in enumerate(sizes) for i in range(size)]
    return LabeledImages(
        "gallery", tuple(map(Path, paths)), tuple(paths), tuple(path.partition("/")[0] for path in paths)
    )


def told(folds: Folds) -> list[list[tuple[int, int, bool]]]:
    return [
        list(zip(fold.first.tolist(), fold.second.tolist(), fold.same.tolist(), strict=True))
        for fold in folds.all
    ]


def test_a_person_is_in_one_fold_only_and_no_pair_is_there_twice() -> None:
    images = gallery(*range(1, 41))
    folds = sample_folds(images, seed=3)
    assert len(folds.all) == 10
    assert len(folds.held_out) == 5
    people = [{images.people[index] for pair in fold for index in pair[:2]} for fold in told(folds)]
    for place, here in enumerate(people):
        assert not any(here & there for there in people[place + 1 :])
        assert (here <= folds.held_out_people) == (place < 5)
    for fold in told(folds):
        assert len({frozenset(pair[:2]) for pair in fold}) == len(fold)
        assert sum(same for *_, same in fold) * 2 == len(fold)
        for first, second, same in fold:
            assert first != second
            assert (images.people[first] == images.people[second]) == same
    assert len({len(fold) for fold in told(folds)}) == 1


def test_the_seed_decides() -> None:
    images = gallery(*[4] * 40)
    assert told(sample_folds(images, seed=1)) == told(sample_folds(images, seed=1))
    assert told(sample_folds(images, seed=1)) != told(sample_folds(images, seed=2))
    assert held_out_people(images, seed=1) == sample_folds(images, seed=1).held_out_people
    assert sorted(itertools.chain.from_iterable(split_people(images, seed=1))) == sorted(
        f"p{i}" for i in range(40)
    )


def test_at_most_three_hundred_of_each_are_drawn() -> None:
    folds = sample_folds(gallery(*[60] * 20), seed=0)
    assert [(int(fold.same.sum()), len(fold.same)) for fold in folds.all] == [(300, 600)] * 10


def test_the_fewest_that_will_do() -> None:
    folds = sample_folds(gallery(*[2] * 10, *[1] * 10), seed=0)
    assert [fold.same.tolist() for fold in folds.all] == [[True, False]] * 10


@pytest.mark.parametrize("sizes", [[2] * 9 + [1] * 20, [2] * 19, [1] * 100, []])
def test_too_few_are_refused_with_the_rule(sizes: list[int]) -> None:
    with pytest.raises(DataError, match="that takes 20 people, 10 of them with two images or more; gallery"):
        sample_folds(gallery(*sizes), seed=0)


def test_images_of_nobody_are_in_no_pair() -> None:
    named = gallery(*[2] * 21)
    images = LabeledImages("g", named.files, named.paths, (*[None] * 2, *named.people[2:]))
    assert 0 not in {
        index for fold in told(sample_folds(images, seed=0)) for pair in fold for index in pair[:2]
    }


def test_pairs_of_unusable_images_go_and_a_fold_without_any_is_refused() -> None:
    folds = Folds((Fold.from_pairs([(0, 1, True), (2, 3, True), (0, 2, False), (1, 3, False)]),), frozenset())
    left = folds.within(np.array([True, True, True, False]))
    assert told(left) == [[(0, 1, True), (0, 2, False)]]
    assert left.needed(4).tolist() == [True, True, True, False]
    with pytest.raises(DataError, match="fold 1 has none left"):
        folds.within(np.array([True, False, True, False]))


PAIRS = "4 1\n" + "".join(f"p{i}\t1\t2\np{i}\t1\tp{i + 4}\t2\n" for i in range(4))


def test_a_file_in_the_layout_of_lfw_is_read(tmp_path: Path) -> None:
    images = gallery(*[2] * 8)
    (tmp_path / "pairs.txt").write_text(PAIRS)
    folds = read_folds(tmp_path / "pairs.txt", images)
    assert told(folds) == [[(2 * i, 2 * i + 1, True), (2 * i, 2 * i + 9, False)] for i in range(4)]
    assert folds.held_out_people == {"p0", "p1", "p4", "p5"}
    (tmp_path / "spaces.txt").write_text(PAIRS.replace("\t", "  "))
    assert told(read_folds(tmp_path / "spaces.txt", images)) == told(folds)


def test_images_may_be_named_by_their_files(tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text(PAIRS.replace("p0\t1\t2", "p0\tp0_0001.jpg\tp0_0002"))
    assert told(read_folds(tmp_path / "pairs.txt", gallery(*[2] * 8)))[0][0] == (0, 1, True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must begin with the numbers of folds"),
        ("ten 300\n", "not 'ten 300'"),
        ("3 1\n", "4 or more, half of them held"),
        (PAIRS + "p1\t1\t2\n", "must hold 4 folds of 1 matched and 1 mismatched pairs, 8 lines, not 9"),
        (PAIRS.replace("p0\t1\t2", "p0\t1"), "'p0 1' must be 'person i j' or 'person i other j'"),
        (
            PAIRS.replace("p0\t1\t2", "p0\t1\t3"),
            "names image 3 of p0, which is not in gallery; give its number",
        ),
        (PAIRS.replace("p0\t1\t2", "p0\t1\tp1\t1"), "keep to 1 matched, then 1 mismatched"),
    ],
)
def test_a_malformed_file_is_refused_with_the_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "mine.txt").write_text(text)
    with pytest.raises(DataError, match=r"mine\.txt") as caught:
        read_folds(tmp_path / "mine.txt", gallery(*[2] * 8))
    assert said in str(caught.value).replace("\t", " ").replace("\\t", " ")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must be a readable text file"):
        read_folds(tmp_path / "gone.txt", gallery(2))
    with pytest.raises(InvalidArgumentError, match="View 2 is of lfw, gallery is another"):
        lfw_folds(gallery(2))


@pytest.mark.lfw
def test_view_2_is_what_the_data_set_says(lfw: object) -> None:
    images = open_labeled("lfw")
    folds = lfw_folds(images)
    assert [len(fold.same) for fold in folds.all] == [600] * 10
    assert images.lfw is not None
    assert folds.held_out_people == images.lfw.held_out_people()
    for fold in folds.all:
        for first, second, same in zip(fold.first, fold.second, fold.same, strict=True):
            assert (images.people[first] == images.people[second]) == same
