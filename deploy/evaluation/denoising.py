"""How well models remove noise: PSNR and SSIM on the same noisy arrays.

SSIM: Z. Wang et al.: Image Quality Assessment. IEEE TIP 13, 2004; scikit-image's, windows of 7 x 7, averaged
over the channels.

Legend: N images, H height, W width, C channels (1 gray, 3 RGB).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from lookalike.deploy.evaluation.data import DenoisingTestSet
from lookalike.deploy.evaluation.vectors import Progress, no_progress
from lookalike.encoder.errors import BundleKindError, InvalidArgumentError, MissingExtraError, printable
from lookalike.encoder.images import to_uint8
from lookalike.encoder.metrics import psnr_from_mse
from lookalike.encoder.runtime import Denoiser, Model, Provider

Floats = NDArray[np.float32]
BATCH: Final = 50
"""Most images that a method is given at once: they bound the memory."""


class Method(Protocol):
    """A way to remove noise."""

    @property
    def name(self) -> str:
        """Of its row."""
        ...

    @property
    def told(self) -> str:
        """What it is given besides the image, or how it is set."""
        ...

    def denoise(self, noisy: Sequence[Floats], sigma: float) -> list[Floats]:
        """Return images float32 (H, W, C) in [0, 1], denoised; ``sigma`` is the noise level in [0, 1]."""
        ...


@dataclass(frozen=True, slots=True)
class DenoiserMethod:
    """A denoiser, blind or with known sigma.

    Attributes:
        name: Of its row.
        denoiser: The model.
        blind: Whether it estimates sigma.
    """

    name: str
    denoiser: Denoiser
    blind: bool

    @property
    def told(self) -> str:
        """What it is given besides the image."""
        return "nothing" if self.blind else "true sigma"

    def denoise(self, noisy: Sequence[Floats], sigma: float) -> list[Floats]:
        """See :meth:`Method.denoise`."""
        output: list[Floats] = []
        for _, same_shape in groupby(noisy, key=np.shape):
            pixels = np.stack(list(same_shape))  # (N, H, W, C)
            known_sigma = None if self.blind else np.full(len(pixels), sigma, np.float32)
            output += list(self.denoiser.denoise(pixels, known_sigma).clip(0, 1))
        return output


@dataclass(frozen=True, slots=True)
class AutoencoderMethod:
    """An autoencoder: its reconstruction of the noisy image, which it sees in 256 levels.

    Attributes:
        name: Of its row.
        model: The model.
    """

    name: str
    model: Model

    @property
    def told(self) -> str:
        """The noise it was trained to remove."""
        noise = self.model.bundle.spec.denoises
        return "nothing; not trained to denoise" if noise is None else f"nothing; trained with noise {noise}"

    def denoise(self, noisy: Sequence[Floats], sigma: float) -> list[Floats]:  # noqa: ARG002  # it is blind
        """See :meth:`Method.denoise`."""
        return list(self.model.reconstruct(to_uint8(np.stack(noisy))))


@dataclass(frozen=True, slots=True)
class DenoisingModel:
    """A bundle that is evaluated.

    Attributes:
        model: The denoiser or the autoencoder.
        name: Of the bundle.
    """

    model: Denoiser | Model
    name: str

    @classmethod
    def open(cls, where: str, *, threads: int | None, provider: Provider) -> Self:
        """Open a bundle, by folder or shipped name.

        Raises:
            BundleError: it cannot be opened.
            InvalidArgumentError: it is neither a denoiser nor an autoencoder.
        """
        try:
            denoiser = Denoiser.open(where, provider=provider, threads=threads)
        except BundleKindError:
            model = Model.open(where, provider=provider, threads=threads)
        else:
            return cls(denoiser, denoiser.bundle.name)
        if not model.has_decoder:
            raise InvalidArgumentError(
                f"model {printable(model.bundle.name)} is neither a denoiser nor has a decoder; "
                "name a denoiser or an autoencoder"
            )
        return cls(model, model.bundle.name)

    def methods(self, images: DenoisingTestSet) -> tuple[list[Method], str | None]:
        """Return its rows for these images, or none and why not, in one line."""
        if isinstance(self.model, Denoiser):
            return [
                DenoiserMethod(f"{self.name}, blind", self.model, blind=True),
                DenoiserMethod(f"{self.name}, non-blind", self.model, blind=False),
            ], None
        shape = self.model.bundle.spec.image.shape
        if any(image.shape != shape for image in images.clean):
            height, width, channels = shape
            return [], (
                f"model {printable(self.name)} takes images of {height}x{width}x{channels}, those of "
                f"{images.name} differ: left out there"
            )
        return [AutoencoderMethod(self.name, self.model)], None


@dataclass(frozen=True, slots=True)
class Row:
    """One method's result on the noisy images.

    Attributes:
        name: Of the method.
        told: What it is given besides the image, or how it is set.
        psnr: Median over the images of each one's PSNR, dB.
        mean_psnr: Their mean.
        ssim: Median of their SSIM.
        speed: Images a second; None where nothing was computed.
        output: float32 (H, W, C) of each of the first images.
    """

    name: str
    told: str
    psnr: float
    mean_psnr: float
    ssim: float
    speed: float | None
    output: tuple[Floats, ...]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; the images are left out."""
        return {
            "name": self.name,
            "told": self.told,
            "psnr_db": _rounded(self.psnr),
            "mean_psnr_db": _rounded(self.mean_psnr),
            "ssim": round(self.ssim, 4),
            "images_per_second": self.speed and float(f"{self.speed:.4g}"),
        }


