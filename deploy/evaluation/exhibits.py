"""What cleaning is measured on: clean pictures that nothing here was trained on, and the noise put on them.

Legend: N pictures, H height, W width, C channels (1 grey, 3 RGB).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.datasets.lfw import find_lfw
from lookalike.encoder.datasets.mnist import find_mnist
from lookalike.encoder.errors import DataError, InvalidArgumentError, MissingExtraError
from lookalike.encoder.images.noise import add_noise
from lookalike.encoder.images.preprocess import LFW_CROP, ImageSpec, decode_rgb, read_pixels

__all__ = ["PHOTOGRAPHS", "DenoisingTestSet", "TestSetName", "open_test_set"]

Floats = NDArray[np.float32]
TestSetName = Literal["lfw-64", "lfw-250", "mnist", "photographs"]

PHOTOGRAPHS: Final = ("astronaut", "camera", "chelsea", "coffee", "coins", "motorcycle_left", "rocket")
"""Those that come in scikit-image's wheel, grey and RGB: the middle 256 x 256 pixels of each are taken."""
_MIDDLE: Final = 256
_SUFFIXES: Final = (".png", ".jpg")
_SIDE: Final = 64
_TAKEN: Final[dict[str, int]] = {"lfw-64": 200, "lfw-250": 50, "mnist": 1000}


@dataclass(frozen=True, eq=False, slots=True)
class DenoisingTestSet:
    """N clean pictures.

    Attributes:
        name: Which set.
        called: What each picture is called.
        clean: float32 (H, W, C) in [0, 1] each.
    """

    name: TestSetName
    called: tuple[str, ...]
    clean: tuple[Floats, ...]

    def __len__(self) -> int:
        return len(self.clean)

    def first(self, count: int | None) -> Self:
        """Return the first so many of them; None: all."""
        return replace(self, called=self.called[:count], clean=self.clean[:count])

    def noisy(self, sigma: float, *, seed: int = 0) -> list[Floats]:
        """Return the pictures with Gaussian noise of deviation ``sigma`` (of 1), clipped to [0, 1].

        A picture's noise hangs on the seed, sigma and its place alone, however many pictures there are.
        """
        level = np.array([sigma], np.float32)
        return [
            add_noise(
                picture[None],
                level,
                kind="gaussian",
                rng=np.random.default_rng((seed, round(sigma * 1e6), place)),
            )[0]
            for place, picture in enumerate(self.clean)
        ]


def open_test_set(name: TestSetName, count: int | None = None) -> DenoisingTestSet:
    """Read a set of pictures.

    ``lfw-64`` and ``lfw-250`` are faces of people in a pair of View 2's folds 1 to 5, one each, in an order
    that is drawn once for all; the first in the tight crop, made 64 x 64 as our models see them, the second
    whole, 250 x 250. ``mnist`` are the first test digits. ``photographs`` are :data:`PHOTOGRAPHS`.

    Args:
        name: Which set.
        count: How many pictures at most; None: 200, 50, 1,000 or all.

    Raises:
        DataError: the data set is nowhere.
        MissingExtraError: the photographs come with scikit-image, which is not installed.
    """
    if name not in get_args(TestSetName):
        raise InvalidArgumentError(
            f"pictures to clean are {', '.join(get_args(TestSetName))}; {name!r} is none of them"
        )
    if count is None:
        count = _TAKEN.get(name)
    if name == "photographs":
        return _photographs().first(count)
    if name == "mnist":
        digits = find_mnist(progress=True).images("test")[:count, :, :, None]
        return DenoisingTestSet(
            name, tuple(f"digit {place}" for place in range(len(digits))), _floats(digits)
        )
    files = _faces(count)
    if name == "lfw-250":
        pixels = [decode_rgb(file.read_bytes(), name=file.name) for file in files]
    else:
        spec = ImageSpec(size=_SIDE, channels=3, crop=LFW_CROP)
        pixels = [read_pixels(file.read_bytes(), spec, name=file.name) for file in files]
    return DenoisingTestSet(name, tuple(file.stem for file in files), _floats(pixels))


def _faces(count: int | None) -> list[Path]:
    """Return the first picture of people who are held out, in an order drawn once for all."""
    lfw = find_lfw(progress=True)
    people = sorted(lfw.held_out_people())
    order = np.random.default_rng(0).permutation(len(people))[:count]
    return [lfw.root / people[place] / f"{people[place]}_0001.jpg" for place in order]


def _photographs() -> DenoisingTestSet:
    try:
        import skimage
    except ImportError as error:
        raise MissingExtraError(
            "the photographs come with scikit-image; pip install 'lookalike[evaluate]', or leave them out"
        ) from error
    folder = Path(skimage.__file__).parent / "data"
    files = [
        file for name in PHOTOGRAPHS for suffix in _SUFFIXES if (file := folder / f"{name}{suffix}").is_file()
    ]
    if not files:
        raise DataError(f"this scikit-image has none of its photographs in {folder}; install it again")
    pixels = [_middle(_as_grey(decode_rgb(file.read_bytes(), name=file.name))) for file in files]
    return DenoisingTestSet("photographs", tuple(file.stem for file in files), _floats(pixels))


def _middle(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    top, left = ((side - _MIDDLE) // 2 for side in pixels.shape[:2])
    return pixels[top : top + _MIDDLE, left : left + _MIDDLE]


def _as_grey(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return one channel of a picture that is grey."""
    return pixels[:, :, :1] if (pixels == pixels[:, :, :1]).all() else pixels


def _floats(pictures: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]) -> tuple[Floats, ...]:
    return tuple(picture.astype(np.float32) / np.float32(255) for picture in pictures)
