"""Pairs of images in folds for verification: LFW's, those of a file, or random ones.

G. B. Huang, M. Ramesh, T. Berg, E. Learned-Miller: Labeled Faces in the Wild. UMass Amherst TR 07-49, 2007,
section "View 2" (how pairs are drawn, and that no person is in two folds).

Legend: N images, P pairs in a fold, F folds.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from lookalike.deploy.evaluation.data import LabeledImages
from lookalike.encoder.errors import DataError, InvalidArgumentError, printable
from lookalike.encoder.files import read_bounded

FOLDS: Final = 10
MAX_PAIRS: Final = 300
"""Matched pairs, and as many mismatched, in a random fold; as in LFW."""


@dataclass(frozen=True, eq=False, slots=True)
class Fold:
    """P pairs.

    Attributes:
        first: Index of one image, int64 (P,).
        second: Of the other.
        same: Whether they show one person, bool (P,).
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    same: NDArray[np.bool_]

    @classmethod
    def from_pairs(cls, pairs: Sequence[tuple[int, int, bool]]) -> Self:
        """Make a fold of (first, second, same)."""
        first, second, same = zip(*pairs, strict=True) if pairs else ((), (), ())
        return cls(np.array(first, np.int64), np.array(second, np.int64), np.array(same, np.bool_))

    def within(self, usable: NDArray[np.bool_]) -> Fold:
        """Return the pairs both of whose images are usable; bool (N,)."""
        both = usable[self.first] & usable[self.second]
        return Fold(self.first[both], self.second[both], self.same[both])


