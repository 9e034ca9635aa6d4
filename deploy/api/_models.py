"""Models as functions: embeddings and latents of images, and images of latents.

Legend: N images, H = W = pixels of a model's images, C channels, D latent size, E embedding size.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lookalike._images import DenoisedImage, ImageLike, Images, InputImage, model_pixels
from lookalike.encoder.errors import BundleKindError, InvalidArgumentError
from lookalike.encoder.images import grid, to_uint8
from lookalike.encoder.runtime import Denoiser, Model, Provider
from lookalike.searcher import figures, generation
from lookalike.searcher.denoising import make_file_denoiser
from lookalike.searcher.generation import Interpolation, Sampler

Floats = NDArray[np.float32]
ModelLike = Model | str | os.PathLike[str]
"""A model from :func:`load_model`, or what that takes: each call then loads it anew."""

DENOISER = "denoise"
"""The shipped denoiser for photographs."""


def load_model(
    name: str | os.PathLike[str] = "faces", *, provider: Provider = "auto", threads: int | None = None
) -> Model:
    """Load a model that embeds images.

    Args:
        name: A shipped model (``faces``, ``digits``, ``digits-vae``), or the folder of a bundle.
        provider: ``auto`` takes CUDA where onnxruntime has it, else the CPU; ``cuda`` never falls back to the
            CPU.
        threads: Threads of one call; None lets onnxruntime choose.

    Returns:
        The model; ``model.bundle.spec`` says what it is: image size, latent and embedding size, classes,
        metrics.

    Raises:
        BundleError: there is no such model, it is damaged, or it is a denoiser (see :func:`load_denoiser`).
        ProviderError: onnxruntime has no CUDA.

    Examples:
        >>> model = lookalike.load_model("faces")
    """
    return Model.open(name, provider=provider, threads=threads)


def load_denoiser(
    name: str | os.PathLike[str] = DENOISER, *, provider: Provider = "auto", threads: int | None = None
) -> Denoiser:
    """Load a model that removes noise from images of any size, for :func:`denoise` and ``Searcher.search``.

    Args:
        name: A shipped denoiser, or the folder of a bundle.
        provider: As for :func:`load_model`.
        threads: As for :func:`load_model`.

    Raises:
        BundleError: there is no such denoiser, it is damaged, or it is a model of another kind.
        ProviderError: onnxruntime has no CUDA.

    Examples:
        >>> denoiser = lookalike.load_denoiser()
    """
    return Denoiser.open(name, provider=provider, threads=threads)


def embed(
    model: ModelLike,
    images: ImageLike | Iterable[ImageLike],
    *,
    crop: str | None = None,
    faces: bool = False,
    face: int | None = None,
    max_pixels: int | None = None,
) -> Floats:
    """Return embeddings, which are what is stored and compared: similar images have a large dot product.

    Args:
        model: The model.
        images: One image or several, of any size: paths, bytes, PIL images or arrays (H, W), (H, W, 1) or
            (H, W, 3), uint8 or float in [0, 1]. An array (N, H, W, C) is N images.
        crop: Part of the images that is seen: ``full``, ``centre:F`` or ``X,Y,W,H``; None: the model's.
        faces: The images are whole photographs: the most prominent face of each is seen, turned upright.
            Needs ``pip install 'lookalike[faces]'``.
        face: The face of this number is seen, from 1 at the left.
        max_pixels: Larger images are refused; None: 120 million pixels for JPEG, which is decoded small, 50
            million else.

    Returns:
        float32 (N, E), each row of unit length; N is 1 for one image.

    Raises:
        ImageError: an image cannot be read, or has no such face.
        InvalidArgumentError: an argument is of another type, shape or range.
        BundleError: there is no such model.

    Examples:
        >>> a, b = lookalike.embed(model, ["a.jpg", "b.jpg"])
        >>> similarity = float(a @ b)  # in [-1, 1]
    """
    opened = as_model(model)
    return opened.embed(model_pixels(opened, images, crop, max_pixels, faces=faces, face=face)[1])


def encode(
    model: ModelLike,
    images: ImageLike | Iterable[ImageLike],
    *,
    crop: str | None = None,
    faces: bool = False,
    face: int | None = None,
    max_pixels: int | None = None,
) -> Floats:
    """Return latents, which :func:`decode` makes images of. To compare images, use :func:`embed`.

    Args:
        model: The model.
        images: As for :func:`embed`.
        crop: As for :func:`embed`.
        faces: As for :func:`embed`.
        face: As for :func:`embed`.
        max_pixels: As for :func:`embed`.

    Returns:
        float32 (N, D).

    Raises:
        ImageError, InvalidArgumentError, BundleError: as :func:`embed`.

    Examples:
        >>> mean_face = lookalike.decode(model, lookalike.encode(model, files).mean(axis=0))
    """
    opened = as_model(model)
    return opened.encode(model_pixels(opened, images, crop, max_pixels, faces=faces, face=face)[1])


def decode(model: ModelLike, latents: NDArray[np.floating]) -> Images:
    """Decode latents into images.

    Args:
        model: A model with a decoder.
        latents: float (N, D), or (D,) for one image.

    Returns:
        Images uint8 (N, H, W, C).

    Raises:
        InvalidArgumentError: the latents have another shape or are not finite, or the model has no decoder.
        BundleError: there is no such model.

    Examples:
        >>> lookalike.decode(model, latents).save("decoded.png")
    """
    return _grid(to_uint8(as_model(model).decode(np.atleast_2d(np.asarray(latents)))))


def generate(
    model: ModelLike,
    n: int = 16,
    *,
    of_class: str | int | None = None,
    sampler: Sampler | None = None,
    seed: int = 0,
    temperature: float = 1.0,
) -> Images:
    """Generate new images.

    Args:
        model: A model with a decoder.
        n: How many, 1 to 10,000.
        of_class: A class of the model, such as 7 of ``digits``; None: any.
        sampler: Where latents are sampled from: ``normal`` (N(0, I); VAEs only, and their default),
            ``gaussian`` (fitted to the training latents; the default of other models) or ``gmm`` (a mixture
            fitted to them).
        seed: The same seed gives the same images.
        temperature: Scale of the deviations: below 1 closer to the mean, above 1 more varied.

    Returns:
        Images uint8 (n, H, W, C).

    Raises:
        InvalidArgumentError: a value is out of range, or the model has no such class, sampler or decoder.
        BundleError: there is no such model.

    Examples:
        >>> lookalike.generate("digits", 8, of_class="7").save("sevens.png")
    """
    if n > generation.MAX_IMAGES:
        raise InvalidArgumentError(
            f"n is at most {generation.MAX_IMAGES:,}, not {n:,}; generate fewer images"
        )
    return _grid(
        generation.sample(
            as_model(model),
            n,
            sampler=sampler,
            of_class=None if of_class is None else str(of_class),
            seed=seed,
            temperature=temperature,
        )
    )


def reconstruct(
    model: ModelLike,
    images: ImageLike | Iterable[ImageLike],
    *,
    crop: str | None = None,
    faces: bool = False,
    face: int | None = None,
    max_pixels: int | None = None,
) -> Images:
    """Encode images and decode them again: what the model keeps of them.

    Args:
        model: A model with a decoder.
        images: As for :func:`embed`.
        crop: As for :func:`embed`.
        faces: As for :func:`embed`.
        face: As for :func:`embed`.
        max_pixels: As for :func:`embed`.

    Returns:
        Images uint8 (N, H, W, C); the sheet has the originals above them, with the PSNR of each.

    Raises:
        ImageError, InvalidArgumentError, BundleError: as :func:`embed`, or the model has no decoder.

    Examples:
        >>> lookalike.reconstruct(model, "me.jpg")
    """
    opened = as_model(model)
    names, pixels = model_pixels(opened, images, crop, max_pixels, faces=faces, face=face)
    result = generation.reconstruct(opened, pixels)
    return Images(lambda: figures.reconstruction_sheet(opened, pixels, result, _captions(names)), result)


def interpolate(
    model: ModelLike,
    images: Iterable[ImageLike],
    *,
    steps: int = 8,
    interpolation: Interpolation | None = None,
    crop: str | None = None,
    faces: bool = False,
    face: int | None = None,
    max_pixels: int | None = None,
) -> Images:
    """Decode images between images, evenly through the latents.

    Args:
        model: A model with a decoder.
        images: Two or more, as for :func:`embed`.
        steps: Images from one to the next, both ends included; at least 2.
        interpolation: ``linear`` or ``spherical`` (keeps the length of latents); None: spherical for a VAE.
        crop: As for :func:`embed`.
        faces: As for :func:`embed`.
        face: As for :func:`embed`.
        max_pixels: As for :func:`embed`.

    Returns:
        Images uint8 (N - 1, steps, H, W, C).

    Raises:
        ImageError, InvalidArgumentError, BundleError: as :func:`embed`, too few images or steps, or the model
            has no decoder.

    Examples:
        >>> lookalike.interpolate(model, ["me.jpg", "you.jpg"], steps=6)
    """
    opened = as_model(model)
    names, pixels = model_pixels(opened, images, crop, max_pixels, faces=faces, face=face)
    rows = generation.interpolate(opened, pixels, steps, interpolation=interpolation)
    return Images(lambda: figures.interpolation_sheet(opened, pixels, rows, _captions(names)), rows)


def edit(
    model: ModelLike,
    images: ImageLike | Iterable[ImageLike],
    strengths: Mapping[str, float],
    *,
    steps: Sequence[float] | None = None,
    keep_detail: bool = True,
    crop: str | None = None,
    faces: bool = False,
    face: int | None = None,
    max_pixels: int | None = None,
) -> Images:
    """Add attributes to images, or take them away: the same face, smiling.

    Args:
        model: A model with a decoder and attributes, such as ``faces``; ``model.bundle.attributes.names``
            lists them.
        images: As for :func:`embed`.
        strengths: Attribute to strength in standard deviations; below 0 takes it away.
        steps: Multiples of the strengths, such as ``[-1, 0, 1]``, for a row of each image; None: one result
            each.
        keep_detail: Add back the detail that the model does not keep of an image.
        crop: As for :func:`embed`.
        faces: As for :func:`embed`.
        face: As for :func:`embed`.
        max_pixels: As for :func:`embed`.

    Returns:
        Images uint8 (N, H, W, C), or (N, S, H, W, C) with S steps.

    Raises:
        ImageError, InvalidArgumentError, BundleError: as :func:`embed`, there is no such attribute, or the
            model has no decoder.

    Examples:
        >>> lookalike.edit(model, "me.jpg", {"Smiling": 2})
    """
    opened = as_model(model)
    names, pixels = model_pixels(opened, images, crop, max_pixels, faces=faces, face=face)
    multiples = [1.0] if steps is None else list(steps)
    rows = generation.edit_steps(opened, pixels, strengths, multiples, keep_detail=keep_detail)

    def sheet() -> NDArray[np.uint8]:
        title = ", ".join(f"{name} {strength:+g}" for name, strength in strengths.items())
        heads = [] if steps is None else [f"{step:+g}" for step in multiples]
        return figures.edits_sheet(opened, pixels, rows, _captions(names), title=title, heads=heads)

    return Images(sheet, rows[:, 0] if steps is None else rows)


def denoise(
    image: ImageLike,
    *,
    model: Denoiser | ModelLike = DENOISER,
    sigma: float | None = None,
    strength: float = 1.0,
    max_pixels: int = 200_000_000,
) -> DenoisedImage:
    """Remove noise from an image of any size.

    Args:
        image: A path, bytes, a PIL image or an array (H, W), (H, W, 1) or (H, W, 3), uint8 or float in [0,
            1].
        model: A denoiser, from :func:`load_denoiser` or by name; or a model trained with ``--denoise``, whose
            results are of the size that it sees.
        sigma: Standard deviation of the noise in [0, 1] of white; None: estimated at each place, and places
            with hardly any noise are left as they are.
        strength: How much of the noise is removed, 0 to 2: 0.7 leaves some grain, above 1 the noise counts as
            stronger than it was found to be.
        max_pixels: Larger images are refused.

    Returns:
        The denoised file: ``.data``, ``.pixels`` uint8 (H, W, 3), ``.sigma``, ``.changed``, ``.save(path)``.

    Raises:
        ImageError: the image cannot be read, or a file of its type cannot be written again.
        InvalidArgumentError: a value is out of range, or the model does not denoise.
        BundleError: there is no such model.

    Examples:
        >>> lookalike.denoise("scan.png").save("denoised.png")
    """
    if not 0 <= strength <= 2:
        raise InvalidArgumentError(
            f"strength lies in [0, 2], not {strength}; leave it out to remove all noise"
        )
    source = InputImage.of(image)
    denoiser = make_file_denoiser(
        model if isinstance(model, Denoiser | Model) else _denoiser(model),
        sigma=sigma,
        strength=strength,
        kind=None if source.is_file else "PNG",
        quality=None,
        max_pixels=max_pixels,
    )
    result = denoiser(source.data, source.name)
    return DenoisedImage(result.data, result.sigma, result.status == "cleaned")


def as_model(model: ModelLike) -> Model:
    """Return a model, loaded if it is a name or folder."""
    if isinstance(model, Model):
        return model
    if isinstance(model, str | os.PathLike):
        return load_model(model)
    raise InvalidArgumentError(
        f"a model comes from lookalike.load_model, or is a name or folder, not {type(model).__name__}"
    )


def _denoiser(model: str | os.PathLike[str]) -> Denoiser | Model:
    try:
        return load_denoiser(model)
    except BundleKindError:
        return load_model(model)


def _grid(pixels: NDArray[np.uint8]) -> Images:
    return Images(lambda: grid(list(pixels)), pixels)


def _captions(names: Sequence[str]) -> list[str]:
    return [figures.caption(Path(name)) for name in names]
