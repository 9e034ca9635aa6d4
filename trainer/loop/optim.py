"""What teaches a network: AdamW, or Muon, in whose steps every direction of a weight matrix counts alike.

Muon replaces the average of the gradients of a matrix by the nearest orthogonal one, up to a factor, found by
a polynomial that drives all singular values towards 1: K. Jordan et al., "Muon", 2024,
https://kellerjordan.github.io/posts/muon; the length of a step is that of AdamW's usual one, as in J. Liu et
al., "Muon is Scalable for LLM Training", arXiv:2502.16982. After as many steps the cleaner is better than
with AdamW (trainer/EXPERIMENTS.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from lookalike.trainer.config import TrainingSpec

_POLYNOMIAL: Final = (3.4445, -4.7750, 2.0315)  # Jordan's: fast, singular values end between 0.7 and 1.2
_ROUNDS: Final = 5
_NARROWEST: Final = 16
"""Matrices with fewer rows or columns (of pixels, mostly) are taught by Adam: they are no hidden layers."""
_STEP: Final = 0.2  # about the root mean square of a step of AdamW, of its learning rate
_MOMENTUM: Final = 0.95
_BETAS: Final = (0.9, 0.99)


def adamw(network: nn.Module, spec: TrainingSpec) -> torch.optim.Optimizer:
    """Return AdamW for a network; vectors do not decay.

    Biases, scales and shifts are not drawn to zero: they tell no pixels apart.
    """
    matrices = [weight for weight in network.parameters() if weight.ndim > 1]
    vectors = [weight for weight in network.parameters() if weight.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=spec.learning_rate, weight_decay=spec.weight_decay)


def muon(network: nn.Module, spec: TrainingSpec) -> torch.optim.Optimizer:
    """Return Muon for a network of convolutions; nothing decays."""
    return Muon(network.parameters(), spec.learning_rate)


@final
class Muon(torch.optim.Optimizer):
    """Muon for convolutions between hidden features; Adam for all else.

    A convolution's weight counts as a matrix of its first dimension against the others.

    Args:
        parameters: Of a network.
        lr: Learning rate of both.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float) -> None:
        every = list(parameters)
        hidden = [weight for weight in every if weight.ndim == 4 and min(weight.shape[:2]) >= _NARROWEST]
        known = {id(weight) for weight in hidden}
        others = [weight for weight in every if id(weight) not in known]
        groups = [{"params": hidden, "hidden": True}, {"params": others, "hidden": False}]
        super().__init__([group for group in groups if group["params"]], {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # no closure here
        """Take a step along the gradients that are there."""
        if closure is not None:
            raise NotImplementedError("Muon takes no closure")
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    learn = _muon if group["hidden"] else _adam
                    learn(weight, weight.grad, self.state[weight], group["lr"])


def orthogonal(matrix: Tensor) -> Tensor:
    """Return about U V^T of a matrix U S V^T, float32 (M, N): what is no tiny share of S becomes 0.6 to 1.3.

    The polynomials are multiplied up in the smaller of M x M and N x N, and meet the matrix once, at the end:
    half the work of taking it through each of them.
    """
    a, b, c = _POLYNOMIAL
    wide = matrix.shape[0] <= matrix.shape[1]
    found = matrix if wide else matrix.T  # (m, n), m <= n
    found = found / (found.norm() + 1e-7)
    square = found @ found.T  # (m, m), as all below
    same = torch.eye(len(square), dtype=found.dtype, device=found.device)
    product = same
    for _ in range(_ROUNDS):
        step = torch.addmm(a * same + b * square, square, square, alpha=c)
        product = step @ product
        square = step @ square @ step
    found = product @ found  # -> (m, n)
    back: Tensor = found if wide else found.T
    return back


def _muon(weight: Tensor, gradient: Tensor, state: dict[str, Any], rate: float) -> None:
    if not state:
        state["average"] = torch.zeros_like(weight)
    state["average"].lerp_(gradient, 1 - _MOMENTUM)
    ahead = gradient.lerp(state["average"], _MOMENTUM)  # Nesterov's
    rows = ahead.permute(0, 2, 3, 1)  # (O, H, W, I), as it lies in memory: columns may come in any order
    matrix = rows.flatten(1)  # -> (O, HWI)
    step = orthogonal(matrix).view_as(rows).permute(0, 3, 1, 2)  # -> (O, I, H, W)
    weight.add_(step, alpha=-rate * _STEP * max(matrix.shape) ** 0.5)


def _adam(weight: Tensor, gradient: Tensor, state: dict[str, Any], rate: float) -> None:
    if not state:
        state |= {
            "step": torch.zeros(()),
            "mean": torch.zeros_like(weight),
            "square": torch.zeros_like(weight),
        }
    state["step"] += 1
    first, second = _BETAS
    count = int(state["step"])
    state["mean"].lerp_(gradient, 1 - first)
    state["square"].lerp_(gradient.square(), 1 - second)
    deviation = (state["square"] / (1 - second**count)).sqrt() + 1e-8
    weight.addcdiv_(state["mean"] / (1 - first**count), deviation, value=-rate)
