"""Noise as a camera makes it: photons on a mosaic of color filters, developed to an image.

A clean image is taken back to the light on the sensor, one color a pixel; photon and read noise are added
there, and the result is developed: demosaicing, white balance, saturation, tone curve, perhaps smoothing of
colors and sharpening. So the noise depends on the brightness and is correlated between neighbors and colors.

The steps follow T. Brooks et al.: Unprocessing Images for Learned Raw Denoising, CVPR 2019, and S. Guo et
al.: Toward Convolutional Blind Denoising of Real Photographs (CBDNet), CVPR 2019. Photon and read noise are
the Poissonian-Gaussian model of A. Foi et al., IEEE TIP 17, 2008, with the normal approximation of the
photon counts.

Legend: N images, H height, W width, C channels (1 gray, 3 RGB).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.images.planes import box_means

Floats = NDArray[np.float32]
Demosaic = Literal["smooth", "bilinear", "malvar"]

_LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as JPEG's
_BINOMIAL: Final = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4
_CROSS: Final = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]]) / 4
# H. Malvar, L. He, R. Cutler: High-Quality Linear Interpolation for Demosaicing of Bayer-Patterned Color
# Images, ICASSP 2004, figure 2.
_GREEN: Final = (
    np.array([[0, 0, -1, 0, 0], [0, 0, 2, 0, 0], [-1, 2, 4, 2, -1], [0, 0, 2, 0, 0], [0, 0, -1, 0, 0]]) / 8
)
_IN_ROW: Final = (
    np.array([[0, 0, 0.5, 0, 0], [0, -1, 0, -1, 0], [-1, 4, 5, 4, -1], [0, -1, 0, -1, 0], [0, 0, 0.5, 0, 0]])
    / 8
)
_DIAGONAL: Final = (
    np.array(
        [[0, 0, -1.5, 0, 0], [0, 2, 0, 2, 0], [-1.5, 0, 6, 0, -1.5], [0, 2, 0, 2, 0], [0, 0, -1.5, 0, 0]]
    )
    / 8
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Camera:
    """How one camera turns light into an image.

    Attributes:
        photon: Standard deviation of the photon noise of a white pixel, in linear light where white is 1:
            1/photon² photons.
        read: Standard deviation of the read noise, on the same scale.
        red: White balance: gain of red against green.
        blue: Gain of blue.
        saturation: Of the colors, after the white balance; 1 changes nothing.
        tone: Whether the image has the sRGB curve (IEC 61966-2-1); else its values are those of the light.
        demosaic: How the missing colors of a pixel are found: ``smooth`` averages neighbors of the color, the
            pixel's own value too; ``bilinear`` keeps it; ``malvar`` uses the other colors.
        color_blur: Radius in pixels over which the noise of the colors, not of the brightness, is averaged.
        smoothing: Share of the noise of the brightness that is averaged over 3 x 3 pixels, as cameras do.
        blotches: Radius in pixels over which that average is averaged once more; 0: it is not.
        sharpening: Share of the difference to a blurred image that is added; 0: none.
    """

    photon: float
    read: float = 0.0
    red: float = 1.0
    blue: float = 1.0
    saturation: float = 1.0
    tone: bool = True
    demosaic: Demosaic = "bilinear"
    color_blur: int = 0
    sharpening: float = 0.0
    smoothing: float = 0.0
    blotches: int = 0


def sample_camera(photon: float, rng: np.random.Generator) -> Camera:
    """Return a random camera with this photon noise.

    The white balance is that of Brooks et al.; the read noise is from a tenth to that of the photons of a
    pixel of 10 % of the light.
    """
    return Camera(
        photon=photon,
        read=photon * float(np.exp(rng.uniform(np.log(0.03), np.log(0.3)))),
        red=float(rng.uniform(1.4, 2.4)),
        blue=float(rng.uniform(1.3, 2.2)),
        saturation=float(rng.uniform(1.0, 1.6)),
        demosaic=get_args(Demosaic)[int(rng.integers(3))],
        color_blur=int(rng.integers(1, 7)) if rng.random() < 0.5 else 0,
        smoothing=float(rng.uniform(0.3, 1.0)) if rng.random() < 0.5 else 0.0,
        sharpening=float(rng.uniform(0.2, 1.0)) if rng.random() < 0.3 else 0.0,
        blotches=int(rng.choice([0, 0, 1, 2])),
    )


def add_camera_noise(pixels: Floats, camera: Camera, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return what a camera would make of a scene, with its noise and without: float32 (H, W, C) in [0, 1].

    The second is the reference to compare with: it has the camera's demosaicing and sharpening, which are
    no noise. A gray image is taken by a sensor without color filters.

    Args:
        pixels: float32 (H, W, C) in [0, 1], the scene.
        camera: The camera.
        rng: Source of randomness.
    """
    scene = _to_light(pixels, camera)  # (H, W, C), on the sensor's scale
    colored = pixels.shape[2] == 3
    raw = _mosaic(scene) if colored else scene[..., 0]  # (H, W)
    deviation = np.sqrt(np.float32(camera.photon**2) * raw + np.float32(camera.read**2))
    disturbed = raw + deviation * rng.standard_normal(raw.shape, np.float32)
    clean, noisy = (_develop(each.clip(0, 1), camera, colored=colored) for each in (raw, disturbed))
    if camera.smoothing or (camera.color_blur and colored):
        noise = noisy - clean
        luma = _luma(noise) if colored else noise
        color = noise - luma
        if camera.color_blur and colored:
            color = _box(color, camera.color_blur)
        smooth = _box(_box(luma, 1), camera.blotches) if camera.blotches else _box(luma, 1)
        luma = luma + np.float32(camera.smoothing) * (smooth - luma)
        noisy = clean + luma + color
    if camera.sharpening:
        clean, noisy = (_sharpen(each, camera.sharpening) for each in (clean, noisy))
    return noisy.clip(0, 1), clean.clip(0, 1)


