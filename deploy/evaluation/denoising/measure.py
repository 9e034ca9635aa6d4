"""How well models remove noise, and whether they leave clean images alone: PSNR and SSIM.

SSIM: Z. Wang et al.: Image Quality Assessment. IEEE TIP 13, 2004; scikit-image's, windows of 7 x 7, averaged
over the channels.

Legend: N images, H height, W width, C channels (1 gray, 3 RGB).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from lookalike.deploy.evaluation.denoising.methods import DenoiserMethod, DenoisingModel, Method
from lookalike.deploy.evaluation.denoising.noisy_images import (
    DenoisingTestSet,
    InputNoise,
    NoisyImages,
    Pixels,
)
from lookalike.deploy.evaluation.vectors import Progress, no_progress
from lookalike.encoder.errors import MissingExtraError
from lookalike.encoder.images import half_size, saved_as_jpeg, to_uint8
from lookalike.encoder.metrics import psnr

BATCH: Final = 50
"""Most images that a method is given at once."""
_BATCH_PIXELS: Final = 1 << 21
"""Most pixels of these, so that the progress of large images is seen too."""
_JPEG_QUALITY: Final = 95
_LOW: Final = 0.05


@dataclass(frozen=True, slots=True)
class Row:
    """One method's result on the noisy images.

    Attributes:
        name: Of the method.
        told: What it is given besides the image, or how it is set.
        psnr: Median over the images of each one's PSNR, dB.
        mean_psnr: Their mean.
        worst_gain: Smallest difference of an image's PSNR to that of the noisy image, dB.
        ssim: Median of their SSIM.
        mean_ssim: Their mean.
        unchanged: Share of the images that came out as they went in.
        speed: Images a second; None where nothing was computed.
        output: uint8 (H, W, C) of each of the first images.
    """

    name: str
    told: str
    psnr: float
    mean_psnr: float
    worst_gain: float
    ssim: float
    mean_ssim: float
    unchanged: float
    speed: float | None
    output: tuple[Pixels, ...]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; the images are left out."""
        return {
            "name": self.name,
            "told": self.told,
            "psnr_db": _decibels(self.psnr),
            "mean_psnr_db": _decibels(self.mean_psnr),
            "worst_gain_db": _decibels(self.worst_gain),
            "ssim": round(self.ssim, 4),
            "mean_ssim": round(self.mean_ssim, 4),
            "unchanged": round(self.unchanged, 4),
            "images_per_second": self.speed and float(f"{self.speed:.4g}"),
        }


@dataclass(frozen=True, slots=True)
class DenoisingResult:
    """All methods on one set of images under one noise.

    Attributes:
        images: The clean images.
        input: The input of every method, and what its output is compared with.
        rows: The noisy images as they are, then each method.
    """

    images: DenoisingTestSet
    input: NoisyImages
    rows: tuple[Row, ...]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "data": self.images.name,
            **self.input.noise.to_json(),
            "pictures": len(self.images),
            "rows": [row.to_json() for row in self.rows],
        }


@dataclass(frozen=True, slots=True)
class CleanRow:
    """What a denoiser does to images without noise.

    Attributes:
        name: Of the method.
        input: ``originals``, ``half size`` or ``JPEG 95``, copies of them.
        psnr: PSNR in dB of each output to its input, ascending; infinite where nothing changed.
        left: Share of the images that the denoiser left as they are.
    """

    name: str
    input: str
    psnr: tuple[float, ...]
    left: float

    @property
    def median(self) -> float:
        """Of the PSNR, dB."""
        return float(np.median(self.psnr))

    @property
    def low(self) -> float:
        """The PSNR that 5 % of the images are below, dB."""
        return self.psnr[math.floor(_LOW * (len(self.psnr) - 1))]

    @property
    def lowest(self) -> float:
        """The lowest PSNR, dB."""
        return self.psnr[0]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values: of PSNR, None where nothing changed."""
        return {
            "name": self.name,
            "input": self.input,
            "pictures": len(self.psnr),
            "median_psnr_db": _decibels(self.median),
            "5th_percentile_psnr_db": _decibels(self.low),
            "lowest_psnr_db": _decibels(self.lowest),
            "left_as_it_is": round(self.left, 4),
        }


@dataclass(frozen=True, slots=True)
class CleanResult:
    """All blind denoisers on the images of one set without noise.

    Attributes:
        images: The clean images.
        rows: Of each denoiser those of the originals, of half their size, and of JPEG copies.
    """

    images: DenoisingTestSet
    rows: tuple[CleanRow, ...]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "data": self.images.name,
            "noise": "none",
            "sigma": None,
            "photons": None,
            "pictures": len(self.images),
            "rows": [row.to_json() for row in self.rows],
        }


@dataclass(frozen=True, slots=True)
class DenoisingReport:
    """What was measured.

    Attributes:
        results: In the order of the sets; in each, noisy images and then clean ones.
        left_out: Why models were left out, in one line each.
    """

    results: tuple[DenoisingResult | CleanResult, ...]
    left_out: tuple[str, ...]

    @property
    def noisy(self) -> tuple[DenoisingResult, ...]:
        """The results with noise."""
        return tuple(result for result in self.results if isinstance(result, DenoisingResult))


def require_skimage() -> None:
    """Check for scikit-image before anything is computed.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import skimage  # noqa: F401  # only whether it is installed
    except ImportError as error:
        raise MissingExtraError(
            "evaluate denoising measures with scikit-image; pip install 'lookalike[evaluate]'"
        ) from error


