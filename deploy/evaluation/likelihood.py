"""How likely a model finds binary digits: the evidence lower bound and the importance-weighted bound.

ELBO: D. P. Kingma, M. Welling: Auto-Encoding Variational Bayes. ICLR 2014. The bound of K samples:
Y. Burda, R. Grosse, R. Salakhutdinov: Importance Weighted Autoencoders. ICLR 2016. In nats throughout:

    ELBO  = E_q[log p(x|z)] - KL(q(z|x) || p(z))              <=
    L_K   = E[log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x)]       <=  log p(x),   z_k sampled from q(z|x)

L_1 is the ELBO, and L_K rises with K.

Digits are gray, the likelihoods that papers report are of binary ones, and the way from gray to binary
decides the value. Two protocols, never mixed with each other nor with gray targets:

dynamic
    One Bernoulli draw of each gray value, with a fixed seed: what papers that train on fresh draws measure
    (Burda et al., ICLR 2016). The fixed set of Larochelle and Murray (AISTATS 2011) is also one draw of the
    gray values, made once for training too: as a test set it is one more of these, but models reported on it
    were trained on fixed draws.
threshold
    A pixel is on where the gray value is 128 or more: without a seed. Papers on the fixed set do not use it;
    their values are not comparable to it.

Legend: N images, H, W, C of an image, P its pixels, Z dimensions that are sampled, K samples here and L
classes, D latent size, Z or Z + L, B rows in a batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from lookalike.deploy.evaluation.data import DigitImages
from lookalike.deploy.evaluation.vectors import Progress, no_progress
from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.runtime import Model

Protocol = Literal["dynamic", "threshold"]
Measured = Literal["log p(x)", "log p(x|y)"]
PROTOCOLS: Final[tuple[Protocol, ...]] = ("dynamic", "threshold")
_SMOOTHING: Final = 0.1  # of the model's q(y|x) with the uniform distribution: every class can be sampled
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
LogLikelihood = Callable[[Floats, NDArray[np.int64]], Doubles]
"""Latents float32 (B, D) and the indices of their images, int64 (B,), to log p(x|z), float64 (B,)."""

CLIP: Final = 2.0**-20
"""Probabilities of a pixel are clipped to [CLIP, 1 - CLIP]; float32 holds both exactly.

