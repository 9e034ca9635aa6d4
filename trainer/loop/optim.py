"""Optimizers: AdamW, and Muon, whose steps weigh all directions of a weight matrix equally.

Muon replaces the averaged gradient of a matrix by the nearest orthogonal matrix, up to a factor, computed by
a polynomial that drives all singular values towards 1: K. Jordan et al., "Muon", 2024,
https://kellerjordan.github.io/posts/muon; the step has the usual length of AdamW's, as in J. Liu et al.,
"Muon is Scalable for LLM Training", arXiv:2502.16982. With the same number of steps the denoiser and the
identity network get better than with AdamW, and torch.optim.Muon is far slower on CPUs
(docs/experiments.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from lookalike.trainer.config import TrainingSpec

_POLYNOMIAL: Final = (3.4445, -4.7750, 2.0315)  # Jordan's: fast, singular values end between 0.7 and 1.2
_ROUNDS: Final = 5
_LAYERS: Final = nn.Conv2d, nn.ConvTranspose2d, nn.Linear
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
    """Return Muon for a network; biases, scales and shifts do not decay."""
    return Muon(network, spec.learning_rate, spec.weight_decay)


@final
class Muon(torch.optim.AdamW):
    """Muon for convolutions and linear layers between hidden features; AdamW for all other parameters.

    A weight counts as a matrix of its first dimension against the others.

    Args:
        network: What to train.
        lr: Learning rate of both.
        weight_decay: Of both, in each step times the learning rate; vectors do not decay.
    """

    def __init__(self, network: nn.Module, lr: float, weight_decay: float = 0.0) -> None:
        layers = [layer for layer in network.modules() if isinstance(layer, _LAYERS)]
        hidden = [layer.weight for layer in layers if min(layer.weight.shape[:2]) >= _MIN_CHANNELS]
        ids = {id(weight) for weight in hidden}
        others = [weight for weight in network.parameters() if id(weight) not in ids]
        groups: list[dict[str, Any]] = [
            {"params": hidden, "hidden": True},
            {"params": [weight for weight in others if weight.ndim > 1], "hidden": False},
            {
                "params": [weight for weight in others if weight.ndim <= 1],
                "hidden": False,
                "weight_decay": 0.0,
            },
        ]
        super().__init__(
            [group for group in groups if group["params"]], lr=lr, betas=_BETAS, weight_decay=weight_decay
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # no closure here
        """Take a step along the gradients."""
        if closure is not None:
            raise NotImplementedError("Muon takes no closure")
        for group in self.param_groups:
            for weight in group["params"] if group["hidden"] else ():
                if weight.grad is not None:
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    self._muon_step(weight, weight.grad, group["lr"])
                    weight.grad = None  # AdamW's step leaves it out
        super().step()

    def _muon_step(self, weight: Tensor, gradient: Tensor, rate: float) -> None:
        state = self.state[weight]
        if not state:
            state |= {"step": torch.zeros(()), "exp_avg": torch.zeros_like(weight)}  # as AdamW names them
        state["exp_avg"].lerp_(gradient, 1 - _MOMENTUM)
        nesterov = gradient.lerp(state["exp_avg"], _MOMENTUM)
        rows = nesterov.movedim(1, -1)  # (O, H, W, I), as in memory: the order of columns is irrelevant
        matrix = rows.flatten(1)  # -> (O, HWI), of a linear layer (O, I)
        step = orthogonal(matrix).view_as(rows).movedim(-1, 1)  # -> (O, I, H, W)
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
