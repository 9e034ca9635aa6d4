"""The texture descriptor: a part of the latent for search that says what an image shows, not where.

For images that are not framed alike, such as materials: the cells of :mod:`descriptor` are compared place by
place.

1. At full, half and quarter size: local contrast normalization, and the responses of a bank of filters that
   is learned from patches. Positive and negative responses are separate features.
2. Means over the whole image of the responses and of their products (the Gram matrix; Gatys, Ecker & Bethge,
   "Texture Synthesis Using Convolutional Neural Networks", NIPS 2015), square roots taken as for histograms.
3. Contrast at each scale, mean and deviation of color.
4. Features are scaled to unit variance and reduced by PCA, but not whitened: of few images most directions
   are chance, and whitened they would count as much as those that tell images apart.
5. Directions are weighted by how little they change between augmented versions of one image, and between
   images of one class where classes are known, with a ridge.

Legend: N images, C channels, H = W = S pixels, F filters, P features, E dimensions, G groups of features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final, Self, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, relu

from lookalike.encoder.errors import InvalidArgumentError
from lookalike.trainer.data import AugmentConfig, augment, chunked, subsample, to_floats
from lookalike.trainer.models.autoencoder import principal_axes
from lookalike.trainer.models.descriptor import LocalContrastNorm, learn_filters

Images = NDArray[np.uint8]

_SMALLEST: Final = 16
"""Side in pixels of the smallest scale."""
_SCALES: Final = 3
_WINDOW_OF: Final = 64
"""Contrast is normalized in the same window of pixels at each scale, that of an image with this side."""
_MOST_IMAGES: Final = 8192
"""Images that it is fitted to: their features are in memory, 14 kB each with each view."""
_MIN_DEVIATION: Final = 1e-4
"""Added to the deviation of a feature: what varies less is rounding."""
VIEWS: Final = AugmentConfig(
    shift=0.25, zoom=0.3, rotation=20.0, brightness=0.15, color=0.1, noise=0.02, blurred=0.3
)
"""What a photograph of the same material may change, far more than a face that is framed alike."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TextureSpec:
    """Shape of the texture descriptor and how it is fitted.

    Attributes:
        size: S.
        channels: C.
        dim: Largest E; lower where the training images have fewer dimensions.
        filters: F.
        patch: Side of a filter in pixels, odd.
        views: Augmented versions of each image.
        ridge: Added to the variance within an image's views, as a share of the mean variance.
    """

    size: int
    channels: int = 3
    dim: int = 64
    filters: int = 16
    patch: int = 7
    views: int = 3
    ridge: float = 0.1

    def __post_init__(self) -> None:
        if self.size < _SMALLEST:
            raise InvalidArgumentError(
                f"a descriptor needs images of {_SMALLEST} pixels or more, not {self.size}; "
                "take a larger --size, or --texture 0"
            )
        if min(self.channels, self.dim, self.filters, self.views) < 1 or not self.ridge > 0:
            raise InvalidArgumentError(
                f"channels, dim, filters, views and ridge must be positive, got {self}"
            )
        if self.patch % 2 == 0 or self.patch >= _SMALLEST:
            raise InvalidArgumentError(
                f"the side of a filter must be odd and below {_SMALLEST}, not {self.patch}"
            )

    @property
    def scales(self) -> int:
        """How many scales are used, 1 to 3."""
        return next(n for n in range(_SCALES, 0, -1) if self.size >> (n - 1) >= _SMALLEST)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"kind": "texture"} | asdict(self)


