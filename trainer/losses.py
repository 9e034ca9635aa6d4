"""What is minimised."""

from __future__ import annotations

from torch import Tensor

__all__ = ["mean_squared_error"]


def mean_squared_error(image: Tensor, target: Tensor) -> Tensor:
    """Return the mean over all values of the squared difference, a scalar."""
    return (image - target).square().mean()
