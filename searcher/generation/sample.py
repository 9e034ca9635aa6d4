"""Reconstruct images, interpolate between them, and generate new ones.

Legend: N images, H = W = S pixels, C channels, D latent size, Z dimensions with a prior, K classes.
"""

from __future__ import annotations

from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.bundle import Bundle, GaussianMixture
from lookalike.encoder.errors import InvalidArgumentError, printable
from lookalike.encoder.images import to_uint8
from lookalike.encoder.runtime import Model

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]
Sampler = Literal["normal", "gaussian", "gmm"]

Interpolation = Literal["linear", "spherical"]
_TINY: Final = np.float32(1e-12)
_MIN_SINE: Final = 1e-3  # of an angle: below it vectors are parallel or opposite

MAX_IMAGES: Final = 10_000
_MAX_NAMES: Final = 20


def sample(
    model: Model,
    count: int,
    *,
    sampler: Sampler | None = None,
    of_class: str | None = None,
    seed: int = 0,
    temperature: float = 1.0,
) -> Pixels:
    """Generate images, uint8 (N, H, W, C). Arguments and errors are those of :func:`sample_latents`."""
    return to_uint8(
        model.decode(
            sample_latents(
                model, count, sampler=sampler, of_class=of_class, seed=seed, temperature=temperature
            )
        )
    )


def sample_classes(
    model: Model,
    count: int,
    *,
    sampler: Sampler | None = None,
    seed: int = 0,
    temperature: float = 1.0,
) -> Pixels:
    """Generate the same latents in every class: uint8 (N, K, H, W, C).

    Each row is one latent (of a model without class weights: one standard normal deviate, transformed to each
    class's Gaussian), each column a class, equal to :func:`sample` of that class with the same seed.

    Raises:
        InvalidArgumentError: as :func:`sample_latents`, or N times K is over :data:`MAX_IMAGES`.
    """
    names = _need_classes(model.bundle)
    if count * len(names) > MAX_IMAGES:
        raise InvalidArgumentError(
            f"at most {MAX_IMAGES:,} images are generated at once, {count} in {len(names)} classes are more"
        )
    columns = [
        sample(model, count, sampler=sampler, of_class=name, seed=seed, temperature=temperature)
        for name in names
    ]
    return np.stack(columns, axis=1)


def sample_latents(
    model: Model,
    count: int,
    *,
    sampler: Sampler | None = None,
    of_class: str | None = None,
    seed: int = 0,
    temperature: float = 1.0,
) -> Floats:
    """Sample latents float32 (N, D) for :meth:`Model.decode`.

    Args:
        model: With a decoder.
        count: N, at least 1.
        sampler: ``normal``: N(0, I), the prior of variational models and their default; ``gaussian``: one
            Gaussian fitted to the training latents, the default of others; ``gmm``: the mixture fitted to
            them. A model without class weights in its latents samples a class only from the Gaussian fitted
            to that class.
        of_class: The name of a class. When None, a model with class weights samples classes by their shares
            in training; others sample from all images.
        seed: The same seed gives the same latents, also in another class where they can be the same.
        temperature: Scale of the deviations from the mean (of a mixture: of the component's mean); under 1
            gives more typical images, over 1 more varied ones.

    Raises:
        InvalidArgumentError: a count under 1, a negative or infinite temperature, a sampler or class that
            the model does not have, or a model without decoder.
    """
    if count < 1 or not 0 <= temperature < np.inf:
        raise InvalidArgumentError(
            f"generating needs 1 image or more at temperature 0 or more, got {count} at {temperature}"
        )
    if sampler is not None and sampler not in get_args(Sampler):
        raise InvalidArgumentError(f"a sampler is {', '.join(get_args(Sampler))}; {sampler!r} is not one")
    bundle, rng = model.bundle, np.random.default_rng(seed)
    if not model.has_decoder:
        bundle.graph("decoder")  # raises: it has none
    latents = np.zeros((count, bundle.spec.latent), np.float32)
    chosen = None if of_class is None else np.full(count, _class_number(bundle, of_class))
    if chosen is not None and not bundle.spec.conditional:
        mixture = _class_mixture(bundle, sampler)
        sampled = mixture.transform(rng.standard_normal((count, mixture.size)), chosen, temperature)
    else:
        sampled = _sample_prior(bundle, sampler, rng, count, temperature)
    latents[:, : sampled.shape[1]] = sampled
    if bundle.spec.conditional:
        if chosen is None:
            chosen = rng.spawn(1)[0].choice(len(bundle.spec.classes), count, p=_class_shares(bundle))
        latents[np.arange(count), bundle.spec.prior_dim + chosen] = 1
    return latents


def most_likely_classes(model: Model, latents: Floats) -> list[str] | None:
    """Return the most likely class of latents (N, D), by name; None for a model without class weights."""
    spec = model.bundle.spec
    if not spec.conditional:
        return None
    return [spec.classes[k] for k in latents[:, spec.prior_dim :].argmax(axis=1)]


