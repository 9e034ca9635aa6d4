"""Noisy images that denoisers are measured on: sets of clean images, and the noise they get.

Legend: N images, H height, W width, C channels (1 gray, 3 RGB).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.datasets import find_lfw, find_mnist
from lookalike.encoder.errors import DataError, InvalidArgumentError, MissingExtraError, printable
from lookalike.encoder.files import read_bounded
from lookalike.encoder.images import (
    IMAGE_SUFFIXES,
    LFW_CROP,
    Camera,
    ImageSpec,
    add_camera_noise,
    add_noise,
    decode_rgb,
    read_pixels,
    saved_as_jpeg,
    to_uint8,
)

Pixels = NDArray[np.uint8]
TestSetName = Literal["cbsd68", "polyu", "photographs", "skimage", "lfw-64", "lfw-250", "mnist"]

PHOTOGRAPHS: Final = ("astronaut", "camera", "chelsea", "coffee", "coins", "motorcycle_left", "rocket")
"""Photographs in scikit-image's wheel, gray and RGB; the middle 256 x 256 pixels of each are used."""
_MIDDLE: Final = 256
_SUFFIXES: Final = (".png", ".jpg")
_SIDE: Final = 64
_DEFAULT_COUNTS: Final[dict[str, int]] = {"lfw-64": 200, "lfw-250": 50, "mnist": 1000}
_DEFAULT_SIGMAS: Final[dict[str, tuple[float, ...]]] = {"cbsd68": (15, 25, 50), "mnist": (127.5,)}
_CAMERA_QUALITY: Final = 90
_HEADROOM: Final = 1 / 4
"""White of the scene, where 1 saturates the sensor: photon noise above white must not be cut there."""
_REAL, _MEAN = "_real", "_mean"
_VALIDATION_EVERY: Final = 5
_NEEDED: Final = {
    "cbsd68": "the 68 color images of CBSD68",
    "polyu": "pairs of *_real.JPG and *_mean.JPG of the PolyU data set",
    "photographs": f"{_VALIDATION_EVERY} photographs or more",
}