@dataclass(frozen=True, slots=True)
class DenoisingResult:
    """All methods on one set of images under one noise level.

    Attributes:
        images: The clean images.
        sigma: Standard deviation of the noise, in [0, 1].
        noisy: The input of every method.
        rows: The noisy images as they are, then each method.
    """

    images: DenoisingTestSet
    sigma: float
    noisy: Sequence[Floats]
    rows: tuple[Row, ...]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "data": self.images.name,
            "sigma": round(255 * self.sigma, 4),
            "pictures": len(self.images),
            "rows": [row.to_json() for row in self.rows],
        }


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


def evaluate_denoising(
    images: DenoisingTestSet,
    sigma: float,
    methods: Sequence[Method],
    *,
    seed: int = 0,
    keep: int = 0,
    progress: Progress = no_progress,
) -> DenoisingResult:
    """Let every method denoise the same noisy images.

    Args:
        images: N clean images.
        sigma: Standard deviation of the Gaussian noise, in [0, 1]; the noisy images are clipped to [0, 1].
        methods: The rows.
        seed: Of the noise.
        keep: Number of images whose results are kept.
        progress: Shows the progress.

    Raises:
        MissingExtraError: scikit-image is not installed.
    """
    require_skimage()
    noisy = images.noisy(sigma, seed=seed)
    rows = [_row("noisy", "as it is", noisy, images, None, keep)]
    for method in methods:
        began = time.perf_counter()
        with progress(method.name, len(noisy)) as advance:
            output = _denoise_all(method, noisy, sigma, advance)
        speed = len(noisy) / (time.perf_counter() - began)
        rows.append(_row(method.name, method.told, output, images, speed, keep))
    return DenoisingResult(images, sigma, noisy, tuple(rows))


def _denoise_all(
    method: Method, noisy: Sequence[Floats], sigma: float, advance: Callable[[int], object]
) -> list[Floats]:
    output: list[Floats] = []
    for start in range(0, len(noisy), BATCH):
        batch = noisy[start : start + BATCH]
        output += method.denoise(batch, sigma)
        advance(len(batch))
    return output


def _row(
    name: str,
    told: str,
    output: Sequence[Floats],
    images: DenoisingTestSet,
    speed: float | None,
    keep: int,
) -> Row:
    from skimage.metrics import structural_similarity

    pairs = list(zip(output, images.clean, strict=True))
    decibels = [
        psnr_from_mse(float(np.square(made.astype(np.float64) - clean).mean())) for made, clean in pairs
    ]
    ssim: Callable[..., float] = structural_similarity  # scikit-image has no types for it
    similarity = [ssim(clean, made, data_range=1.0, channel_axis=2) for made, clean in pairs]
    return Row(
        name=name,
        told=told,
        psnr=float(np.median(decibels)),
        mean_psnr=float(np.mean(decibels)),
        ssim=float(np.median(similarity)),
        speed=speed,
        output=tuple(output[:keep]),
    )


def _rounded(value: float) -> float | None:
    return round(value, 3) if np.isfinite(value) else None
