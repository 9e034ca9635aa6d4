"""How reliable a calibration is, measured on people it was not fitted to.

N. Brummer, J. du Preez: Application-independent evaluation of speaker detection. Computer Speech & Language
20, 2006 (Cllr). M. P. Naeini, G. F. Cooper, M. Hauskrecht: Obtaining well calibrated probabilities using
Bayesian binning. AAAI 2015 (expected calibration error).

Legend: N images, E embedding size, P predictions.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.bundle import DEFAULT_PRESENCE, SearchCalibration
from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.images import decode_rgb
from lookalike.trainer.fitting import (
    HITS,
    Searches,
    draw_searches,
    fit_score_calibration,
    fit_search_calibration,
    pair_scores,
)

Floats = NDArray[np.float32]
Reals = NDArray[np.float64]

_FOLDS: Final = 5
_EDGES: Final = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Of bins: finer where the hits of a search are."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Predictions of about the same probability.

    Attributes:
        weight: Share of all.
        said: Mean predicted probability.
        was: Share that came true.
        count: Number of predictions.
    """

    weight: float
    said: float
    was: float
    count: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Reliability:
    """How reliable a calibration is, by cross-validation over people.

    Pairs are evaluated at prior 0.5. Hits are the first ten of searches in drawn galleries, half of them
    without the person, see :func:`draw_searches`.

    Attributes:
        cllr: Of pairs, in bits: 0 is perfect, 1 is knowing nothing.
        pair_error: Expected calibration error of pairs.
        hit_error: The same of hits.
        hit_log_loss: Mean negative log of the probability of the outcome, of hits, in nats.
        hits: Their number.
        sure: Hits with a predicted probability over 0.5.
        sure_right: Share of them that are right; None when there is none.
        pair_bins: What :func:`plot_reliability` shows.
        hit_bins: The same of hits.
    """

    cllr: float
    pair_error: float
    hit_error: float
    hit_log_loss: float
    hits: int
    sure: int
    sure_right: float | None
    pair_bins: tuple[Bin, ...]
    hit_bins: tuple[Bin, ...]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def cllr(matched: Reals, mismatched: Reals) -> float:
    """Return the cost of log likelihood ratios, in bits, of pairs of one person and of two (Brummer 2006)."""
    cost = np.logaddexp(0, -matched).mean() + np.logaddexp(0, mismatched).mean()
    return float(cost / (2 * np.log(2)))


def bin_predictions(predicted: Reals, true: NDArray[np.bool_], weights: Reals) -> tuple[Bin, ...]:
    """Collect predictions (P,) in [0, 1] and outcomes into bins; empty ones are left out.

    Args:
        predicted: float64 (P,).
        true: bool (P,).
        weights: float64 (P,), of any sum.
    """
    which = np.digitize(predicted, _EDGES[1:-1])
    bins = []
    for number in range(len(_EDGES) - 1):
        inside = which == number
        weight = float(weights[inside].sum())
        if weight > 0:
            shares = weights[inside] / weight
            bins.append(
                Bin(
                    weight / float(weights.sum()),
                    float(shares @ predicted[inside]),
                    float(shares @ true[inside]),
                    int(inside.sum()),
                )
            )
    return tuple(bins)


def calibration_error(bins: Sequence[Bin]) -> float:
    """Return the expected calibration error: the weighted mean of |predicted - observed| (Naeini 2015)."""
    return sum(each.weight * abs(each.said - each.was) for each in bins)


def cross_validate(
    embeddings: Floats, people: Sequence[str], others: Floats | None = None, *, seed: int = 0
) -> Reliability:
    """Fit on four fifths of the people, measure on the fifth, five times.

    Args:
        embeddings: float32 (N, E) of unit length.
        people: N names.
        others: float32 (M, E), of other people, who are searched too.
        seed: Of the folds, of the choice of pairs and of queries.

    Raises:
        CalibrationError: four fifths of the people are too few.
    """
    rng = np.random.default_rng(seed)
    who = np.unique(np.array(people), return_inverse=True)[1]
    fold_of = rng.permutation(who.max() + 1) % _FOLDS
    matched: list[Reals] = []
    mismatched: list[Reals] = []
    hits: list[tuple[Reals, NDArray[np.bool_], Reals]] = []
    for fold in range(_FOLDS):
        inside = fold_of[who] == fold
        outside = _select(embeddings, people, ~inside)
        calibration = fit_score_calibration(pair_scores(*outside, seed=seed))
        searching = fit_search_calibration(draw_searches(*outside, others, seed=seed))
        pairs = pair_scores(*_select(embeddings, people, inside), seed=seed)
        matched.append(calibration.evidence(pairs.matched))
        mismatched.append(calibration.evidence(pairs.mismatched))
        searches = draw_searches(embeddings, people, others, queries=inside, seed=seed)
        hits.append(predict_hits(searching, searches))
    predicted, true, weights = (np.concatenate(parts) for parts in zip(*hits, strict=True))
    return _reliability(np.concatenate(matched), np.concatenate(mismatched), predicted, true, weights)


