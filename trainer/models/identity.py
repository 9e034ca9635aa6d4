"""The part of the latent that tells people apart: convolutions, taught with names.

Legend: N images, B of them in a batch, C channels, S pixels a side (R with room),
K people, E numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize

from lookalike.encoder.errors import DataError, InvalidArgumentError
from lookalike.encoder.images.preprocess import ImageSpec
from lookalike.encoder.metrics import roc_auc
from lookalike.trainer.config import IDENTITY_CONFIG, TrainingSpec
from lookalike.trainer.data.augment import AugmentConfig, augment
from lookalike.trainer.data.batches import chunked, to_floats
from lookalike.trainer.fitting.calibration import pair_scores
from lookalike.trainer.models.contrast import LocalContrastNorm
from lookalike.trainer.objectives.losses import cosface_loss

__all__ = ["CosineClassifier", "Identity", "IdentitySampler", "IdentitySpec", "area_under_roc", "padded_spec"]

Images = NDArray[np.uint8]
_ROOM: Final = 0.2


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


def padded_spec(image: ImageSpec) -> ImageSpec:
    """Return the spec with a fifth of the side more on each, where the pictures have it to show.

    What is moved and turned into view is then the picture's, not its repeated edge.
    """
    margin = round(_ROOM * image.size)
    factor = 1 + 2 * margin / image.size
    if image.crop.window is not None or image.crop.fraction * factor > 1:
        return image
    return replace(image, size=image.size + 2 * margin, crop=image.crop.widened(factor))


@final
class IdentitySampler:
    """The pictures that names are taught with.

    Attributes:
        count: K.
    """

    def __init__(
        self, images: Images, rows: NDArray[np.int64], names: Sequence[str], spec: IdentitySpec
    ) -> None:
        """Take them.

        Args:
            images: uint8 (M, R, R, C) of :func:`padded_spec`, of which some are taught with.
            rows: int64 (N,), which of them.
            names: M names, of all images.
            spec: How to teach.

        Raises:
            DataError: nobody has two pictures, or there is one person.
        """
        self._images, self._rows, self._spec = images, rows, spec
        who, self._labels, counts = np.unique(
            [names[row] for row in rows], return_inverse=True, return_counts=True
        )
        self.count = len(who)
        if self.count < 2 or counts.max() < 2:
            found = f"{self.count} people and at most {counts.max()} pictures of one"
            raise DataError(
                "--labels person needs a subfolder each for two people or more, and two pictures of one; "
                f"{len(rows)} training images have {found}; sort them into subfolders, or take --labels none"
            )
        self._shown = int(np.minimum(counts, spec.most).sum())

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return -(-self._shown // self._spec.training.batch)

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield views float32 (B, 1, S, S) and who it is, int64 (B,); the same whenever an epoch is drawn."""
        seed = self._spec.training.seed
        rng = np.random.default_rng((seed, epoch))
        source = torch.Generator().manual_seed(int(rng.integers(2**62)))
        order = rng.permutation(len(self._rows))
        order = order[_turn(self._labels[order]) < self._spec.most]
        for some in np.array_split(order, self.steps):
            grey = to_floats(self._images[self._rows[some]]).mean(1, keepdim=True)
            yield (
                augment(grey, source, self._spec.views, size=self._spec.size),
                torch.from_numpy(self._labels[some]),
            )

    def loss(self, cosines: Tensor, people: Tensor, progress: float) -> Tensor:
        """The large margin cosine loss; its margin is whole after a third of the training."""
        margin = self._spec.margin * min(1.0, 3 * progress)
        return cosface_loss(cosines, people, scale=self._spec.scale, margin=margin)


def _turn(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each label how many of the same came before it."""
    order = np.argsort(labels, kind="stable")
    _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    turns = np.empty(len(labels), np.int64)
    turns[order] = np.arange(len(labels)) - np.repeat(starts, counts)
    return turns


@torch.no_grad()
def area_under_roc(
    network: Identity, images: Images, rows: NDArray[np.int64], names: Sequence[str], *, device: torch.device
) -> float:
    """Return how often two pictures of one person are more alike than those of two, NaN where nobody has two.

    Each picture counts with its mirror image, as in search; ties count half.

    Args:
        network: Pictures to numbers.
        images: uint8 (M, S, S, C).
        rows: int64 (N,), which of them.
        names: M names.
        device: Where the network is.
    """
    network.eval()
    found = []
    for some in chunked(rows):
        batch = to_floats(images[some]).to(device)
        found.append(normalize(network(batch) + network(batch.flip(3))).cpu())
    pairs = pair_scores(torch.cat(found).numpy(), [names[row] for row in rows])
    if not len(pairs.matched) or not len(pairs.mismatched):
        return math.nan
    scores = np.concatenate([pairs.matched, pairs.mismatched])
    return roc_auc(scores, np.arange(len(scores)) < len(pairs.matched))
