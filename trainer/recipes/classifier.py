"""An independent classifier that says what generated pictures show: a small convolutional network.

It never sees a picture that a model drew. Its last hidden layer is the space in which Fréchet distance,
precision and recall are measured, as Inception's is for photographs (M. Heusel et al.: GANs Trained by a Two
Time-Scale Update Rule Converge to a Local Nash Equilibrium. NeurIPS 2017).

Legend: N images, B of them in a batch, C channels, S side, K classes, F features.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample
from tqdm import tqdm

from lookalike.encoder.bundle.bundle import Bundle
from lookalike.encoder.bundle.spec import BundleSpec
from lookalike.encoder.bundle.whitening import AffineMap, LatentStatistics
from lookalike.encoder.datasets.download import cache_folder, only_one
from lookalike.encoder.errors import BundleError, InvalidArgumentError
from lookalike.encoder.export.torch_export import OPSET, export_graphs
from lookalike.encoder.images.preprocess import Crop, ImageSpec
from lookalike.trainer.data.batches import chunked, to_floats
from lookalike.trainer.loop.loop import Objective, Run
from lookalike.trainer.models.classifier import Classifier, ClassifierSpec

Images = NDArray[np.uint8]
Labels = NDArray[np.integer]
_VERSION: Final = 1  # of what is trained here; part of the key of what is cached
_TAUGHT: Final = 12  # of so many images one is for validation, at most


def cached_classifier(
    images: Images,
    labels: Labels,
    classes: tuple[str, ...],
    spec: ClassifierSpec | None = None,
    *,
    say: Callable[[str], None] = lambda _: None,
) -> Bundle:
    """Return the judge of these images from the user's cache, trained first where it is not there.

    It is kept as a bundle, under a digest of the images, the labels and the spec. A training that was killed
    goes on when asked for again.

    Args:
        images: uint8 (N, S, S, C).
        labels: whole numbers (N,), places in ``classes``, at most 256 of them.
        classes: K names.
        spec: What to train.
        say: Takes a line for people.

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
    folder = cache_folder() / "judges" / digest.hexdigest()[:16]
    with only_one(folder.parent):
        try:
            return Bundle.open(folder)
        except BundleError:
            return train_classifier(folder, images, labels, classes, spec, say=say)


def train_classifier(
    folder: Path,
    images: Images,
    labels: Labels,
    classes: tuple[str, ...],
    spec: ClassifierSpec,
    *,
    say: Callable[[str], None] = lambda _: None,
) -> Bundle:
    """Train the classifier, or go on with it, and write it as a bundle; arguments as of :func:`cached_classifier`.

    The bundle is of kind ``encoder``: its latents are the F features and behind them the K logits, its
    embeddings the features.
    """
    if len(classes) < 2 or len(images) < 2 * _TAUGHT:
        raise InvalidArgumentError(
            f"a judge needs two classes and {2 * _TAUGHT} images or more, "
            f"got {len(classes)} and {len(images)}; give more"
        )
    network, accuracy = _trained(folder.with_suffix(".run"), images, labels, len(classes), spec, say)
    bundle = _saved(folder, network, images, classes, spec, accuracy)
    Run.finish(folder.with_suffix(".run"))
    return bundle