@dataclass(frozen=True, slots=True)
class InputNoise:
    """The noise of the images that denoisers get.

    Attributes:
        kind: ``white``: Gaussian. ``camera``: photons on a Bayer mosaic, demosaiced, and saved as JPEG.
            ``real``: taken with the images.
        level: Of white noise the standard deviation in [0, 1]; of a camera the photons of a white pixel.
    """

    kind: Literal["white", "camera", "real"]
    level: float = 0.0

    @property
    def sigma(self) -> float | None:
        """Standard deviation in [0, 1]; None: it differs from place to place."""
        return self.level if self.kind == "white" else None

    def __str__(self) -> str:
        return {
            "white": f"sigma {255 * self.level:.4g}",
            "camera": f"camera noise of {self.level:.4g} photons",
            "real": "real camera noise",
        }[self.kind]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values: noise, sigma of 255 and photons, None where it has none."""
        sigma, photons = (self.level if self.kind == kind else None for kind in ("white", "camera"))
        return {"noise": self.kind, "sigma": sigma and round(255 * sigma, 4), "photons": photons}

    def add(self, clean: Pixels, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
        """Return uint8 (H, W, C) with this noise, and without it.

        Of a camera both are demosaiced, which blurs them, and the first is saved as JPEG of quality 90. A
        camera's noise is added to the values as they are, as if these were linear light, and white does not
        saturate its sensor.

        Raises:
            InvalidArgumentError: real noise, which cannot be added.
        """
        pixels = clean.astype(np.float32) / np.float32(255)
        if self.kind == "white":
            level = np.array([self.level], np.float32)
            return to_uint8(add_noise(pixels[None], level, kind="gaussian", rng=rng)[0]), clean
        if self.kind == "camera":
            camera = Camera(photon=(_HEADROOM / self.level) ** 0.5, tone=False, demosaic="smooth")
            noisy, reference = (
                (each / np.float32(_HEADROOM)).clip(0, 1)
                for each in add_camera_noise(pixels * np.float32(_HEADROOM), camera, rng)
            )
            quality = np.array([_CAMERA_QUALITY], np.float32)
            return to_uint8(saved_as_jpeg(noisy[None], quality)[0]), to_uint8(reference)
        raise InvalidArgumentError(
            "real noise comes with its images and is added to no others; add white or camera"
        )


@dataclass(frozen=True, eq=False, slots=True)
class NoisyImages:
    """N images with noise, the same arrays for every method.

    Attributes:
        noise: What was added.
        noisy: uint8 (H, W, C) each.
        clean: What they are compared with, uint8 of the same shapes.
    """

    noise: InputNoise
    noisy: tuple[Pixels, ...]
    clean: tuple[Pixels, ...]

    def __len__(self) -> int:
        return len(self.noisy)


@dataclass(frozen=True, eq=False, slots=True)
class DenoisingTestSet:
    """N clean images that no shipped model was trained on.

    Attributes:
        name: Of the set.
        titles: Name of each image.
        clean: uint8 (H, W, C) each.
        real: The same with the noise they were taken with; empty: noise is added.
    """

    name: TestSetName
    titles: tuple[str, ...]
    clean: tuple[Pixels, ...]
    real: tuple[Pixels, ...] = ()

    def __len__(self) -> int:
        return len(self.clean)

    def first(self, count: int | None) -> Self:
        """Return the first ``count`` images; None: all."""
        return replace(self, titles=self.titles[:count], clean=self.clean[:count], real=self.real[:count])

    def noises(self, sigmas: Sequence[float] = (), photons: Sequence[float] = ()) -> list[InputNoise]:
        """Return the kinds of noise to measure: the set's own, else those named, else its usual ones.

        Args:
            sigmas: Standard deviations of white noise, of 255.
            photons: Photons of a white pixel of a camera.
        """
        if self.real:
            return [InputNoise("real")]
        if not sigmas and not photons:
            sigmas = _DEFAULT_SIGMAS.get(self.name, (25, 50))
        white = [InputNoise("white", sigma / 255) for sigma in sigmas]
        return white + [InputNoise("camera", count) for count in photons]

    def noisy(self, noise: InputNoise, *, seed: int = 0) -> NoisyImages:
        """Return the images with noise, in 8 bits as files are.

        An image's noise depends on the seed, the noise and its index alone, not on how many images there are.
        """
        if noise.kind == "real" and self.real:
            return NoisyImages(noise, self.real, self.clean)
        key = (1, round(noise.level * 1e3)) if noise.kind == "camera" else (round(noise.level * 1e6),)
        pairs = [
            noise.add(image, np.random.default_rng((seed, *key, index)))
            for index, image in enumerate(self.clean)
        ]
        return NoisyImages(noise, *zip(*pairs, strict=True))


def open_test_sets(
    names: Sequence[str], count: int | None = None
) -> tuple[list[DenoisingTestSet], list[str]]:
    """Read sets of clean images, and say in one line each why others were left out.

    Args:
        names: As of :func:`open_test_set`, or ``all``: those that are found, the others are left out.
        count: Most images of each set.

    Raises:
        DataError: a set that was named is not found.
        MissingExtraError: scikit-image is needed and not installed.
    """
    found: list[DenoisingTestSet] = []
    left_out: list[str] = []
    every: Any = get_args(TestSetName) if "all" in names else dict.fromkeys(names)
    for name in every:
        try:
            found.append(open_test_set(name, count))
        except (DataError, MissingExtraError) as error:
            if name in names:
                raise
            left_out.append(f"{name} is left out: {error}")
    return found, left_out


def open_test_set(name: TestSetName, count: int | None = None) -> DenoisingTestSet:
    """Read a set of clean images.

    ``lfw-64`` and ``lfw-250`` are faces of people in the pairs of View 2's folds 1 to 5, one each, in a fixed
    random order; the first in the tight crop at 64 x 64 as our models see them, the second whole at 250 x
    250. ``mnist`` are the first test digits, ``skimage`` are :data:`PHOTOGRAPHS`.

    Three sets lie in folders of these names in ``LOOKALIKE_DATA``. ``photographs``: every fifth by name, on
    which no denoiser of ours is trained. ``cbsd68``: the color images of D. Martin et al., ICCV 2001.
    ``polyu``: crops of photographs of three cameras, and the means of many shots of the same (J. Xu et al.,
    arXiv:1804.02603). The licences of the last two allow research only.

    Args:
        name: Which set.
        count: Most images; None: 200, 50, 1,000 or all.

    Raises:
        DataError: the data set is not found.
        MissingExtraError: the set comes with scikit-image, which is not installed.
    """
    if name not in get_args(TestSetName):
        raise InvalidArgumentError(f"test sets are {', '.join(get_args(TestSetName))}; {name!r} is not one")
    if count is None:
        count = _DEFAULT_COUNTS.get(name)
    if name == "polyu":
        return _real_pairs(count)
    if name in ("cbsd68", "photographs"):
        return _photographs(name, count)
    if name == "skimage":
        return _skimage().first(count)
    if name == "mnist":
        digits = find_mnist(progress=True).images("test")[:count, :, :, None]
        return DenoisingTestSet(name, tuple(f"digit {index}" for index in range(len(digits))), tuple(digits))
    files = _held_out_faces(count)
    if name == "lfw-250":
        pixels = [decode_rgb(read_bounded(file), name=file.name) for file in files]
    else:
        spec = ImageSpec(size=_SIDE, channels=3, crop=LFW_CROP)
        pixels = [read_pixels(read_bounded(file), spec, name=file.name) for file in files]
    return DenoisingTestSet(name, tuple(file.stem for file in files), tuple(pixels))


def _held_out_faces(count: int | None) -> list[Path]:
    """Return the first image of each held-out person, in a fixed random order."""
    lfw = find_lfw(progress=True)
    people = sorted(lfw.held_out_people())
    order = np.random.default_rng(0).permutation(len(people))[:count]
    return [lfw.root / people[index] / f"{people[index]}_0001.jpg" for index in order]


def _image_files(name: TestSetName) -> list[Path]:
    """Return the images in a folder of ``LOOKALIKE_DATA``, by name."""
    inside = "photos" if name == "photographs" else name
    data = os.environ.get("LOOKALIKE_DATA")
    folder = Path(data).expanduser() / inside if data else None
    listed = sorted(folder.iterdir(), key=lambda file: file.name) if folder and folder.is_dir() else []
    files = [file for file in listed if file.suffix.lower() in IMAGE_SUFFIXES]
    if len(files) < (_VALIDATION_EVERY if name == "photographs" else 1):
        where = f"{len(files)} images at {folder}" if folder else "LOOKALIKE_DATA is not set"
        raise DataError(
            f"{name} needs {_NEEDED[name]}, {printable(where)}; put them into a folder {inside}/ and set "
            "LOOKALIKE_DATA to the folder that holds it"
        )
    return files


def _photographs(name: TestSetName, count: int | None) -> DenoisingTestSet:
    files = _image_files(name)
    if name == "photographs":
        files = files[_VALIDATION_EVERY - 1 :: _VALIDATION_EVERY]  # as the trainer leaves them out
    files = files[:count]
    pixels = [decode_rgb(read_bounded(file), name=file.name) for file in files]
    if name == "photographs":
        pixels = [_drop_gray_channels(each) for each in pixels]
    return DenoisingTestSet(name, tuple(file.stem for file in files), tuple(pixels))


def _real_pairs(count: int | None) -> DenoisingTestSet:
    files = _image_files("polyu")
    by_stem = {file.stem: file for file in files}
    titles = [stem.removesuffix(_REAL) for stem in by_stem if stem.endswith(_REAL)]
    incomplete = [title for title in titles if title + _MEAN not in by_stem]
    if incomplete or not titles:
        what = (
            f"'{incomplete[0]}{_REAL}' has no {_MEAN}"
            if incomplete
            else f"no file ends so at {files[0].parent}"
        )
        raise DataError(f"polyu needs {_NEEDED['polyu']}, {printable(what)}; get the files that are missing")
    real, mean = (
        tuple(decode_rgb(read_bounded(by_stem[title + end]), name=title + end) for title in titles[:count])
        for end in (_REAL, _MEAN)
    )
    for title, noisy, clean in zip(titles, real, mean, strict=False):
        if noisy.shape != clean.shape:
            raise DataError(
                f"polyu needs images of the same size, those of '{printable(title)}' are {noisy.shape} and "
                f"{clean.shape}; get them again"
            )
    return DenoisingTestSet("polyu", tuple(titles[:count]), mean, real)


def _skimage() -> DenoisingTestSet:
    try:
        import skimage
    except ImportError as error:
        raise MissingExtraError(
            "these photographs come with scikit-image; pip install 'lookalike[evaluate]', or leave them out"
        ) from error
    folder = Path(skimage.__file__).parent / "data"
    files = [
        file for name in PHOTOGRAPHS for suffix in _SUFFIXES if (file := folder / f"{name}{suffix}").is_file()
    ]
    if not files:
        raise DataError(f"this scikit-image has none of its photographs in {folder}; install it again")
    pixels = [_middle(_drop_gray_channels(decode_rgb(file.read_bytes(), name=file.name))) for file in files]
    return DenoisingTestSet("skimage", tuple(file.stem for file in files), tuple(pixels))


def _middle(pixels: Pixels) -> Pixels:
    top, left = ((side - _MIDDLE) // 2 for side in pixels.shape[:2])
    return pixels[top : top + _MIDDLE, left : left + _MIDDLE]


def _drop_gray_channels(pixels: Pixels) -> Pixels:
    """Return one channel of an image whose channels are equal."""
    return pixels[:, :, :1] if (pixels == pixels[:, :, :1]).all() else pixels
