"""A denoiser on onnxruntime: images of any size to a map of their noise, and to images without noise.

Legend: N images, H, W height and width, C channels (1 gray, 3 RGB), sigma the standard deviation of the noise
where white is 1; h, w rows and columns of cells, the squares of pixels that sigma is estimated in.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.bundle import Bundle, DenoiserSpec
from lookalike.encoder.errors import InvalidArgumentError, one_line
from lookalike.encoder.runtime.session import OnnxModel, Provider, Session, open_session

Floats = NDArray[np.float32]

_BATCH_PIXELS: Final = 1 << 18
"""Pixels in one run of several images: more would not be faster, and would need more memory."""
_MEASURED_FROM: Final = 1 << 16
"""Smallest number of pixels of a run that says how fast large images are denoised."""
_REMEMBERED: Final = 0.8
"""Share that an earlier run keeps when the next is measured."""
_SEAM: Final = 1e-4
"""Largest change beyond the receptive field: rounding, of values in [0, 1]."""


class Denoiser(OnnxModel):
    """A model that removes noise from images.

    Raises:
        BundleKindError: The bundle is not a denoiser.
    """

    def __init__(self, bundle: Bundle, *, provider: Provider = "auto", threads: int | None = None) -> None:
        super().__init__(bundle, provider=provider, threads=threads)
        self.spec = bundle.denoiser_spec
        self._speed = _Speed()

    @property
    def pixels_per_second(self) -> float | None:
        """How fast one run of :meth:`denoise` was, over the last runs of large images; None before any."""
        return self._speed.value

    def release_memory(self) -> None:
        """Give back to the system what runs of large images hold: some 250 MB for each thread."""
        side = self.spec.size_multiple
        pixels, cells = np.zeros((1, side, side, 3), np.float32), side // self.spec.cell
        self._run("estimator", pixels, shape=(cells, cells), release=True)
        self._run("denoiser", pixels, pixels[..., 0], shape=pixels.shape[1:], release=True)

    def estimate(self, pixels: Floats) -> Floats:
        """Return sigma in each cell, float32 (N, h, w) in [0, 1], of float32 (N, H, W, C) in [0, 1].

        The last cells are cut by the border where H or W are no multiples of a cell's side.

        Raises:
            InvalidArgumentError: Another dtype or shape, or values that are not finite.
        """
        _check(pixels)
        rgb, cell = _pad(pixels, self.spec.size_multiple), self.spec.cell
        shape = (rgb.shape[1] // cell, rgb.shape[2] // cell)
        sigma = self._run("estimator", rgb, shape=shape, batch=_batch(pixels))
        height, width = (-(-side // cell) for side in pixels.shape[1:3])
        return sigma[:, :height, :width].clip(0, 1)

    def denoise(self, pixels: Floats, sigma: Floats | None = None) -> Floats:
        """Return images without their noise, float32 (N, H, W, C), not clipped.

        Args:
            pixels: float32 (N, H, W, C) in [0, 1]; of gray images, the result is the mean of three channels.
                Sides are padded by reflection to the model's multiple, and cut again.
            sigma: float32 (N, H, W), of each pixel, or (N,), of each image, in [0, 1]; None estimates it.

        Raises:
            InvalidArgumentError: Another dtype or shape, values that are not finite, or a sigma outside [0,
                1].
        """
        _check(pixels)
        height, width, channels = pixels.shape[1:]
        if sigma is None:
            cells = self.estimate(pixels)
            maps = [sigma_at(each, range(height), range(width), self.spec.cell) for each in cells]
            sigma = np.array(maps, np.float32).reshape(pixels.shape[:3])  # of no images too
        if (
            sigma.dtype != np.float32
            or sigma.shape not in (pixels.shape[:1], pixels.shape[:3])
            or not ((sigma >= 0) & (sigma <= 1)).all()
        ):
            raise InvalidArgumentError(
                f"sigma must be float32 ({len(pixels)},) or {pixels.shape[:3]} in [0, 1] (25/255 for 25), "
                f"got {sigma.dtype} {sigma.shape}"
            )
        levels = np.broadcast_to(sigma if sigma.ndim == 3 else sigma[:, None, None], pixels.shape[:3])
        rgb, levels = _pad(pixels, self.spec.size_multiple), _pad_map(levels, self.spec.size_multiple)
        began = time.perf_counter()
        denoised = self._run("denoiser", rgb, levels, shape=rgb.shape[1:], batch=_batch(pixels))
        self._speed.measured(levels.size, time.perf_counter() - began)
        denoised = denoised[:, :height, :width]
        return np.ascontiguousarray(denoised if channels == 3 else denoised.mean(axis=3, keepdims=True))


class _Speed:
    """Pixels a second over the last runs, of which the older count less. Safe for several threads."""

    def __init__(self) -> None:
        self._pixels = self._seconds = 0.0
        self._lock = threading.Lock()

    @property
    def value(self) -> float | None:
        with self._lock:
            return self._pixels / self._seconds if self._seconds else None

    def measured(self, pixels: int, seconds: float) -> None:
        if pixels < _MEASURED_FROM:  # its activations stay in cache, so it is faster
            return
        with self._lock:
            self._pixels = _REMEMBERED * self._pixels + pixels
            self._seconds = _REMEMBERED * self._seconds + seconds


def sigma_at(cells: Floats, rows: range, columns: range, cell: int) -> Floats:
    """Interpolate sigma between the centers of cells: float32 (len(rows), len(columns)).

    Args:
        cells: float32 (h, w), sigma in each cell of an image.
        rows: Of the image, in pixels.
        columns: Of the image, in pixels.
        cell: Side of a cell in pixels.
    """
    (top, down), (left, right) = (
        _between(part, count, cell) for part, count in zip((rows, columns), cells.shape, strict=True)
    )
    across = (
        cells[:, left] * (1 - right) + cells[:, np.minimum(left + 1, cells.shape[1] - 1)] * right
    )  # (h, len(columns))
    below = across[np.minimum(top + 1, len(cells) - 1)]
    return np.asarray(across[top] * (1 - down[:, None]) + below * down[:, None], np.float32)


def _between(pixels: range, count: int, cell: int) -> tuple[NDArray[np.int64], Floats]:
    """Return the cell before each pixel, and how far the pixel lies towards the next one, 0 to 1."""
    position = ((np.arange(pixels.start, pixels.stop) + 0.5) / cell - 0.5).clip(0, count - 1)
    before = np.floor(position).astype(np.int64)
    return before, (position - before).astype(np.float32)


def save_denoiser(
    folder: str | os.PathLike[str], *, spec: DenoiserSpec, graphs: Mapping[str, bytes], seed: int = 0
) -> Bundle:
    """Try the graphs, compute golden values with them, and write the bundle.

    The golden images are synthetic: blotches with noise.

    Args:
        folder: Where to.
        spec: Goes into bundle.json; ``size_multiple`` and ``receptive_field`` are tried.
        graphs: ``denoiser`` and ``estimator`` to ONNX bytes.
        seed: Of the images.

    Raises:
        InvalidArgumentError: They do not take images of such a size, a pixel depends on something beyond the
            receptive field, or the folder holds something else than a bundle.
        BundleError: The graphs do not run, or the folder cannot be written.
    """
    sessions = {
        name: open_session(data, graph=name, folder=Path(os.fspath(folder)), provider="cpu")
        for name, data in graphs.items()
    }
    rng = np.random.default_rng(seed)
    levels = rng.uniform(*spec.deviations, 3).astype(np.float32)
    pixels = _synthetic(rng, levels, multiple=spec.size_multiple)
    sigma = np.ascontiguousarray(np.broadcast_to(levels[:, None, None], pixels.shape[:3]))
    try:
        (denoised,) = _feed(sessions["denoiser"], pixels, sigma)
        (estimated,) = _feed(sessions["estimator"], pixels)
        smallest = pixels[:1, : spec.size_multiple, : spec.size_multiple]
        _feed(sessions["estimator"], smallest)
        _feed(sessions["denoiser"], smallest, sigma[:1, : spec.size_multiple, : spec.size_multiple])
        changes = {name: _change_beyond(session, name, rng, spec) for name, session in sessions.items()}
    except Exception as error:  # onnxruntime raises its own types from C++
        raise InvalidArgumentError(
            f"a denoiser takes float32 (N, H, W, 3), H and W multiples of {spec.size_multiple}, and sigma of "
            f"(N, H, W); these graphs do not ({one_line(error)[:300]})"
        ) from error
    for name, change in changes.items():
        if not change <= _SEAM:
            raise InvalidArgumentError(
                f"no output of the {name} may depend on pixels beyond its receptive field of "
                f"{_field(name, spec)}, one changes by {change:.1e}; give a larger one"
            )
    golden = {"pixels": pixels, "sigma": sigma, "denoised": denoised, "estimated": estimated}
    return Bundle.save(folder, spec=spec, graphs=graphs, golden=golden)


def _feed(session: Session, *inputs: Floats) -> list[Floats]:
    names = [feed.name for feed in session.get_inputs()]
    outputs: list[Floats] = session.run(None, dict(zip(names, inputs, strict=True)))
    return outputs


def _check(pixels: Floats) -> None:
    shape = pixels.shape
    if pixels.dtype != np.float32 or len(shape) != 4 or shape[3] not in (1, 3) or 0 in shape[1:3]:
        raise InvalidArgumentError(f"a denoiser takes float32 (N, H, W, 1 or 3), got {pixels.dtype} {shape}")
    if pixels.size and not np.isfinite(pixels.sum(dtype=np.float64)):
        raise InvalidArgumentError("pixels must be finite, got NaN or infinity")


def _batch(pixels: Floats) -> int:
    height, width = pixels.shape[1:3]
    return max(1, _BATCH_PIXELS // int(height * width))


def _pad(pixels: Floats, multiple: int) -> Floats:
    """(N, H, W, C) -> (N, H', W', 3), each side reflected up to the next multiple."""
    missing = [-side % multiple for side in pixels.shape[1:3]]
    if any(missing):
        pixels = np.pad(pixels, ((0, 0), (0, missing[0]), (0, missing[1]), (0, 0)), "reflect")
    return np.broadcast_to(pixels, (*pixels.shape[:3], 3))


def _pad_map(sigma: Floats, multiple: int) -> Floats:
    """(N, H, W) -> (N, H', W'), padded as the pixels are."""
    return _pad(sigma[..., None], multiple)[..., 0]


def _synthetic(rng: np.random.Generator, sigma: Floats, *, multiple: int) -> Floats:
    """Blotches with noise, float32 (N, H, W, 3) in [0, 1], H and W multiples and at least 32 and 48."""
    height, width = (-(-side // multiple) * multiple for side in (32, 48))
    coarse = rng.uniform(0.1, 0.9, (len(sigma), -(-height // 8), -(-width // 8), 3))
    smooth = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
    noisy = smooth + rng.normal(size=smooth.shape) * sigma[:, None, None, None]
    return np.asarray(noisy.clip(0, 1), np.float32)


def _field(graph: str, spec: DenoiserSpec) -> int:
    return spec.receptive_field if graph == "denoiser" else spec.estimator_field


def _change_beyond(session: Session, graph: str, rng: np.random.Generator, spec: DenoiserSpec) -> float:
    """Return the largest change farther than the receptive field from columns that were inverted."""
    side, reach = spec.size_multiple, _field(graph, spec)
    height = -(-16 // side) * side
    width = side + -(-(reach + 16) // side) * side
    one = rng.uniform(size=(1, height, width, 3)).astype(np.float32)
    other = one.copy()
    other[:, :, :side] = 1 - other[:, :, :side]
    sigma = [np.full(one.shape[:3], max(spec.deviations), np.float32)] if graph == "denoiser" else []
    outputs = [_feed(session, each, *sigma)[0] for each in (one, other)]
    first = side + reach if graph == "denoiser" else -(-(side + reach) // spec.cell)
    return float(np.abs(outputs[0] - outputs[1])[:, :, first:].max())
