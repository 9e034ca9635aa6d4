"""Arrays of a bundle: golden values, and ``.npz`` read without pickles.

Legend: N images, H = W = S pixels, C channels, D latent size.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.bundle.manifest import one_line

__all__ = ["Golden", "npz_bytes", "read_npz"]

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Golden:
    """Inputs and what they gave where the bundle was made: pictures the model drew itself, or made-up ones.

    Attributes:
        pixels: uint8 (N, H, W, C).
        latents: float32 (N, D), of ``pixels``.
        decoded: float32 (N, H, W, C) in [0, 1], of ``latents``; None for a model that has no decoder.
    """

    pixels: NDArray[np.uint8]
    latents: Floats
    decoded: Floats | None

    def to_npz(self) -> bytes:
        """Return ``golden.npz``."""
        drawn = {} if self.decoded is None else {"decoded": self.decoded}
        return npz_bytes(pixels=self.pixels, latents=self.latents, **drawn)

    @classmethod
    def from_npz(cls, files: Mapping[str, bytes]) -> Self:
        """Read ``golden.npz`` of the files of a bundle; with a decoder, what it drew must be there.

        Raises:
            ValueError: it does not hold the arrays.
        """
        if "decoder.onnx" in files:
            return cls(*read_npz("golden.npz", files, "pixels", "latents", "decoded"))
        pixels, latents = read_npz("golden.npz", files, "pixels", "latents")
        return cls(pixels, latents, None)


def read_npz(file: str, files: Mapping[str, bytes], *names: str) -> list[NDArray[Any]]:
    """Return arrays of an ``.npz`` by name. Nothing in it is executed.

    Raises:
        ValueError: it does not hold them.
    """
    try:
        with np.load(io.BytesIO(files[file]), allow_pickle=False) as archive:
            return [np.asarray(archive[name]) for name in names]
    except Exception as error:  # zipfile, zlib, struct and numpy each raise their own
        raise ValueError(f"{file} does not hold the arrays {', '.join(names)} ({one_line(error)})") from error


def npz_bytes(**arrays: NDArray[Any]) -> bytes:
    """Return an ``.npz`` with these arrays."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
