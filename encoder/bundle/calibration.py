"""What a score is worth: from a cosine to a probability, thresholds, and the errors a model usually makes.

They lie in ``calibration.json`` beside a bundle's files and are no part of the model: to fit them again
changes no vector, so ``model_id`` and what is indexed stay. Fitted by ``trainer/fitting/calibration.py``.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lookalike.encoder.bundle.manifest import digest_of
from lookalike.encoder.bundle.ood import ReconstructionErrorStats, count_of, real_of
from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.text import one_line

Reals = NDArray[np.float64]

RATES: Final = (0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-6)
"""False match rates that thresholds are fitted for, as far as the data support them."""
_FORMAT: Final = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreCalibration:
    """How much a cosine score s speaks for one person: ``curvature s^2 + slope s + intercept``.

    That is a log likelihood ratio, the log-odds at an even prior. The square is there because scores of one
    person spread wider than scores of two, and their tail decides a search. Measured on LFW with a whitened
    autoencoder, fitted to 584 people and asked by 2,086 others with one more picture of theirs among those of
    all other people: first hits said to be right with 0.05 to 0.2 (mean 0.09) are in 0.13 of cases, those
    said 0.2 to 0.5 (0.31) in 0.31. A straight line said 0.003 where it was 0.065 and, fitted at priors down
    to 1e-4, still 0.016; its Cllr is 0.785 against 0.773. Steps (isotonic regression) said 0.88 where it was
    0.44. The shipped model, fitted to 59 validation people: those said over 0.8 (0.89) are right in 0.90,
    0.5 to 0.8 (0.65) in 0.61, but 0.05 to 0.2 (0.10) in 0.25: too modest in the middle.

    It never falls: below the curve's lowest point it is flat. Nor does it claim more than the number of pairs
    can show: it lies within ``-log(matched + 1)`` and ``log(mismatched + 1)``.

    Attributes:
        curvature: 0 or more.
        slope: Over 0 where the curvature is 0.
        intercept: Log-odds of a score of 0.
        thresholds: False match rate to the score that so many mismatched pairs are above, at most; only
            rates with ten or more pairs beyond.
        matched: Pairs of pictures of one person that it was fitted to.
        mismatched: Pairs of pictures of two people.
        people: People with two or more pictures.
    """

    curvature: float
    slope: float
    intercept: float
    thresholds: Mapping[float, float]
    matched: int
    mismatched: int
    people: int

    def __post_init__(self) -> None:
        """Check that more likeness is never less evidence.

        Raises:
            InvalidArgumentError: it is, or a value cannot be.
        """
        rates = sorted(self.thresholds, reverse=True)
        scores = [self.thresholds[rate] for rate in rates]
        rules = {
            "values must be finite": np.isfinite([self.curvature, self.slope, self.intercept, *scores]).all(),
            "it must rise with the score": self.curvature >= 0 and 2 * self.curvature + self.slope > 0,
            f"rates must be of {RATES}": set(rates) <= set(RATES),
            "thresholds must rise as rates fall": scores == sorted(scores),
            "pairs and people must be counted": min(self.matched, self.mismatched, self.people) > 0,
        }
        for rule, holds in rules.items():
            if not holds:
                raise InvalidArgumentError(
                    f"no map from scores to evidence: {rule}; got {reprlib.repr(self)}"
                )

    def evidence(self, scores: ArrayLike) -> Reals:
        """Return log likelihood ratios, float64, of cosine scores in [-1, 1] of any shape."""
        cosine = np.clip(np.asarray(scores, np.float64), -1, 1)
        if self.curvature:
            cosine = np.maximum(cosine, -self.slope / (2 * self.curvature))
        ratio = (self.curvature * cosine + self.slope) * cosine + self.intercept
        found: Reals = np.clip(ratio, -math.log(self.matched + 1), math.log(self.mismatched + 1))
        return found

    def probability(self, scores: ArrayLike, prior: float) -> Reals:
        """Return how probable one person is, in (0, 1), float64, for scores of any shape.

        Bayes: ``sigma(evidence + log(prior / (1 - prior)))``. See :func:`default_prior` for the prior.

        Raises:
            InvalidArgumentError: the prior is not between 0 and 1.
        """
        if not 0 < prior < 1:  # NaN too
            raise InvalidArgumentError(
                f"a prior is a probability over 0 and under 1, not {prior}; 1/100, say, is 0.01"
            )
        odds = self.evidence(scores) + math.log(prior) - math.log1p(-prior)
        found: Reals = 0.5 * (1 + np.tanh(0.5 * odds))  # sigma, without overflow
        return found

    def threshold(self, rate: float | None = None) -> float | None:
        """Return the score that a match lies above, at a false match rate or at the smallest one there is.

        Raises:
            InvalidArgumentError: the data did not support this rate.
        """
        if rate is None:
            return self.thresholds[min(self.thresholds)] if self.thresholds else None
        if rate not in self.thresholds:
            there = ", ".join(f"{known:g}" for known in sorted(self.thresholds, reverse=True)) or "none"
            raise InvalidArgumentError(
                f"a threshold for a false match rate of {rate:g} is not known, those known are {there} "
                f"({self.mismatched} mismatched pairs were compared); take one of them"
            )
        return self.thresholds[rate]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values that :meth:`from_json` reads back equal."""
        thresholds = {f"{rate:g}": self.thresholds[rate] for rate in sorted(self.thresholds, reverse=True)}
        return {field.name: getattr(self, field.name) for field in fields(self)} | {"thresholds": thresholds}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read what :meth:`to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
            InvalidArgumentError: its values do not fit each other.
        """
        return cls(
            curvature=real_of(value["curvature"]),
            slope=real_of(value["slope"]),
            intercept=real_of(value["intercept"]),
            thresholds={float(rate): real_of(score) for rate, score in dict(value["thresholds"]).items()},
            matched=count_of(value["matched"]),
            mismatched=count_of(value["mismatched"]),
            people=count_of(value["people"]),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """What was measured of a model on people that it had not learned from.

    Attributes:
        likeness: From scores to evidence; None where no people were named, or too few.
        errors: Of drawing clean pictures; None for a model that does not draw.
    """

    likeness: ScoreCalibration | None = None
    errors: ReconstructionErrorStats | None = None

    def to_bytes(self, model_id: str) -> bytes:
        """Return ``calibration.json``: what :meth:`from_bytes` reads back equal."""
        content = {
            "format": _FORMAT,
            "model_id": model_id,
            "likeness": None if self.likeness is None else self.likeness.to_json(),
            "errors": None if self.errors is None else self.errors.to_json(),
        }
        content = json.loads(json.dumps(content, allow_nan=False))
        return (json.dumps({"sha256": digest_of(content), **content}, indent=2) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes, *, model_id: str) -> Self:
        """Read ``calibration.json`` of the model.

        Raises:
            InvalidArgumentError: it is damaged, of a later format, or belongs to another model.
        """
        try:
            content = json.loads(data)
            digest = content.pop("sha256")
            intact = digest == digest_of(content)
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
            raise InvalidArgumentError(f"it cannot be read ({one_line(error)})") from error
        if not intact:
            raise InvalidArgumentError("it does not match its SHA-256")
        if content.get("format") != _FORMAT:
            raise InvalidArgumentError(f"it has format {reprlib.repr(content.get('format'))}, not {_FORMAT}")
        if content.get("model_id") != model_id:
            raise InvalidArgumentError(
                f"it belongs to model {str(content.get('model_id'))[:12]}, this one is {model_id[:12]}"
            )
        try:
            likeness, errors = content["likeness"], content["errors"]
            return cls(
                likeness=None if likeness is None else ScoreCalibration.from_json(likeness),
                errors=None if errors is None else ReconstructionErrorStats.from_json(errors),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InvalidArgumentError(f"its values cannot be ({one_line(error)})") from error


def default_prior(size: int) -> float:
    """Return the prior of a search in a collection of so many pictures: one match expected, at most 0.5.

    With a whitened autoencoder on LFW that is right for a person drawn by lot: the first hits of 2,086 people
    who each ask once are said to be right in 0.059 of cases and are in 0.067. Who has many pictures in a
    collection is found more often than said (all 5,373 pictures of these people asking, who have 22 more each
    on average: 0.10 said, 0.25 right), who has none less often: then give the prior.
    """
    return min(0.5, 1 / max(size, 1))
