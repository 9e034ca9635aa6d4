"""The part of the latent that is searched by: learned from pictures alone, without names, in closed form.

1. LocalContrastNorm is evened out around each pixel (a divisive normalisation).
2. A bank of filters is learned from patches: spherical k-means (Coates & Ng, "Learning Feature
   Representations with K-means", 2012). Rising and falling responses are kept apart.
3. Responses are averaged over overlapping cells; their square root is taken, as for histograms.
4. PCA whitens the cells (as in PCANet; Chan et al., IEEE TIP 24, 2015).
5. Directions are weighed by how little they change between views of one picture: within-class covariance
   normalisation (Hatch, Kajarekar & Stolcke, Interspeech 2006) where each picture is its own class and
   :func:`augment` makes its members. The first ``numbers`` directions stay.

Legend: N images, C channels, H = W = S pixels, F filters, P = 2 F x cells, K components, E numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final, Self, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, normalize, pad, relu

from lookalike.encoder.errors import InvalidArgumentError
from lookalike.trainer.data.augment import augment
from lookalike.trainer.data.batches import chunked, subsample, to_floats
from lookalike.trainer.models.autoencoder import principal_axes

Images = NDArray[np.uint8]

_MOST_CELLS: Final = 16  # across
_MOST_VALUES: Final = 1 << 28
"""The PCA is fitted to so many values at most (1 GiB): 16,384 images and their mirror images."""
_VARIES: Final = 1e-4
"""Cells that deviate less than this, of about 1, differ by rounding."""
_AROUND: Final = 3 / 64
"""Deviation of the window, of the side."""
_DARK: Final = 0.02
"""LocalContrastNorm under this, of 1, is not amplified."""
_PATCHES: Final = 60_000
_ROUNDS: Final = 30
_KEPT: Final = 0.97
"""Share of a patch's variance that the filters are learned in; the rest is noise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DescriptorSpec:
    """Shape of the descriptor and how it is fitted.

    Attributes:
        size: S.
        numbers: E at most; fewer where the training images have fewer dimensions.
        filters: F.
        patch: Side of a filter in pixels, odd.
        components: K at most.
        views: Views of each picture that tell what changes, its mirror image and itself not counted.
        ridge: Added to the change between views, of the variance between pictures: a direction that no view
            changes would weigh infinitely much.
    """

    size: int
    numbers: int = 256
    filters: int = 16
    patch: int = 7
    components: int = 1500
    views: int = 4
    ridge: float = 0.1

    def __post_init__(self) -> None:
        if self.size < 16:
            raise InvalidArgumentError(
                f"a descriptor needs pictures of 16 pixels or more, not {self.size}; "
                "take a larger --size or --descriptor 0"
            )
        if min(self.numbers, self.filters, self.components, self.views) < 1 or not self.ridge > 0:
            raise InvalidArgumentError(
                f"numbers, filters, components, views and ridge must be positive, got {self}"
            )
        if self.patch % 2 == 0:
            raise InvalidArgumentError(f"the side of a filter must be odd, not {self.patch}")

    @property
    def step(self) -> int:
        """Responses between two cells."""
        return -(-((self.size + 1) // 2) // _MOST_CELLS)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


@final
class LocalContrastNorm(nn.Module):
    """float32 (N, C, S, S) in [0, 1] to grey (N, 1, S, S) of zero mean and unit deviation around a pixel.

    A divisive normalisation (Jarrett et al., "What is the best multi-stage architecture for object
    recognition?", ICCV 2009) with a Gaussian window.
    """

    kernel: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("kernel", _bell(_AROUND * size))

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, S, S) -> (N, 1, S, S)."""
        grey = images.mean(1, keepdim=True)
        apart = grey - self._around(grey)
        return apart / (self._around(apart * apart) + _DARK**2).sqrt()

    def _around(self, images: Tensor) -> Tensor:
        radius = len(self.kernel) // 2
        edged = pad(images, 4 * (radius,), mode="reflect")
        across = conv2d(edged, self.kernel.view(1, 1, 1, -1))
        return conv2d(across, self.kernel.view(1, 1, -1, 1))


def _bell(deviation: float) -> Tensor:
    """Return a Gaussian of odd length, three deviations each way, of sum 1."""
    radius = int(3 * deviation + 0.5)
    bell = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / deviation) ** 2)
    return bell / bell.sum()


@final
class Descriptor(nn.Module):
    """float32 (N, C, S, S) in [0, 1] to (N, E) of about unit variance."""

    def __init__(self, spec: DescriptorSpec) -> None:
        super().__init__()
        self.spec = spec
        self.contrast = LocalContrastNorm(spec.size)
        self.filters = nn.Conv2d(1, spec.filters, spec.patch, 2, spec.patch // 2, bias=False)
        with torch.no_grad():
            values = self.cells(torch.zeros(1, 1, spec.size, spec.size)).shape[1]
        self.project = nn.Linear(values, spec.numbers)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, S, S) -> (N, P) -> (N, E)."""
        numbers: Tensor = self.project(self.cells(images))
        return numbers

    def cells(self, images: Tensor) -> Tensor:
        """Return (N, P), the square roots of the filters' mean responses in overlapping cells."""
        response = self.filters(self.contrast(images))  # (N, F, S/2, S/2)
        signed = torch.cat([relu(response), relu(-response)], 1)
        step = self.spec.step
        cells = avg_pool2d(pad(signed, 4 * (step // 2,), mode="reflect"), 2 * step, step)
        return (cells + 1e-4).sqrt().flatten(1)

    @classmethod
    @torch.no_grad()
    def fit(
        cls,
        spec: DescriptorSpec,
        images: Images,
        indices: NDArray[np.int64],
        *,
        seed: int = 0,
        on_progress: Callable[[int], object] = lambda _: None,
    ) -> Self:
        """Learn from ``images[indices]``, uint8 (N, S, S, C).

        Args:
            spec: Its shape; E and K shrink where the images have fewer dimensions.
            images: All images.
            indices: Which to learn from.
            seed: Of the patches, the filters' start and the views.
            on_progress: Told of each batch of pictures whose views were seen.

        Raises:
            InvalidArgumentError: the images do not vary.
        """
        source = torch.Generator().manual_seed(seed)
        fresh = cls(spec)
        fresh.filters.weight.copy_(_filters(fresh, images, indices, source))
        chosen = subsample(indices, _MOST_VALUES // (2 * fresh.project.in_features))
        cells = torch.cat(
            [fresh.cells(each) for batch in _floats(images, chosen) for each in (batch, batch.flip(3))]
        )
        count = min(spec.components, len(cells) - 1, cells.shape[1])
        mean, axes, spread = principal_axes(cells, count, seed=seed)
        if not spread[0] > _VARIES:
            raise InvalidArgumentError("a descriptor is learned from pictures that vary, these are all alike")
        real = axes.square().sum(1) > 0.5
        white = (axes[real] / spread[real, None]).T  # (P, K)
        change = fresh._change(images, chosen, (mean, white), source, on_progress)
        small, directions = torch.linalg.eigh(change + spec.ridge * torch.eye(len(change)))
        keep = min(spec.numbers, len(small))
        matrix = white @ (directions[:, :keep] / small[:keep].sqrt())  # (P, E), what changes least first
        fresh.project = nn.Linear(*matrix.shape)
        fresh.project.weight.copy_(matrix.T)
        fresh.project.bias.copy_(-mean @ matrix)
        return fresh.eval()

    def _change(
        self,
        images: Images,
        indices: NDArray[np.int64],
        whitening: tuple[Tensor, Tensor],
        source: torch.Generator,
        on_progress: Callable[[int], object],
    ) -> Tensor:
        """Return (K, K), the covariance of whitened cells between the views of a picture."""
        mean, white = whitening
        total = torch.zeros(white.shape[1], white.shape[1])
        members = self.spec.views + 2
        for batch in _floats(images, indices):
            seen = [batch, batch.flip(3), *(augment(batch, source) for _ in range(self.spec.views))]
            points = torch.stack([(self.cells(each) - mean) @ white for each in seen])  # (views, B, K)
            apart = (points - points.mean(0)).flatten(0, 1)
            total += apart.T @ apart
            on_progress(len(batch))
        return total / (len(indices) * members)


def _filters(
    descriptor: Descriptor, images: Images, indices: NDArray[np.int64], source: torch.Generator
) -> Tensor:
    """Return (F, 1, patch, patch) of unit length, by spherical k-means of whitened patches."""
    spec = descriptor.spec
    patches = _patches(descriptor, images, indices, source)  # (M, patch * patch)
    variance, axes = torch.linalg.eigh(patches.T @ patches / len(patches))
    variance, axes = variance.flip(0), axes.flip(1)
    keep = max(1, int((variance.cumsum(0) < _KEPT * variance.sum()).sum()))
    deviation = variance[:keep].clamp(min=1e-12).sqrt()
    points = normalize(patches @ axes[:, :keep] / deviation)
    centres = normalize(torch.randn(spec.filters, keep, generator=source))
    for _ in range(_ROUNDS):
        likeness = points @ centres.T  # (M, F); a patch and its negative are of one filter
        nearest = likeness.abs().argmax(1)
        signs = likeness.gather(1, nearest[:, None]).sign()
        moved = torch.zeros_like(centres).index_add_(0, nearest, points * signs)
        rest = 1e-6 * torch.randn(moved.shape, generator=source)  # a centre without patches starts anew
        centres = normalize(moved + rest)
    return normalize(centres @ (axes[:, :keep] * deviation).T).view(-1, 1, spec.patch, spec.patch)


def _patches(
    descriptor: Descriptor, images: Images, indices: NDArray[np.int64], source: torch.Generator
) -> Tensor:
    """Return contrast patches (M, patch * patch) of zero mean from all over the pictures."""
    side, size = descriptor.spec.patch, descriptor.spec.size
    found = []
    for batch in _floats(images, subsample(indices, 4096)):
        contrast = descriptor.contrast(batch)
        for _ in range(max(1, _PATCHES // 4096)):
            top, left = (int(torch.randint(size - side + 1, (1,), generator=source).item()) for _ in range(2))
            found.append(contrast[:, 0, top : top + side, left : left + side].flatten(1))
    patches = torch.cat(found)
    return patches - patches.mean(1, keepdim=True)


def _floats(images: Images, indices: NDArray[np.int64]) -> Iterator[Tensor]:
    return (to_floats(images[rows]) for rows in chunked(indices))
