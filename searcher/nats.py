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

Legend: N images, S side, Z numbers drawn, K samples, L classes.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from encoder.errors import OptionError
from encoder.likelihood import Bounds, Proposal, bernoulli, bounds
from encoder.model import Model
from searcher.digits import Pictures
from searcher.vectors import Steps, silently

__all__ = ["PROTOCOLS", "Nats", "Protocol", "binarised", "nats"]

Protocol = Literal["dynamic", "threshold"]
Measured = Literal["log p(x)", "log p(x|y)"]
PROTOCOLS: Final[tuple[Protocol, ...]] = ("dynamic", "threshold")
_SMOOTHING: Final = 0.1  # of the model's q(y|x) with the even distribution: no class is never drawn


@dataclass(frozen=True, slots=True)
class Nats:
    """Figures of one model by one protocol, in nats a picture; lower is better.

    Attributes:
        protocol: How pictures were made binary.
        measured: Of what: of a model with classes given the true label, ``log p(x|y)``, or of both,
            ``log p(x)``, all classes equally likely and drawn from the model's own q(y|x).
        images: N.
        samples: K.
        seed: Of the binary draws and of the samples.
        negative_elbo: Mean over the images, the divergence in closed form.
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


def binarised(images: NDArray[np.uint8], protocol: Protocol, *, seed: int = 0) -> NDArray[np.bool_]:
    """Return bool of the shape of uint8 images, by a protocol; ``seed`` is of dynamic draws alone.

    Raises:
        OptionError: there is no such protocol.
    """
    if protocol == "threshold":
        return images >= 128
    if protocol != "dynamic":
        raise OptionError(f"digits are made binary by {' or '.join(PROTOCOLS)}, not {protocol!r}")
    # Below a grey value of 0..255 lie that many of 255 numbers: on with a chance of exactly grey / 255.
    drawn = np.random.default_rng(seed).integers(0, 255, images.shape, dtype=np.uint8)
    return drawn < images


def nats(
    model: Model,
    pictures: Pictures,
    protocol: Protocol,
    *,
    samples: int,
    count: int,
    seed: int = 0,
    steps: Steps = silently,
) -> list[Nats]:
    """Measure a variational model: of one with classes both figures, given the label first.

    All pictures are made binary before ``count`` of them are chosen, so a choice sees the same binary digits
    as the whole does.

    Args:
        model: Of kind vae or cvae.
        pictures: Grey digits.
        protocol: How they are made binary.
        samples: K.
        count: N, at most; chosen at random.
        seed: Of all that is drawn.
        steps: Told of the progress, in samples.

    Raises:
        OptionError: the model has no posterior, or a number cannot be.
    """
    binary = Pictures(binarised(pictures.images, protocol, seed=seed).view(np.uint8), pictures.labels)
    chosen = binary.some(count, seed=seed)
    on = chosen.images.view(np.bool_)
    found = []
    for measured, proposal in _proposals(model, chosen).items():
        began = time.perf_counter()
        name = f"{model.bundle.name}: {protocol}, {measured}"
        with steps(name, len(chosen) * samples) as advance:
            bound = bounds(
                proposal, bernoulli(on, model.decode), samples=samples, seed=seed, on_done=advance
            )
        speed = len(chosen) * samples / (time.perf_counter() - began)
        found.append(_nats(protocol, measured, seed, bound, proposal, speed))
    return found


def _proposals(model: Model, binary: Pictures) -> dict[Measured, Proposal]:
    """Return what latents are drawn from; the encoder sees the binary pictures, as it did in training."""
    pixels = binary.images * np.uint8(255)
    mean, deviation = model.posterior(pixels)
    classes = len(model.bundle.spec.classes) if model.bundle.spec.kind == "cvae" else 0
    if not classes:
        return {"log p(x)": Proposal(mean, deviation)}
    own = model.encode(pixels)[:, -classes:].astype(np.float64)
    own /= own.sum(axis=1, keepdims=True)
    even = np.full(classes, 1 / classes)
    mixed = (1 - _SMOOTHING) * own + _SMOOTHING * even
    return {
        "log p(x|y)": Proposal(mean, deviation, np.eye(classes)[binary.labels]),
        "log p(x)": Proposal(mean, deviation, mixed, even),
    }


def _nats(
    protocol: Protocol, measured: Measured, seed: int, found: Bounds, proposal: Proposal, speed: float
) -> Nats:
    elbo, elbo_error = _mean(-found.elbo)
    bound, bound_error = _mean(-found.importance)
    return Nats(
        protocol=protocol,
        measured=measured,
        images=len(proposal),
        samples=found.samples,
        seed=seed,
        negative_elbo=elbo,
        negative_elbo_error=elbo_error,
        divergence=float(proposal.divergence().mean()),
        bound=bound,
        bound_error=bound_error,
        samples_per_second=speed,
    )


def _mean(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the mean of (N,) and its standard error; 0 of one."""
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return float(values.mean()), spread / math.sqrt(len(values))