def interpolate(
    model: Model, pixels: Pixels, steps: int, *, interpolation: Interpolation | None = None
) -> Pixels:
    """Interpolate between images, from each to the next.

    Args:
        model: With a decoder.
        pixels: uint8 (N, H, W, C), N at least 2.
        steps: Images from one to the next, at least 2: the first and last are reconstructions of the two.
        interpolation: ``linear``: in a straight line of latents; ``spherical``: keeping the length of latents
            (T. White: Sampling Generative Networks, 2016), class weights in a straight line; None: spherical
            for a ``vae``, whose latents are of nearly one length, else linear.

    Returns:
        uint8 (N - 1, steps, H, W, C).

    Raises:
        InvalidArgumentError: fewer images or steps, or a model without decoder.
    """
    if len(pixels) < 2 or steps < 2:
        raise InvalidArgumentError(
            f"interpolation needs 2 images and 2 steps or more, got {len(pixels)} and {steps}"
        )
    ends = model.encode(pixels)[:, None]  # (N, 1, D)
    share = np.linspace(0, 1, steps, dtype=np.float32)[:, None]
    between = ends[:-1] * (1 - share) + ends[1:] * share  # (N - 1, steps, D)
    if (interpolation or ("spherical" if model.bundle.spec.kind == "vae" else "linear")) == "spherical":
        sampled = slice(model.bundle.spec.prior_dim)
        between[..., sampled] = slerp(ends[:-1, :, sampled], ends[1:, :, sampled], share)
    images = to_uint8(model.decode(between.reshape(-1, between.shape[-1])))
    return images.reshape(*between.shape[:2], *images.shape[1:])


def slerp(start: Floats, end: Floats, share: Floats) -> Floats:
    """Interpolate float32 (n, 1, Z) by angle, and the length linearly: float32 (n, steps, Z)."""
    lengths = [np.maximum(np.linalg.norm(each, axis=2, keepdims=True), _TINY) for each in (start, end)]
    one, two = start / lengths[0], end / lengths[1]
    angle = np.arccos(np.clip((one * two).sum(axis=2, keepdims=True), -1, 1))
    sine = np.sin(angle)
    rotated = (np.sin((1 - share) * angle) * one + np.sin(share * angle) * two) / np.maximum(sine, _TINY)
    straight = one * (1 - share) + two * share  # where the vectors are parallel or opposite
    length = lengths[0] * (1 - share) + lengths[1] * share
    between: Floats = np.where(sine > _MIN_SINE, rotated, straight) * length
    return between


def reconstruct(model: Model, pixels: Pixels) -> Pixels:
    """Return reconstructions, uint8 (N, H, W, C), of uint8 (N, H, W, C)."""
    return to_uint8(model.reconstruct(pixels))


def _sample_prior(
    bundle: Bundle, sampler: Sampler | None, rng: np.random.Generator, count: int, temperature: float
) -> Floats:
    """Sample the dimensions of latents that have a prior, without a class: (N, Z) or fewer."""
    spec, name = bundle.spec, printable(bundle.name)
    if sampler is None:
        sampler = "normal" if spec.has_prior else "gaussian"
    if sampler == "normal":
        if not spec.has_prior:
            raise InvalidArgumentError(
                f"model {name} ({spec.kind}) has no N(0, I) prior (it is not a VAE); use --sampler gaussian"
            )
        return np.asarray(temperature * rng.standard_normal((count, spec.prior_dim)), np.float32)
    if sampler == "gmm":
        if bundle.sampling is None or bundle.sampling.mixture is None:
            raise InvalidArgumentError(f"model {name} has no mixture to sample from; use --sampler gaussian")
        return bundle.sampling.mixture.sample(rng, count, temperature)
    mean, covariance = bundle.statistics.mean[: spec.prior_dim], bundle.statistics.covariance
    variance, axes = np.linalg.eigh(covariance[: spec.prior_dim, : spec.prior_dim].astype(np.float64))
    scale = temperature * np.sqrt(variance.clip(0))
    sampled = rng.standard_normal((count, len(scale))) * scale  # (N, Z) on the axes
    return np.asarray(sampled @ axes.T + mean, np.float32)


def _class_mixture(bundle: Bundle, sampler: Sampler | None) -> GaussianMixture:
    if sampler not in (None, "gaussian"):
        raise InvalidArgumentError(
            f"model {printable(bundle.name)} ({bundle.spec.kind}) samples a class from its Gaussian; "
            f"leave out --sampler {sampler}"
        )
    if bundle.sampling is None or bundle.sampling.by_class is None:
        raise InvalidArgumentError(
            f"model {printable(bundle.name)} has no Gaussian for each class; leave --class out"
        )
    return bundle.sampling.by_class


def _need_classes(bundle: Bundle) -> tuple[str, ...]:
    if not bundle.spec.classes:
        raise InvalidArgumentError(
            f"model {printable(bundle.name)} has no classes; leave --class out, or train one with classes"
        )
    return bundle.spec.classes


def _class_number(bundle: Bundle, name: str) -> int:
    names = _need_classes(bundle)
    if name not in names:
        some = ", ".join(names[:_MAX_NAMES]) + (", ..." if len(names) > _MAX_NAMES else "")
        raise InvalidArgumentError(
            f"model {printable(bundle.name)} has no class '{printable(name)}'; it has: {printable(some)}"
        )
    return names.index(name)


def _class_shares(bundle: Bundle) -> NDArray[Any]:
    """Return the probability of each class, float64 (K,): its share in training, where that is known."""
    known = None if bundle.sampling is None else bundle.sampling.by_class
    shares = np.ones(len(bundle.spec.classes)) if known is None else known.weights.astype(np.float64)
    return np.asarray(shares / shares.sum())
