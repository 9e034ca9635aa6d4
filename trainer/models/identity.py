"""The part of the latent that tells people apart: convolutions, taught with names.

Legend: N images, B of them in a batch, C channels, S pixels a side (R with room),
K people, E numbers.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize

from lookalike.encoder.errors import InvalidArgumentError
from lookalike.trainer.config import IDENTITY_CONFIG, TrainingSpec
from lookalike.trainer.data.augment import AugmentConfig
from lookalike.trainer.models.descriptor import LocalContrastNorm

Images = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True)
class IdentitySpec:
    """Shape of the part that is taught with names, and how it is taught.

    Attributes:
        size: S.
        numbers: E.
        widths: Channels after each halving of the side.
        dropout: Share of the last convolution's values left out in training.
        scale: Of the cosines in the loss.
        margin: By which the right person's cosine must be higher; it grows from 0 over the first third.
        most: Pictures of one person in an epoch.
        views: How pictures are varied.
        training: The steps; its ``shift`` and ``noise`` are not used.
    """

    size: int
    numbers: int = 256
    widths: tuple[int, ...] = (32, 64, 128, 256)
    dropout: float = 0.2
    scale: float = 24.0
    margin: float = 0.3
    most: int = 30
    views: AugmentConfig = field(
        default_factory=lambda: AugmentConfig(
            shift=0.16, zoom=0.08, turn=6.0, brightness=0.15, noise=0.04, covered=0.5
        )
    )
    training: TrainingSpec = IDENTITY_CONFIG

    def __post_init__(self) -> None:
        if self.size < 16:
            raise InvalidArgumentError(
                f"names teach pictures of 16 pixels or more, not {self.size}; "
                "take a larger --size or --labels none"
            )
        if min(self.numbers, self.most, self.scale, *self.widths) <= 0 or not self.widths:
            raise InvalidArgumentError(f"numbers, widths, scale and most must be positive, got {self}")
        if not (0 <= self.dropout < 1 and 0 <= self.margin < 1):
            raise InvalidArgumentError(f"dropout and margin must be from 0 to below 1, got {self}")

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self) | {"widths": list(self.widths)}


@final
class Identity(nn.Module):
    """float32 (N, C, S, S) in [0, 1] to (N, E): alike in direction where the person is the same."""

    def __init__(self, spec: IdentitySpec) -> None:
        super().__init__()
        self.spec = spec
        self.contrast = LocalContrastNorm(spec.size)
        steps: list[nn.Module] = []
        for before, after in zip((1, *spec.widths), spec.widths, strict=False):
            steps += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.convolutions = nn.Sequential(*steps)
        side = spec.size
        for _ in spec.widths:
            side = (side + 1) // 2
        self.dropout = nn.Dropout(spec.dropout)
        self.project = nn.Linear(spec.widths[-1] * side**2, spec.numbers)
        self.norm = nn.BatchNorm1d(spec.numbers)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, S, S) -> (N, E)."""
        seen = self.convolutions(self.contrast(images)).flatten(1)
        numbers: Tensor = self.norm(self.project(self.dropout(seen)))
        return numbers


@final
class CosineClassifier(nn.Module):
    """The network with a direction for each training person: float32 (N, C, S, S) to cosines (N, K)."""

    def __init__(self, identity: Identity, people: int) -> None:
        super().__init__()
        self.identity = identity
        self.directions = nn.Parameter(normalize(torch.randn(people, identity.spec.numbers)))

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, S, S) -> (N, K)."""
        numbers = self.identity(images)
        with torch.autocast(numbers.device.type, enabled=False):  # bfloat16 blurs cosines that are scaled up
            return normalize(numbers.float()) @ normalize(self.directions).T
