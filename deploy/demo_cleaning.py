"""The cleaning of ``lookalike demo``: noise put on pictures, taken off again, and what they were.

Legend: H, W = height and width of a picture, C channels (1 grey, 3 RGB).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lookalike.encoder.runtime import Denoiser


_MODEL: Final = "denoise"
_FACES: Final = 4
_PHOTOGRAPHS: Final = ("chelsea", "coffee")
_SIGMAS: Final = (25, 50)
"""Of 255, by turns."""
_SMALL: Final = 64
"""Lower pictures have the first alone: the second would leave nothing to be seen."""
_SIDE: Final = 192


def draw_cleaned(out: Path, faces: Sequence[Path]) -> list[tuple[Path, str]]:
    """Draw whole pictures of faces, and photographs where scikit-image has them, into a folder.

    Returns:
        Each picture and what is to be seen on it.
    """
    from lookalike.deploy.evaluation import open_test_set
    from lookalike.encoder.errors import MissingExtraError
    from lookalike.encoder.images import decode_rgb, save_image, to_uint8
    from lookalike.encoder.runtime import Denoiser
    from lookalike.searcher.figures import caption

    shown = faces[:_FACES]
    pictures = [_as_grey(decode_rgb(file.read_bytes(), name=file.name)) for file in shown]
    called = [caption(file) for file in shown]
    try:
        exhibit = open_test_set("photographs")
    except MissingExtraError:
        pass  # faces do
    else:
        for name, picture in zip(exhibit.titles, exhibit.clean, strict=True):
            if name in _PHOTOGRAPHS:
                pictures.append(to_uint8(picture))
                called.append(name)
    sigmas = [
        _SIGMAS[place % len(_SIGMAS)] if len(picture) >= _SMALL else _SIGMAS[0]
        for place, picture in enumerate(pictures)
    ]
    sheet = cleaning_sheet(Denoiser.open(_MODEL), pictures, called, sigmas, side=_SIDE)
    save_image(out / "cleaned.png", sheet)
    return [(out / "cleaned.png", "noise put on whole pictures, taken off again, and what they were")]


def cleaning_sheet(
    cleaner: Denoiser,
    pictures: Sequence[NDArray[np.uint8]],
    called: Sequence[str],
    sigmas: Sequence[int],
    *,
    side: int,
) -> NDArray[np.uint8]:
    """Draw pictures with noise, cleaned by a model that is told nothing, and as they were: uint8 (H, W, 3).

    The noise is Gaussian and always the same; it is clipped and rounded to bytes as in a file.

    Args:
        cleaner: What cleans.
        pictures: uint8 (H, W, C) each.
        called: What each is called.
        sigmas: The deviation of the noise on each, of 255.
        side: Of a tile.
    """
    import numpy as np

    from lookalike.encoder.images import Tile, add_noise, contact_sheet, to_uint8
    from lookalike.encoder.metrics import psnr_from_mse

    columns = []
    for place, (picture, name, sigma) in enumerate(zip(pictures, called, sigmas, strict=True)):
        clean = picture[None].astype(np.float32) / np.float32(255)  # (1, H, W, C)
        level, rng = np.array([sigma / 255], np.float32), np.random.default_rng(place)
        noisy = to_uint8(add_noise(clean, level, kind="gaussian", rng=rng)).astype(np.float32) / np.float32(
            255
        )
        found = cleaner.estimate(noisy)
        made = cleaner.denoise(noisy, found).clip(0, 1)
        gains = [f"{psnr_from_mse(float(np.square(each - clean).mean())):.1f} dB" for each in (noisy, made)]
        columns.append(
            (
                Tile(pixels=to_uint8(noisy)[0], caption=f"sigma {sigma}", subcaption=gains[0]),
                Tile(pixels=to_uint8(made)[0], caption=f"found {255 * found[0]:.0f}", subcaption=gains[1]),
                Tile(pixels=picture, caption=name),
            )
        )
    rows = [list(row) for row in zip(*columns, strict=True)]
    title = f"Cleaned by {cleaner.bundle.name}, which is told nothing of the noise"
    return contact_sheet(rows, title=title, row_labels=("with noise", "cleaned", "as it was"), side=side)


def _as_grey(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return one channel of a picture that is grey: its noise is grey too."""
    return pixels[:, :, :1] if (pixels == pixels[:, :, :1]).all() else pixels
