"""Optimizers: AdamW, and Muon, whose steps weigh all directions of a weight matrix equally.

Muon replaces the averaged gradient of a matrix by the nearest orthogonal matrix, up to a factor, computed by
a polynomial that drives all singular values towards 1: K. Jordan et al., "Muon", 2024,
https://kellerjordan.github.io/posts/muon; the step has the usual length of AdamW's, as in J. Liu et al.,
"Muon is Scalable for LLM Training", arXiv:2502.16982. With the same number of steps the denoiser gets
better than with AdamW, and torch.optim.Muon is far slower on CPUs (docs/experiments.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from lookalike.trainer.config import TrainingSpec

_POLYNOMIAL: Final = (3.4445, -4.7750, 2.0315)  # Jordan's: fast, singular values end between 0.7 and 1.2
_ROUNDS: Final = 5
_MIN_CHANNELS: Final = 16
"""Weights with fewer input or output channels (of pixels, mostly) are left to Adam: not hidden layers."""
_STEP: Final = 0.2  # about the root mean square of a step of AdamW, as a share of its learning rate
_MOMENTUM: Final = 0.95
_BETAS: Final = (0.9, 0.99)


def adamw(network: nn.Module, spec: TrainingSpec) -> torch.optim.Optimizer:
    """Return AdamW for a network; biases, scales and shifts do not decay."""
    matrices = [weight for weight in network.parameters() if weight.ndim > 1]
    vectors = [weight for weight in network.parameters() if weight.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=spec.learning_rate, weight_decay=spec.weight_decay)


def muon(network: nn.Module, spec: TrainingSpec) -> torch.optim.Optimizer:
    """Return Muon for a network of convolutions; nothing decays."""
    return Muon(network.parameters(), spec.learning_rate)


@final
class Muon(torch.optim.Adam):
    """Muon for convolutions between hidden features; Adam for all other parameters.

    A convolution's weight counts as a matrix of its first dimension against the others.

    Args:
        parameters: Of a network.
        lr: Learning rate of both.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float) -> None:
        weights = list(parameters)
        hidden = [weight for weight in weights if weight.ndim == 4 and min(weight.shape[:2]) >= _MIN_CHANNELS]
        ids = {id(weight) for weight in hidden}
        others = [weight for weight in weights if id(weight) not in ids]
        groups = [{"params": hidden, "hidden": True}, {"params": others, "hidden": False}]
        super().__init__([group for group in groups if group["params"]], lr=lr, betas=_BETAS)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # no closure here
        """Take a step along the gradients."""
        if closure is not None:
            raise NotImplementedError("Muon takes no closure")
        for group in self.param_groups:
            for weight in group["params"] if group["hidden"] else ():
                if weight.grad is not None:
                    self._muon_step(weight, weight.grad, group["lr"])
                    weight.grad = None  # Adam's step leaves it out
        super().step()

    def _muon_step(self, weight: Tensor, gradient: Tensor, rate: float) -> None:
        state = self.state[weight]
        if not state:
            state |= {"step": torch.zeros(()), "exp_avg": torch.zeros_like(weight)}  # as Adam names them
        state["exp_avg"].lerp_(gradient, 1 - _MOMENTUM)
        nesterov = gradient.lerp(state["exp_avg"], _MOMENTUM)
        rows = nesterov.permute(0, 2, 3, 1)  # (O, H, W, I), as in memory: the order of columns is irrelevant
        matrix = rows.flatten(1)  # -> (O, HWI)
        step = orthogonal(matrix).view_as(rows).permute(0, 3, 1, 2)  # -> (O, I, H, W)
        weight.add_(step, alpha=-rate * _STEP * max(matrix.shape) ** 0.5)


def orthogonal(matrix: Tensor) -> Tensor:
    """Return about U V^T for a matrix U S V^T, float32 (M, N): singular values end between 0.6 and 1.3.

    The polynomials are multiplied in the smaller of M x M and N x N and applied to the matrix once, at the
    end: half the work of applying each of them.
    """
    a, b, c = _POLYNOMIAL
    wide = matrix.shape[0] <= matrix.shape[1]
    scaled = matrix if wide else matrix.T  # (m, n), m <= n
    scaled = scaled / (scaled.norm() + 1e-7)
    square = scaled @ scaled.T  # (m, m), as all below
    eye = torch.eye(len(square), dtype=scaled.dtype, device=scaled.device)
    product = eye
    for _ in range(_ROUNDS):
        step = torch.addmm(a * eye + b * square, square, square, alpha=c)
        product = step @ product
        square = step @ square @ step
    result: Tensor = product @ scaled  # -> (m, n)
    return result if wide else result.T