@dataclass(frozen=True, eq=False, slots=True)
class Folds:
    """F folds; nothing is fitted to the people of the first half, the held-out folds.

    Attributes:
        all: Every fold.
        held_out_people: The people in the held-out folds.
    """

    all: tuple[Fold, ...]
    held_out_people: frozenset[str]

    @property
    def held_out(self) -> tuple[Fold, ...]:
        """The first half: folds 1 to 5 of ten."""
        return self.all[: len(self.all) // 2]

    def within(self, usable: NDArray[np.bool_]) -> Folds:
        """Return the folds without pairs of images that are not usable, bool (N,).

        Raises:
            DataError: a fold has no matched or no mismatched pair left.
        """
        folds = tuple(fold.within(usable) for fold in self.all)
        for number, fold in enumerate(folds, start=1):
            if not fold.same.any() or fold.same.all():
                raise DataError(
                    f"a fold needs matched and mismatched pairs of images that can be read, fold {number} "
                    "has none left; replace the images that failed"
                )
        return Folds(folds, self.held_out_people)

    def needed(self, count: int) -> NDArray[np.bool_]:
        """Return which of N images are in a pair, bool (N,)."""
        needed = np.zeros(count, np.bool_)
        for fold in self.all:
            needed[fold.first] = needed[fold.second] = True
        return needed


def lfw_folds(images: LabeledImages) -> Folds:
    """Return View 2 of LFW: ten folds of 300 matched and 300 mismatched pairs.

    Raises:
        DataError: the pairs are missing, malformed, or name an image that does not exist.
    """
    if images.lfw is None:
        raise InvalidArgumentError(f"View 2 is of lfw, {images.name} is another data set")
    index = {file: number for number, file in enumerate(images.files)}
    try:
        folds = [
            Fold.from_pairs([(index[pair.first], index[pair.second], pair.same) for pair in fold])
            for fold in images.lfw.pairs()
        ]
    except KeyError as error:
        raise DataError(f"pairs.txt names {error.args[0]}, which does not exist; unpack LFW again") from error
    return _with_people(folds, images)


def read_folds(file: Path, images: LabeledImages) -> Folds:
    """Read pairs in the layout of LFW's ``pairs.txt``.

    The first line says how many folds there are and how many matched pairs in each; then come the folds, each
    that many matched pairs (``person i j``) and as many mismatched ones (``person i other j``), with tabs or
    spaces between. An image is a number, as in ``person/person_0001.jpg``, or the name of a file in the
    person's folder, with or without its suffix.

    Raises:
        DataError: the file is malformed (with its line) or names an image that does not exist.
    """
    try:
        lines = [line for line in read_bounded(file).decode("utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{printable(str(file))} must be a readable text file, but: {error}") from error
    counts = lines[0].split() if lines else []
    if len(counts) != 2 or not all(count.isdecimal() for count in counts) or int(counts[0]) < 4:
        raise DataError(
            f"{printable(str(file))} must begin with the numbers of folds (4 or more, half of them held out) "
            f"and of matched pairs in each, as '10 300' does, not '{printable(lines[0]) if lines else ''}'"
        )
    number, size = map(int, counts)
    if size < 1 or len(lines) - 1 != number * 2 * size:
        raise DataError(
            f"{printable(str(file))} must hold {number} folds of {size} matched and {size} mismatched pairs, "
            f"{number * 2 * size} lines, not {len(lines) - 1}"
        )
    find = _Finder(images)
    pairs = [find.pair(line, f"{printable(str(file))}: '{printable(line)}'") for line in lines[1:]]
    for place, (line, pair) in enumerate(zip(lines[1:], pairs, strict=True)):
        if pair[2] != (place % (2 * size) < size):
            raise DataError(
                f"{printable(str(file))}: '{printable(line)}' stands where a "
                f"{'mis' if pair[2] else ''}matched pair belongs; "
                f"keep to {size} matched, then {size} mismatched pairs in each fold"
            )
    folds = [Fold.from_pairs(pairs[start : start + 2 * size]) for start in range(0, len(pairs), 2 * size)]
    return _with_people(folds, images)


def split_people(images: LabeledImages, *, seed: int) -> list[list[str]]:
    """Divide the people into ten folds at random, those with the most images evenly."""
    groups = images.by_person()
    people = sorted(groups)
    shuffled = [people[place] for place in np.random.default_rng(seed).permutation(len(people))]
    shuffled.sort(key=lambda person: -len(groups[person]))
    return [shuffled[fold::FOLDS] for fold in range(FOLDS)]


def held_out_people(images: LabeledImages, *, seed: int) -> frozenset[str]:
    """Return the held-out people: LFW's of View 2's folds 1 to 5, else a random half."""
    if images.lfw is not None:
        return images.lfw.held_out_people()
    return frozenset(itertools.chain.from_iterable(split_people(images, seed=seed)[: FOLDS // 2]))


def sample_folds(images: LabeledImages, *, seed: int) -> Folds:
    """Sample ten folds of as many matched as mismatched pairs, every person in one fold only.

    As LFW's were made: for a matched pair a person at random, then two of their images; for a mismatched
    pair two people at random, then an image of each; no pair twice. 300 of each in a fold, or as many as the
    smallest fold has.

    Raises:
        DataError: there are fewer than 20 people, or fewer than 10 with two or more images.
    """
    groups = images.by_person()
    several = sum(len(group) > 1 for group in groups.values())
    if len(groups) < 2 * FOLDS or several < FOLDS:
        raise DataError(
            f"verification makes {FOLDS} folds of two people or more in each, one of them with two images; "
            f"that takes {2 * FOLDS} people, {FOLDS} of them with two images or more; {images.name} has "
            f"{len(groups)} and {several}; add people or give --pairs"
        )
    people = split_people(images, seed=seed)
    folds = [[groups[person] for person in group] for group in people]
    size = min(MAX_PAIRS, *(min(_matches(fold), _mismatches(fold)) for fold in folds))
    rngs = [np.random.default_rng((seed, number)) for number in range(FOLDS)]
    sampled = [_sample_fold(fold, size, rng) for fold, rng in zip(folds, rngs, strict=True)]
    return Folds(tuple(sampled), frozenset(itertools.chain.from_iterable(people[: FOLDS // 2])))


def _with_people(folds: Sequence[Fold], images: LabeledImages) -> Folds:
    held_out = folds[: len(folds) // 2]
    indices = [*itertools.chain.from_iterable((*fold.first, *fold.second) for fold in held_out)]
    people = frozenset(person for index in indices if (person := images.people[index]) is not None)
    return Folds(tuple(folds), people)


def _matches(groups: Sequence[Sequence[int]]) -> int:
    """Return the number of pairs of one person."""
    return sum(len(group) * (len(group) - 1) // 2 for group in groups)


def _mismatches(groups: Sequence[Sequence[int]]) -> int:
    """Return the number of pairs of two people."""
    count = sum(map(len, groups))
    return count * (count - 1) // 2 - _matches(groups)


def _sample_fold(groups: Sequence[Sequence[int]], size: int, rng: np.random.Generator) -> Fold:
    several = [group for group in groups if len(group) > 1]
    matched: dict[tuple[int, int, bool], None] = {}
    while len(matched) < size:
        group = several[int(rng.integers(len(several)))]
        one, other = sorted(rng.choice(len(group), 2, replace=False).tolist())
        matched[group[one], group[other], True] = None
    mismatched: dict[tuple[int, int, bool], None] = {}
    while len(mismatched) < size:
        first, second = (
            groups[place] for place in sorted(rng.choice(len(groups), 2, replace=False).tolist())
        )
        one, other = int(rng.integers(len(first))), int(rng.integers(len(second)))
        mismatched[first[one], second[other], False] = None
    return Fold.from_pairs([*matched, *mismatched])


class _Finder:
    """Images by person and number or file name."""

    def __init__(self, images: LabeledImages) -> None:
        self._index: dict[tuple[str, str], int] = {}
        self._name = images.name
        for index, (path, person) in enumerate(zip(images.paths, images.people, strict=True)):
            if person is not None:
                name = path.rpartition("/")[2]
                self._index[person, name] = index
                self._index.setdefault((person, name.rpartition(".")[0]), index)

    def pair(self, line: str, where: str) -> tuple[int, int, bool]:
        """Return two indices and whether they are of one person.

        Raises:
            DataError: the line is not a pair, or an image does not exist.
        """
        match [word.strip() for word in (line.split("\t") if "\t" in line else line.split())]:
            case [person, i, j]:
                return self._find(person, i, where), self._find(person, j, where), True
            case [person, i, other, j]:
                return self._find(person, i, where), self._find(other, j, where), False
            case _:
                raise DataError(f"{where} must be 'person i j' or 'person i other j'")

    def _find(self, person: str, image: str, where: str) -> int:
        numbered = f"{person}_{int(image):04d}" if image.isdecimal() else image
        for name in (numbered, image):
            if (person, name) in self._index:
                return self._index[person, name]
        raise DataError(
            f"{where} names image {image} of {person}, which is not in {self._name}; give its number, as in "
            f"{person}_0001.jpg, or its file name"
        )
