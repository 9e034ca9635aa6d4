"""What is minimised."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

__all__ = ["large_margin_cosine", "mean_squared_error"]


def mean_squared_error(image: Tensor, target: Tensor) -> Tensor:
    """Return the mean over all values of the squared difference, a scalar."""
    return (image - target).square().mean()


def large_margin_cosine(cosines: Tensor, people: Tensor, *, scale: float, margin: float) -> Tensor:
    """Return the large margin cosine loss, a scalar (CosFace; Wang et al., CVPR 2018).

    The cross-entropy of ``scale * cosine``, where the right person's cosine has to be ``margin`` higher.

    Args:
        cosines: float32 (B, K) of each picture with each of K people.
        people: int64 (B,), who it is.
        scale: Of the cosines, before the softmax.
        margin: Taken off the right person's cosine.
    """
    return cross_entropy(scale * (cosines - margin * one_hot(people, cosines.shape[1])), people)
