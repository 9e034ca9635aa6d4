"""Calibration of a model: from a cosine score to a probability, thresholds, and the test for foreign images.

It lies in ``calibration.json`` in a bundle's folder and is not part of the model: fitting it again changes
no vector, so ``model_id`` and collections stay valid. Fitted by ``trainer/fitting/calibration.py``.

An image is out of distribution when the error of reconstructing it is far above that of in-domain images, or
when its latent is unlike theirs: a smooth sky is easily reconstructed, but is no face.

Legend: N images, H = W = S pixels, C channels.
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

from lookalike.encoder.bundle.spec import digest_of
from lookalike.encoder.bundle.storage import json_float, json_int
from lookalike.encoder.errors import InvalidArgumentError, one_line
from lookalike.encoder.files import parse_json

Reals = NDArray[np.float64]

QUANTILES: Final = (0.5, 0.99, 0.999)
"""Of the errors of in-domain images."""
OOD_FACTOR: Final = 1.25
"""An image is out of distribution when an error is more than this times the 0.999 quantile.

Measured with the shipped model on LFW, that flags 0.1 % of held-out faces, 70 % of MNIST digits and all
noise, but only 1 % of faces upside down.
"""
OFF_AXIS_QUANTILE: Final = 0.995
"""Of held-out images: how far their latents lie off the axes of the training images.

