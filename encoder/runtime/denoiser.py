"""A denoiser on onnxruntime: images of any size to their noise level, and to images without noise.

Legend: N images, H, W height and width, C channels (1 gray, 3 RGB), sigma the standard deviation of the noise
where white is 1.
"""

from __future__ import annotations

import os
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

    def estimate(self, pixels: Floats) -> Floats:
        """Return the sigma of the noise, float32 (N,) in [0, 1], of float32 (N, H, W, C) in [0, 1].

        Raises:
            InvalidArgumentError: Another dtype or shape, or values that are not finite.
        """
        _check(pixels)
        rgb = _pad(pixels, self.spec.size_multiple)
        sigma = self._run("estimator", rgb, shape=(), batch=_batch(pixels))
        return sigma.clip(0, 1)

    def denoise(self, pixels: Floats, sigma: Floats | None = None) -> Floats:
        """Return images without their noise, float32 (N, H, W, C), not clipped.

        Args:
            pixels: float32 (N, H, W, C) in [0, 1]; of gray images, the result is the mean of three channels.
                Sides are padded by reflection to the model's multiple, and cut again.
            sigma: float32 (N,) in [0, 1]; None estimates it.

        Raises:
            InvalidArgumentError: Another dtype or shape, values that are not finite, or a sigma outside [0,
                1].
        """
        _check(pixels)
        levels = self.estimate(pixels) if sigma is None else sigma
        if (
            levels.dtype != np.float32
            or levels.shape != pixels.shape[:1]
            or not ((levels >= 0) & (levels <= 1)).all()
        ):
            raise InvalidArgumentError(
                f"sigma must be float32 ({len(pixels)},) in [0, 1] (25/255 for 25), "
                f"got {levels.dtype} {levels.shape}"
            )
        height, width, channels = pixels.shape[1:]
        rgb = _pad(pixels, self.spec.size_multiple)
        denoised = self._run("denoiser", rgb, levels, shape=rgb.shape[1:], batch=_batch(pixels))
        denoised = denoised[:, :height, :width]
        return np.ascontiguousarray(denoised if channels == 3 else denoised.mean(axis=3, keepdims=True))


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
    sigma = rng.uniform(*spec.deviations, 3).astype(np.float32)
    pixels = _synthetic(rng, sigma, multiple=spec.size_multiple)
    try:
        (denoised,) = _feed(sessions["denoiser"], pixels, sigma)
        (estimated,) = _feed(sessions["estimator"], pixels)
        smallest = pixels[:1, : spec.size_multiple, : spec.size_multiple]
        _feed(sessions["estimator"], smallest)
        _feed(sessions["denoiser"], smallest, sigma[:1])
        change = _change_beyond(sessions["denoiser"], rng, spec)
    except Exception as error:  # onnxruntime raises its own types from C++
        raise InvalidArgumentError(
            f"a denoiser takes float32 (N, H, W, 3), H and W multiples of {spec.size_multiple}, and sigma; "
            "these "
            f"graphs do not ({one_line(error)[:300]})"
        ) from error
    if not change <= _SEAM:
        raise InvalidArgumentError(
            f"no pixel may depend on pixels beyond the receptive field of {spec.receptive_field}, one "
            "changes by "
            f"{change:.1e}; give a larger one"
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


def _synthetic(rng: np.random.Generator, sigma: Floats, *, multiple: int) -> Floats:
    """Blotches with noise, float32 (N, H, W, 3) in [0, 1], H and W multiples and at least 32 and 48."""
    height, width = (-(-side // multiple) * multiple for side in (32, 48))
    coarse = rng.uniform(0.1, 0.9, (len(sigma), -(-height // 8), -(-width // 8), 3))
    smooth = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
    noisy = smooth + rng.normal(size=smooth.shape) * sigma[:, None, None, None]
    return np.asarray(noisy.clip(0, 1), np.float32)


def _change_beyond(session: Session, rng: np.random.Generator, spec: DenoiserSpec) -> float:
    """Return the largest change farther than the receptive field from columns that were inverted."""
    side, reach = spec.size_multiple, spec.receptive_field
    height = -(-16 // side) * side
    width = side + -(-(reach + 16) // side) * side
    one = rng.uniform(size=(1, height, width, 3)).astype(np.float32)
    other = one.copy()
    other[:, :, :side] = 1 - other[:, :, :side]
    sigma = np.array([max(spec.deviations)], np.float32)
    outputs = [_feed(session, each, sigma)[0] for each in (one, other)]
    return float(np.abs(outputs[0] - outputs[1])[:, :, side + reach :].max())
