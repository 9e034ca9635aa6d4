"""How many nats a model needs for a binary digit: bounds of the likelihood by a protocol that has a name.

Digits are grey, the likelihoods that papers report are of binary ones, and what is made of grey decides the
figure. Two protocols, never mixed with each other nor with grey targets:

dynamic
    One Bernoulli draw of each grey value, with a fixed seed. So the papers that train on fresh draws measure
    (Burda et al., ICLR 2016). The fixed set of Larochelle and Murray (AISTATS 2011) is also one draw of the
    grey values, made once for training too: as a test set it is one more of these, and what sets figures
    reported on it apart is that those models learned from fixed draws.
threshold
    A pixel is on where the grey value is 128 or more: static, the same for everybody, without a seed. Papers
    on the fixed set do not use it; no figure of theirs stands beside it.

Decoding is what takes time. Where K samples of every image are too many, all images get few, some of them
K as well, and the mean difference on these is added to the mean of all: a difference estimator (W. G.
Cochran: Sampling Techniques, 3rd ed., Wiley, 1977, chapter 12). It expects what K samples of every image
expect, and the difference varies some fifty times less than the images do.

Legend: N images, S side, Z numbers drawn, K samples, L classes.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from lookalike.deploy.evaluation.handwriting import DigitImages
from lookalike.deploy.evaluation.likelihood import Proposal, bernoulli, bounds
from lookalike.deploy.evaluation.vectors import Progress, no_progress
from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.runtime.model import Model

__all__ = ["PROTOCOLS", "LikelihoodResult", "Protocol", "binarize", "measure_likelihood"]

Protocol = Literal["dynamic", "threshold"]
Measured = Literal["log p(x)", "log p(x|y)"]
PROTOCOLS: Final[tuple[Protocol, ...]] = ("dynamic", "threshold")
_SMOOTHING: Final = 0.1  # of the model's q(y|x) with the even distribution: no class is never drawn


@dataclass(frozen=True, slots=True)
class LikelihoodResult:
    """Figures of one model by one protocol, in nats a picture; lower is better.

    Attributes:
        protocol: How pictures were made binary.
        measured: Of what: of a model with classes given the true label, ``log p(x|y)``, or of both,
            ``log p(x)``, all classes equally likely and drawn from the model's own q(y|x).
        images: N that the figures speak of.
        samples: K.
        fully: How many images got K samples; the others got ``few``.
        few: Samples of every image, where not all got K; else 0.
        seed: Of the binary draws and of the samples.
        negative_elbo: Mean over the images, the divergence in closed form.
        negative_elbo_error: Its standard error.
        divergence: The part of it that is KL(q || p).
        bound: Mean of the importance-weighted bound of -log p of K samples.
        bound_error: Its standard error: how far another N images might lie.
        estimate_error: Standard error of having given K samples to some images only; 0 where all got them.
        samples_per_second: Decoded and weighed.
    """

    protocol: Protocol
    measured: Measured
    images: int
    samples: int
    fully: int
    few: int
    seed: int
    negative_elbo: float
    negative_elbo_error: float
    divergence: float
    bound: float
    bound_error: float
    estimate_error: float
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
    # Below a grey value of 0..255 lie that many of 255 numbers: on with a chance of exactly grey / 255.
    drawn = np.random.default_rng(seed).integers(0, 255, images.shape, dtype=np.uint8)
    return drawn < images


def measure_likelihood(
    model: Model,
    pictures: DigitImages,
    protocol: Protocol,
    *,
    samples: int,
    count: int,
    few: int = 0,
    seed: int = 0,
    steps: Progress = no_progress,
) -> list[LikelihoodResult]:
    """Measure a variational model: of one with classes both figures, given the label first.

    All pictures are made binary before ``count`` of them are chosen, so a choice sees the same binary digits
    as the whole does.

    Args:
        model: Of kind vae or cvae.
        pictures: Grey digits.
        protocol: How they are made binary.
        samples: K.
        count: How many pictures get K samples, at most; chosen at random.
        few: Samples of every picture, where not all get K: the figures then speak of all. 0: they speak of
            the chosen ones.
        seed: Of all that is drawn.
        steps: Told of the progress, in samples.

    Raises:
        InvalidArgumentError: the model has no posterior, or a number cannot be.
    """
    binary = DigitImages(binarize(pictures.images, protocol, seed=seed).view(np.uint8), pictures.labels)
    rows = binary.chosen(count, seed=seed)
    whole = few > 0 and len(rows) < len(binary)
    spoken_of = binary if whole else binary.of(rows)
    found = []
    for measured, proposal in _proposals(model, spoken_of).items():
        name = f"{model.bundle.name}: {protocol}, {measured}"
        on = spoken_of.images.view(np.bool_)
        work = len(rows) * samples + whole * len(on) * few
        began = time.perf_counter()
        with steps(name, work) as advance:
            measure = partial(bounds, seed=seed, on_done=advance)
            if whole:
                rough = measure(proposal, bernoulli(on, model.decode), samples=few)
                deep = measure(proposal.of(rows), bernoulli(on[rows], model.decode), samples=samples)
            else:
                rough = deep = measure(proposal, bernoulli(on, model.decode), samples=samples)
                rows = np.arange(len(on))
        elbo, elbo_error = _mean(-rough.elbo)
        bound, bound_error, estimate_error = _corrected(-rough.importance, -deep.importance, rows)
        found.append(
            LikelihoodResult(
                protocol=protocol,
                measured=measured,
                images=len(on),
                samples=samples,
                fully=len(rows),
                few=few if whole else 0,
                seed=seed,
                negative_elbo=elbo,
                negative_elbo_error=elbo_error,
                divergence=float(proposal.divergence().mean()),
                bound=bound,
                bound_error=bound_error,
                estimate_error=estimate_error,
                samples_per_second=work / (time.perf_counter() - began),
            )
        )
    return found


def _proposals(model: Model, binary: DigitImages) -> dict[Measured, Proposal]:
    """Return what latents are drawn from; the encoder sees the binary pictures, as it did in training."""
    pixels = binary.images * np.uint8(255)
    mean, deviation = model.posterior(pixels)
    if not model.bundle.spec.conditional:
        return {"log p(x)": Proposal(mean, deviation)}
    classes = len(model.bundle.spec.classes)
    own = model.encode(pixels)[:, -classes:].astype(np.float64)
    own /= own.sum(axis=1, keepdims=True)
    even = np.full(classes, 1 / classes)
    mixed = (1 - _SMOOTHING) * own + _SMOOTHING * even
    return {
        "log p(x|y)": Proposal(mean, deviation, np.eye(classes)[binary.labels]),
        "log p(x)": Proposal(mean, deviation, mixed, even),
    }


def _corrected(
    rough: NDArray[np.float64], deep: NDArray[np.float64], rows: NDArray[np.int64]
) -> tuple[float, float, float]:
    """Return the mean of rough (N,) with the mean difference of deep (n,) on ``rows`` added, and two errors.

    The first error is of the mean as one of all images that might be; the second of its distance from the
    mean of deep values of these N, 0 where all have one.
    """
    mean, error = _mean(rough)
    added, added_error = _mean(deep - rough[rows])
    left = added_error * math.sqrt(1 - len(rows) / len(rough))
    return mean + added, math.hypot(error, added_error), left


def _mean(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the mean of (N,) and its standard error; 0 of one."""
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return float(values.mean()), spread / math.sqrt(len(values))