@final
class TextureDescriptor(nn.Module):
    """float32 (N, C, S, S) in [0, 1] to (N, E)."""

    products: Tensor
    opponents: Tensor

    def __init__(self, spec: TextureSpec) -> None:
        super().__init__()
        self.spec = spec
        self.contrast = LocalContrastNorm(_WINDOW_OF)
        self.filters = nn.Conv2d(1, spec.filters, spec.patch, bias=False)
        count = 2 * spec.filters
        self.register_buffer("products", torch.triu(torch.ones(count, count)).flatten().nonzero()[:, 0])
        self.register_buffer("opponents", _opponent_axes(spec.channels))
        with torch.no_grad():
            values = sum(
                part.shape[1] for part in self.groups(torch.zeros(1, spec.channels, *2 * [spec.size]))
            )
        self.project = nn.Linear(values, spec.dim)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, S, S) -> (N, P) -> (N, E)."""
        vectors: Tensor = self.project(torch.cat(self.groups(images), 1))
        return vectors

    def groups(self, images: Tensor) -> list[Tensor]:
        """Return G groups of features, (N, P_1) to (N, P_G)."""
        found: list[Tensor] = []
        for scale in range(self.spec.scales):
            gray = (avg_pool2d(images, 2**scale) if scale else images).mean(1, keepdim=True)
            response = conv2d(self.contrast(gray), self.filters.weight)  # (N, F, H', W')
            signed = torch.cat([relu(response), relu(-response)], 1).flatten(2)  # (N, 2F, H' W')
            gram = signed @ signed.transpose(1, 2) / signed.shape[2]  # (N, 2F, 2F)
            found += [
                (signed.mean(2) + 1e-4).sqrt(),
                (gram.flatten(1).index_select(1, self.products) + 1e-5).sqrt(),
                _contrasts(gray),
            ]
        colors = conv2d(images, self.opponents).flatten(2)  # (N, C, H W)
        mean = colors.mean(2)
        deviation = ((colors - mean[:, :, None]).square().mean(2) + 1e-6).sqrt()
        return [*found, torch.cat([mean, deviation], 1)]

    @classmethod
    @torch.no_grad()
    def fit(
        cls,
        spec: TextureSpec,
        images: Images,
        indices: NDArray[np.int64],
        *,
        labels: NDArray[np.int64] | None = None,
        seed: int = 0,
        on_progress: Callable[[int], object] = lambda _: None,
    ) -> Self:
        """Fit to ``images[indices]``, uint8 (M, S, S, C).

        Args:
            spec: Its shape; E shrinks where the images have fewer dimensions.
            images: All M images.
            indices: Which to fit to.
            labels: int64 (M,), the class of each image, -1 if unknown; only those at ``indices`` are used.
            seed: Of the patches, the filters' start and the augmentation.
            on_progress: Called with the number of images of each finished batch.

        Raises:
            InvalidArgumentError: the images do not vary.
        """
        generator = torch.Generator().manual_seed(seed)
        fresh = cls(spec)
        chosen = subsample(indices, _MOST_IMAGES)
        bank = {"count": spec.filters, "side": spec.patch}
        fresh.filters.weight.copy_(learn_filters(fresh.contrast, images, indices, generator, **bank))
        members = []
        for rows in chunked(chosen):
            batch = to_floats(images[rows])
            views = (augment(batch, generator, VIEWS) for _ in range(spec.views))
            own = [(a + b) / 2 for a, b in zip(fresh.groups(batch), fresh.groups(batch.flip(3)), strict=True)]
            members.append(torch.stack([torch.cat(each, 1) for each in (own, *map(fresh.groups, views))]))
            on_progress(len(rows))
        features = torch.cat(members, 1)  # (1 + views, N, P)
        if not features[0].std(0).max() > _MIN_DEVIATION:
            raise InvalidArgumentError("a descriptor needs training images that vary, these are all the same")
        mean, scale = features[0].mean(0), fresh._scale(features[0])
        points = (features - mean) * scale
        count = min(spec.dim, points.shape[1] - 1, points.shape[2])
        _, axes, spread = principal_axes(points[0], count, seed=seed)
        axes = axes[axes.square().sum(1) > 0.5]  # others do not vary
        reduced = points @ axes.T  # (1 + views, N, E)
        known = None if labels is None else torch.from_numpy(labels[chosen])
        change = _mean_diagonal_one(_within_views(reduced) + _within_classes(reduced[0], known))
        small, directions = torch.linalg.eigh(change + spec.ridge * torch.eye(len(change)))
        matrix = axes.T @ (directions / small.sqrt())  # (P, E)
        matrix = scale[:, None] * matrix / spread.square().mean().sqrt()
        fresh.project = nn.Linear(*matrix.shape)
        fresh.project.weight.copy_(matrix.T)
        fresh.project.bias.copy_(-mean @ matrix)
        return fresh.eval()

    def _scale(self, features: Tensor) -> Tensor:
        """Return (P,), factors by which each group of features has a total variance of 1."""
        sizes = [
            part.shape[1] for part in self.groups(torch.zeros(1, self.spec.channels, *2 * [self.spec.size]))
        ]
        share = torch.cat([torch.full((size,), size**-0.5) for size in sizes])
        return share / (features.std(0) + _MIN_DEVIATION)


def _contrasts(gray: Tensor) -> Tensor:
    """Return (N, 3) of (N, 1, H, W): logarithms of the deviation and of the mean steps right and down."""
    deviation = ((gray - gray.mean((2, 3), keepdim=True)).square().mean((2, 3)) + 1e-6).sqrt()
    right = (gray[:, :, :, 1:] - gray[:, :, :, :-1]).abs().mean((2, 3))
    down = (gray[:, :, 1:] - gray[:, :, :-1]).abs().mean((2, 3))
    return (torch.cat([deviation, right, down], 1) + 1e-3).log()


def _opponent_axes(channels: int) -> Tensor:
    """Return (C, C, 1, 1): brightness, red against blue, green against both; else as it is."""
    axes = torch.eye(channels)
    if channels == 3:
        axes = torch.tensor([[1 / 3, 1 / 3, 1 / 3], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])
    return axes[:, :, None, None]


def _within_views(points: Tensor) -> Tensor:
    """Return (E, E), the covariance between the versions of an image, of (versions, N, E), of trace E."""
    centered = (points - points.mean(0)).flatten(0, 1)
    return _mean_diagonal_one(centered.T @ centered)


def _within_classes(points: Tensor, labels: Tensor | None) -> Tensor:
    """Return (E, E), the covariance between images (N, E) of a class, of trace E; zero without classes."""
    total = torch.zeros(points.shape[1], points.shape[1])
    if labels is None:
        return total
    for label in set(labels.tolist()) - {-1}:
        if (labels == label).sum() > 1:
            members = points[labels == label]
            centered = members - members.mean(0)
            total += centered.T @ centered
    return _mean_diagonal_one(total)


def _mean_diagonal_one(covariance: Tensor) -> Tensor:
    """Scale to a mean variance of 1; zero stays zero."""
    return covariance / covariance.diagonal().mean().clamp(min=1e-12)
