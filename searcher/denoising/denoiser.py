"""Denoise image files: the bytes of a noisy image to those of a clean one.

A denoiser takes images of any size and keeps their depth, alpha and metadata. An autoencoder that was trained
to denoise (``train ae --denoise``) crops and resizes images to its input and reconstructs them in eight bits,
without their metadata.

Tiles overlap by the receptive field of the denoiser and only the inside of each is kept: every pixel is
computed from the same neighbors as in one piece, without seams, and the image is never copied to floats.

Legend: H, W = height and width, C channels; sigma is the noise level in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.bundle import Bundle
from lookalike.encoder.errors import InvalidArgumentError, printable
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

Floats = NDArray[np.float32]
Mapper = Callable[[Callable[..., Any], Iterable[Any]], Iterator[Any]]
"""``map``, or the same on several threads."""

_TILE: Final = 640
"""Side of a tile with its margin: it bounds the activations."""
_MIN_INSIDE: Final = 256
_PATCH: Final = 256
_PATCHES: Final = 25


def estimate_sigma(denoiser: Denoiser, pixels: Values, *, map_tiles: Mapper = map) -> float:
    """Return the noise level of (H, W, C): of a large image, the median of patches spread over it."""
    height, width = pixels.shape[:2]
    if height * width <= _TILE**2:
        return float(denoiser.estimate(_floats(pixels)[None])[0])
    corners = [(top, left) for top in _patch_starts(height) for left in _patch_starts(width)]

    def estimate(corner: tuple[int, int]) -> float:
        top, left = corner
        return float(denoiser.estimate(_floats(pixels[top : top + _PATCH, left : left + _PATCH])[None])[0])

    return float(np.median(list(map_tiles(estimate, corners))))


def denoise_in_place(
    denoiser: Denoiser,
    pixels: Values,
    sigma: float,
    *,
    strength: float = 1.0,
    tile_size: int = _TILE,
    map_tiles: Mapper = map,
) -> None:
    """Denoise ``uint8`` or ``uint16`` (H, W, C) in place.

    Args:
        denoiser: The network.
        pixels: May be a view; rounded to its own depth.
        sigma: Noise level.
        strength: 1 removes all that the denoiser removes, 0.5 half of it, 0 nothing.
        tile_size: Side of a tile with its margin, in pixels; a smaller image is one tile.
        map_tiles: Runs the tiles of a row, in parallel where it can.
    """
    height, width = pixels.shape[:2]
    multiple = denoiser.spec.size_multiple
    margin = max(multiple, -(-denoiser.spec.receptive_field // multiple) * multiple)
    inside = max(-(-_MIN_INSIDE // multiple), (tile_size - 2 * margin) // multiple) * multiple
    tile_height, tile_width = (side if side <= tile_size else inside for side in (height, width))
    known_sigma, max_value = np.array([sigma], np.float32), np.iinfo(pixels.dtype).max

    def tile(left: int) -> Values:
        start = max(0, left - margin)
        part = block[:, start : left + tile_width + margin]
        output = denoiser.denoise(_floats(part)[None], known_sigma)[0]
        across = slice(left - start, left - start + min(tile_width, width - left))
        denoised: Floats = output[above : above + bottom - top, across]
        if strength != 1:
            before = _floats(part[above : above + bottom - top, across])
            denoised = before + np.float32(strength) * (denoised - before)
        values = np.rint(denoised.clip(0, 1) * np.float32(max_value))
        if pixels.dtype == np.uint8:
            return values.astype(np.uint8)
        return values.astype(np.uint16)

    above_rows = pixels[:0].copy()  # rows above the tiles, as they were before
    for top in range(0, height, tile_height):
        bottom, above = min(top + tile_height, height), len(above_rows)
        parts: list[Any] = [above_rows, pixels[top : bottom + margin]]
        block: Values = np.concatenate(parts)
        lefts = range(0, width, tile_width)
        for left, output in zip(lefts, map_tiles(tile, lefts), strict=True):
            pixels[top:bottom, left : left + tile_width] = output
        done = above + bottom - top
        above_rows = block[max(0, done - margin) : done].copy()


def _floats(values: Values) -> Floats:
    return values.astype(np.float32) / np.float32(np.iinfo(values.dtype).max)


def _patch_starts(side: int) -> list[int]:
    """Return where up to five patches begin along a side."""
    count = min(round(_PATCHES**0.5), max(1, side // _PATCH))
    last = max(0, side - _PATCH)
    return [round(last * i / max(1, count - 1)) if count > 1 else last // 2 for i in range(count)]


Pixels = NDArray[np.uint8]
_VIEW = 160


@dataclass(frozen=True, slots=True)
class DenoisedFile:
    """A denoised image file.

    Attributes:
        data: The bytes of the file to write.
        status: ``cleaned``, or ``clean``: there was no noise to remove, and it is unchanged.
        sigma: Estimated noise level; None: not estimated.
        view: The middle before and after, both uint8 (h, w, 1 or 3) with sides of at most 160.
    """

    data: bytes
    status: Literal["cleaned", "clean"]
    sigma: float | None
    view: tuple[Pixels, Pixels]


class FileDenoiser(Protocol):
    """Denoises files. May be called from several threads at once."""

    @property
    def provider(self) -> str:
        """The execution provider in use, as onnxruntime names it."""

    def __call__(
        self,
        data: bytes,
        name: str,
        *,
        map_tiles: Mapper = map,
        on_size: Callable[[int], object] | None = None,
    ) -> DenoisedFile:
        """Denoise the bytes of one image file.

        Args:
            data: the whole file.
            name: what to call it in messages.
            map_tiles: runs the tiles of a large image, in parallel where it can.
            on_size: called with the number of pixels before they are decoded.

        Raises:
            ImageError: it is not an image that can be read and written again.
        """


@dataclass(frozen=True, kw_only=True)
class UNetDenoiser:
    """FileDenoiser by a denoising network.

    Attributes:
        denoiser: The network.
        sigma: Noise level; None: estimated for each image, and an image below the denoiser's threshold is
            left as it is.
        strength: 1 removes all that the denoiser removes, 0.5 half of it.
        kind: Format to write; None: as it was.
        quality: 1..100 of JPEG, WebP and AVIF; None: as it was, as far as possible.
        max_pixels: Larger images are refused.
    """

    denoiser: Denoiser
    sigma: float | None = None
    strength: float = 1.0
    kind: str | None = None
    quality: int | None = None
    max_pixels: int

    @property
    def provider(self) -> str:
        """The execution provider in use, as onnxruntime names it."""
        return self.denoiser.provider

    def __call__(
        self,
        data: bytes,
        name: str,
        *,
        map_tiles: Mapper = map,
        on_size: Callable[[int], object] | None = None,
    ) -> DenoisedFile:
        """See :class:`FileDenoiser`."""
        image = read_image_file(data, max_pixels=self.max_pixels, name=name, on_size=on_size)
        spec = self.denoiser.spec
        # Gray stored as RGB stays gray: the network would give the channels different values.
        gray = _is_gray(image.colors)
        pixels: Values = image.colors[..., :1].copy() if gray else image.colors
        estimate = estimate_sigma(self.denoiser, pixels, map_tiles=map_tiles)
        before = _middle(pixels)
        if self.sigma is None and estimate < spec.clean_below:
            if self.kind not in (None, image.kind):
                data = write_image_file(image, kind=self.kind, quality=self.quality, name=name)
            return DenoisedFile(data, "clean", estimate, (before, before))
        sigma = min(estimate, spec.deviations[1]) if self.sigma is None else self.sigma
        denoise_in_place(self.denoiser, pixels, sigma, strength=self.strength, map_tiles=map_tiles)
        if gray:
            image.colors[...] = pixels
        output = write_image_file(image, kind=self.kind, quality=self.quality, name=name)
        return DenoisedFile(output, "cleaned", estimate, (before, _middle(pixels)))


@dataclass(frozen=True, kw_only=True)
class AutoencoderDenoiser:
    """FileDenoiser by an autoencoder that was trained to denoise: images come out in its input size.

    Attributes:
        model: The autoencoder.
        strength: 1: the reconstruction; 0.5: the mean of that and the input.
        kind: Format to write.
        quality: 1..100 of JPEG, WebP and AVIF.
        max_pixels: Larger images are refused.
    """

    model: Model
    strength: float = 1.0
    kind: str = "PNG"
    quality: int | None = None
    max_pixels: int

    @property
    def provider(self) -> str:
        """The execution provider in use, as onnxruntime names it."""
        return self.model.provider

    def __call__(
        self,
        data: bytes,
        name: str,
        *,
        map_tiles: Mapper = map,  # noqa: ARG002  # it is one tile
        on_size: Callable[[int], object] | None = None,  # noqa: ARG002  # it is decoded at the size that is needed
    ) -> DenoisedFile:
        """See :class:`FileDenoiser`."""
        pixels = read_pixels(data, self.model.bundle.spec.image, max_pixels=self.max_pixels, name=name)
        noisy = pixels.astype(np.float32) / np.float32(255)
        change = self.model.reconstruct(pixels[None])[0] - noisy
        denoised = to_uint8(noisy + np.float32(self.strength) * change)
        image = ImageFile(kind="PNG", pixels=denoised, metadata=ImageMetadata(), upright=True)
        output = write_image_file(image, kind=self.kind, quality=self.quality, name=name)
        return DenoisedFile(output, "cleaned", None, (_middle(pixels), _middle(denoised)))


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
    """Open a denoiser, or an autoencoder that was trained to denoise.

    Args:
        where: Folder or shipped name.
        sigma: Noise level in [0, 1]; None: estimated.
        strength: As in :class:`UNetDenoiser`.
        kind: As in :class:`UNetDenoiser`.
        quality: As in :class:`UNetDenoiser`.
        max_pixels: As in :class:`UNetDenoiser`.
        provider: As for :class:`Model`.

    Raises:
        InvalidArgumentError: the model was not trained to denoise, or not at this sigma.
        BundleError: the bundle cannot be used.
    """
    bundle = Bundle.open(where)
    model = (Denoiser if bundle.is_denoiser else Model)(bundle, provider=provider, threads=1)
    treatment = make_file_denoiser(
        model, sigma=sigma, strength=strength, kind=kind, quality=quality, max_pixels=max_pixels
    )
    model.check()
    return treatment


def make_file_denoiser(
    model: Denoiser | Model,
    *,
    sigma: float | None,
    strength: float,
    kind: str | None,
    quality: int | None,
    max_pixels: int,
) -> UNetDenoiser | AutoencoderDenoiser:
    """Return the file denoiser for a model that is open; see :func:`open_file_denoiser`.

    Raises:
        InvalidArgumentError: the model was not trained to denoise, or not at this sigma.
    """
    if isinstance(model, Denoiser):
        low, high = model.spec.deviations
        if sigma is not None and not low <= sigma <= high:
            raise InvalidArgumentError(
                f"model {printable(model.bundle.name)} denoises sigma {255 * low:g} to {255 * high:g}, "
                f"not {255 * sigma:g}; name one of these, or auto"
            )
        return UNetDenoiser(
            denoiser=model,
            sigma=sigma,
            strength=strength,
            kind=kind,
            quality=quality,
            max_pixels=max_pixels,
        )
    spec = model.bundle.spec
    if spec.denoises is None:
        raise InvalidArgumentError(
            f"model {printable(model.bundle.name)} ({spec.kind}) was not trained to denoise; "
            "take a denoiser, or a model trained with --denoise"
        )
    if sigma is not None:
        raise InvalidArgumentError(f"model {printable(model.bundle.name)} takes no sigma; leave it at auto")
    return AutoencoderDenoiser(
        model=model, strength=strength, kind=kind or "PNG", quality=quality, max_pixels=max_pixels
    )


def _is_gray(pixels: Values) -> bool:
    """Whether (H, W, 3) are gray, stored as RGB."""
    return pixels.shape[2] == 3 and all(bool((row == row[:, :1]).all()) for row in pixels)


def _middle(values: Values) -> Pixels:
    height, width = values.shape[:2]
    top, left = max(0, height - _VIEW) // 2, max(0, width - _VIEW) // 2
    part = values[top : top + _VIEW, left : left + _VIEW]
    return (part >> 8 if part.dtype == np.uint16 else part).astype(np.uint8)
