"""Fit a calibration to pictures of people whom the model has not learned from.

J. C. Platt: Probabilistic outputs for support vector machines and comparisons to regularized likelihood
methods. Advances in Large Margin Classifiers, MIT Press 1999.

Legend: N images, E embedding size, P pairs, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.bundle.calibration import RATES, Calibration, ScoreCalibration
from lookalike.encoder.bundle.ood import ReconstructionErrorStats
from lookalike.encoder.errors import CalibrationError, InvalidArgumentError

Floats = NDArray[np.float32]
Reals = NDArray[np.float64]

FEWEST_PEOPLE: Final = 10
"""With two or more pictures each: below that, what is fitted is about these people, not about the model."""
_FEWEST_MISMATCHED: Final = 100
_BEYOND: Final = 10
"""Mismatched pairs above a threshold: fewer say little of its rate."""
_MATCHED_EACH: Final = 45
"""Matched pairs of one person, those of ten pictures: who has hundreds does not outweigh everybody."""
_MISMATCHED: Final = 1 << 21
_ROWS: Final = 4096
_STEPS: Final = 100


@dataclass(frozen=True, slots=True)
class Pairs:
    """Cosine scores of pairs of pictures.

    Attributes:
        matched: float64 (P,), of one person.
        mismatched: float64 (P,), of two people.
        people: How many have two or more pictures.
    """

    matched: Reals
    mismatched: Reals
    people: int


def calibration_of(
    embeddings: Floats, people: Sequence[str | None], errors: Reals | None, *, seed: int = 0
) -> Calibration:
    """Fit what these pictures support: :func:`fit_calibration`, or the errors alone where people are too few.

    Args:
        embeddings: float32 (N, E) of unit length, of people that the model has not learned from.
        people: N names; None where nobody is named.
        errors: float64 (N, 2) from :func:`picture_errors`; None for a model that does not
            draw.
        seed: Of the choice of pairs.

    Raises:
        InvalidArgumentError: the three differ in length.
    """
    try:
        return fit_calibration(embeddings, people, errors, seed=seed)
    except CalibrationError:
        return Calibration(
            reconstruction_errors=None if errors is None else ReconstructionErrorStats.from_errors(errors)
        )


def fit_calibration(
    embeddings: Floats, people: Sequence[str | None], errors: Reals | None = None, *, seed: int = 0
) -> Calibration:
    """Fit scores to evidence and thresholds, and measure the usual errors.

    Args:
        embeddings: float32 (N, E) of unit length, of people that the model has not learned from.
        people: N names; pictures of nobody named (None) count for the errors only.
        errors: float64 (N, 2) from :func:`picture_errors`, or None.
        seed: Of the choice of pairs.

    Raises:
        CalibrationError: too few people or pairs, or one person's are no more alike than two people's.
        InvalidArgumentError: the three differ in length.
    """
    if len(people) != len(embeddings) or (errors is not None and len(errors) != len(people)):
        raise InvalidArgumentError(
            f"embeddings ({len(embeddings)}), people ({len(people)}) and errors must be as many"
        )
    likeness = fit_score_calibration(pair_scores(embeddings, people, seed=seed))
    return Calibration(
        scores=likeness,
        reconstruction_errors=None if errors is None else ReconstructionErrorStats.from_errors(errors),
    )


def pair_scores(embeddings: Floats, people: Sequence[str | None], *, seed: int = 0) -> Pairs:
    """Return scores of pairs: all matched ones, at most 45 of a person, and of the others at most 2 million.

    Rows of an embedding that has no direction are left out.

    Args:
        embeddings: float32 (N, E) of unit length.
        people: N names; None is left out.
        seed: Of the choice where there are more.
    """
    there = np.isfinite(embeddings).all(axis=1) & embeddings.any(axis=1)
    numbers: dict[str, int] = {}
    given = [-1 if person is None else numbers.setdefault(person, len(numbers)) for person in people]
    who = np.array(given, np.int64)
    there &= who >= 0
    rows, who, rng = embeddings[there], who[there], np.random.default_rng(seed)
    first, second, count = _matched_pairs(who, rng)
    return Pairs(_scores(rows, first, second), _mismatched(rows, who, rng), count)


def fit_score_calibration(pairs: Pairs) -> ScoreCalibration:
    """Fit evidence by logistic regression, both kinds of pair weighing the same (the prior is even).

    Targets are smoothed as Platt does, so that pairs without overlap give a finite slope.

    Raises:
        CalibrationError: too few people or pairs, or one person's are no more alike than two people's.
    """
    matched, mismatched = pairs.matched, pairs.mismatched
    if pairs.people < FEWEST_PEOPLE or len(mismatched) < _FEWEST_MISMATCHED:
        raise CalibrationError(
            f"calibration needs {FEWEST_PEOPLE} people with two or more pictures and {_FEWEST_MISMATCHED} "
            f"pairs of two people, there are {pairs.people} and {len(mismatched)}; give more people"
        )
    scores = np.concatenate([matched, mismatched])
    n, m = len(matched), len(mismatched)
    targets = np.repeat([(n + 1) / (n + 2), 1 / (m + 2)], [n, m])
    weights = np.repeat([0.5 / n, 0.5 / m], [n, m])
    features = np.stack([np.square(scores), scores, np.ones_like(scores)], axis=1)  # (P, 3)
    curvature, slope, intercept = _regression(features, targets, weights)
    # A curve that bends down, or whose lowest point is among the scores of one person, is not to be believed.
    if curvature < 0 or 2 * curvature * np.median(matched) + slope <= 0:
        curvature, (slope, intercept) = 0.0, _regression(features[:, 1:], targets, weights)
    if curvature == 0 and slope <= 0:
        raise CalibrationError(
            f"pictures of one person must be more alike than those of two, their mean scores are "
            f"{matched.mean():.3f} and {mismatched.mean():.3f}; this model does not tell these people apart"
        )
    return ScoreCalibration(
        curvature=float(curvature),
        slope=float(slope),
        intercept=float(intercept),
        thresholds=_thresholds(mismatched),
        matched=n,
        mismatched=m,
        people=pairs.people,
    )


def _thresholds(mismatched: Reals) -> dict[float, float]:
    """The scores that at most a rate of these lies above, for rates with ten or more beyond."""
    falling = np.sort(mismatched)[::-1]
    counts = {rate: int(rate * len(falling) * (1 + 1e-12)) for rate in RATES}
    return {rate: float(falling[count]) for rate, count in counts.items() if count >= _BEYOND}


def _regression(features: Reals, targets: Reals, weights: Reals) -> Reals:
    """Newton's method for weighted logistic regression: (P, F), (P,), (P,) to (F,)."""
    found = np.zeros(features.shape[1])
    loss = _loss(features @ found, targets, weights)
    for _ in range(_STEPS):
        rates = 0.5 * (1 + np.tanh(0.5 * (features @ found)))  # sigma
        gradient = features.T @ (weights * (rates - targets))
        curvature = (features * (weights * rates * (1 - rates))[:, None]).T @ features
        try:
            step = np.linalg.solve(curvature, gradient)
        except np.linalg.LinAlgError as error:
            raise CalibrationError("scores must differ to be worth anything, these are all alike") from error
        scale = 1.0
        while (after := _loss(features @ (found - scale * step), targets, weights)) > loss and scale > 1e-6:
            scale /= 2  # far from the minimum a whole step can overshoot
        found, gained, loss = found - scale * step, loss - after, after
        if gained < 1e-12:
            break
    return found