def _to_light(pixels: Floats, camera: Camera) -> Floats:
    light: Floats = _from_srgb(pixels) if camera.tone else pixels
    if pixels.shape[2] == 1:
        return light
    colors: Floats = np.divide(_saturate(light, 1 / camera.saturation).clip(0, 1), _gains(camera))
    return colors


def _develop(raw: Floats, camera: Camera, *, colored: bool) -> Floats:
    """(H, W) of the sensor -> (H, W, C) of an image."""
    if not colored:
        light = raw[..., None]
    else:
        light = _demosaic(raw, camera.demosaic) * _gains(camera)
        light = _saturate(light, camera.saturation)
    light = light.clip(0, 1)
    return _to_srgb(light) if camera.tone else light


def _gains(camera: Camera) -> Floats:
    return np.array([camera.red, 1.0, camera.blue], np.float32)


def _saturate(light: Floats, factor: float) -> Floats:
    luma = _luma(light)
    return luma + np.float32(factor) * (light - luma)


def _luma(light: Floats) -> Floats:
    luma: Floats = (light @ _LUMA)[..., None]
    return luma


def _from_srgb(values: Floats) -> Floats:
    curve = np.power((values + np.float32(0.055)) / np.float32(1.055), np.float32(2.4))
    return np.where(values <= np.float32(0.04045), values / np.float32(12.92), curve)


def _to_srgb(light: Floats) -> Floats:
    curve = np.float32(1.055) * np.power(light, np.float32(1 / 2.4)) - np.float32(0.055)
    return np.where(light <= np.float32(0.0031308), light * np.float32(12.92), curve)


def _mosaic(scene: Floats) -> Floats:
    """(H, W, 3) -> (H, W): red, green / green, blue."""
    raw = scene[..., 1].copy()
    raw[::2, ::2] = scene[::2, ::2, 0]
    raw[1::2, 1::2] = scene[1::2, 1::2, 2]
    return raw


def _demosaic(raw: Floats, how: Demosaic) -> Floats:
    """(H, W) -> (H, W, 3); at the borders the image is reflected, which keeps the mosaic's pattern."""
    colors = np.empty((*raw.shape, 3), np.float32)
    if how == "malvar":
        colors[...] = raw[..., None]
        row, column = _filter(raw, _IN_ROW), _filter(raw, _IN_ROW.T)
        green, diagonal = _filter(raw, _GREEN), _filter(raw, _DIAGONAL)
        for top, left in ((0, 0), (1, 1)):
            at = np.s_[top::2, left::2]
            colors[at][..., 1] = green[at]
            colors[at][..., 2 if (top, left) == (0, 0) else 0] = diagonal[at]
        for (top, left), red, blue in (((0, 1), row, column), ((1, 0), column, row)):
            at = np.s_[top::2, left::2]
            colors[at][..., 0], colors[at][..., 2] = red[at], blue[at]
        return colors
    kernels = (_BINOMIAL, _CROSS if how == "bilinear" else _BINOMIAL / 2, _BINOMIAL)
    sites = (((0, 0),), ((0, 1), (1, 0)), ((1, 1),))
    for channel, (kernel, places) in enumerate(zip(kernels, sites, strict=True)):
        plane = np.zeros_like(raw)
        for top, left in places:
            plane[top::2, left::2] = raw[top::2, left::2]
        colors[..., channel] = _filter(plane, kernel)
    return colors


def _filter(plane: Floats, kernel: NDArray[np.float64]) -> Floats:
    """Correlate (H, W) with a kernel of odd sides; the image is reflected at its borders."""
    reach = len(kernel) // 2
    padded = np.pad(plane, reach, "reflect")
    height, width = plane.shape
    result = np.zeros_like(plane)
    for top, left in zip(*np.nonzero(kernel), strict=True):
        result += np.float32(kernel[top, left]) * padded[top : top + height, left : left + width]
    return result


def _sharpen(values: Floats, amount: float) -> Floats:
    return values + np.float32(amount) * (values - _box(values, 1))


def _box(values: Floats, radius: int) -> Floats:
    """Average (H, W, C) over squares of 2 radius + 1."""
    return box_means(values, 2 * radius + 1, border="reflect").astype(np.float32)
