"""Bytes of a noisy picture -> bytes of a clean one.

A cleaner takes pictures of any size and keeps their depth, alpha and company. A model with a latent that was
taught to clean (``train ae --denoise``) does what it can: pictures are cropped and resized to what it sees,
and drawn anew in eight bits, with nothing that came with them.

Legend: H, W = height and width, S = side of what such a model sees; C channels; sigma in [0, 1] of white.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.bundle import Bundle
from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.images import (
    ImageFile,
    ImageMetadata,
    Values,
    read_image_file,
    read_pixels,
    to_uint8,
    write_image_file,
)
from lookalike.encoder.runtime import Denoiser, Model, Provider
from lookalike.encoder.text import printable
from lookalike.searcher.denoising.tiles import Mapper, denoise_in_place, estimate_sigma

Pixels = NDArray[np.uint8]
_VIEW = 160


@dataclass(frozen=True, slots=True)
class DenoisedFile:
    """What became of a picture.

    Attributes:
        data: The bytes of the file to write.
        status: ``cleaned``, or ``clean``: it was so before, and was left as it was.
        sigma: What was estimated; None: nothing was.
        view: The middle before and after, both uint8 (h, w, 1 or 3) with sides of at most 160.
    """

    data: bytes
    status: Literal["cleaned", "clean"]
    sigma: float | None
    view: tuple[Pixels, Pixels]


class FileDenoiser(Protocol):
    """What cleans a file. May be called from several threads at once."""

    @property
    def provider(self) -> str:
        """The execution provider that really runs, in onnxruntime's words."""

    def __call__(
        self, data: bytes, name: str, *, at_once: Mapper = map, on_size: Callable[[int], object] | None = None
    ) -> DenoisedFile:
        """Clean the bytes of one picture file.

        Args:
            data: the whole file.
            name: what to call it in messages.
            at_once: runs the tiles of a large picture, at once where it can.
            on_size: told the number of pixels before they are decoded.

        Raises:
            ImageError: it is no picture that can be read, or written again.
        """


@dataclass(frozen=True, kw_only=True)
class UNetDenoiser:
    """FileDenoiser by a cleaner.

    Attributes:
        cleaner: What cleans.
        sigma: Of the noise; None: as estimated of each picture, and what is estimated below the cleaner's
            threshold is left as it is.
        strength: 1: all that the cleaner takes away goes; 0.5: half of it.
        kind: What kind of file to write; None: as it was.
        quality: 1..100 of JPEG, WebP and AVIF; None: as it was, as far as can be.
        max_pixels: Larger pictures are refused.
    """

    cleaner: Denoiser
    sigma: float | None = None
    strength: float = 1.0
    kind: str | None = None
    quality: int | None = None
    max_pixels: int

    @property
    def provider(self) -> str:
        """The execution provider that really runs, in onnxruntime's words."""
        return self.cleaner.provider

    def __call__(
        self, data: bytes, name: str, *, at_once: Mapper = map, on_size: Callable[[int], object] | None = None
    ) -> DenoisedFile:
        """Clean the bytes of one picture file: see :class:`FileDenoiser`."""
        original = read_image_file(data, max_pixels=self.max_pixels, name=name, on_size=on_size)
        colours, spec = original.colors, self.cleaner.spec
        found = estimate_sigma(self.cleaner, colours, at_once=at_once)
        before = _middle(colours)
        if self.sigma is None and found < spec.clean_below:
            same = self.kind in (None, original.kind)
            kept = (
                data if same else write_image_file(original, kind=self.kind, quality=self.quality, name=name)
            )
            return DenoisedFile(kept, "clean", found, (before, before))
        told = min(found, spec.deviations[1]) if self.sigma is None else self.sigma
        denoise_in_place(self.cleaner, colours, told, strength=self.strength, at_once=at_once)
        made = write_image_file(original, kind=self.kind, quality=self.quality, name=name)
        return DenoisedFile(made, "cleaned", found, (before, _middle(colours)))


