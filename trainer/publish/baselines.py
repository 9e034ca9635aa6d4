"""What a search finds without the trained model: is the training worth it? For small sets it may not be.

Legend: N images, S side, C channels, E embedding size.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from lookalike.encoder.images import Crop, encode_pnm, read_pixels
from lookalike.encoder.runtime import Model
from lookalike.trainer.data import Split, chunked, to_floats
from lookalike.trainer.models import principal_axes

Images = NDArray[np.uint8]
Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
_SHIPPED: Final = "faces"
_MOST: Final = 2000
"""Images up to which the shipped model is tried, too: a minute at most."""
_AXES: Final = 64
_LOCAL_AXES: Final = 256
_CELLS: Final = 8
_PATTERNS: Final = 59
"""Of eight neighbors: 58 uniform ones, and all others together."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """What a search without the trained model finds.

    Attributes:
        name: What compares the images.
        recall_at_1: As of the trained model, see :func:`recall_at_1`.
        advice: How to use it.
    """

    name: str
    recall_at_1: float
    advice: str


def measure_baselines(
    images: Images, names: Sequence[str], split: Split, *, shipped: bool = True
) -> list[Baseline]:
    """Return what pixels, local patterns and the shipped model find of the held-out images.

    Local patterns (LBP and HOG, if scikit-image is installed) and the shipped model only of few images.

    Args:
        images: uint8 (N, S, S, C).
        names: The person or class on each image.
        split: The parts they belong to.
        shipped: Whether the shipped model may be compared: not where it was trained on these images.
    """
    found = []
    pixels = recall_at_1(_pixels_embedder(images, split), names, split)
    if pixels is not None:
        found.append(
            Baseline("pixels (whitened PCA)", pixels, "train with more images, or use another model")
        )
    if len(images) <= _MOST and importlib.util.find_spec("skimage") is not None:
        patterns = recall_at_1(_patterns_embedder(images, split), names, split)
        if patterns is not None:
            found.append(
                Baseline(
                    "LBP and HOG (whitened PCA)", patterns, "train with more images, or use another model"
                )
            )
    if shipped and len(images) <= _MOST:
        faces = recall_at_1(lambda rows: _shipped_embeddings(images[rows]), names, split)
        if faces is not None:
            advice = f"use --model {_SHIPPED} --crop full, or a general model (lookalike models add)"
            found.append(Baseline(f"the shipped model {_SHIPPED}, --crop full", faces, advice))
    return found


def comparison_lines(recall: float, baselines: Sequence[Baseline]) -> list[str]:
    """Return a line for each baseline, and one that says so where the model finds less than the best."""
    lines = [f"  {each.name}: {each.recall_at_1:.1%}" for each in baselines]
    best = max(baselines, key=lambda each: each.recall_at_1, default=None)
    if best is not None and best.recall_at_1 > recall:
        lines.append(
            f"warning: for search this model is worse than {best.name} ({recall:.1%} to "
            f"{best.recall_at_1:.1%}); {best.advice}"
        )
    return lines


def recall_at_1(embed: Callable[[Rows], Floats], names: Sequence[str], split: Split) -> float | None:
    """Search all other images for each held-out image: the share whose nearest one has the same name.

    None where no held-out image has another of its name.

    Args:
        embed: Rows of images to float32 (N, E) of unit length.
        names: The person or class on each image.
        split: The parts they belong to.
    """
    rows = np.concatenate([split.train, split.validation, split.held_out])
    named = np.array([names[row] for row in rows])
    unique, counts = np.unique(named, return_counts=True)
    searchable = np.flatnonzero(np.isin(named, unique[counts > 1]))
    queries = searchable[searchable >= len(rows) - len(split.held_out)]
    if not len(queries):
        return None
    embeddings = embed(rows)
    correct = 0
    for chunk in chunked(queries):
        similarity = embeddings[chunk] @ embeddings.T
        similarity[np.arange(len(chunk)), chunk] = -2
        correct += int((named[similarity.argmax(1)] == named[chunk]).sum())
    return correct / len(queries)


def names_of(people: Sequence[str], classes: Sequence[str], labels: Sequence[int]) -> Sequence[str]:
    """Return what images are searched by: their class where they have one, else their person."""
    if not classes:
        return people
    return [person if label < 0 else f"class {label}" for person, label in zip(people, labels, strict=True)]


def _pixels_embedder(images: Images, split: Split) -> Callable[[Rows], Floats]:
    count = max(1, min(_AXES, len(split.train) // 4))
    some = split.train[: _MOST * 2]
    mean, axes, spread = principal_axes(to_floats(images[some]).flatten(1), count)

    def embed(rows: Rows) -> Floats:
        parts = [(to_floats(images[some]).flatten(1) - mean) @ axes.T / spread for some in chunked(rows)]
        return np.asarray(torch.nn.functional.normalize(torch.cat(parts)).numpy(), np.float32)

    return embed


def _patterns_embedder(images: Images, split: Split) -> Callable[[Rows], Floats]:
    """Local binary patterns (Ahonen et al., 2006) and oriented gradients, each whitened, mirrors averaged."""
    parts = []
    for features in (_local_binary_patterns, _oriented_gradients):
        fitted = torch.from_numpy(features(images[split.train]))
        count = max(1, min(_LOCAL_AXES, len(fitted) - 1))
        parts.append((features, *principal_axes(fitted, count)))

    def embed(rows: Rows) -> Floats:
        vectors = []
        for features, mean, axes, spread in parts:
            both = [torch.from_numpy(features(each)) for each in (images[rows], images[rows][:, :, ::-1])]
            projected = sum((each - mean) @ axes.T / spread for each in both)
            vectors.append(torch.nn.functional.normalize(torch.as_tensor(projected)))
        joined: Floats = (torch.cat(vectors, 1) / len(vectors) ** 0.5).numpy()
        return joined

    return embed


def _local_binary_patterns(images: Images) -> Floats:
    """Return square roots of the patterns' shares in 8 x 8 cells, float32 (N, 64 * 59), of (N, S, S, C)."""
    from skimage.feature import local_binary_pattern

    patterns: Callable[..., NDArray[np.float64]] = local_binary_pattern
    rows = []
    cell = np.arange(images.shape[1]) * _CELLS // images.shape[1]
    places = (cell[:, None] * _CELLS + cell) * _PATTERNS
    for image in _gray(images):
        codes = patterns(image, 8, 1, "nri_uniform").astype(np.int64)
        rows.append(np.bincount((places + codes).ravel(), minlength=_CELLS * _CELLS * _PATTERNS))
    shares: Floats = np.sqrt(np.stack(rows) / images[0, :, :, 0].size).astype(np.float32)
    return shares


def _oriented_gradients(images: Images) -> Floats:
    """Return float32 (N, 7 * 7 * 36) of uint8 (N, S, S, C); nine orientations in 8 x 8 cells."""
    from skimage.feature import hog

    side = max(1, images.shape[1] // _CELLS)
    size = {"orientations": 9, "pixels_per_cell": (side, side), "cells_per_block": (2, 2)}
    gradients: Floats = np.stack([hog(image, **size) for image in _gray(images)]).astype(np.float32)
    return gradients


def _gray(images: Images) -> Images:
    gray: Images = np.rint(images.mean(3)).astype(np.uint8)
    return gray


@cache
def _shipped() -> Model:
    return Model.open(_SHIPPED)


def _shipped_embeddings(images: Images) -> Floats:
    """Return embeddings float32 (N, E) of whole images, uint8 (N, S, S, C)."""
    model = _shipped()
    spec, whole = model.bundle.spec.image, Crop()
    pixels = [read_pixels(encode_pnm(image), spec, crop=whole, name="image") for image in images]
    return model.embed(np.stack(pixels))
