"""Are the probabilities of hits right? Measured on people whom nothing was fitted to.

Legend: N images, E embedding size, B bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from lookalike.deploy.evaluation.reliability import Bin, bin_predictions, calibration_error, predict_hits
from lookalike.encoder.bundle import DEFAULT_PRESENCE, SearchCalibration
from lookalike.trainer.fitting import Searches, draw_searches

Floats = NDArray[np.float32]
Person = Literal["there", "not there", "even odds", "as it is"]

SIZES: Final = (100, 1000, 1_000_000)
"""Of the galleries; the last means all images."""
_PRIORS: Final[dict[Person, float]] = {"there": 0.99, "not there": 0.01, "even odds": DEFAULT_PRESENCE}
"""The prior that is given."""
_LEAST: Final = 200
"""Hits in a bin whose deviation counts."""
_EVEN: Final = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchReliability:
    """How right the probabilities of hits are, in galleries of one size.

    Attributes:
        size: Images in the gallery.
        person: Whether the person searched for is in it: with one or all of their other images, in none, in
            every second gallery; or as it is: every image searches all others.
        prior: Probability told that the person is there.
        searches: Number of searches.
        first_error: Expected calibration error of the first hits.
        hit_error: The same of the first ten hits.
        worst: Largest difference of said and observed in a bin of 200 hits or more; None: there is no such.
        precision: Share of right ones of first hits that count as a match; None where none does.
        recall: Share of searches whose person is there that have a right first hit which counts as a match;
            None where the person never is.
        bins: Of the first hits.
    """

    size: int
    person: Person
    prior: float
    searches: int
    first_error: float
    hit_error: float
    worst: float | None
    precision: float | None
    recall: float | None
    bins: tuple[Bin, ...]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def measure_searches(
    calibration: SearchCalibration,
    embeddings: Floats,
    people: Sequence[str | None],
    *,
    queries: NDArray[np.bool_],
    seed: int = 0,
) -> tuple[SearchReliability, ...]:
    """Measure it in galleries of 100, 1,000 and all images.

    Args:
        calibration: What predicts.
        embeddings: float32 (N, E) of unit length.
        people: N names; None where the person is unknown.
        queries: Whose images search, bool (N,): people whom nothing was fitted to.
        seed: Of the galleries.

    Raises:
        CalibrationError: There are too few images.
    """
    sizes = sorted({min(size, len(embeddings) - 1) for size in SIZES})
    drawn = draw_searches(embeddings, people, sizes=sizes, queries=queries, seed=seed)
    measured: list[SearchReliability] = []
    for size in np.unique(drawn.wanted).tolist():
        here = drawn.wanted == size
        chosen: dict[Person, NDArray[np.bool_]] = {
            "there": here & drawn.present,
            "not there": here & ~drawn.present,
            "even odds": here,
        }
        measured += [
            _measure(calibration, drawn.where(rows), size, person, _PRIORS[person])
            for person, rows in chosen.items()
        ]
    every = draw_searches(
        embeddings, people, sizes=sizes[-1:], mates=("every",), queries=queries, seed=seed, most=None
    )
    measured.append(_measure(calibration, every, sizes[-1], "as it is", DEFAULT_PRESENCE))
    return tuple(measured)


def _measure(
    calibration: SearchCalibration, searches: Searches, size: int, person: Person, prior: float
) -> SearchReliability:
    predicted, right, weights = predict_hits(calibration, searches, prior=prior, hits=1)
    first = bin_predictions(predicted, right, weights)
    all_hits = bin_predictions(*predict_hits(calibration, searches, prior=prior))
    matched = predicted > _EVEN
    there = searches.present
    deviations = [abs(each.said - each.was) for each in (*first, *all_hits) if each.count >= _LEAST]
    return SearchReliability(
        size=size,
        person=person,
        prior=prior,
        searches=len(predicted),
        first_error=calibration_error(first),
        hit_error=calibration_error(all_hits),
        worst=max(deviations, default=None),
        precision=_average(right[matched], weights[matched]),
        recall=_average((right & matched)[there], weights[there]),
        bins=first,
    )


def _average(values: NDArray[np.bool_], weights: NDArray[np.float64]) -> float | None:
    return float(np.average(values, weights=weights)) if values.size else None