With the shipped model ``faces`` and held-out faces of LFW, that and the errors flag 0.6 % of these faces and
89 % of 170 photographs without one; the errors alone flag 30 %.
"""
DEFAULT_PRESENCE: Final = 0.5
"""Probability that the person searched for is in a collection, before anything is compared."""
_PRESENCE_DIVISOR: Final = 1 / 3
"""Of the odds of a prior: chosen on validation people of LFW, see :class:`SearchCalibration`."""
_DARKEST: Final = 1 / 255**2  # variance of an image that is all but blank


@dataclass(frozen=True, kw_only=True, slots=True)
class ReconstructionErrorStats:
    """Quantiles of reconstruction errors on clean in-domain images; see :func:`reconstruction_errors`.

    Attributes:
        images: Number of measured images.
        squared: Median, 0.99 and 0.999 quantile of the mean squared error.
        share: The same of the share of an image's variance that is lost.
    """

    images: int
    squared: tuple[float, float, float]
    share: tuple[float, float, float]

    def __post_init__(self) -> None:
        """Check that the quantiles rise.

        Raises:
            InvalidArgumentError: They do not, or there is no image.
        """
        for values in (self.squared, self.share):
            rising = 0 <= values[0] <= values[1] <= values[2] < math.inf
            if self.images < 1 or not rising:
                raise InvalidArgumentError(
                    f"quantiles of errors must rise from 0, got {values} of {self.images} images"
                )

    @classmethod
    def from_errors(cls, errors: Reals) -> Self:
        """Measure errors float64 (N, 2) from :func:`reconstruction_errors`.

        Raises:
            InvalidArgumentError: There are none, or one is not finite.
        """
        if errors.ndim != 2 or errors.shape[1] != 2 or not len(errors) or not np.isfinite(errors).all():
            raise InvalidArgumentError(
                f"error statistics need finite errors (N, 2), N over 0, got {errors.shape}"
            )
        (m1, h1, t1), (m2, h2, t2) = np.quantile(errors, QUANTILES, axis=0).T.tolist()
        return cls(images=len(errors), squared=(m1, h1, t1), share=(m2, h2, t2))

    def ood_scores(self, errors: Reals) -> list[float | None]:
        """Return how many times the median errors float64 (N, 2) are; None for in-distribution images.

        Both errors count. The squared error alone misses images of little contrast (any model reconstructs a
        blank wall), the lost share alone misses those of high contrast.
        """
        quantiles = np.array([self.squared, self.share])  # (2, quantiles)
        outside = np.logical_or(*(errors > OOD_FACTOR * quantiles[:, 2]).T)
        ratios: Reals = (errors / np.maximum(quantiles[:, 0], 1e-12)).max(axis=1)
        return [float(ratio) if out else None for ratio, out in zip(ratios, outside, strict=True)]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values that :meth:`from_json` reads back equal."""
        return {"images": self.images, "squared": list(self.squared), "share": list(self.share)}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read what :meth:`to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: It is something else.
            InvalidArgumentError: Its values do not fit each other.
        """
        squared, share = ([json_float(each) for each in value[name]] for name in ("squared", "share"))
        (m1, h1, t1), (m2, h2, t2) = squared, share
        return cls(images=json_int(value["images"]), squared=(m1, h1, t1), share=(m2, h2, t2))


def reconstruction_errors(originals: NDArray[np.uint8], decoded: NDArray[np.float32]) -> Reals:
    """Return the errors of each decoded image, float64 (N, 2).

    The first column is the mean squared error in [0, 1]^2, the second the share of the image's variance
    (of each channel about its mean) that this error is; a blank image counts as having a variance of one
    step of 255.

    Args:
        originals: uint8 (N, H, W, C).
        decoded: float32 (N, H, W, C) in [0, 1].
    """
    if not len(originals):
        return np.empty((0, 2))
    expected = originals.astype(np.float32) / np.float32(255)
    squared = np.square(decoded - expected).mean(axis=(1, 2, 3), dtype=np.float64)
    variance = expected.var(axis=(1, 2), dtype=np.float64).mean(axis=1)
    return np.stack([squared, squared / np.maximum(variance, _DARKEST)], axis=1)


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

        Bayes: ``sigma(evidence + log(prior / (1 - prior)))``.

        Raises:
            InvalidArgumentError: The prior is not between 0 and 1.
        """
        _check_prior(prior)
        return _logistic(self.evidence(scores) + math.log(prior) - math.log1p(-prior))

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
class SearchCalibration:
    """Probability that a hit of a search shows the query's person.

    Where N images are searched, and one or more of them show the person with probability p, the odds of a hit
    with cosine score s are ``p / (1 - p / 3) exp(slope s + intercept) / N^decline``: the same score means
    less in a larger collection. (For p near 0 that is Bayes' rule; the divisor makes first hits right where
    the person is known to be there, docs/experiments.md.) It is never more certain than the searches of the
    fit can show.

    Attributes:
        slope: Over 0.
        intercept: Log-odds of a score of 0 where one image is searched, but for the prior.
        decline: In [0, 1]: 1 where scores of other people are independent of each other.
        searches: Images that searched for their person, and could find them, in the fit.
    """

    slope: float
    intercept: float
    decline: float = 1.0
    searches: int

    def __post_init__(self) -> None:
        """Check that a higher score is never less evidence.

        Raises:
            InvalidArgumentError: It is, or a value is invalid.
        """
        finite = 0 < self.slope < math.inf and math.isfinite(self.intercept)
        if not (finite and 0 <= self.decline <= 1 and self.searches > 0):
            raise InvalidArgumentError(
                "a calibration of searches needs a slope over 0, a finite intercept, a decline in [0, 1] and "
                f"one search or more; got {reprlib.repr(self)}"
            )

    def probability(self, scores: ArrayLike, *, size: int, prior: float = DEFAULT_PRESENCE) -> Reals:
        """Return the probability in (0, 1) of hits, float64, of scores in [-1, 1] of any shape.

        Args:
            scores: Cosine similarity.
            size: Images in the collection.
            prior: Probability that the person is in it at all, before the search.

        Raises:
            InvalidArgumentError: The prior is not between 0 and 1.
        """
        _check_prior(prior)
        cosine = np.clip(np.asarray(scores, np.float64), -1, 1)
        odds = self.slope * cosine + self.intercept + presence_odds(prior)
        odds -= self.decline * math.log(max(size, 1))
        return _logistic(np.minimum(odds, math.log(self.searches + 1)))

    def to_json(self) -> dict[str, Any]:
        """Return JSON values that :meth:`from_json` reads back equal."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read what :meth:`to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: It is something else.
            InvalidArgumentError: Its values are invalid.
        """
        return cls(
            slope=json_float(value["slope"]),
            intercept=json_float(value["intercept"]),
            decline=json_float(value["decline"]),
            searches=json_int(value["searches"]),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """What was measured of a model on people it was not trained on.

    Attributes:
        scores: From scores of pairs to evidence; None where too few people have names.
        searches: From scores of hits to probabilities; None where there are too few, and in bundles of
            earlier versions.
        reconstruction_errors: Of clean images; None for a model without a decoder.
        most_off_axis: An image is out of distribution when its latent lies farther than this off the axes
            along which the training images vary, see :meth:`LatentStatistics.minor_axes`; None: not measured.
    """

    scores: ScoreCalibration | None = None
    searches: SearchCalibration | None = None
    reconstruction_errors: ReconstructionErrorStats | None = None
    most_off_axis: float | None = None

    def __post_init__(self) -> None:
        """Check the limit.

        Raises:
            InvalidArgumentError: It is not a finite number over 0.
        """
        if self.most_off_axis is not None and not 0 < self.most_off_axis < math.inf:
            raise InvalidArgumentError(
                f"a limit of latents must be finite and over 0, not {self.most_off_axis}"
            )

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
        if self.searches is not None:
            content["searches"] = self.searches.to_json()
        if self.most_off_axis is not None:
            content["most_off_axis"] = self.most_off_axis
        content = json.loads(json.dumps(content, allow_nan=False))
        return (json.dumps({"sha256": digest_of(content), **content}, indent=2) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes, *, model_id: str) -> Self:
        """Read ``calibration.json`` of the model.

        Raises:
            InvalidArgumentError: It is damaged, of another format, or belongs to another model.
        """
        try:
            content = parse_json(data)
            digest = content.pop("sha256")
            intact = digest == digest_of(content)
        except RecursionError:
            raise InvalidArgumentError("it cannot be read (it is nested too deeply)") from None
        except (ValueError, TypeError, AttributeError, KeyError) as error:
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
            searches, off_axis = content.get("searches"), content.get("most_off_axis")
            return cls(
                scores=None if scores is None else ScoreCalibration.from_json(scores),
                searches=None if searches is None else SearchCalibration.from_json(searches),
                reconstruction_errors=None if errors is None else ReconstructionErrorStats.from_json(errors),
                most_off_axis=None if off_axis is None else json_float(off_axis),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InvalidArgumentError(f"its values are invalid ({one_line(error)})") from error


def presence_odds(prior: float) -> float:
    """Return what a prior in (0, 1) adds to the log-odds of a hit, see :class:`SearchCalibration`."""
    return math.log(prior) - math.log1p(-_PRESENCE_DIVISOR * prior)


def _check_prior(prior: float) -> None:
    if not 0 < prior < 1:  # NaN too
        raise InvalidArgumentError(f"a prior must be over 0 and under 1, not {prior}; write 1/100 as 0.01")


def _logistic(odds: Reals) -> Reals:
    chances: Reals = 0.5 * (1 + np.tanh(0.5 * odds))  # without overflow
    return chances
