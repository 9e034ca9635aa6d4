"""Fit the calibration of scores to images of people that the model was not trained on.

J. C. Platt: Probabilistic outputs for support vector machines and comparisons to regularized likelihood
methods. Advances in Large Margin Classifiers, MIT Press 1999.

Legend: N and M images, E embedding size, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.bundle import (
    OFF_AXIS_QUANTILE,
    RATES,
    Calibration,
    ReconstructionErrorStats,
    ScoreCalibration,
)
from lookalike.encoder.errors import CalibrationError, InvalidArgumentError
from lookalike.trainer.fitting.regression import logistic_regression
from lookalike.trainer.fitting.searches import draw_searches, fit_search_calibration

Floats = NDArray[np.float32]
Reals = NDArray[np.float64]

MIN_PEOPLE: Final = 10
"""With two or more images each: with fewer, the fit would describe these people, not the model."""
_MIN_MISMATCHED: Final = 100
_MIN_ABOVE: Final = 10
"""Mismatched pairs above a threshold: fewer say little about its rate."""
_MAX_MATCHED: Final = 45
"""Matched pairs of one person, as of ten images: a person with hundreds does not outweigh everybody else."""
_MAX_MISMATCHED: Final = 1 << 21
_ROWS: Final = 4096


@dataclass(frozen=True, slots=True)
class Pairs:
    """Cosine scores of pairs of images.

    Attributes:
        matched: float64 (P,), pairs of one person.
        mismatched: float64 (P,), pairs of two people.
        people: Number of people with two or more images.
    """

    matched: Reals
    mismatched: Reals
    people: int


def calibration_of(
    embeddings: Floats,
    people: Sequence[str | None],
    errors: Reals | None,
    *,
    others: Floats | None = None,
    seed: int = 0,
) -> Calibration:
    """Fit :func:`fit_calibration`, or the reconstruction errors alone if there are too few people.

    Args:
        embeddings: float32 (N, E) of unit length, of people that the model was not trained on.
        people: N names; None where the person is unknown.
        errors: float64 (N, 2) from :func:`reconstruction_errors`; None for a model without decoder.
        others: float32 (M, E), of other people, who are searched too: those of the training.
        seed: Of the choice of pairs and searches.

    Raises:
        InvalidArgumentError: the three differ in length.
    """
    try:
        return fit_calibration(embeddings, people, errors, others=others, seed=seed)
    except CalibrationError:
        return Calibration(
            reconstruction_errors=None if errors is None else ReconstructionErrorStats.from_errors(errors)
        )


def fit_calibration(
    embeddings: Floats,
    people: Sequence[str | None],
    errors: Reals | None = None,
    *,
    off_axis: Reals | None = None,
    others: Floats | None = None,
    seed: int = 0,
) -> Calibration:
    """Fit the evidence of scores, the thresholds, what hits mean, and statistics of reconstruction errors.

    Args:
        embeddings: float32 (N, E) of unit length, of people that the model was not trained on.
        people: N names; images of unknown people (None) count for the errors only.
        errors: float64 (N, 2) from :func:`reconstruction_errors`, or None.
        off_axis: float64 (N,), how far the latents lie off the axes of the training images; None: not known.
        others: float32 (M, E), of other people, who are searched too; None: only the first are.
        seed: Of the choice of pairs and searches.

    Raises:
        CalibrationError: too few people or pairs, or pairs of one person score no higher than others.
        InvalidArgumentError: the three differ in length.
    """
    if len(people) != len(embeddings) or (errors is not None and len(errors) != len(people)):
        raise InvalidArgumentError(
            f"embeddings ({len(embeddings)}), people ({len(people)}) and errors must have the same length"
        )
    likeness = fit_score_calibration(pair_scores(embeddings, people, seed=seed))
    return Calibration(
        scores=likeness,
        searches=fit_search_calibration(draw_searches(embeddings, people, others, seed=seed)),
        reconstruction_errors=None if errors is None else ReconstructionErrorStats.from_errors(errors),
        most_off_axis=None if off_axis is None else float(np.quantile(off_axis, OFF_AXIS_QUANTILE)),
    )


def pair_scores(embeddings: Floats, people: Sequence[str | None], *, seed: int = 0) -> Pairs:
    """Return scores of pairs: at most 45 matched ones of each person, and at most 2 million mismatched.

    Embeddings without a direction are left out.

    Args:
        embeddings: float32 (N, E) of unit length.
        people: N names; None is left out.
        seed: Of the choice if there are more.
    """
    usable = np.isfinite(embeddings).all(axis=1) & embeddings.any(axis=1)
    ids: dict[str, int] = {}
    labels = np.array([-1 if name is None else ids.setdefault(name, len(ids)) for name in people], np.int64)
    usable &= labels >= 0
    rows, labels, rng = embeddings[usable], labels[usable], np.random.default_rng(seed)
    first, second, count = _matched_pairs(labels, rng)
    return Pairs(_scores(rows, first, second), _mismatched(rows, labels, rng), count)


def fit_score_calibration(pairs: Pairs) -> ScoreCalibration:
    """Fit the evidence by logistic regression, with equal weight for matched and mismatched pairs.

    Targets are smoothed as in Platt's method, so that the slope stays finite without overlap.

    Raises:
        CalibrationError: too few people or pairs, or pairs of one person score no higher than others.
    """
    matched, mismatched = pairs.matched, pairs.mismatched
    if pairs.people < MIN_PEOPLE or len(mismatched) < _MIN_MISMATCHED:
        raise CalibrationError(
            f"calibration needs {MIN_PEOPLE} people with two or more images and {_MIN_MISMATCHED} "
            f"pairs of two people, there are {pairs.people} and {len(mismatched)}; give more people"
        )
    scores = np.concatenate([matched, mismatched])
    n, m = len(matched), len(mismatched)
    targets = np.repeat([(n + 1) / (n + 2), 1 / (m + 2)], [n, m])
    weights = np.repeat([0.5 / n, 0.5 / m], [n, m])
    features = np.stack([np.square(scores), scores, np.ones_like(scores)], axis=1)  # (P, 3)
    curvature, slope, intercept = logistic_regression(features, targets, weights)
    # A curve that bends down, or with its minimum among the matched scores, is implausible: take a line.
    if curvature < 0 or 2 * curvature * np.median(matched) + slope <= 0:
        curvature, (slope, intercept) = 0.0, logistic_regression(features[:, 1:], targets, weights)
    if curvature == 0 and slope <= 0:
        raise CalibrationError(
            f"images of one person must score higher than those of two people, their mean scores are "
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
    """Return, for each rate with ten or more pairs above, the score that at most this share lies above."""
    falling = np.sort(mismatched)[::-1]
    counts = {rate: int(rate * len(falling) * (1 + 1e-12)) for rate in RATES}
    return {rate: float(falling[count]) for rate, count in counts.items() if count >= _MIN_ABOVE}


def _matched_pairs(
    labels: NDArray[np.int64], rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Return the two indices of each pair, and the number of people with a pair."""
    firsts: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    seconds: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    order = np.argsort(labels, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    for group in groups:
        first, second = np.triu_indices(len(group), 1)
        if len(first) > _MAX_MATCHED:
            chosen = rng.choice(len(first), _MAX_MATCHED, replace=False)
            first, second = first[chosen], second[chosen]
        firsts.append(group[first])
        seconds.append(group[second])
    return np.concatenate(firsts), np.concatenate(seconds), sum(len(group) > 1 for group in groups)


def _mismatched(rows: Floats, labels: NDArray[np.int64], rng: np.random.Generator) -> Reals:
    """Score all pairs of two people, or 2 million random ones, with replacement."""
    count = len(rows)
    if count * (count - 1) // 2 > _MAX_MISMATCHED:
        first = rng.integers(0, count, _MAX_MISMATCHED)
        second = (first + rng.integers(1, count, _MAX_MISMATCHED)) % count  # never the same image
    else:
        first, second = np.triu_indices(count, 1)
    other = labels[first] != labels[second]
    return _scores(rows, first[other], second[other])


def _scores(rows: Floats, first: NDArray[np.int64], second: NDArray[np.int64]) -> Reals:
    scores = np.empty(len(first))
    for start in range(0, len(first), _ROWS):
        part = slice(start, start + _ROWS)
        scores[part] = np.einsum("pe,pe->p", rows[first[part]], rows[second[part]])
    return scores