def _loss(odds: Reals, targets: Reals, weights: Reals) -> float:
    return float(weights @ (np.logaddexp(0, odds) - targets * odds))


def _matched_pairs(
    who: NDArray[np.int64], rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Two indices of each pair, and how many people have one."""
    firsts: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    seconds: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    order = np.argsort(who, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(who[order])) + 1)
    for group in groups:
        first, second = np.triu_indices(len(group), 1)
        if len(first) > _MATCHED_EACH:
            some = rng.choice(len(first), _MATCHED_EACH, replace=False)
            first, second = first[some], second[some]
        firsts.append(group[first])
        seconds.append(group[second])
    return np.concatenate(firsts), np.concatenate(seconds), sum(len(group) > 1 for group in groups)


def _mismatched(rows: Floats, who: NDArray[np.int64], rng: np.random.Generator) -> Reals:
    """All pairs of two people, or 2 million drawn by lot, with replacement."""
    count = len(rows)
    if count * (count - 1) // 2 > _MISMATCHED:
        first = rng.integers(0, count, _MISMATCHED)
        second = (first + rng.integers(1, count, _MISMATCHED)) % count  # never the same picture
    else:
        first, second = np.triu_indices(count, 1)
    other = who[first] != who[second]
    return _scores(rows, first[other], second[other])


def _scores(rows: Floats, first: NDArray[np.int64], second: NDArray[np.int64]) -> Reals:
    found = np.empty(len(first))
    for start in range(0, len(first), _ROWS):
        part = slice(start, start + _ROWS)
        found[part] = np.einsum("pe,pe->p", rows[first[part]], rows[second[part]])
    return found
