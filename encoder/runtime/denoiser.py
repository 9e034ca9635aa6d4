"""A cleaner running on onnxruntime: pictures of any size to how noisy they are, and to pictures without it.

Legend: N images, H, W height and width, C channels (1 grey, 3 RGB), sigma the deviation of the noise where
white is 1.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.bundle.denoiser import DenoiserBundle, DenoiserGolden, DenoiserSpec
from lookalike.encoder.errors import BundleCorruptError, InvalidArgumentError
from lookalike.encoder.runtime.session import Provider, Runtime, Session, compare_golden
from lookalike.encoder.text import one_line, printable

Floats = NDArray[np.float32]

_AT_ONCE: Final = 1 << 18
"""Pixels in one run of several images: more would not be faster, and would hold more of the activations."""
_SEAM: Final = 1e-4
"""What may change beyond the reach: rounding, of values in [0, 1]."""


class Denoiser:
    """A model that cleans pictures. Safe for several threads at once: onnxruntime sessions are.

    Attributes:
        bundle: What it was opened from.
    """

    def __init__(
        self, bundle: DenoiserBundle, *, provider: Provider = "auto", threads: int | None = None
    ) -> None:
        self._runtime = Runtime(provider=provider, threads=threads)
        self.bundle = bundle

    @classmethod
    def open(
        cls, where: str | os.PathLike[str], *, provider: Provider = "auto", threads: int | None = None
    ) -> Self:
        """Open a bundle's folder, or a shipped bundle by name.

        Each graph is loaded on first use and checked then against the golden values.

        Args:
            where: Folder or shipped name.
            provider: ``auto`` takes CUDA where onnxruntime has it, else the CPU; ``cuda`` is never
                silently the CPU.
            threads: Threads within one call; None lets onnxruntime choose.

        Raises:
            InvalidArgumentError: no such provider or number of threads.
            BundleError: the bundle cannot be used.
            ProviderError: the provider is not to be had; raised when the first graph is loaded.
        """
        return cls(DenoiserBundle.open(where), provider=provider, threads=threads)

    @property
    def model_id(self) -> str:
        """SHA-256 over all of the bundle, 64 hex digits."""
        return self.bundle.model_id

    @property
    def provider(self) -> str:
        """The execution provider that really runs, in onnxruntime's words."""
        return str(self._cleaner.get_providers()[0])

    def estimate(self, pixels: Floats) -> Floats:
        """Return the sigma of the noise, float32 (N,) in [0, 1], of float32 (N, H, W, C) in [0, 1].

        Raises:
            InvalidArgumentError: another dtype or shape, or values that are not finite.
        """
        _check(pixels)

        def run(rows: Floats, _: slice) -> Floats:
            made: Floats = self._estimator.run(["sigma"], {"pixels": rows})[0]
            return made.clip(0, 1)

        return self._in_parts(pixels, run, np.empty(len(pixels), np.float32))

    def clean(self, pixels: Floats, sigma: Floats | None = None) -> Floats:
        """Return pictures without their noise, float32 (N, H, W, C), not clipped.

        Args:
            pixels: float32 (N, H, W, C) in [0, 1]; of grey pictures, what comes out is the mean of three
                channels. Sides are padded by reflection to what the model wants, and cut again.
            sigma: float32 (N,) in [0, 1]; None: as estimated.

        Raises:
            InvalidArgumentError: another dtype or shape, values that are not finite, or a sigma outside of [0, 1].
        """
        _check(pixels)
        told = self.estimate(pixels) if sigma is None else sigma
        if (
            told.dtype != np.float32
            or told.shape != pixels.shape[:1]
            or not ((told >= 0) & (told <= 1)).all()
        ):
            raise InvalidArgumentError(
                f"sigma must be float32 ({len(pixels)},) in [0, 1] (25/255 for 25), "
                f"got {told.dtype} {told.shape}"
            )
        height, width, channels = pixels.shape[1:]

        def run(rows: Floats, part: slice) -> Floats:
            made: Floats = self._cleaner.run(["cleaned"], {"pixels": rows, "sigma": told[part]})[0]
            made = made[:, :height, :width]
            return made if channels == 3 else made.mean(axis=3, keepdims=True)

        return self._in_parts(pixels, run, np.empty(pixels.shape, np.float32))

    def check(self) -> None:
        """Load both graphs and compare them with the golden values.

        Raises:
            GoldenMismatchError: this machine does not reproduce them.
        """
        _ = self._cleaner, self._estimator

    @cached_property
    def _cleaner(self) -> Session:
        golden = self.bundle.golden
        return self._proven(
            "cleaner", "cleaned", {"pixels": golden.pixels, "sigma": golden.sigma}, golden.cleaned
        )

    @cached_property
    def _estimator(self) -> Session:
        golden = self.bundle.golden
        return self._proven("estimator", "sigma", {"pixels": golden.pixels}, golden.estimated)

    def _proven(self, graph: str, output: str, feed: Mapping[str, Floats], golden: Floats) -> Session:
        folder = self.bundle.folder
        session = self._runtime.session(self.bundle.graph(graph), graph=graph, folder=folder, spinning=False)
        try:
            (got,) = session.run([output], dict(feed))
            got = np.reshape(got, golden.shape)
        except Exception as error:  # onnxruntime's own types, and ValueError from other inputs or outputs
            raise BundleCorruptError(
                f"bundle {printable(str(folder))} is damaged: {graph}.onnx does not run ({one_line(error)}); "
                "fetch or export it again"
            ) from error
        compare_golden(got, golden, graph=graph, folder=folder)
        return session

    def _in_parts(self, pixels: Floats, run: Callable[[Floats, slice], Floats], out: Floats) -> Floats:
        """Feed a few images at once, padded and in three channels."""
        count, height, width, _ = pixels.shape
        step = max(1, _AT_ONCE // (height * width))
        for start in range(0, count, step):
            part = slice(start, start + step)
            out[part] = run(_prepared(pixels[part], self.bundle.spec.multiple), part)
        return out


def save_denoiser(
    folder: str | os.PathLike[str], *, spec: DenoiserSpec, graphs: Mapping[str, bytes], seed: int = 0
) -> DenoiserBundle:
    """Try the graphs, have them make golden values, and write the bundle.

    The pictures are made up: blotches with noise.

    Args:
        folder: Where to.
        spec: What goes into bundle.json; ``multiple`` and ``reach`` are tried.
        graphs: ``cleaner`` and ``estimator`` to ONNX bytes.
        seed: Of the pictures.

    Raises:
        InvalidArgumentError: they do not take pictures of such a size, something beyond the reach changes a pixel, or
            the folder holds something that is no bundle.
        BundleError: the graphs do not run, or the folder cannot be written.
    """
    told = Path(os.fspath(folder))
    running = {
        name: Runtime(provider="cpu").session(data, graph=name, folder=told) for name, data in graphs.items()
    }
    rng = np.random.default_rng(seed)
    sigma = rng.uniform(*spec.deviations, 3).astype(np.float32)
    pixels = _made_up(rng, sigma, multiple=spec.multiple)
    try:
        (cleaned,) = running["cleaner"].run(["cleaned"], {"pixels": pixels, "sigma": sigma})
        (estimated,) = running["estimator"].run(["sigma"], {"pixels": pixels})
        smallest = pixels[:1, : spec.multiple, : spec.multiple]
        running["estimator"].run(["sigma"], {"pixels": smallest})
        running["cleaner"].run(["cleaned"], {"pixels": smallest, "sigma": sigma[:1]})
        beyond = _beyond(running["cleaner"], rng, spec)
    except Exception as error:  # onnxruntime raises its own types from C++
        raise InvalidArgumentError(
            f"a cleaner takes float32 (N, H, W, 3), H and W multiples of {spec.multiple}, and sigma; these "
            f"graphs do not ({one_line(error)[:300]})"
        ) from error
    if not beyond <= _SEAM:
        raise InvalidArgumentError(
            f"nothing farther than the reach of {spec.reach} may change a pixel, something does, by "
            f"{beyond:.1e}; say a greater one"
        )
    golden = DenoiserGolden(pixels, sigma, cleaned, estimated)
    return DenoiserBundle.save(folder, spec=spec, graphs=graphs, golden=golden)


def _check(pixels: Floats) -> None:
    shape = pixels.shape
    if pixels.dtype != np.float32 or len(shape) != 4 or shape[3] not in (1, 3) or 0 in shape[1:3]:
        raise InvalidArgumentError(f"a cleaner takes float32 (N, H, W, 1 or 3), got {pixels.dtype} {shape}")
    if pixels.size and not np.isfinite(pixels.sum(dtype=np.float64)):
        raise InvalidArgumentError("pixels must be finite, these hold NaN or infinity")


def _prepared(pixels: Floats, multiple: int) -> Floats:
    """(N, H, W, C) -> (N, H', W', 3), each side reflected up to the next multiple."""
    lacks = [-side % multiple for side in pixels.shape[1:3]]
    if any(lacks):
        pixels = np.pad(pixels, ((0, 0), (0, lacks[0]), (0, lacks[1]), (0, 0)), "reflect")
    if pixels.shape[3] == 1:
        pixels = np.broadcast_to(pixels, (*pixels.shape[:3], 3))
    return np.ascontiguousarray(pixels)


def _made_up(rng: np.random.Generator, sigma: Floats, *, multiple: int) -> Floats:
    """Blotches with noise, float32 (N, H, W, 3) in [0, 1], H and W multiples and at least 32 and 48."""
    height, width = (-(-side // multiple) * multiple for side in (32, 48))
    coarse = rng.uniform(0.1, 0.9, (len(sigma), -(-height // 8), -(-width // 8), 3))
    smooth = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
    noisy = smooth + rng.normal(size=smooth.shape) * sigma[:, None, None, None]
    return np.asarray(noisy.clip(0, 1), np.float32)


def _beyond(session: Session, rng: np.random.Generator, spec: DenoiserSpec) -> float:
    """How much the largest change is, farther than the reach from columns that were changed altogether."""
    side, reach = spec.multiple, spec.reach
    height = -(-16 // side) * side
    width = side + -(-(reach + 16) // side) * side
    one = rng.uniform(size=(1, height, width, 3)).astype(np.float32)
    other = one.copy()
    other[:, :, :side] = 1 - other[:, :, :side]
    sigma = np.array([max(spec.deviations)], np.float32)
    made = [session.run(["cleaned"], {"pixels": each, "sigma": sigma})[0] for each in (one, other)]
    return float(np.abs(made[0] - made[1])[:, :, side + reach :].max())
