"""The digits of ``lookalike demo``: kept, cleaned, drawn, and the same in every class."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lookalike.encoder.runtime import Model


_MODEL: Final = "digits"
_CLEANER: Final = "denoise-digits"
_KEPT: Final = 20
_CLEANED: Final = 10
_SIGMA: Final = 127
_DRAWN: Final = 40
_ROWS: Final = 6
_SIDE: Final = 84


def draw_digits(out: Path) -> tuple[list[tuple[Path, str]], str]:
    """Draw the digits' pictures into a folder.

    Returns:
        Each picture and what is to be seen on it, and a line about what is missing: empty where nothing is.
    """
    from lookalike.deploy.demo_cleaning import cleaning_sheet
    from lookalike.encoder.datasets import find_mnist
    from lookalike.encoder.errors import DataError
    from lookalike.encoder.images import grid, save_image
    from lookalike.encoder.runtime import Denoiser, Model
    from lookalike.searcher.figures import classes_sheet
    from lookalike.searcher.generation import sample, sample_classes

    model, sheets, missing = Model.open(_MODEL), {}, ""
    try:
        digits = find_mnist(progress=True).images("test")[:_KEPT]
    except DataError as error:
        missing = f"MNIST is not to be had, so no digit is reconstructed or cleaned: {error}"
    else:
        sheets["digits-kept.png"] = _kept(model, digits), "test digits above what the model keeps of them"
        noisy = list(digits[:_CLEANED, :, :, None])
        sheet = cleaning_sheet(
            Denoiser.open(_CLEANER), noisy, [""] * len(noisy), [_SIGMA] * len(noisy), side=_SIDE
        )
        sheets["digits-cleaned.png"] = sheet, "noise put on test digits, taken off again, and what they were"
    sheets["digits-drawn.png"] = grid(list(sample(model, _DRAWN)), columns=10), "digits that never were"
    rows = sample_classes(model, _ROWS, seed=1)
    sheets["digits-classes.png"] = classes_sheet(model, rows), "the same latents in all ten classes"
    for name, (picture, _) in sheets.items():
        save_image(out / name, picture)
    return [(out / name, what) for name, (_, what) in sheets.items()], missing


def _kept(model: Model, digits: NDArray[np.uint8]) -> NDArray[np.uint8]:
    from lookalike.searcher.figures import reconstruction_sheet
    from lookalike.searcher.generation import classes_of, reconstruct

    pixels = digits[..., None]
    found = classes_of(model, model.encode(pixels))
    return reconstruction_sheet(model, pixels, reconstruct(model, pixels), found or [""] * len(pixels))
