"""Folders of small made-up classes to train on. Not a test."""

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.images.preprocess import encode_png

CLASSES: Final = ("cross", "ring", "stripes")


def shapes(each: int, *, side: int = 16, seed: int = 0) -> NDArray[np.uint8]:
    """Draw uint8 (3 * each, side, side, 1): white crosses, rings and stripes on black, here and there."""
    rng = np.random.default_rng(seed)
    down, across = np.mgrid[:side, :side]
    drawn = []
    for kind in range(len(CLASSES)):
        for _ in range(each):
            y, x = rng.uniform(0.4 * side, 0.6 * side, 2)
            far = np.hypot(down - y, across - x)
            on = (
                (np.abs(down - y) < 1.5) | (np.abs(across - x) < 1.5),
                np.abs(far - 0.3 * side) < 1.2,
                (down + int(y)) % 4 < 2,
            )[kind]
            drawn.append(on * 230 + rng.integers(0, 25, (side, side)))
    return np.array(drawn, np.uint8)[..., None]


def write_classes(root: Path, *, each: int = 24, side: int = 16, seed: int = 0) -> Path:
    """Write ``root/<class>/<i>.png`` and return ``root``."""
    for index, pixels in enumerate(shapes(each, side=side, seed=seed)):
        file = root / CLASSES[index // each] / f"{index % each}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode_png(np.repeat(pixels, 3, axis=2)))
    return root
