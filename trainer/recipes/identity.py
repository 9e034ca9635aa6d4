"""Train the identity network with people's names.

Legend: M images, N of them in a part, B in a batch, C channels, S pixels a side (R with padding), K people.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from lookalike.encoder.errors import DataError
from lookalike.encoder.images import ImageSpec
from lookalike.encoder.metrics import roc_auc
from lookalike.trainer.data import Dataset, augment, chunked, to_floats
from lookalike.trainer.fitting import pair_scores
from lookalike.trainer.loop import Objective, Run, RunInputs, run_epochs
from lookalike.trainer.models import CosineClassifier, Identity, IdentitySpec
from lookalike.trainer.objectives import cosface_loss

Images = NDArray[np.uint8]
_PADDING: Final = 0.2
_MEASURED: Final = 1000
"""Held-out images that an epoch's metric is measured on."""


def with_surroundings(dataset: Dataset, image: ImageSpec) -> tuple[Dataset, ImageSpec]:
    """Return how to read the images with a fifth of the side more on each side, if they have it to show.

    What augmentation moves into view is then the image's own surroundings, not its repeated edge.
    """
    margin = round(_PADDING * image.size)
    wide = replace(image, size=image.size + 2 * margin)
    if dataset.faces and dataset.frame is not None:
        return replace(dataset, frame=dataset.frame.widened(margin / image.size)), wide
    factor = wide.size / image.size
    if image.crop.window is not None or image.crop.fraction * factor > 1:
        return dataset, image
    return dataset, replace(wide, crop=image.crop.widened(factor))


@final
class IdentitySampler:
    """Batches of augmented images with the person on each.

    Attributes:
        count: K.
    """

    def __init__(
        self, images: Images, rows: NDArray[np.int64], names: Sequence[str], spec: IdentitySpec
    ) -> None:
        """Sample from the images at ``rows``.

        Args:
            images: uint8 (M, R, R, C) of :func:`with_surroundings`.
            rows: int64 (N,), the training images.
            names: M names, of all images.
            spec: How to train.

        Raises:
            DataError: no person has two images, or there is only one person.
        """
        self._images, self._rows, self._spec = images, rows, spec
        people, self._labels, counts = np.unique(
            [names[row] for row in rows], return_inverse=True, return_counts=True
        )
        self.count = len(people)
        if self.count < 2 or counts.max() < 2:
            raise DataError(
                "--subfolders person needs a subfolder each for two people or more, and two images of one; "
                f"{len(rows)} training images have {self.count} people and at most {counts.max()} images of "
                "one; sort them into subfolders, or take --subfolders none"
            )
        self._shown = int(np.minimum(counts, spec.max_per_class).sum())

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return -(-self._shown // self._spec.training.batch)

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images float32 (B, 1, S, S) and people int64 (B,); the same epoch is always the same."""
        rng = np.random.default_rng((self._spec.training.seed, epoch))
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        order = rng.permutation(len(self._rows))
        order = order[_occurrences(self._labels[order]) < self._spec.max_per_class]
        for chosen in np.array_split(order, self.steps):
            gray = to_floats(self._images[self._rows[chosen]]).mean(1, keepdim=True)
            yield (
                augment(gray, generator, self._spec.augment, size=self._spec.size),
                torch.from_numpy(self._labels[chosen]),
            )

    def loss(self, cosines: Tensor, people: Tensor, progress: float) -> Tensor:
        """Return the large margin cosine loss; the margin grows over the first third of the training."""
        margin = self._spec.margin * min(1.0, 3 * progress)
        return cosface_loss(cosines, people, scale=self._spec.scale, margin=margin)


def _occurrences(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each label how many of the same came before it."""
    order = np.argsort(labels, kind="stable")
    _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    before = np.empty(len(labels), np.int64)
    before[order] = np.arange(len(labels)) - np.repeat(starts, counts)
    return before


def train_identity(
    inputs: RunInputs,
    sampler: IdentitySampler,
    names: Sequence[str],
    spec: IdentitySpec,
    record: Mapping[str, Any],
) -> Identity:
    """Train or resume, in the run's subfolder ``identity``; keep the best epoch on the validation people.

    Args:
        inputs: Of the whole run.
        sampler: The training images.
        names: M names, of all images.
        spec: What to train, and how.
        record: Of the whole run.

    Raises:
        TrainingError: the run cannot be resumed, or the loss is not finite.
    """
    folder, images, split = inputs.folder / "identity", inputs.pixels.images, inputs.split
    torch.manual_seed(spec.training.seed)
    start = CosineClassifier(Identity(spec), sampler.count)
    run = Run(folder, start, spec.training, record=record, device=inputs.device)
    if Run.unfinished(folder):
        run.resume()
    inputs.log(f"identity network: {sampler.count} people, {run.done} of {spec.training.epochs} epochs done")
    parts = split.validation, split.held_out[:_MEASURED]  # neighbors in the list are of one person

    def measure(network: CosineClassifier) -> tuple[float, float]:
        validation, held_out = (
            area_under_roc(network.identity, images, rows, names, device=inputs.device) for rows in parts
        )
        return validation, held_out

    objective = Objective(
        batches=sampler.batches, steps=sampler.steps, loss=sampler.loss, measure=measure, metric="auc"
    )
    return run_epochs(run, objective, metric="AUC {:.3f}", log=inputs.log).identity


@torch.no_grad()
def area_under_roc(
    network: Identity, images: Images, rows: NDArray[np.int64], names: Sequence[str], *, device: torch.device
) -> float:
    """Return how often a pair of one person scores above one of two people, NaN without pairs of one person.

    Each image is averaged with its mirror image, as in search; ties count half.

    Args:
        network: The identity network.
        images: uint8 (M, S, S, C).
        rows: int64 (N,), which of them.
        names: M names.
        device: Where the network is.
    """
    network.eval()
    vectors = []
    for chunk in chunked(rows):
        batch = to_floats(images[chunk]).to(device)
        vectors.append(normalize(network(batch) + network(batch.flip(3))).cpu())
    pairs = pair_scores(torch.cat(vectors).numpy(), [names[row] for row in rows])
    if not len(pairs.matched) or not len(pairs.mismatched):
        return math.nan
    matched = np.arange(len(pairs.matched) + len(pairs.mismatched)) < len(pairs.matched)
    return roc_auc(np.concatenate([pairs.matched, pairs.mismatched]), matched)