@dataclass(frozen=True, kw_only=True)
class AutoencoderDenoiser:
    """FileDenoiser by a model with a latent that was taught to clean: pictures come out in the size it sees.

    Attributes:
        model: What cleans.
        strength: 1: what the model draws; 0.5: the mean of that and what it sees.
        kind: What kind of file to write.
        quality: 1..100 of JPEG, WebP and AVIF.
        max_pixels: Larger pictures are refused.
    """

    model: Model
    strength: float = 1.0
    kind: str = "PNG"
    quality: int | None = None
    max_pixels: int

    @property
    def provider(self) -> str:
        """The execution provider that really runs, in onnxruntime's words."""
        return self.model.provider

    def __call__(
        self,
        data: bytes,
        name: str,
        *,
        at_once: Mapper = map,  # noqa: ARG002  # it is one tile
        on_size: Callable[[int], object] | None = None,  # noqa: ARG002  # it is decoded no larger than need be
    ) -> DenoisedFile:
        """Clean the bytes of one picture file: see :class:`FileDenoiser`."""
        pixels = read_pixels(data, self.model.bundle.spec.image, max_pixels=self.max_pixels, name=name)
        drawn = self.model.reconstruct(pixels[None])[0]
        seen = pixels.astype(np.float32) / np.float32(255)
        made = to_uint8(seen + np.float32(self.strength) * (drawn - seen))
        original = ImageFile(kind="PNG", pixels=made, metadata=ImageMetadata(), upright=True)
        written = write_image_file(original, kind=self.kind, quality=self.quality, name=name)
        return DenoisedFile(written, "cleaned", None, (_middle(pixels), _middle(made)))


def open_file_denoiser(
    where: str | Path,
    *,
    sigma: float | None,
    strength: float,
    kind: str | None,
    quality: int | None,
    max_pixels: int,
    provider: Provider = "auto",
) -> UNetDenoiser | AutoencoderDenoiser:
    """Open a model that cleans: a cleaner, or one with a latent that was taught to.

    Args:
        where: Folder or shipped name.
        sigma: Of the noise, in [0, 1]; None: as estimated.
        strength: As in :class:`UNetDenoiser`.
        kind: As in :class:`UNetDenoiser`.
        quality: As in :class:`UNetDenoiser`.
        max_pixels: As in :class:`UNetDenoiser`.
        provider: As of :class:`Model`.

    Raises:
        InvalidArgumentError: the model was taught no such thing, or not at this sigma.
        BundleError: the bundle cannot be used.
    """
    bundle = Bundle.open(where)
    model = (Denoiser if bundle.is_denoiser else Model)(bundle, provider=provider, threads=1)
    treatment = file_denoiser_of(
        model, sigma=sigma, strength=strength, kind=kind, quality=quality, max_pixels=max_pixels
    )
    model.check()
    return treatment


def file_denoiser_of(
    model: Denoiser | Model,
    *,
    sigma: float | None,
    strength: float,
    kind: str | None,
    quality: int | None,
    max_pixels: int,
) -> UNetDenoiser | AutoencoderDenoiser:
    """Return the treatment by a model that is open; see :func:`open_file_denoiser`.

    Raises:
        InvalidArgumentError: the model was taught no such thing, or not at this sigma.
    """
    if isinstance(model, Denoiser):
        low, high = model.spec.deviations
        if sigma is not None and not low <= sigma <= high:
            raise InvalidArgumentError(
                f"model {printable(model.bundle.name)} cleans noise of sigma {255 * low:g} to {255 * high:g}, "
                f"not {255 * sigma:g}; name one of these, or auto"
            )
        return UNetDenoiser(
            cleaner=model,
            sigma=sigma,
            strength=strength,
            kind=kind,
            quality=quality,
            max_pixels=max_pixels,
        )
    spec = model.bundle.spec
    if spec.denoises is None:
        raise InvalidArgumentError(
            f"model {printable(model.bundle.name)} ({spec.kind}) was not taught to clean; take a cleaner, "
            "or one that was trained with --denoise"
        )
    if sigma is not None:
        raise InvalidArgumentError(
            f"model {printable(model.bundle.name)} cannot be told a sigma; leave it at auto"
        )
    return AutoencoderDenoiser(
        model=model, strength=strength, kind=kind or "PNG", quality=quality, max_pixels=max_pixels
    )


def _middle(colours: Values) -> Pixels:
    height, width = colours.shape[:2]
    top, left = max(0, height - _VIEW) // 2, max(0, width - _VIEW) // 2
    part = colours[top : top + _VIEW, left : left + _VIEW]
    return (part >> 8 if part.dtype == np.uint16 else part).astype(np.uint8)
