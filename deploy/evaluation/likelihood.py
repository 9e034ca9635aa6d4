"""How likely a model finds a picture: the evidence lower bound, and the tighter one of many weighted samples.

ELBO: D. P. Kingma, M. Welling: Auto-Encoding Variational Bayes. ICLR 2014. The bound of K samples:
Y. Burda, R. Grosse, R. Salakhutdinov: Importance Weighted Autoencoders. ICLR 2016. In nats throughout:

    ELBO  = E_q[log p(x|z)] - KL(q(z|x) || p(z))              <=
    L_K   = E[log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x)]       <=  log p(x),   z_k drawn from q(z|x)

L_1 is the ELBO, and L_K rises with K. Nothing here knows a network: numpy, and functions to be called.

Legend: N images, H, W, C of a picture, P its pixels, Z numbers drawn, K samples here and L classes, D latent
size, Z or Z + L, B rows in a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.errors import InvalidArgumentError

__all__ = [
    "CLIP",
    "Bounds",
    "LogLikelihood",
    "Proposal",
    "bernoulli",
    "bounds",
    "divergence",
    "log_bernoulli",
    "log_normal",
]

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
LogLikelihood = Callable[[Floats, NDArray[np.int64]], Doubles]
"""Latents float32 (B, D) and the indices of their images, int64 (B,), to log p(x|z), float64 (B,)."""

CLIP: Final = 2.0**-20
"""Probabilities of a pixel are held between this and one less it; float32 has both exactly.

