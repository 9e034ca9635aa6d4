"""What drawn pictures show, and how much they differ, as an independent classifier sees them.

The classifier is a model whose latents are features and, behind them, a logit for each of its classes; its
embeddings are the features (``trainer/recipes/classifier.py`` makes one). Pictures are judged as the decoder's means, grey
as people see them, not as binary draws.

Legend: N images, K classes, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.metrics import mean_distance
from lookalike.encoder.runtime.model import Model
from lookalike.encoder.text import printable

__all__ = ["ClassAccuracy", "Diversity", "Predictions", "class_accuracy", "classify", "diversity"]

_MISTAKES: Final = 6
_FEWEST: Final = 2


@dataclass(frozen=True, eq=False, slots=True)
class Predictions:
    """What the judge says of N pictures.

    Attributes:
        features: float32 (N, F).
        classes: int64 (N,), the likeliest.
    """

    features: NDArray[np.float32]
    classes: NDArray[np.int64]


def classify(judge: Model, images: NDArray[np.uint8]) -> Predictions:
    """Let the judge look at uint8 (N, H, W, C).

    Raises:
        InvalidArgumentError: it is no judge, or takes other pictures.
    """
    spec = judge.bundle.spec
    features = spec.latent - len(spec.classes)
    if not spec.classes or features < 1 or spec.embedding != features:
        raise InvalidArgumentError(
            f"a judge gives features and a logit for each class, {printable(judge.bundle.name)} does not"
        )
    made = judge.encode(images)
    return Predictions(made[:, :features], made[:, features:].argmax(axis=1))


@dataclass(frozen=True, slots=True)
class ClassAccuracy:
    """How often the judge sees the class that was asked for.

    Attributes:
        count: N.
        overall: Share of all, in [0, 1].
        by_class: Share of each class, by name.
        worst: The class with the lowest.
        mistakes: Asked for, seen, how often: the most frequent, most frequent first.
    """

    count: int
    overall: float
    by_class: dict[str, float]
    worst: str
    mistakes: tuple[tuple[str, str, int], ...]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self) | {"mistakes": [list(mistake) for mistake in self.mistakes]}

    def confusion_line(self) -> str:
        """Return the most frequent mistakes as ``4 seen as 9: 12, ...``."""
        said = ", ".join(f"{asked} seen as {seen}: {times}" for asked, seen, times in self.mistakes)
        return said or "no mistakes"


def class_accuracy(
    asked: NDArray[np.int64], seen: NDArray[np.int64], classes: Sequence[str]
) -> ClassAccuracy:
    """Compare what was asked for with what was seen, int64 (N,) each, places in ``classes``.

    Raises:
        InvalidArgumentError: there is nothing to compare.
    """
    if not len(asked):
        raise InvalidArgumentError("accuracy is of one picture or more, there is none")
    table = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(table, (asked, seen), 1)
    counts, right = table.sum(axis=1), table.diagonal()
    shares = {
        name: float(right[place] / counts[place]) for place, name in enumerate(classes) if counts[place]
    }
    wrong = table - np.diag(right)
    most = np.argsort(-wrong, axis=None, kind="stable")[:_MISTAKES]
    places = [divmod(int(place), len(classes)) for place in most]
    return ClassAccuracy(
        count=len(asked),
        overall=float(right.sum() / len(asked)),
        by_class=shares,
        worst=min(shares, key=shares.__getitem__),
        mistakes=tuple((classes[a], classes[s], int(wrong[a, s])) for a, s in places if wrong[a, s]),
    )


@dataclass(frozen=True, slots=True)
class Diversity:
    """How far apart pictures of a class are, beside real ones of that class.

    Of each class: the mean Euclidean distance of all pairs of drawn pictures over that of all pairs of real
    ones. 1 is as diverse as the real ones, 0 is all the same.

    Attributes:
        space: Where distances are measured: the judge's ``features``, or ``pixels``.
        mean: Of the classes' ratios.
        lowest: The least of them.
        lowest_class: Whose it is.
        by_class: All, by name.
    """

    space: str
    mean: float
    lowest: float
    lowest_class: str
    by_class: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def diversity(
    space: str,
    drawn: tuple[NDArray[np.float32], NDArray[np.int64]],
    real: tuple[NDArray[np.float32], NDArray[np.int64]],
    classes: Sequence[str],
) -> Diversity:
    """Measure it in a space, of rows (N, F) and classes int64 (N,) of both.

    Classes with fewer than two drawn or real pictures are left out.

    Raises:
        InvalidArgumentError: none is left.
    """
    ratios: dict[str, float] = {}
    for place, name in enumerate(classes):
        mine, theirs = (rows[labels == place] for rows, labels in (drawn, real))
        if min(len(mine), len(theirs)) >= _FEWEST:
            ratios[name] = mean_distance(mine) / mean_distance(theirs)
    if not ratios:
        raise InvalidArgumentError("diversity is of classes with two pictures or more, there is none")
    lowest = min(ratios, key=ratios.__getitem__)
    return Diversity(space, float(np.mean([*ratios.values()])), ratios[lowest], lowest, ratios)
