"""A small convolutional classifier of images.

Legend: N images, C channels, S side, K classes, F features.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass, field
from typing import Any, final

import torch
from torch import Tensor, nn

from lookalike.trainer.config import TrainingSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifierSpec:
    """Shape of the classifier, and how it is trained. The epoch that is kept is chosen on validation images.

    Attributes:
        widths: Channels of the five convolutions; the second and the fourth halve the side.
        features: F.
        dropout: Share of the features dropped in training.
        shift: Largest shift of an image each way, in pixels.
        zoom: Largest change of scale, of 1.
        rotation: Largest angle, in degrees.
        validation: This many of the last images only choose the epoch; at most one in twelve.
        training: The steps; its ``shift`` and ``noise`` are not used.
    """

    widths: tuple[int, int, int, int, int] = (16, 32, 48, 64, 96)
    features: int = 128
    dropout: float = 0.3
    shift: float = 2.5
    zoom: float = 0.1
    rotation: float = 12.0
    validation: int = 5000
    training: TrainingSpec = field(
        default_factory=lambda: TrainingSpec(
            epochs=14, batch=128, learning_rate=2e-3, weight_decay=0.02, shift=0
        )
    )

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self) | {"widths": list(self.widths)}


@final
class Classifier(nn.Module):
    """float32 (N, C, S, S) in [0, 1] to (N, F + K): features, followed by the logits of the classes."""

    def __init__(self, spec: ClassifierSpec, *, size: int, channels: int, classes: int) -> None:
        super().__init__()
        self.classes = classes
        steps: list[nn.Module] = []
        for index, (before, after) in enumerate(itertools.pairwise((channels, *spec.widths))):
            stride = 2 if index in (1, 3) else 1
            steps += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        side = -(-size // 4)
        self.convolutions = nn.Sequential(*steps)  # (N, C, S, S) -> (N, widths[-1], S/4, S/4)
        self.features = nn.Sequential(
            nn.Flatten(),
            nn.Linear(spec.widths[-1] * side**2, spec.features, bias=False),
            nn.BatchNorm1d(spec.features),
            nn.ReLU(),
        )
        self.dropout = nn.Dropout(spec.dropout)
        self.logits = nn.Linear(spec.features, classes)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, S, S) -> (N, F + K)."""
        features = self.features(self.convolutions(images))
        return torch.cat([features, self.logits(self.dropout(features))], 1)