def _trained(
    folder: Path,
    images: Images,
    labels: Labels,
    classes: int,
    spec: ClassifierSpec,
    say: Callable[[str], None],
) -> tuple[Classifier, float]:
    """Return the network at its best epoch and its share of right validation images."""
    size, channels = images.shape[1], images.shape[3]
    taught = len(images) - min(spec.validation, len(images) // _TAUGHT)
    torch.manual_seed(spec.training.seed)
    network = Classifier(spec, size=size, channels=channels, classes=classes)
    run = Run(folder, network, spec.training, device=torch.device("cpu"))
    identity = {"judge": spec.to_json(), "version": _VERSION}
    if Run.unfinished(folder):
        run.resume(identity)
    validation = np.arange(taught, len(images))

    def loss(made: Tensor, targets: Tensor, _progress: float) -> Tensor:
        return cross_entropy(made[:, -classes:], targets)

    def measure(judge: nn.Module) -> tuple[float, float]:
        return _accuracy(judge, images, labels, validation, classes), math.nan  # the test is never seen here

    steps = -(-taught // spec.training.batch)
    task = Objective(
        batches=lambda epoch: _batches(images[:taught], labels[:taught], spec, epoch),
        steps=steps,
        loss=loss,
        measure=measure,
        figure="accuracy",
    )
    began = time.monotonic()
    total = steps * spec.training.epochs
    with tqdm(desc="judge", total=total, initial=run.step, unit="step", disable=None, leave=False) as bar:

        def advance(_loss: float) -> None:
            bar.update()

        for epoch in run.fit(task, identity=identity, on_step=advance):
            say(
                f"judge: epoch {epoch.number}/{spec.training.epochs}  "
                f"validation {epoch.validation:.4f}  {time.monotonic() - began:.0f} s"
            )
    best = run.take_best()
    if not isinstance(best, Classifier):  # what AveragedModel wraps is typed as any module
        raise TypeError(type(best).__name__)
    return best, max(validated for _, validated, _ in run.history)


def _batches(
    images: Images, labels: Labels, spec: ClassifierSpec, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield moved pictures float32 (B, C, S, S) and classes int64 (B,), the same whenever it is asked."""
    rng = np.random.default_rng((spec.training.seed, epoch))
    source = torch.Generator().manual_seed(int(rng.integers(2**62)))
    order = rng.permutation(len(images))
    for rows in np.array_split(order, -(-len(order) // spec.training.batch)):
        yield _moved(to_floats(images[rows]), source, spec), torch.from_numpy(labels[rows].astype(np.int64))


def _moved(images: Tensor, source: torch.Generator, spec: ClassifierSpec) -> Tensor:
    """Move, turn and scale each picture by amounts of its own; what comes in is black."""
    count, _, side, _ = images.shape
    signed = 2 * torch.rand(4, count, generator=source) - 1
    zoom, angle = 1 + spec.zoom * signed[0], math.radians(spec.turn) * signed[1]
    cosine, sine = zoom * angle.cos(), zoom * angle.sin()
    across, along = 2 * spec.shift / side * signed[2], 2 * spec.shift / side * signed[3]
    places = torch.stack(
        [torch.stack([cosine, -sine, across], 1), torch.stack([sine, cosine, along], 1)], 1
    )  # (B, 2, 3), from where a pixel goes to where it comes from
    grid = affine_grid(places, list(images.shape), align_corners=False)
    return grid_sample(images, grid, padding_mode="zeros", align_corners=False)


@torch.no_grad()
def _accuracy(
    judge: nn.Module, images: Images, labels: Labels, rows: NDArray[np.int64], classes: int
) -> float:
    judge.eval()
    right = sum(
        int((judge(to_floats(images[some]))[:, -classes:].argmax(1).numpy() == labels[some]).sum())
        for some in chunked(rows)
    )
    return right / len(rows)


class _Black(nn.Module):
    """(N, D) to black pictures (N, C, S, S): the exporter wants a decoder, a judge has none."""

    def __init__(self, size: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("picture", torch.zeros(1, channels, size, size))

    def forward(self, latents: Tensor) -> Tensor:
        picture: Tensor = self.get_buffer("picture")
        return latents[:, :1, None, None] * 0 + picture


def _saved(
    folder: Path,
    network: Classifier,
    images: Images,
    classes: tuple[str, ...],
    spec: ClassifierSpec,
    accuracy: float,
) -> Bundle:
    size, channels = images.shape[1], images.shape[3]
    latent = spec.features + len(classes)
    exported = export_graphs(network, _Black(size, channels), size=size, channels=channels, latent=latent)
    with torch.no_grad():
        latents = network(to_floats(images[:1000])).numpy()
    zero = np.zeros(latent, np.float32)
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
            training={"judge": spec.to_json()},
            figures={"validation_accuracy": accuracy, "parity": exported.parity["encoder"]},
        ),
        graphs={"encoder": exported.graphs["encoder"]},
        statistics=LatentStatistics.from_latents(latents),
        affine=AffineMap(np.eye(spec.features, latent, dtype=np.float32), zero),
        golden={"pixels": images[:4], "latents": latents[:4]},
    )
