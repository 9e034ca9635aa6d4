"""Calibration of a model: from a cosine score to a probability, thresholds, and usual reconstruction errors.

It lies in ``calibration.json`` in a bundle's folder and is not part of the model: fitting it again changes
no vector, so ``model_id`` and collections stay valid. Fitted by ``trainer/fitting/calibration.py``.
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
from lookalike.encoder.bundle.ood import ReconstructionErrorStats
from lookalike.encoder.bundle.storage import json_float, json_int
from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.text import one_line

Reals = NDArray[np.float64]

RATES: Final = (0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-6)
"""False match rates that thresholds are fitted for, as far as the data support them."""
_FORMAT: Final = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreCalibration:
    """Log likelihood ratio that two images with cosine score s show one person.

    It is ``curvature s^2 + slope s + intercept``: the log-odds at an even prior. The square is there because
    scores of one person spread wider than scores of two, and their tail decides a search; on LFW a straight
    line gave 0.003 where 0.065 of the hits were right (docs/experiments.md).

    It never falls: below the curve's lowest point it is flat. It never claims more than the number of pairs
    can show: it lies within ``-log(matched + 1)`` and ``log(mismatched + 1)``.

    Attributes:
        curvature: 0 or more.
        slope: Over 0 where the curvature is 0.
        intercept: Log-odds of a score of 0.
        thresholds: False match rate to the score that at most this share of mismatched pairs exceeds; only
            rates with ten or more pairs beyond.
        matched: Pairs of images of one person that it was fitted to.
        mismatched: Pairs of images of two people.
        people: People with two or more images.
    """

    curvature: float
    slope: float
    intercept: float
    thresholds: Mapping[float, float]
    matched: int
    mismatched: int
    people: int

    def __post_init__(self) -> None:
        """Check that a higher score is never less evidence.

        Raises:
            InvalidArgumentError: It is, or a value is invalid.
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
                raise InvalidArgumentError(f"invalid score calibration: {rule}; got {reprlib.repr(self)}")

    def evidence(self, scores: ArrayLike) -> Reals:
        """Return log likelihood ratios, float64, of cosine scores in [-1, 1] of any shape."""
        cosine = np.clip(np.asarray(scores, np.float64), -1, 1)
        if self.curvature:
            cosine = np.maximum(cosine, -self.slope / (2 * self.curvature))
        ratio = (self.curvature * cosine + self.slope) * cosine + self.intercept
        bounded: Reals = np.clip(ratio, -math.log(self.matched + 1), math.log(self.mismatched + 1))
        return bounded

    def probability(self, scores: ArrayLike, prior: float) -> Reals:
        """Return the probability in (0, 1) that both images show one person, float64, of scores of any shape.

        Bayes: ``sigma(evidence + log(prior / (1 - prior)))``. See :func:`default_prior` for the prior.

        Raises:
            InvalidArgumentError: The prior is not between 0 and 1.
        """
        if not 0 < prior < 1:  # NaN too
            raise InvalidArgumentError(
                f"a prior must be over 0 and under 1, not {prior}; write 1/100 as 0.01"
            )
        odds = self.evidence(scores) + math.log(prior) - math.log1p(-prior)
        chances: Reals = 0.5 * (1 + np.tanh(0.5 * odds))  # the logistic function, without overflow
        return chances

    def threshold(self, rate: float | None = None) -> float | None:
        """Return the threshold of a false match rate, or of the smallest known one; matches score above it.

        Raises:
            InvalidArgumentError: The data did not support this rate.
        """
        if rate is None:
            return self.thresholds[min(self.thresholds)] if self.thresholds else None
        if rate not in self.thresholds:
            available = ", ".join(f"{known:g}" for known in sorted(self.thresholds, reverse=True)) or "none"
            raise InvalidArgumentError(
                f"no threshold for a false match rate of {rate:g}, the known rates are {available} "
                f"(from {self.mismatched} mismatched pairs); choose one of them"
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
            KeyError, TypeError, ValueError: It is something else.
            InvalidArgumentError: Its values do not fit each other.
        """
        return cls(
            curvature=json_float(value["curvature"]),
            slope=json_float(value["slope"]),
            intercept=json_float(value["intercept"]),
            thresholds={float(rate): json_float(score) for rate, score in dict(value["thresholds"]).items()},
            matched=json_int(value["matched"]),
            mismatched=json_int(value["mismatched"]),
            people=json_int(value["people"]),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """What was measured of a model on people it was not trained on.

    Attributes:
        scores: From scores to evidence; None where too few people have names.
        reconstruction_errors: Of clean images; None for a model without a decoder.
    """

    scores: ScoreCalibration | None = None
    reconstruction_errors: ReconstructionErrorStats | None = None

    def to_bytes(self, model_id: str) -> bytes:
        """Return ``calibration.json``: what :meth:`from_bytes` reads back equal."""
        content = {
            "format": _FORMAT,
            "model_id": model_id,
            "scores": None if self.scores is None else self.scores.to_json(),
            "reconstruction_errors": (
                None if self.reconstruction_errors is None else self.reconstruction_errors.to_json()
            ),
        }
        content = json.loads(json.dumps(content, allow_nan=False))
        return (json.dumps({"sha256": digest_of(content), **content}, indent=2) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes, *, model_id: str) -> Self:
        """Read ``calibration.json`` of the model.

        Raises:
            InvalidArgumentError: It is damaged, of another format, or belongs to another model.
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
            scores, errors = content["scores"], content["reconstruction_errors"]
            return cls(
                scores=None if scores is None else ScoreCalibration.from_json(scores),
                reconstruction_errors=None if errors is None else ReconstructionErrorStats.from_json(errors),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InvalidArgumentError(f"its values are invalid ({one_line(error)})") from error


def default_prior(size: int) -> float:
    """Return the prior of a search in a collection of this many images: one match expected, at most 0.5.

    On LFW that is right for a person chosen at random. Someone with many images in the collection is found
    more often than predicted, someone with none less often: give the prior then.
    """
    return min(0.5, 1 / max(size, 1))
