"""Denoise image files: the bytes of a noisy image to those of a clean one.

A denoiser takes images of any size and keeps their depth, alpha and metadata. An autoencoder that was trained
to denoise (``train ae --denoise``) crops and resizes images to its input and reconstructs them in eight bits,
without their metadata.

Tiles overlap by the receptive field of the denoiser and only the inside of each is kept: every pixel is
computed from the same neighbors as in one piece, without seams, and the image is never copied to floats.

Legend: H, W = height and width, C channels; sigma is the noise level in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

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
from lookalike.encoder.metrics import psnr_from_mse
from lookalike.encoder.runtime import Denoiser, Model, Provider
from lookalike.searcher.denoising.noise_map import (
    Mapper,
    NoiseMap,
    as_floats,
    estimate_noise,
    uniform_map,
)
from lookalike.searcher.denoising.tiles import TILE, Workload, tiling, unet_workload

Floats = NDArray[np.float32]


@dataclass(slots=True)
class Change:
    """What denoising changed in an image.

    Attributes:
        pixels: How many pixels are another color now.
        of: Pixels of the image.
        squares: Sum over all values of the squared change, of values in [0, 1].
        values: Number of these values.
    """

    pixels: int = 0
    of: int = 0
    squares: float = 0.0
    values: int = 0

    def count(self, before: Values, after: Values) -> None:
        """Add a part of the image."""
        difference = after.astype(np.float32) - before.astype(np.float32)
        self.pixels += int(difference.any(axis=2).sum())
        self.of += difference.shape[0] * difference.shape[1]
        self.squares += float(np.square(difference, dtype=np.float64).sum()) / np.iinfo(before.dtype).max ** 2
        self.values += difference.size

    @property
    def share(self) -> float:
        """Share of the pixels that are another color now."""
        return self.pixels / max(1, self.of)

    @property
    def psnr(self) -> float:
        """PSNR between input and output in dB; infinite where nothing changed."""
        return psnr_from_mse(self.squares / max(1, self.values))


def denoise_in_place(
    denoiser: Denoiser,
    pixels: Values,
    noise: NoiseMap,
    *,
    strength: float = 1.0,
    tile_size: int = TILE,
    map_tiles: Mapper = map,
) -> Change:
    """Denoise ``uint8`` or ``uint16`` (H, W, C) in place, where there is noise.

    Args:
        denoiser: The network.
        pixels: May be a view; rounded to its own depth.
        noise: Where it is, and how strong.
        strength: 1 removes the noise, 0.5 half of it, 0 nothing; above 1 the noise counts as so many times
            stronger than it is.
        tile_size: Side of a tile with its margin, in pixels; a smaller image is one tile.
        map_tiles: Runs the tiles of a row, in parallel where it can.
    """
    height, width = pixels.shape[:2]
    limit = np.float32(denoiser.spec.deviations[1])
    margin, (tile_height, tile_width) = tiling(denoiser, (height, width), tile_size)
    max_value, change = np.iinfo(pixels.dtype).max, Change()

    def tile(left: int) -> Values:
        start = max(0, left - margin)
        part = block[:, start : left + tile_width + margin]
        middle = np.s_[
            above : above + bottom - top, left - start : left - start + min(tile_width, width - left)
        ]
        sigma = noise.sigma(range(top - above, top - above + len(part)), range(start, start + part.shape[1]))
        weight = noise.weight(sigma[middle])[..., None] * np.float32(min(strength, 1))
        if not weight.any():
            return block[:, start:][middle]
        given = (sigma * np.float32(max(strength, 1))).clip(0, limit)
        floats = as_floats(part)
        denoised = denoiser.denoise(floats[None], given[None])[0][middle]
        blended = floats[middle] + weight * (denoised - floats[middle])
        values: Values = np.rint(blended.clip(0, 1) * np.float32(max_value)).astype(pixels.dtype)
        return values

    above_rows = pixels[:0].copy()  # rows above the tiles, as they were before
    for top in range(0, height, tile_height):
        bottom, above = min(top + tile_height, height), len(above_rows)
        parts: list[Any] = [above_rows, pixels[top : bottom + margin]]
        block: Values = np.concatenate(parts)
        lefts = range(0, width, tile_width)
        for left, output in zip(lefts, map_tiles(tile, lefts), strict=True):
            change.count(pixels[top:bottom, left : left + tile_width], output)
            pixels[top:bottom, left : left + tile_width] = output
        done = above + bottom - top
        above_rows = block[max(0, done - margin) : done].copy()
    return change


@dataclass(frozen=True, slots=True)
class DenoisedPixels:
    """What was found in an image, and what was made of it.

    Attributes:
        noise: The noise that was estimated, or that was given.
        change: What changed.
        left: Whether the image was left as it is: it has no noise, or no pixel is another color now.
    """

    noise: NoiseMap
    change: Change
    left: bool


def denoise_pixels(
    denoiser: Denoiser,
    pixels: Values,
    *,
    sigma: float | None = None,
    strength: float = 1.0,
    map_tiles: Mapper = map,
) -> DenoisedPixels:
    """Denoise ``uint8`` or ``uint16`` (H, W, 1 or 3) in place, as a file with these pixels is denoised.

    Gray stored as RGB stays gray: the network would give the channels different values.

    Args:
        denoiser: The network.
        pixels: May be a view; rounded to its own depth.
        sigma: Noise level of the whole image; None: estimated at each place, and places below the denoiser's
            limit are left as they are.
        strength: As of :func:`denoise_in_place`.
        map_tiles: Runs the tiles of a row, in parallel where it can.
    """
    gray = _is_gray(pixels)
    part: Values = pixels[..., :1].copy() if gray else pixels
    if sigma is None:
        noise = estimate_noise(denoiser, part, map_tiles=map_tiles)
        if noise.is_clean:
            return DenoisedPixels(noise, Change(of=part.shape[0] * part.shape[1]), left=True)
    else:
        noise = uniform_map(sigma, part.shape, denoiser.spec.cell)
    change = denoise_in_place(denoiser, part, noise, strength=strength, map_tiles=map_tiles)
    if gray and change.pixels:
        pixels[...] = part
    return DenoisedPixels(noise, change, left=not change.pixels)


Pixels = NDArray[np.uint8]
Reason = Literal["", "no noise", "few colors", "no change"]
_VIEW = 160


@dataclass(frozen=True, slots=True)
class DenoisedFile:
    """A denoised image file.

    Attributes:
        data: The bytes of the file to write.
        status: ``cleaned``, or ``clean``: it was left as it is.
        reason: Why it was left: ``no noise``, ``few colors`` of a drawn or dithered image, or ``no change``
            where the noise was given, or strength 0.
        noise: The noise that was estimated, or that was given; None: of an autoencoder.
        change: What changed; None: of an autoencoder, which makes another image.
        view: The middle before, after, and of the noise map, uint8 (h, w, 1 or 3) with sides of at most 160.
        kind: Format of ``data``: ``JPEG``, ``PNG`` and so on.
    """

    data: bytes
    status: Literal["cleaned", "clean"]
    noise: NoiseMap | None
    change: Change | None
    view: tuple[Pixels, ...]
    kind: str
    reason: Reason = ""

    @property
    def sigma(self) -> float | None:
        """Median of the noise level; None: neither estimated nor given."""
        return None if self.noise is None else self.noise.percentile(50)


class FileDenoiser(Protocol):
    """Denoises files. May be called from several threads at once."""

    @property
    def provider(self) -> str:
        """The execution provider in use, as onnxruntime names it."""

    @property
    def pixels_per_second(self) -> float | None:
        """Pixels of a workload that were denoised a second, in earlier runs; None: there were none."""

    def workload(self, height: int, width: int) -> Workload:
        """Return what an image of this size takes, in pixels."""

    def release_memory(self) -> None:
        """Give back to the system what denoising large images holds."""

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
        sigma: Noise level of all images; None: estimated at each place, and places below the denoiser's
            limit are left as they are.
        strength: As of :func:`denoise_in_place`.
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
    def bundle(self) -> Bundle:
        """The model as it is stored."""
        return self.denoiser.bundle

    @property
    def provider(self) -> str:
        """The execution provider in use, as onnxruntime names it."""
        return self.denoiser.provider

    @property
    def pixels_per_second(self) -> float | None:
        """See :class:`FileDenoiser`."""
        return self.denoiser.pixels_per_second

    def workload(self, height: int, width: int) -> Workload:
        """See :class:`FileDenoiser`."""
        return unet_workload(self.denoiser, height, width, estimated=self.sigma is None)

    def release_memory(self) -> None:
        """See :class:`FileDenoiser`."""
        self.denoiser.release_memory()

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
        pixels = image.colors
        before = _middle(pixels)
        done = denoise_pixels(
            self.denoiser, pixels, sigma=self.sigma, strength=self.strength, map_tiles=map_tiles
        )
        view = (before, _middle(pixels), _middle_of_map(done.noise, pixels))
        kind = self.kind or image.kind
        if not done.left:
            output = write_image_file(image, kind=self.kind, quality=self.quality, name=name)
            return DenoisedFile(output, "cleaned", done.noise, done.change, view, kind)
        if self.kind not in (None, image.kind):
            data = write_image_file(image, kind=self.kind, quality=self.quality, name=name)
        return DenoisedFile(data, "clean", done.noise, done.change, view, kind, self._reason(done.noise))

    def _reason(self, noise: NoiseMap) -> Reason:
        """Return why an image was left as it is."""
        if noise.drawn:
            return "few colors"
        return "no noise" if self.sigma is None and self.strength > 0 else "no change"


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
    def bundle(self) -> Bundle:
        """The model as it is stored."""
        return self.model.bundle

    @property
    def provider(self) -> str:
        """The execution provider in use, as onnxruntime names it."""
        return self.model.provider

    @property
    def pixels_per_second(self) -> float | None:
        """See :class:`FileDenoiser`."""
        return None

    def workload(self, height: int, width: int) -> Workload:  # noqa: ARG002  # it is resized
        """See :class:`FileDenoiser`; it takes no time that is worth counting."""
        return Workload(1, 0)

    def release_memory(self) -> None:
        """See :class:`FileDenoiser`; it holds hardly any."""

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
        return DenoisedFile(output, "cleaned", None, None, (_middle(pixels), _middle(denoised)), self.kind)


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
        InvalidArgumentError: the model was not trained to denoise, or not at this sigma or strength.
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
        InvalidArgumentError: the model was not trained to denoise, or not at this sigma or strength.
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
    if strength > 1:
        raise InvalidArgumentError(
            f"model {printable(model.bundle.name)} takes a strength of 0 to 1, not {strength:g}; "
            "lower it, or take a denoiser"
        )
    return AutoencoderDenoiser(
        model=model, strength=strength, kind=kind or "PNG", quality=quality, max_pixels=max_pixels
    )


def _is_gray(pixels: Values) -> bool:
    """Whether (H, W, 3) are gray, stored as RGB."""
    return pixels.shape[2] == 3 and all(bool((row == row[:, :1]).all()) for row in pixels)


def _middle(values: Values) -> Pixels:
    rows, columns = _middle_ranges(values)
    part = values[rows.start : rows.stop, columns.start : columns.stop]
    return (part >> 8 if part.dtype == np.uint16 else part).astype(np.uint8)


def _middle_of_map(noise: NoiseMap, values: Values) -> Pixels:
    return noise.image(*_middle_ranges(values))


def _middle_ranges(values: Values) -> tuple[range, range]:
    starts = [max(0, side - _VIEW) // 2 for side in values.shape[:2]]
    rows, columns = (
        range(start, min(start + _VIEW, side)) for start, side in zip(starts, values.shape, strict=False)
    )
    return rows, columns