def evaluate_denoisers(
    models: Sequence[DenoisingModel],
    sets: Sequence[DenoisingTestSet],
    *,
    sigmas: Sequence[float] = (),
    photons: Sequence[float] = (),
    seed: int = 0,
    keep: int = 0,
    progress: Progress = no_progress,
) -> DenoisingReport:
    """Measure models on noisy and on clean images.

    Args:
        models: Denoisers and autoencoders.
        sets: Clean images.
        sigmas: Of white noise, of 255; see :meth:`DenoisingTestSet.noises`.
        photons: Of camera noise, of a white pixel.
        seed: Of the noise.
        keep: Number of images whose results are kept, of the first result.
        progress: Shows the progress.

    Raises:
        MissingExtraError: scikit-image is not installed.
    """
    results: list[DenoisingResult | CleanResult] = []
    left_out: dict[str, None] = {}
    for images in sets:
        methods: list[Method] = []
        for model in models:
            rows, reason = model.methods(images)
            methods += rows
            left_out |= {} if reason is None else {reason: None}
        for noise in images.noises(sigmas, photons):
            kept = 0 if results else keep
            results.append(
                evaluate_denoising(images, noise, methods, seed=seed, keep=kept, progress=progress)
            )
        clean = evaluate_clean(images, methods, progress=progress)
        results += [clean] if clean.rows else []
    return DenoisingReport(tuple(results), tuple(left_out))


def evaluate_denoising(
    images: DenoisingTestSet,
    noise: InputNoise,
    methods: Sequence[Method],
    *,
    seed: int = 0,
    keep: int = 0,
    progress: Progress = no_progress,
) -> DenoisingResult:
    """Let every method denoise the same noisy images; those that need a sigma only where there is one.

    Args:
        images: N clean images.
        noise: What they get.
        methods: The rows.
        seed: Of the noise.
        keep: Number of images whose results are kept.
        progress: Shows the progress.

    Raises:
        MissingExtraError: scikit-image is not installed.
    """
    require_skimage()
    given = images.noisy(noise, seed=seed)
    rows = [_row("noisy", "as it is", given.noisy, given, None, keep)]
    for method in methods:
        if method.needs_sigma and noise.sigma is None:
            continue
        began = time.perf_counter()
        with progress(method.name, len(given)) as advance:
            output = _denoise_all(method, given, advance)
        speed = len(given) / (time.perf_counter() - began)
        rows.append(_row(method.name, method.told, output, given, speed, keep))
    return DenoisingResult(images, given, tuple(rows))


def evaluate_clean(
    images: DenoisingTestSet, methods: Sequence[Method], *, progress: Progress = no_progress
) -> CleanResult:
    """Let the blind denoisers have images without noise: is each left as it is, and if not, how far is it?

    Every image is compared with its own input: the original, half of its size by averaging 2 x 2 pixels, and
    the original saved as JPEG of quality 95.

    Args:
        images: N clean images.
        methods: The blind denoisers among them are measured.
        progress: Shows the progress.
    """
    inputs: dict[str, Callable[[Pixels], Pixels]] = {
        "originals": lambda pixels: pixels,
        "half size": half_size,
        f"JPEG {_JPEG_QUALITY}": jpeg_copy,
    }
    rows = []
    for method in methods:
        if not isinstance(method, DenoiserMethod) or not method.blind:
            continue
        for name, prepare in inputs.items():
            decibels, left = [], 0
            with progress(f"{method.name}, {name}", len(images)) as advance:
                for image in images.clean:
                    given = prepare(image)
                    denoised, is_left = method.denoise_one(given)
                    decibels.append(psnr(denoised, given))
                    left += is_left
                    advance(1)
            rows.append(CleanRow(method.name, name, tuple(sorted(decibels)), left / len(images)))
    return CleanResult(images, tuple(rows))


def jpeg_copy(pixels: Pixels) -> Pixels:
    """Return the image saved as JPEG of quality 95 and read again."""
    floats = pixels[None].astype(np.float32) / np.float32(255)
    return to_uint8(saved_as_jpeg(floats, np.array([_JPEG_QUALITY], np.float32))[0])


def _denoise_all(method: Method, given: NoisyImages, advance: Callable[[int], object]) -> list[Pixels]:
    largest = max(image.shape[0] * image.shape[1] for image in given.noisy)
    size = max(1, min(BATCH, _BATCH_PIXELS // largest))
    output: list[Pixels] = []
    for start in range(0, len(given), size):
        batch = given.noisy[start : start + size]
        output += method.denoise(batch, given.noise.sigma)
        advance(len(batch))
    return output


def _row(
    name: str, told: str, output: Sequence[Pixels], given: NoisyImages, speed: float | None, keep: int
) -> Row:
    from skimage.metrics import structural_similarity

    triples = list(zip(output, given.clean, given.noisy, strict=True))
    decibels = [psnr(made, clean) for made, clean, _ in triples]
    gains = [
        0.0 if (before := psnr(noisy, clean)) == after else after - before
        for after, (_, clean, noisy) in zip(decibels, triples, strict=True)
    ]
    ssim: Callable[..., float] = structural_similarity  # scikit-image has no types for it
    similarity = [ssim(clean, made, channel_axis=2) for made, clean, _ in triples]
    return Row(
        name=name,
        told=told,
        psnr=float(np.median(decibels)),
        mean_psnr=float(np.mean(decibels)),
        worst_gain=min(gains),
        ssim=float(np.median(similarity)),
        mean_ssim=float(np.mean(similarity)),
        unchanged=float(np.mean([np.array_equal(made, noisy) for made, _, noisy in triples])),
        speed=speed,
        output=tuple(output[:keep]),
    )


def _decibels(value: float) -> float | None:
    return round(value, 3) if np.isfinite(value) else None
