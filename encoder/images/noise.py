"""Noise for images: to train models that remove it, and to measure how well they do.

What a level means:

================  ==================================================  =======================
kind              level                                               written on a command line
================  ==================================================  =======================
``gaussian``      standard deviation, white is 1                      of 255: ``25``
``salt-pepper``   share of the pixels that become black or white      ``salt-pepper:0.1``
``poisson``       deviation of a white pixel: 1/level² photons        of 255: ``poisson:25``
``masking``       share of the pixels that become black               ``masking:0.5``
``jpeg``          quality it is saved with, 1 to 100                  ``jpeg:30``
``camera``        photon noise of a white pixel: 1/level² photons     of 255: ``camera:25``
``resized``       deviation of noise that is correlated over pixels   of 255: ``resized:25``
``shadows``       deviation where it is black; none from gray on      of 255: ``shadows:25``
================  ==================================================  =======================

The result is clipped to [0, 1], as in an image file. Salt, pepper and masking change all channels of a pixel
at once. Camera noise is that of a random camera, see ``camera_noise``; resized noise is as in images that
were enlarged by up to three times, and as the grain of film. Masking: P. Vincent et al.: Extracting and
Composing Robust Features with Denoising Autoencoders. ICML 2008. ``trainer/data/noise.py`` does the same in
torch and is tested to agree.

Legend: N images, H height, W width, C channels (1 gray, 3 RGB).
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Final, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lookalike.encoder.errors import InvalidArgumentError, printable
from lookalike.encoder.images.camera_noise import add_camera_noise, sample_camera
from lookalike.encoder.images.planes import resize_floats

Floats = NDArray[np.float32]
NoiseKind = Literal["gaussian", "salt-pepper", "poisson", "masking", "jpeg", "camera", "resized", "shadows"]

MIN_POISSON_LEVEL: Final = 1 / 4096
"""Poisson noise below this level (1/16 of a gray level) is left out: too many photons to sample."""
_UNITS: Final[dict[str, float]] = dict.fromkeys(
    ("gaussian", "poisson", "camera", "resized", "shadows"), 255.0
)
_FORMS: Final = (
    "write SIGMA or LO:HI of 255, or another kind before it, as in poisson:25, salt-pepper:0.1, "
    "masking:0.25:0.5 or jpeg:30"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class NoiseSpec:
    """A kind of noise at one level, or at levels in a range. Saved in the bundle of a model that removes it.

    Attributes:
        kind: See the table above.
        low: Lowest level.
        high: Highest level.

    Raises:
        InvalidArgumentError: No such kind or level.
    """

    kind: NoiseKind = "gaussian"
    low: float
    high: float

    def __post_init__(self) -> None:
        if self.kind not in get_args(NoiseKind):
            raise InvalidArgumentError(
                f"noise must be one of {', '.join(get_args(NoiseKind))}, not '{printable(str(self.kind))}'"
            )
        least, most = self._limits()
        if not least <= self.low <= self.high <= most:  # NaN too
            unit = _UNITS.get(self.kind, 1.0)
            raise InvalidArgumentError(
                f"levels of {self.kind} noise must rise within {_number(least * unit)} to "
                f"{_number(most * unit)}, "
                f"got {_number(self.low * unit)} to {_number(self.high * unit)}; {_FORMS}"
            )

    def _limits(self) -> tuple[float, float]:
        return (1.0, 100.0) if self.kind == "jpeg" else (0.0, 1.0)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the command line form of the table; ``str(spec)`` gives it back.

        Raises:
            InvalidArgumentError: The text is none of these, or a level is out of range.
        """
        parts = text.strip().lower().split(":")
        kind = parts.pop(0) if parts[0] in get_args(NoiseKind) else "gaussian"
        try:
            levels = [float(part) / _UNITS.get(kind, 1.0) for part in parts]
            low, high = levels if len(levels) == 2 else (*levels, *levels)
        except ValueError as error:
            raise InvalidArgumentError(f"noise: cannot read '{printable(text)}'; {_FORMS}") from error
        return cls(kind=kind, low=low, high=high)  # type: ignore[arg-type]  # __post_init__ checks it

    def __str__(self) -> str:
        unit = _UNITS.get(self.kind, 1.0)
        low, high = _number(self.low * unit), _number(self.high * unit)
        levels = low if low == high else f"{low}:{high}"
        return levels if self.kind == "gaussian" else f"{self.kind}:{levels}"

    @property
    def is_zero(self) -> bool:
        """Whether it leaves every image unchanged."""
        return self.kind != "jpeg" and self.high == 0

    def levels(self, count: int, rng: np.random.Generator) -> Floats:
        """Sample a level for each of N images, uniform in the range: float32 (N,)."""
        return rng.uniform(self.low, self.high, count).astype(np.float32)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values that :meth:`from_json` reads back equal."""
        return {"kind": self.kind, "low": self.low, "high": self.high}

    @classmethod
    def from_json(cls, values: Any) -> Self:
        """Read what :meth:`to_json` wrote.

        Raises:
            InvalidArgumentError: A key is unknown or missing, or a value is invalid.
        """
        if not isinstance(values, dict) or set(values) != {"kind", "low", "high"}:
            raise InvalidArgumentError("noise must have exactly kind, low and high")
        if not all(type(values[name]) in (int, float) for name in ("low", "high")):
            raise InvalidArgumentError(
                f"levels of noise must be numbers, not {printable(repr(values)[:100])}"
            )
        return cls(**values)


def add_noise(pixels: Floats, levels: Floats, *, kind: NoiseKind, rng: np.random.Generator) -> Floats:
    """Return images with noise, float32 (N, H, W, C) in [0, 1]; the same seed gives the same noise.

    Args:
        pixels: float32 (N, H, W, C) in [0, 1].
        levels: float32 (N,), one for each image, within the limits of the kind.
        kind: See the table above.
        rng: Source of randomness.
    """
    return apply_noise(pixels, levels, sample_noise(pixels, levels, kind=kind, rng=rng), kind=kind)


def sample_noise(pixels: Floats, levels: Floats, *, kind: NoiseKind, rng: np.random.Generator) -> Floats:
    """Sample noise, float32: normal or uniform numbers, photon counts; for cameras the noisy images.

    Returns:
        (N, H, W, C), or (N, H, W, 1) for noise on all channels at once, or (0,) for JPEG.
    """
    if kind in ("gaussian", "shadows"):
        return rng.standard_normal(pixels.shape, np.float32)
    if kind == "resized":
        return np.stack([correlated_noise(image.shape, rng) for image in pixels])
    if kind == "camera":
        return np.stack(
            [
                add_camera_noise(image, sample_camera(float(level), rng), rng)[0] if level else image
                for image, level in zip(pixels, levels, strict=True)
            ]
        )
    if kind == "poisson":
        photons = 1 / np.square(np.maximum(levels.astype(np.float64), MIN_POISSON_LEVEL))  # of a white pixel
        return rng.poisson(pixels * photons[:, None, None, None]).astype(np.float32)
    if kind == "jpeg":
        return np.empty(0, np.float32)
    return rng.random((*pixels.shape[:3], 1), np.float32)


def apply_noise(pixels: Floats, levels: Floats, samples: Floats, *, kind: NoiseKind) -> Floats:
    """Apply the noise from :func:`sample_noise`; returns float32 (N, H, W, C) in [0, 1]."""
    each = levels[:, None, None, None]
    if kind in ("gaussian", "resized"):
        noisy = pixels + each * samples
    elif kind == "shadows":
        brightness = pixels.mean(3, keepdims=True)
        noisy = pixels + each * samples * np.clip(1 - 2 * brightness, 0, 1)
    elif kind == "camera":
        noisy = samples
    elif kind == "poisson":
        noisy = np.where(each < np.float32(MIN_POISSON_LEVEL), pixels, samples * np.square(each))
    elif kind == "masking":
        noisy = np.where(samples < each, np.float32(0), pixels)
    elif kind == "salt-pepper":
        half = each / np.float32(2)
        noisy = np.where(samples < half, np.float32(0), np.where(samples < each, np.float32(1), pixels))
    else:
        noisy = saved_as_jpeg(pixels, levels)
    clipped: Floats = np.clip(noisy, np.float32(0), np.float32(1))
    return clipped


def saved_as_jpeg(pixels: Floats, qualities: Floats, *, subsampling: int = 2) -> Floats:
    """Return images float32 (N, H, W, C) saved as JPEG with these qualities and decoded again, by Pillow.

    Args:
        pixels: float32 (N, H, W, C) in [0, 1].
        qualities: float32 (N,), 1 to 100.
        subsampling: 2 stores chroma at half the resolution, Pillow's default; 0 at the full one.
    """
    back = np.empty_like(pixels)
    for row, (values, quality) in enumerate(zip(pixels, qualities, strict=True)):
        whole = np.rint(np.clip(values, 0, 1) * np.float32(255)).astype(np.uint8)
        file = io.BytesIO()
        image = Image.fromarray(whole[:, :, 0] if whole.shape[2] == 1 else whole)
        image.save(file, "JPEG", quality=int(np.rint(quality)), subsampling=subsampling)
        with Image.open(file) as read:
            back[row] = np.asarray(read, np.float32).reshape(whole.shape) / np.float32(255)
    return back


def correlated_noise(shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Return noise of deviation 1 that is correlated over one to three pixels, float32 (H, W, C).

    It differs between the channels, as grain does between the layers of a color film. Dots that are the same
    in all channels could as well be leather or sand.
    """
    factor = rng.uniform(1.0, 3.0)
    height, width = (max(1, round(side / factor)) for side in shape[:2])
    small = rng.standard_normal((height, width, shape[2]), np.float32)
    field = resize_floats(small, *shape[:2])
    return field / np.float32(max(float(field.std()), float(np.finfo(np.float32).tiny)))


def _number(value: float) -> str:
    return f"{value:.6g}"