On and off still sum to 1, so this is a proper model of binary images and its bound holds. A confident right
pixel costs 1e-6 nats, under 0.001 a digit; a confident wrong one 13.9 instead of infinity.
"""
_LOG_TAU: Final = math.log(2 * math.pi)


def log_bernoulli(images: NDArray[np.bool_], probabilities: Floats) -> Doubles:
    """Return log p(x|z) of binary images, float64 (B,): the sum over independent pixels.

    Args:
        images: bool (B, P).
        probabilities: float32 (B, P) in [0, 1], of each pixel to be on; clipped by :data:`CLIP`.
    """
    probs = np.clip(probabilities, np.float32(CLIP), np.float32(1 - CLIP))
    np.abs(np.subtract(probs, ~images, out=probs), out=probs)  # p where on, 1 - p where off
    total: Doubles = np.log(probs, out=probs).sum(axis=1, dtype=np.float64)
    return total


def log_normal(
    values: NDArray[np.floating], mean: NDArray[np.floating], deviation: NDArray[np.floating]
) -> Doubles:
    """Return log N(z; mean, deviation²) summed over the last axis, float64; shapes broadcast."""
    scaled = (values.astype(np.float64) - mean) / deviation
    terms = -0.5 * (scaled**2 + _LOG_TAU) - np.log(deviation, dtype=np.float64)
    total: Doubles = terms.sum(axis=-1)
    return total


def divergence(mean: NDArray[np.floating], deviation: NDArray[np.floating]) -> Doubles:
    """Return KL(N(mean, deviation²) || N(0, I)) summed over the last axis, float64, in nats."""
    variance = deviation.astype(np.float64) ** 2
    total: Doubles = 0.5 * (mean.astype(np.float64) ** 2 + variance - 1 - np.log(variance)).sum(axis=-1)
    return total


@dataclass(frozen=True, eq=False, slots=True)
class Proposal:
    """The distribution that latents of each of N images are sampled from: q(z|x), with classes also q(y|x).

    Attributes:
        mean: float32 (N, Z).
        deviation: float32 (N, Z), above 0.
        classes: q(y|x), float (N, L), rows sum to 1; one-hot samples follow z in the latent. None: the
            model has no classes.
        prior: p(y), float (L,). None: the class is given, ``classes`` is one-hot, and log p(x|y) is
            measured.
    """

    mean: Floats
    deviation: Floats
    classes: NDArray[np.floating] | None = None
    prior: NDArray[np.floating] | None = None

    def __post_init__(self) -> None:
        """Check the arrays.

        Raises:
            InvalidArgumentError: wrong shapes, deviations that are not above 0, or rows that do not sum to 1.
        """
        valid = self.mean.ndim == 2 and self.mean.shape == self.deviation.shape
        if not valid or not np.isfinite(self.mean).all() or not (self.deviation > 0).all():
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

    def take(self, rows: NDArray[np.int64]) -> Proposal:
        """Return the proposal of these images."""
        classes = None if self.classes is None else self.classes[rows]
        return Proposal(self.mean[rows], self.deviation[rows], classes, self.prior)

    def divergence(self) -> Doubles:
        """Return KL(q(z|x) || p(z)), and with a prior of classes KL(q(y|x) || p(y)) added, float64 (N,)."""
        total = divergence(self.mean, self.deviation)
        if self.classes is None or self.prior is None:
            return total
        q = self.classes.astype(np.float64)
        ratio = np.log(q, out=np.zeros_like(q), where=q > 0) - np.log(self.prior)
        with_classes: Doubles = total + (q * ratio).sum(axis=1)
        return with_classes

    def sample(self, index: int, source: _RandomStreams, count: int) -> tuple[Floats, Doubles]:
        """Return latents float32 (count, D) for an image and log p(z)/q(z|x) of each, float64 (count,)."""
        noise = source.normal.standard_normal((count, self.mean.shape[1]), dtype=np.float32)
        z = self.mean[index] + self.deviation[index] * noise
        # log N(z; 0, 1) - log N(z; mean, deviation): the terms with the number of dimensions cancel
        ratio = 0.5 * (noise.astype(np.float64) ** 2 - z.astype(np.float64) ** 2).sum(axis=1)
        ratio += np.log(self.deviation[index], dtype=np.float64).sum()
        if self.classes is None:
            return z, ratio
        q = self.classes[index].astype(np.float64)
        cumulative = np.cumsum(q)
        chosen = np.searchsorted(cumulative, source.uniform.random(count) * cumulative[-1], side="right")
        if self.prior is not None:
            ratio += np.log(self.prior[chosen]) - np.log(q[chosen])
        one_hot = np.eye(len(q), dtype=np.float32)[chosen]
        return np.concatenate([z, one_hot], axis=1), ratio


@dataclass(frozen=True, eq=False, slots=True)
class Bounds:
    """Lower bounds of log p(x) of N images, float64 (N,) each, in nats; from the same K samples.

    Attributes:
        elbo: Mean of log p(x|z) over the samples minus the divergence in closed form.
        sampled_elbo: Mean of the samples' log-weights: the same on average, with more variance.
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
    batch_rows: int = 2048,
    on_done: Callable[[int], object] = lambda _: None,
) -> Bounds:
    """Measure the bounds, with ``batch_rows`` samples in memory at a time.

    The samples of an image depend on (seed, its index) alone, not on the other images nor on the batch.

    Args:
        proposal: Where latents are sampled from.
        log_likelihood: log p(x|z).
        samples: K.
        seed: Of the samples.
        batch_rows: Most rows given to ``log_likelihood`` at once.
        on_done: Called with how many more samples are done.

    Raises:
        InvalidArgumentError: fewer than one sample or row.
    """
    if samples < 1 or batch_rows < 1:
        raise InvalidArgumentError(f"bounds need 1 sample or more, got {samples}, {batch_rows} at a time")
    count = len(proposal)
    result = Bounds(-proposal.divergence(), np.zeros(count), np.zeros(count), samples)
    images_at_once, samples_at_once = max(1, batch_rows // samples), min(samples, batch_rows)
    for start in range(0, count, images_at_once):
        rows = np.arange(start, min(start + images_at_once, count))
        sources = [_RandomStreams.of_image(seed, row) for row in rows.tolist()]
        total = _LogSumExp.empty(len(rows))
        for begun in range(0, samples, samples_at_once):
            size = min(samples_at_once, samples - begun)
            sampled = [proposal.sample(row, s, size) for row, s in zip(rows.tolist(), sources, strict=True)]
            latents = np.concatenate([latents for latents, _ in sampled])  # (rows * size, D)
            log_p = log_likelihood(latents, rows.repeat(size)).reshape(len(rows), size)
            weights = log_p + np.stack([ratio for _, ratio in sampled])
            result.elbo[rows] += log_p.sum(axis=1) / samples
            result.sampled_elbo[rows] += weights.sum(axis=1) / samples
            total.add(weights)
            on_done(len(latents))
        result.importance[rows] = total.value() - math.log(samples)
    return result


def bernoulli(images: NDArray[np.bool_], decode: Callable[[Floats], Floats]) -> LogLikelihood:
    """Return log p(x|z) of binary images under a decoder that gives the probability of each pixel to be on.

    Args:
        images: bool (N, H, W, C).
        decode: Latents float32 (B, D) to probabilities float32 (B, H, W, C) in [0, 1].
    """
    flat = images.reshape(len(images), -1)

    def log_likelihood(latents: Floats, rows: NDArray[np.int64]) -> Doubles:
        return log_bernoulli(flat[rows], decode(latents).reshape(len(latents), -1))

    return log_likelihood


@dataclass(frozen=True, slots=True)
class _RandomStreams:
    """Random streams of one image, separate for z and the class: neither affects the other."""

    normal: np.random.Generator
    uniform: np.random.Generator

    @classmethod
    def of_image(cls, seed: int, index: int) -> _RandomStreams:
        return cls(np.random.default_rng((seed, index)), np.random.default_rng((seed, index, 1)))


@dataclass(slots=True)
class _LogSumExp:
    """Running log-sum-exp of N rows that come in batches: the largest value, and the scaled sum."""

    largest: Doubles
    scaled_sum: Doubles

    @classmethod
    def empty(cls, count: int) -> _LogSumExp:
        return cls(np.full(count, -np.inf), np.zeros(count))

    def add(self, values: Doubles) -> None:
        """Add finite values (N, any number)."""
        largest = np.maximum(self.largest, values.max(axis=1))
        self.scaled_sum *= np.exp(self.largest - largest)
        self.scaled_sum += np.exp(values - largest[:, None]).sum(axis=1)
        self.largest = largest

    def value(self) -> Doubles:
        return self.largest + np.log(self.scaled_sum)


@dataclass(frozen=True, slots=True)
class LikelihoodResult:
    """Bounds of one model by one protocol, in nats an image; lower is better.

    Attributes:
        protocol: How images were made binary.
        measured: Of a model with classes ``log p(x|y)`` is given the true label; ``log p(x)`` takes all
            classes as equally likely, sampled from the model's own q(y|x).
        images: N.
        samples: K.
        seed: Of the binary draws and of the samples.
        negative_elbo: Mean over the images, with the divergence in closed form.
        negative_elbo_error: Its standard error.
        divergence: The part of it that is KL(q || p).
        bound: Mean of the importance-weighted bound of -log p of K samples.
        bound_error: Its standard error.
        samples_per_second: Decoded and weighed.
    """

    protocol: Protocol
    measured: Measured
    images: int
    samples: int
    seed: int
    negative_elbo: float
    negative_elbo_error: float
    divergence: float
    bound: float
    bound_error: float
    samples_per_second: float

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def binarize(images: NDArray[np.uint8], protocol: Protocol, *, seed: int = 0) -> NDArray[np.bool_]:
    """Return bool of the shape of uint8 images, by a protocol; ``seed`` is of dynamic draws alone.

    Raises:
        InvalidArgumentError: there is no such protocol.
    """
    if protocol == "threshold":
        return images >= 128
    if protocol != "dynamic":
        raise InvalidArgumentError(f"digits are made binary by {' or '.join(PROTOCOLS)}, not {protocol!r}")
    # Of the 255 numbers 0..254, as many lie below a gray value as it says: on with probability gray / 255.
    draws = np.random.default_rng(seed).integers(0, 255, images.shape, dtype=np.uint8)
    return draws < images


def measure_likelihood(
    model: Model,
    digits: DigitImages,
    protocol: Protocol,
    *,
    samples: int,
    count: int,
    seed: int = 0,
    progress: Progress = no_progress,
) -> list[LikelihoodResult]:
    """Measure a variational model; of one with classes both quantities, given the label first.

    All images are made binary before ``count`` of them are chosen, so a choice sees the same binary digits as
    the whole set does.

    Args:
        model: Of kind vae or cvae.
        digits: Gray digits.
        protocol: How they are made binary.
        samples: K.
        count: Most images; chosen at random.
        seed: Of all random choices.
        progress: Shows the progress, in samples.

    Raises:
        InvalidArgumentError: the model has no posterior, or a number is out of range.
    """
    binary = DigitImages(binarize(digits.images, protocol, seed=seed).view(np.uint8), digits.labels)
    chosen = binary.take(binary.sample_rows(count, seed=seed))
    likelihood = bernoulli(chosen.images.view(np.bool_), model.decode)
    results = []
    for measured, proposal in _proposals(model, chosen).items():
        began = time.perf_counter()
        with progress(f"{model.bundle.name}: {protocol}, {measured}", len(chosen) * samples) as advance:
            found = bounds(proposal, likelihood, samples=samples, seed=seed, on_done=advance)
        elbo, elbo_error = _mean_and_error(-found.elbo)
        bound, bound_error = _mean_and_error(-found.importance)
        results.append(
            LikelihoodResult(
                protocol=protocol,
                measured=measured,
                images=len(chosen),
                samples=samples,
                seed=seed,
                negative_elbo=elbo,
                negative_elbo_error=elbo_error,
                divergence=float(proposal.divergence().mean()),
                bound=bound,
                bound_error=bound_error,
                samples_per_second=len(chosen) * samples / (time.perf_counter() - began),
            )
        )
    return results


def _proposals(model: Model, binary: DigitImages) -> dict[Measured, Proposal]:
    """Return the proposal of each quantity; the encoder sees the binary images, as it did in training."""
    pixels = binary.images * np.uint8(255)
    mean, deviation = model.posterior(pixels)
    if not model.bundle.spec.conditional:
        return {"log p(x)": Proposal(mean, deviation)}
    classes = len(model.bundle.spec.classes)
    own = model.encode(pixels)[:, -classes:].astype(np.float64)
    own /= own.sum(axis=1, keepdims=True)
    uniform = np.full(classes, 1 / classes)
    mixed = (1 - _SMOOTHING) * own + _SMOOTHING * uniform
    return {
        "log p(x|y)": Proposal(mean, deviation, np.eye(classes)[binary.labels]),
        "log p(x)": Proposal(mean, deviation, mixed, uniform),
    }


def _mean_and_error(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the mean of (N,) and its standard error; 0 of one value."""
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return float(values.mean()), spread / math.sqrt(len(values))
