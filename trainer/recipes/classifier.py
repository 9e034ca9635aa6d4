"""Train an independent classifier of images, which evaluates generated images.

It never sees a generated image. Its last hidden layer is the feature space in which Fréchet distance,
precision and recall are measured, as Inception's is for photographs (M. Heusel et al.: GANs Trained by a Two
Time-Scale Update Rule Converge to a Local Nash Equilibrium. NeurIPS 2017).

Legend: N images, B of them in a batch, C channels, S side, K classes, F features.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample

from lookalike.encoder.bundle import AffineMap, Bundle, BundleSpec, LatentStatistics
from lookalike.encoder.datasets import cache_folder, only_one
from lookalike.encoder.errors import BundleError, InvalidArgumentError
from lookalike.encoder.export.torch_export import OPSET, export_graphs
from lookalike.encoder.images import Crop, ImageSpec
from lookalike.trainer.data import chunked, to_floats
from lookalike.trainer.loop import Objective, Run, run_epochs
from lookalike.trainer.models import Classifier, ClassifierSpec

Images = NDArray[np.uint8]
Labels = NDArray[np.integer]
_VERSION: Final = 1  # of this recipe; part of the cache key
_VALIDATION: Final = 12  # at most one image in so many is for validation


def cached_classifier(
    images: Images,
    labels: Labels,
    classes: tuple[str, ...],
    spec: ClassifierSpec | None = None,
    *,
    log: Callable[[str], None] = lambda _: None,
) -> Bundle:
    """Return the classifier of these images from the user's cache; train it first if it is not there.

    The cache holds a bundle, keyed by a digest of the images, the labels and the spec. A training that was
    killed is resumed by the next call.

    Args:
        images: uint8 (N, S, S, C).
        labels: Integers (N,), indices into ``classes``, at most 256 of them.
        classes: K names.
        spec: What to train.
        log: Called with each line of text.

    Raises:
        InvalidArgumentError: fewer than two classes, or fewer than 24 images.
        DataError: the cache cannot be written.
        TrainingError: the training fails.
    """
    spec = spec or ClassifierSpec()
    digest = hashlib.sha256(
        json.dumps([_VERSION, spec.to_json(), list(classes), images.shape], sort_keys=True).encode()
    )
    digest.update(np.ascontiguousarray(images).data)
    digest.update(labels.astype(np.uint8).data)
    folder = cache_folder() / "classifiers" / digest.hexdigest()[:16]
    with only_one(folder.parent):
        try:
            return Bundle.open(folder)
        except BundleError:
            return train_classifier(folder, images, labels, classes, spec, log=log)


def train_classifier(
    folder: Path,
    images: Images,
    labels: Labels,
    classes: tuple[str, ...],
    spec: ClassifierSpec,
    *,
    log: Callable[[str], None] = lambda _: None,
) -> Bundle:
    """Train the classifier, or resume its training, and write it as a bundle.

    Arguments are those of :func:`cached_classifier`. The bundle is of kind ``encoder``: its latents are the F
    features, followed by the K logits; its embeddings are the features.
    """
    if len(classes) < 2 or len(images) < 2 * _VALIDATION:
        raise InvalidArgumentError(
            f"a classifier needs two classes and {2 * _VALIDATION} images or more, "
            f"got {len(classes)} and {len(images)}; give more"
        )
    size, channels = images.shape[1], images.shape[3]
    torch.manual_seed(spec.training.seed)
    run = Run(
        folder.with_suffix(".run"),
        Classifier(spec, size=size, channels=channels, classes=len(classes)),
        spec.training,
        record={"classifier": spec.to_json(), "version": _VERSION},
        device=torch.device("cpu"),
    )
    if Run.unfinished(run.folder):
        run.resume()
    best = run_epochs(
        run,
        _objective(images, labels, len(classes), spec),
        metric="{:.4f}",
        log=lambda line: log(f"classifier: {line}"),
    )
    accuracy = max(validation for _, validation, _ in run.history)
    bundle = _save(folder, best, images, classes, spec, accuracy)
    Run.finish(run.folder)
    return bundle


def _objective(images: Images, labels: Labels, classes: int, spec: ClassifierSpec) -> Objective[Classifier]:
    """Return the objective of classifying all but the last images, measured on the last ones."""
    trained = len(images) - min(spec.validation, len(images) // _VALIDATION)
    validation = np.arange(trained, len(images))

    def loss(output: Tensor, target: Tensor, _: float) -> Tensor:
        return cross_entropy(output[:, -classes:], target)

    @torch.no_grad()
    def measure(network: Classifier) -> tuple[float, float]:
        network.eval()
        correct = sum(
            int((network(to_floats(images[rows]))[:, -classes:].argmax(1).numpy() == labels[rows]).sum())
            for rows in chunked(validation)
        )
        return correct / len(validation), math.nan  # the test images are not seen here

    return Objective(
        batches=lambda epoch: _batches(images[:trained], labels[:trained], spec, epoch),
        steps=-(-trained // spec.training.batch),
        loss=loss,
        measure=measure,
        metric="accuracy",
    )


def _batches(
    images: Images, labels: Labels, spec: ClassifierSpec, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield augmented images float32 (B, C, S, S) and classes int64 (B,); an epoch is always the same."""
    rng = np.random.default_rng((spec.training.seed, epoch))
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    order = rng.permutation(len(images))
    for rows in np.array_split(order, -(-len(order) // spec.training.batch)):
        yield (
            _augment(to_floats(images[rows]), generator, spec),
            torch.from_numpy(labels[rows].astype(np.int64)),
        )


def _augment(images: Tensor, generator: torch.Generator, spec: ClassifierSpec) -> Tensor:
    """Shift, rotate and scale each image at random; what comes into view is black."""
    count, _, side, _ = images.shape
    signed = 2 * torch.rand(4, count, generator=generator) - 1
    zoom, angle = 1 + spec.zoom * signed[0], math.radians(spec.rotation) * signed[1]
    cosine, sine = zoom * angle.cos(), zoom * angle.sin()
    right, down = 2 * spec.shift / side * signed[2], 2 * spec.shift / side * signed[3]
    maps = torch.stack(
        [torch.stack([cosine, -sine, right], 1), torch.stack([sine, cosine, down], 1)], 1
    )  # (B, 2, 3), from output to input coordinates
    grid = affine_grid(maps, list(images.shape), align_corners=False)
    return grid_sample(images, grid, padding_mode="zeros", align_corners=False)


class _NoDecoder(nn.Module):
    """(N, D) to black images (N, C, S, S): the exporter needs a decoder, a classifier has none."""

    def __init__(self, size: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("black", torch.zeros(1, channels, size, size))

    def forward(self, latents: Tensor) -> Tensor:
        black: Tensor = self.get_buffer("black")
        return latents[:, :1, None, None] * 0 + black


def _save(
    folder: Path,
    network: Classifier,
    images: Images,
    classes: tuple[str, ...],
    spec: ClassifierSpec,
    accuracy: float,
) -> Bundle:
    size, channels = images.shape[1], images.shape[3]
    latent = spec.features + len(classes)
    exported = export_graphs(network, _NoDecoder(size, channels), size=size, channels=channels, latent=latent)
    with torch.no_grad():
        latents = network(to_floats(images[:1000])).numpy()
    return Bundle.save(
        folder,
        spec=BundleSpec(
            kind="encoder",
            image=ImageSpec(size=size, channels=3 if channels == 3 else 1, crop=Crop(fraction=1.0)),
            latent=latent,
            embedding=spec.features,
            mirror=False,
            opset=OPSET,
            labels="class",
            classes=classes,
            training={"classifier": spec.to_json()},
            figures={"validation_accuracy": accuracy, "parity": exported.parity["encoder"]},
        ),
        graphs={"encoder": exported.graphs["encoder"]},
        statistics=LatentStatistics.from_latents(latents),
        affine=AffineMap(np.eye(spec.features, latent, dtype=np.float32), np.zeros(latent, np.float32)),
        golden={"pixels": images[:4], "latents": latents[:4]},
    )
