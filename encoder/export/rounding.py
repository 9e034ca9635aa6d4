"""Weights in eight bits: whole numbers and a step for each row, whose products are exact."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["quantize_int8", "steps_of"]


def steps_of(largest: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return 1/127 of float32 values, rounded up to 11 bits: so products with -127 to 127 are exact."""
    mantissa, exponent = np.frexp(largest / 127)
    steps = np.ldexp(np.ceil(mantissa * 2048) / 2048, exponent).astype(np.float32)
    return np.where(steps > 0, steps, np.float32(1))


def quantize_int8(values: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]] | None:
    """Return whole numbers and the step of each row, or None where no such pair is exactly ``values``.

    The exporter may have turned a matrix: what was a row can lie along either axis.
    """
    for axis in range(min(values.ndim, 2)):
        others = tuple(other for other in range(values.ndim) if other != axis)
        steps = steps_of(np.abs(values).max(axis=others, keepdims=True))
        whole = np.rint(values / steps)
        if np.array_equal(whole * steps, values):
            return whole.astype(np.int8), steps
    return None