They stay probabilities of on and off that sum to 1, so what is measured is a proper model of binary pictures
and its bound is one. Sure and right costs 1e-6 nats a pixel, under 0.001 a digit; sure and wrong costs 13.9
instead of infinity.
"""
_LOG_TAU: Final = math.log(2 * math.pi)


def log_bernoulli(images: NDArray[np.bool_], probabilities: Floats) -> Doubles:
    """Return log p(x|z) of binary pictures, float64 (B,): the sum over independent pixels.

    Args:
        images: bool (B, P).
        probabilities: float32 (B, P) in [0, 1], of each pixel to be on; held within :data:`CLIP`.
    """
    chances = np.clip(probabilities, np.float32(CLIP), np.float32(1 - CLIP))
    np.abs(np.subtract(chances, ~images, out=chances), out=chances)  # p where on, 1 - p where off
    total: Doubles = np.log(chances, out=chances).sum(axis=1, dtype=np.float64)
    return total


def log_normal(
    values: NDArray[np.floating], mean: NDArray[np.floating], deviation: NDArray[np.floating]
) -> Doubles:
    """Return log N(z; mean, deviation²) summed over the last axis, float64; shapes broadcast."""
    scaled = (values.astype(np.float64) - mean) / deviation
    each = -0.5 * (scaled**2 + _LOG_TAU) - np.log(deviation, dtype=np.float64)
    total: Doubles = each.sum(axis=-1)
    return total


def divergence(mean: NDArray[np.floating], deviation: NDArray[np.floating]) -> Doubles:
    """Return KL(N(mean, deviation²) || N(0, I)) summed over the last axis, float64, in nats."""
    spread = deviation.astype(np.float64) ** 2
    total: Doubles = 0.5 * (mean.astype(np.float64) ** 2 + spread - 1 - np.log(spread)).sum(axis=-1)
    return total


@dataclass(frozen=True, eq=False, slots=True)
class Proposal:
    """What latents are drawn from for each of N images: q(z|x), and of a model with classes q(y|x) beside it.

    Attributes:
        mean: float32 (N, Z).
        deviation: float32 (N, Z), above 0.
        classes: q(y|x), float (N, L), rows sum to 1; their one-hot draws stand behind z in the latent. None:
            the model has no classes.
        prior: p(y), float (L,). None: the class is given and no part of what is measured, which is then
            log p(x|y); ``classes`` is one-hot.
    """

    mean: Floats
    deviation: Floats
    classes: NDArray[np.floating] | None = None
    prior: NDArray[np.floating] | None = None

    def __post_init__(self) -> None:
        """Check the arrays.

        Raises:
            InvalidArgumentError: shapes that do not fit, deviations that are not above 0, or rows of no distribution.
        """
        fits = self.mean.ndim == 2 and self.mean.shape == self.deviation.shape
        if not fits or not np.isfinite(self.mean).all() or not (self.deviation > 0).all():
            raise InvalidArgumentError(
                "a posterior is finite means (N, Z) and deviations (N, Z) above 0, "
                f"got {self.mean.shape} and {self.deviation.shape}"
            )
        if self.classes is not None:
            sums = self.classes.sum(axis=1)
            if (
                len(self.classes) != len(self.mean)
                or (self.classes < 0).any()
                or not np.allclose(sums, 1, atol=1e-4)
            ):
                raise InvalidArgumentError(
                    f"class probabilities are (N, L), rows sum to 1, got {self.classes.shape}"
                )

    def __len__(self) -> int:
        return len(self.mean)

    def of(self, rows: NDArray[np.int64]) -> Proposal:
        """Return that of these images."""
        classes = None if self.classes is None else self.classes[rows]
        return Proposal(self.mean[rows], self.deviation[rows], classes, self.prior)

    def divergence(self) -> Doubles:
        """Return KL(q(z|x) || p(z)), and with a prior of classes KL(q(y|x) || p(y)) added, float64 (N,)."""
        total = divergence(self.mean, self.deviation)
        if self.classes is None or self.prior is None:
            return total
        q = self.classes.astype(np.float64)
        apart = np.log(q, out=np.zeros_like(q), where=q > 0) - np.log(self.prior)
        with_classes: Doubles = total + (q * apart).sum(axis=1)
        return with_classes

    def draw(self, index: int, source: _Source, count: int) -> tuple[Floats, Doubles]:
        """Return latents float32 (count, D) for an image and log p(z)/q(z|x) of each, float64 (count,)."""
        noise = source.normal.standard_normal((count, self.mean.shape[1]), dtype=np.float32)
        z = self.mean[index] + self.deviation[index] * noise
        # log N(z; 0, 1) - log N(z; mean, deviation): what both have of the number of dimensions cancels
        ratio = 0.5 * (noise.astype(np.float64) ** 2 - z.astype(np.float64) ** 2).sum(axis=1)
        ratio += np.log(self.deviation[index], dtype=np.float64).sum()
        if self.classes is None:
            return z, ratio
        q = self.classes[index].astype(np.float64)
        steps = np.cumsum(q)
        chosen = np.searchsorted(steps, source.uniform.random(count) * steps[-1], side="right")
        if self.prior is not None:
            ratio += np.log(self.prior[chosen]) - np.log(q[chosen])
        weights = np.eye(len(q), dtype=np.float32)[chosen]
        return np.concatenate([z, weights], axis=1), ratio


@dataclass(frozen=True, eq=False, slots=True)
class Bounds:
    """Lower bounds of log p(x) of N images, float64 (N,) each, in nats; from the same K samples.

    Attributes:
        elbo: Mean of log p(x|z) over the samples, less the divergence in closed form.
        sampled_elbo: Mean of the samples' log-weights: the same on average, and rougher.
        importance: L_K.
        samples: K.
    """

    elbo: Doubles
    sampled_elbo: Doubles
    importance: Doubles
    samples: int


def bounds(
    proposal: Proposal,
    log_likelihood: LogLikelihood,
    *,
    samples: int,
    seed: int = 0,
    together: int = 2048,
    on_done: Callable[[int], object] = lambda _: None,
) -> Bounds:
    """Measure the bounds, holding ``together`` samples at a time however many there are.

    Each image draws from (seed, its index) alone: the draws are the same however many images are measured
    with it and however many samples are held.

    Args:
        proposal: What is drawn from.
        log_likelihood: log p(x|z).
        samples: K.
        seed: Of the draws.
        together: Rows given to ``log_likelihood`` at once, at most.
        on_done: Told how many samples were just weighed.

    Raises:
        InvalidArgumentError: fewer than one sample or row.
    """
    if samples < 1 or together < 1:
        raise InvalidArgumentError(f"bounds need 1 sample or more, got {samples}, {together} at a time")
    count = len(proposal)
    found = Bounds(-proposal.divergence(), np.zeros(count), np.zeros(count), samples)
    group, piece = max(1, together // samples), min(samples, together)
    for start in range(0, count, group):
        rows = np.arange(start, min(start + group, count))
        sources = [_Source.of(seed, row) for row in rows.tolist()]
        weighed = _Sum.nothing(len(rows))
        for begun in range(0, samples, piece):
            size = min(piece, samples - begun)
            drawn = [proposal.draw(row, s, size) for row, s in zip(rows.tolist(), sources, strict=True)]
            latents = np.concatenate([latents for latents, _ in drawn])  # (rows * size, D)
            explained = log_likelihood(latents, rows.repeat(size)).reshape(len(rows), size)
            weights = explained + np.stack([ratio for _, ratio in drawn])
            found.elbo[rows] += explained.sum(axis=1) / samples
            found.sampled_elbo[rows] += weights.sum(axis=1) / samples
            weighed.add(weights)
            on_done(len(latents))
        found.importance[rows] = weighed.logarithm() - math.log(samples)
    return found


def bernoulli(images: NDArray[np.bool_], decode: Callable[[Floats], Floats]) -> LogLikelihood:
    """Return log p(x|z) of binary pictures under a decoder that gives each pixel's probability to be on.

    Args:
        images: bool (N, H, W, C).
        decode: Latents float32 (B, D) to probabilities float32 (B, H, W, C) in [0, 1].
    """
    flat = images.reshape(len(images), -1)

    def log_likelihood(latents: Floats, rows: NDArray[np.int64]) -> Doubles:
        return log_bernoulli(flat[rows], decode(latents).reshape(len(latents), -1))

    return log_likelihood


@dataclass(frozen=True, slots=True)
class _Source:
    """Randomness of one image; of z and of the class apart, so that neither draw moves the other."""

    normal: np.random.Generator
    uniform: np.random.Generator

    @classmethod
    def of(cls, seed: int, index: int) -> _Source:
        return cls(np.random.default_rng((seed, index)), np.random.default_rng((seed, index, 1)))


@dataclass(slots=True)
class _Sum:
    """log sum exp of rows that come in pieces, float64 (N,): the largest so far, and the sum beside it."""

    largest: Doubles
    share: Doubles

    @classmethod
    def nothing(cls, count: int) -> _Sum:
        return cls(np.full(count, -np.inf), np.zeros(count))

    def add(self, values: Doubles) -> None:
        """Take in finite values (N, any number)."""
        largest = np.maximum(self.largest, values.max(axis=1))
        self.share *= np.exp(self.largest - largest)
        self.share += np.exp(values - largest[:, None]).sum(axis=1)
        self.largest = largest

    def logarithm(self) -> Doubles:
        return self.largest + np.log(self.share)
