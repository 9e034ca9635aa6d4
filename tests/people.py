"""Folders of small made-up people to train on. Not a test."""

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.images.preprocess import encode_png

SIDE: Final = 16


def portraits(people: int, each: int, *, seed: int = 0) -> NDArray[np.uint8]:
    """Draw uint8 (people * each, 16, 16, 3): a person is a pattern, a picture that pattern in other light."""
    rng = np.random.default_rng(seed)
    who = rng.integers(60, 180, (people, 1, 4, 4, 3))
    light = rng.integers(-40, 40, (people, each, 2, 2, 1)).repeat(2, axis=2).repeat(2, axis=3)
    coarse = (who + light).reshape(-1, 4, 4, 3).repeat(SIDE // 4, axis=1).repeat(SIDE // 4, axis=2)
    return (coarse + rng.integers(-10, 10, coarse.shape)).astype(np.uint8)


def write_people(root: Path, *, people: int = 8, each: int = 8, seed: int = 0) -> Path:
    """Write ``root/person-<i>/<j>.png`` and return ``root``."""
    for index, pixels in enumerate(portraits(people, each, seed=seed)):
        file = root / f"person-{index // each}" / f"{index % each}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode_png(pixels))
    return root
