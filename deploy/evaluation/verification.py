"""Do two images show one person? Accuracy, ROC and the area under it, from similarity alone.

G. B. Huang, M. Ramesh, T. Berg, E. Learned-Miller: Labeled Faces in the Wild. UMass Amherst TR 07-49, 2007:
the threshold for a fold is the best one of the other folds; reported are mean and standard error.

Legend: F folds, P pairs in one, S pairs in all, N images, E embedding size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lookalike.deploy.evaluation.pairs import Fold
from lookalike.encoder.errors import InvalidArgumentError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

FAR: Final = 0.01
"""False acceptance rate at which the true acceptance rate is reported."""


@dataclass(frozen=True, slots=True)
class Verification:
    """How well similarity separates pairs of one person from pairs of two.

    Attributes:
        folds: F.
        pairs: S.
        accuracy: Mean over the folds of the share of right decisions, in [0, 1].
        standard_error: Of that mean: the deviation between folds (F - 1 in the divisor) over sqrt(F).
        auc: Area under the ROC of all pairs, in [0, 1]: how often a matched pair is more similar than a
            mismatched one.
        tar_at_far_1_percent: Share of matched pairs accepted where at most 1 % of the mismatched ones are.
    """

    folds: int
    pairs: int
    accuracy: float
    standard_error: float
    auc: float
    tar_at_far_1_percent: float

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


@dataclass(frozen=True, eq=False, slots=True)
class Roc:
    """Receiver operating characteristic: what is accepted as the threshold falls.

    Attributes:
        far: False acceptance rate, float64 (T,), rising from 0 to 1.
        tar: True acceptance rate at each, float64 (T,), rising from 0 to 1.
        auc: Area under it.
    """

    far: Floats
    tar: Floats
    auc: float

    def tar_at(self, far: float) -> float:
        """Return the highest true acceptance rate where the false one is at most ``far``."""
        return float(self.tar[self.far <= far].max())


def pair_similarity(vectors: NDArray[np.float32], fold: Fold) -> Floats:
    """Return the cosine of each pair, float64 (P,), of unit vectors float32 (N, E)."""
    first, second = (vectors[side].astype(np.float64) for side in (fold.first, fold.second))
    cosines: Floats = np.einsum("pe,pe->p", first, second)
    return cosines


def best_threshold(scores: Floats, same: Bools) -> float:
    """Return the threshold with most right decisions on S pairs; pairs at or above it count as one person.

    It lies half-way between two scores; of several that are as good the lowest is taken.
    """
    values, place = np.unique(scores, return_inverse=True)
    gains = np.bincount(place, weights=np.where(same, 1.0, -1.0), minlength=len(values))
    # Accepting all is right for the matched; every value that falls below costs its gain.
    right = same.sum() - np.concatenate([[0.0], np.cumsum(gains)])
    best = int(right.argmax())
    if best == 0:
        return -math.inf
    if best == len(values):
        return math.inf
    low, high = float(values[best - 1]), float(values[best])
    middle = low + (high - low) / 2
    return middle if middle > low else high


def fold_thresholds(scores: Sequence[Floats], same: Sequence[Bools]) -> list[float]:
    """Return for each of F folds the best threshold of the other folds.

    Raises:
        InvalidArgumentError: there are fewer than two folds.
    """
    if len(scores) < 2:
        raise InvalidArgumentError(f"verification needs two folds or more, got {len(scores)}")
    return [
        best_threshold(
            np.concatenate([each for other, each in enumerate(scores) if other != fold]),
            np.concatenate([each for other, each in enumerate(same) if other != fold]),
        )
        for fold in range(len(scores))
    ]


def roc(scores: Floats, same: Bools) -> Roc:
    """Return the curve of S pairs; equal scores are accepted together.

    The area is exact: the rank-sum statistic of H. B. Mann and D. R. Whitney, Annals of Mathematical
    Statistics 18, 1947, with ties at their mean rank (J. A. Hanley, B. J. McNeil, Radiology 143, 1982).

    Raises:
        InvalidArgumentError: there is no matched or no mismatched pair.
    """
    matched, mismatched = int(same.sum()), int((~same).sum())
    if not matched or not mismatched:
        raise InvalidArgumentError(
            f"a ROC needs matched and mismatched pairs, got {matched} and {mismatched}; give both"
        )
    values, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # from 1, ties at their mean
    area = (ranks[place][same].sum() - matched * (matched + 1) / 2) / (matched * mismatched)
    hits = np.bincount(place[same], minlength=len(values))[::-1]
    alarms = np.bincount(place[~same], minlength=len(values))[::-1]
    far = np.concatenate([[0.0], np.cumsum(alarms) / mismatched])
    tar = np.concatenate([[0.0], np.cumsum(hits) / matched])
    return Roc(far, tar, float(area))


def verify(scores: Sequence[Floats], same: Sequence[Bools]) -> tuple[Verification, Roc]:
    """Measure F folds of scores, float64 (P,) each, and whether the pairs are matched, bool (P,).

    Raises:
        InvalidArgumentError: there are fewer than two folds, or no matched or no mismatched pair.
    """
    curve = roc(np.concatenate(list(scores)), np.concatenate(list(same)))
    thresholds = fold_thresholds(scores, same)
    right = [
        float(((each >= threshold) == truth).mean())
        for each, truth, threshold in zip(scores, same, thresholds, strict=True)
    ]
    metrics = Verification(
        folds=len(right),
        pairs=sum(map(len, scores)),
        accuracy=float(np.mean(right)),
        standard_error=float(np.std(right, ddof=1) / math.sqrt(len(right))),
        auc=curve.auc,
        tar_at_far_1_percent=curve.tar_at(FAR),
    )
    return metrics, curve


def evaluate_pairs(vectors: NDArray[np.float32], folds: Sequence[Fold]) -> tuple[Verification, Roc]:
    """Return metrics and curve of unit vectors float32 (N, E) on folds; raises as :func:`verify`."""
    return verify([pair_similarity(vectors, fold) for fold in folds], [fold.same for fold in folds])
