"""The identity network: a convolutional network trained with people's names to tell people apart.

Legend: N images, C channels, S pixels a side, K people, E dimensions.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from lookalike.encoder.errors import InvalidArgumentError
from lookalike.trainer.config import IDENTITY_CONFIG, TrainingSpec
from lookalike.trainer.data import AugmentConfig
from lookalike.trainer.models.descriptor import LocalContrastNorm


@dataclass(frozen=True, kw_only=True, slots=True)
class IdentitySpec:
    """Shape of the identity network, and how it is trained.

    Attributes:
        size: S.
        dim: E.
        widths: Channels after each halving of the side.
        dropout: Share of the last convolution's values dropped in training.
        scale: Of the cosines in the loss.
        margin: By which the right person's cosine must be higher; it grows from 0 over the first third.
        max_per_class: Images of one person in an epoch.
        augment: How images are augmented.
        training: The steps; its ``shift`` and ``noise`` are not used.
    """

    size: int
    dim: int = 256
    widths: tuple[int, ...] = (32, 64, 128, 256)
    dropout: float = 0.2
    scale: float = 24.0
    margin: float = 0.3
    max_per_class: int = 30
    augment: AugmentConfig = field(
        default_factory=lambda: AugmentConfig(
            shift=0.16, zoom=0.08, rotation=6.0, brightness=0.15, noise=0.04, random_erasing=0.5
        )
    )
    training: TrainingSpec = IDENTITY_CONFIG

    def __post_init__(self) -> None:
        if self.size < 16:
            raise InvalidArgumentError(
                f"--subfolders person needs images of 16 pixels or more, not {self.size}; "
                "take a larger --size or --subfolders none"
            )
        if min(self.dim, self.max_per_class, self.scale, *self.widths) <= 0 or not self.widths:
            raise InvalidArgumentError(f"dim, widths, scale and max_per_class must be positive, got {self}")
        if not (0 <= self.dropout < 1 and 0 <= self.margin < 1):
            raise InvalidArgumentError(f"dropout and margin must be from 0 to below 1, got {self}")

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self) | {"widths": list(self.widths)}


@final
class Identity(nn.Module):
    """float32 (N, C, S, S) in [0, 1] to (N, E): similar in direction where the person is the same."""

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
        self.project = nn.Linear(spec.widths[-1] * side**2, spec.dim)
        self.norm = nn.BatchNorm1d(spec.dim)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, S, S) -> (N, E)."""
        features = self.convolutions(self.contrast(images)).flatten(1)
        vectors: Tensor = self.norm(self.project(self.dropout(features)))
        return vectors


@final
class CosineClassifier(nn.Module):
    """The identity network with a direction for each training person: (N, C, S, S) to cosines (N, K)."""

    def __init__(self, identity: Identity, people: int) -> None:
        super().__init__()
        self.identity = identity
        self.directions = nn.Parameter(normalize(torch.randn(people, identity.spec.dim)))

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, S, S) -> (N, K)."""
        vectors = self.identity(images)
        with torch.autocast(vectors.device.type, enabled=False):  # bfloat16 is too coarse for scaled cosines
            return normalize(vectors.float()) @ normalize(self.directions).T
