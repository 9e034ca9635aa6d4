"""The descriptor: the part of the latent for search that is fitted to images alone, in closed form.

For images that are framed alike, such as faces; :mod:`texture` is for others.

1. Local contrast normalization.
2. A bank of filters is learned from patches: spherical k-means (Coates & Ng, "Learning Feature
   Representations with K-means", 2012). Positive and negative responses are separate features.
3. Responses are averaged over overlapping cells; their square root is taken, as for histograms.
4. PCA whitens the cells (as in PCANet; Chan et al., IEEE TIP 24, 2015).
5. Directions are weighted by how little they change between augmented versions of one image: within-class
   covariance normalization (Hatch, Kajarekar & Stolcke, Interspeech 2006) where each image is its own class
   and :func:`augment` makes its members. The first ``dim`` directions are kept.

Legend: N images, C channels, H = W = S pixels, F filters, P = 2 F x cells, K components, E dimensions.
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
from lookalike.trainer.data import augment, chunked, subsample, to_floats
from lookalike.trainer.models.autoencoder import principal_axes

Images = NDArray[np.uint8]

_MAX_CELLS: Final = 16  # across
_MAX_VALUES: Final = 1 << 28
"""PCA is fitted to this many values at most (1 GiB): 16,384 images and their mirror images."""
_MIN_SPREAD: Final = 1e-4
"""Cells of about 1 whose standard deviation is below this differ by rounding only."""
_CONTRAST_WINDOW: Final = 3 / 64
"""Standard deviation of the Gaussian window, as a share of the side."""
_MIN_CONTRAST: Final = 0.02
"""Contrast below this, of 1, is not amplified."""
_PATCHES: Final = 60_000
_PATCH_IMAGES: Final = 4096
_KMEANS_ROUNDS: Final = 30
_PATCH_VARIANCE: Final = 0.97
"""Share of a patch's variance that the filters are learned in; the rest is noise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DescriptorSpec:
    """Shape of the descriptor and how it is fitted.

    Attributes:
        size: S.
        dim: Largest E; lower where the training images have fewer dimensions.
        filters: F.
        patch: Side of a filter in pixels, odd.
        components: Largest K.
        views: Augmented versions of each image, besides the image and its mirror image.
        ridge: Added to the variance between views, as a share of the variance between images: without it a
            direction that never changes would weigh infinitely much.
    """

    size: int
    dim: int = 256
    filters: int = 16
    patch: int = 7
    components: int = 1500
    views: int = 4
    ridge: float = 0.1

    def __post_init__(self) -> None:
        if self.size < 16:
            raise InvalidArgumentError(
                f"a descriptor needs images of 16 pixels or more, not {self.size}; "
                "take a larger --size or --descriptor 0"
            )
        if min(self.dim, self.filters, self.components, self.views) < 1 or not self.ridge > 0:
            raise InvalidArgumentError(
                f"dim, filters, components, views and ridge must be positive, got {self}"
            )
        if self.patch % 2 == 0:
            raise InvalidArgumentError(f"the side of a filter must be odd, not {self.patch}")

    @property
    def step(self) -> int:
        """Distance between two cells, in filter responses."""
        return -(-((self.size + 1) // 2) // _MAX_CELLS)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


@final
class LocalContrastNorm(nn.Module):
    """float32 (N, C, S, S) in [0, 1] to gray (N, 1, S, S) of zero mean and unit deviation around each pixel.

    A divisive normalization (Jarrett et al., "What is the best multi-stage architecture for object
    recognition?", ICCV 2009) with a Gaussian window.
    """

    kernel: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("kernel", _gaussian(_CONTRAST_WINDOW * size))

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, S, S) -> (N, 1, S, S)."""
        gray = images.mean(1, keepdim=True)
        centered = gray - self._local_mean(gray)
        return centered / (self._local_mean(centered * centered) + _MIN_CONTRAST**2).sqrt()

    def _local_mean(self, images: Tensor) -> Tensor:
        radius = len(self.kernel) // 2
        padded = pad(images, 4 * (radius,), mode="reflect")
        rows = conv2d(padded, self.kernel.view(1, 1, 1, -1))
        return conv2d(rows, self.kernel.view(1, 1, -1, 1))


def _gaussian(deviation: float) -> Tensor:
    """Return a Gaussian window of odd length, three deviations each way, of sum 1."""
    radius = int(3 * deviation + 0.5)
    window = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / deviation) ** 2)
    return window / window.sum()


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
        self.project = nn.Linear(values, spec.dim)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, S, S) -> (N, P) -> (N, E)."""
        vectors: Tensor = self.project(self.cells(images))
        return vectors

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
        """Fit to ``images[indices]``, uint8 (N, S, S, C).

        Args:
            spec: Its shape; E and K shrink where the images have fewer dimensions.
            images: All images.
            indices: Which to fit to.
            seed: Of the patches, the filters' start and the augmentation.
            on_progress: Called with the number of images of each finished batch.

        Raises:
            InvalidArgumentError: the images do not vary.
        """
        generator = torch.Generator().manual_seed(seed)
        fresh = cls(spec)
        bank = {"count": spec.filters, "side": spec.patch}
        fresh.filters.weight.copy_(learn_filters(fresh.contrast, images, indices, generator, **bank))
        chosen = subsample(indices, _MAX_VALUES // (2 * fresh.project.in_features))
        cells = torch.cat(
            [fresh.cells(each) for batch in _floats(images, chosen) for each in (batch, batch.flip(3))]
        )
        count = min(spec.components, len(cells) - 1, cells.shape[1])
        mean, axes, spread = principal_axes(cells, count, seed=seed)
        if not spread[0] > _MIN_SPREAD:
            raise InvalidArgumentError("a descriptor needs training images that vary, these are all the same")
        real = axes.square().sum(1) > 0.5
        white = (axes[real] / spread[real, None]).T  # (P, K)
        change = fresh._view_covariance(images, chosen, (mean, white), generator, on_progress)
        small, directions = torch.linalg.eigh(change + spec.ridge * torch.eye(len(change)))
        keep = min(spec.dim, len(small))
        matrix = white @ (directions[:, :keep] / small[:keep].sqrt())  # (P, E), ascending by change
        fresh.project = nn.Linear(*matrix.shape)
        fresh.project.weight.copy_(matrix.T)
        fresh.project.bias.copy_(-mean @ matrix)
        return fresh.eval()

    def _view_covariance(
        self,
        images: Images,
        indices: NDArray[np.int64],
        whitening: tuple[Tensor, Tensor],
        generator: torch.Generator,
        on_progress: Callable[[int], object],
    ) -> Tensor:
        """Return (K, K), the covariance of whitened cells between the views of an image."""
        mean, white = whitening
        total = torch.zeros(white.shape[1], white.shape[1])
        members = self.spec.views + 2
        for batch in _floats(images, indices):
            views = [batch, batch.flip(3), *(augment(batch, generator) for _ in range(self.spec.views))]
            points = torch.stack([(self.cells(each) - mean) @ white for each in views])  # (views, B, K)
            centered = (points - points.mean(0)).flatten(0, 1)
            total += centered.T @ centered
            on_progress(len(batch))
        return total / (len(indices) * members)


def learn_filters(
    contrast: nn.Module,
    images: Images,
    indices: NDArray[np.int64],
    generator: torch.Generator,
    *,
    count: int,
    side: int,
) -> Tensor:
    """Return F filters (F, 1, side, side) of unit length, by spherical k-means of whitened patches.

    Args:
        contrast: Normalizes the contrast of float32 (B, C, S, S), to (B, 1, S, S).
        images: uint8 (N, S, S, C).
        indices: Those to learn from.
        generator: Source of the patches and of the filters' start.
        count: F.
        side: In pixels.
    """
    patches = _patches(contrast, images, indices, generator, side)  # (M, side * side)
    variance, axes = torch.linalg.eigh(patches.T @ patches / len(patches))
    variance, axes = variance.flip(0), axes.flip(1)
    keep = max(1, int((variance.cumsum(0) < _PATCH_VARIANCE * variance.sum()).sum()))
    deviation = variance[:keep].clamp(min=1e-12).sqrt()
    points = normalize(patches @ axes[:, :keep] / deviation)
    centers = normalize(torch.randn(count, keep, generator=generator))
    for _ in range(_KMEANS_ROUNDS):
        similarity = points @ centers.T  # (M, F); a patch and its negative belong to one filter
        nearest = similarity.abs().argmax(1)
        signs = similarity.gather(1, nearest[:, None]).sign()
        moved = torch.zeros_like(centers).index_add_(0, nearest, points * signs)
        restart = 1e-6 * torch.randn(moved.shape, generator=generator)  # for a center without patches
        centers = normalize(moved + restart)
    return normalize(centers @ (axes[:, :keep] * deviation).T).view(-1, 1, side, side)


def _patches(
    contrast: nn.Module,
    images: Images,
    indices: NDArray[np.int64],
    generator: torch.Generator,
    side: int,
) -> Tensor:
    """Return patches (M, side * side) of zero mean from contrast-normalized images, from all positions."""
    last = images.shape[1] - side + 1
    cut = []
    for batch in _floats(images, subsample(indices, _PATCH_IMAGES)):
        normalized = contrast(batch)
        for _ in range(max(1, _PATCHES // _PATCH_IMAGES)):
            top, left = (int(torch.randint(last, (1,), generator=generator).item()) for _ in range(2))
            cut.append(normalized[:, 0, top : top + side, left : left + side].flatten(1))
    patches = torch.cat(cut)
    return patches - patches.mean(1, keepdim=True)


def _floats(images: Images, indices: NDArray[np.int64]) -> Iterator[Tensor]:
    return (to_floats(images[rows]) for rows in chunked(indices))
