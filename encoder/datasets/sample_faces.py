"""A hundred tiny sample faces that come with scikit-image, without any download.

They are 25 x 25 gray crops from Labeled Faces in the Wild (Huang et al., UMass TR 07-49, 2007), chosen by
scikit-image (`skimage.data.lfw_subset`). They have no names and too few pixels for the shipped models: a
search among them only shows how it works; do not measure on them.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from lookalike.encoder.errors import DataError

SAMPLE_FACES: Final = 100  # the rest of scikit-image's 200 patches are not faces


def write_sample_faces(folder: Path) -> list[Path]:
    """Write `face-000.png` ... `face-099.png`, 25 x 25 px, 8-bit gray, and return their paths in order.

    Files of these names are overwritten; others in the folder are not touched. The pixels come with the
    scikit-image package: nothing is downloaded.

    Args:
        folder: Where to; created if missing.

    Raises:
        DataError: Scikit-image is not installed, or the folder cannot be written.
    """
    from PIL import Image

    try:
        from skimage.data import lfw_subset
    except ImportError as error:
        raise DataError("the sample faces need scikit-image; pip install 'lookalike[demo]'") from error
    load: Callable[[], npt.NDArray[np.float64]] = lfw_subset  # (200, 25, 25) in [0, 1]
    pixels = np.rint(load()[:SAMPLE_FACES] * 255).astype(np.uint8)  # (100, 25, 25)
    paths = [folder / f"face-{number:03d}.png" for number in range(len(pixels))]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, face in zip(paths, pixels, strict=True):
            out = io.BytesIO()
            Image.fromarray(face).save(out, "PNG")
            if not path.is_file() or path.read_bytes() != out.getvalue():
                path.write_bytes(out.getvalue())
    except OSError as error:
        raise DataError(
            f"{folder} must be a folder that can be written, but: {error}; choose another"
        ) from error
    return paths