def predict_hits(
    calibration: SearchCalibration, searches: Searches, *, prior: float = DEFAULT_PRESENCE, hits: int = HITS
) -> tuple[Reals, NDArray[np.bool_], Reals]:
    """Return of each hit the probability, whether it is right, and its weight.

    Args:
        calibration: What predicts.
        searches: Q searches.
        prior: Probability that a search's person is there.
        hits: So many of each search.
    """
    scores, right = searches.scores[:, :hits], searches.right[:, :hits]
    seen = np.isfinite(scores)
    predicted = np.empty(scores.shape)
    for size in np.unique(searches.sizes):
        rows = searches.sizes == size
        predicted[rows] = calibration.probability(scores[rows], size=int(size), prior=prior)
    weights = np.broadcast_to(searches.weights[:, None], scores.shape)
    return predicted[seen], right[seen], weights[seen]


def plot_reliability(reliability: Reliability) -> NDArray[np.uint8]:
    """Plot predicted against observed, for pairs and for hits, uint8 (H, W, 3). Needs matplotlib.

    Raises:
        InvalidArgumentError: it is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InvalidArgumentError(
            "--reliability needs matplotlib; pip install 'lookalike[evaluate]'"
        ) from error
    figure = Figure(figsize=(9.6, 5.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    r = reliability
    for axes, bins, title, low in (
        (figure.add_subplot(1, 2, 1), r.pair_bins, f"Pairs, prior 0.5\nCllr {r.cllr:.3f} bits", 0.0),
        (
            figure.add_subplot(1, 2, 2),
            r.hit_bins,
            f"First {HITS} hits of searches\nhalf of them without the person",
            1e-3,
        ),
    ):
        axes.plot([low, 1], [low, 1], color="0.75", linewidth=1)
        seen = [each for each in bins if each.was > 0 or not low]
        sizes = [20 + 300 * each.weight for each in seen]
        axes.scatter([b.said for b in seen], [b.was for b in seen], s=sizes, color="#1a68d6", alpha=0.75)
        axes.set(title=title, xlabel="predicted probability of one person", ylabel="observed share")
        if low:
            axes.set(xscale="log", yscale="log", xlim=(low, 1.1), ylim=(low, 1.1))
        axes.set_aspect("equal")
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return decode_rgb(out.getvalue(), name="reliability")


def _select(embeddings: Floats, people: Sequence[str], chosen: NDArray[np.bool_]) -> tuple[Floats, list[str]]:
    return embeddings[chosen], [people[index] for index in np.flatnonzero(chosen).tolist()]


def _reliability(
    matched: Reals, mismatched: Reals, predicted: Reals, true: NDArray[np.bool_], hit_weights: Reals
) -> Reliability:
    evidence = np.concatenate([matched, mismatched])
    counts = [len(matched), len(mismatched)]
    weights = np.repeat([0.5 / counts[0], 0.5 / counts[1]], counts)
    even = 0.5 * (1 + np.tanh(0.5 * evidence))
    pair_bins = bin_predictions(even, np.repeat([True, False], counts), weights)
    hit_bins = bin_predictions(predicted, true, hit_weights)
    sure = predicted > 0.5
    return Reliability(
        cllr=cllr(matched, mismatched),
        pair_error=calibration_error(pair_bins),
        hit_error=calibration_error(hit_bins),
        hit_log_loss=float(
            -np.average(np.log(np.where(true, predicted, 1 - predicted)), weights=hit_weights)
        ),
        hits=len(predicted),
        sure=int(sure.sum()),
        sure_right=float(true[sure].mean()) if sure.any() else None,
        pair_bins=pair_bins,
        hit_bins=hit_bins,
    )
