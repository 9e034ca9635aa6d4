"""Teaching names: the run that makes the part of the latent that tells people apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize

from lookalike.encoder.errors import DataError
from lookalike.encoder.images.preprocess import ImageSpec
from lookalike.trainer.data.augment import augment
from lookalike.trainer.data.batches import chunked, to_floats
from lookalike.trainer.data.dataset import Split
from lookalike.trainer.fitting.calibration import pair_scores
from lookalike.trainer.loop.loop import Objective, Run
from lookalike.trainer.loop.progress import run_epochs
from lookalike.trainer.models.identity import CosineClassifier, Identity, IdentitySpec
from lookalike.trainer.objectives.losses import cosface_loss

Images = NDArray[np.uint8]
_ROOM: Final = 0.2
_MEASURED: Final = 1000
"""Held-out images that an epoch's figure is measured on."""


def train_identity(
    folder: Path,
    people: IdentitySampler,
    images: NDArray[np.uint8],
    names: Sequence[str],
    split: Split,
    spec: IdentitySpec,
    identity: Mapping[str, Any],
    *,
    device: torch.device,
    say: Callable[[str], None],
) -> Identity:
    """Train, or go on with the run in ``folder``; keep the epoch that tells validation people apart best.

    Args:
        folder: Of the run's checkpoints and log.csv.
        people: Whose names are taught.
        images: uint8 (N, S, S, C), to measure with.
        names: N names.
        split: Who is measured.
        spec: What to train.
        identity: What the run is.
        device: Where to train.
        say: Takes a line for people.

    Raises:
        TrainingError: the run cannot be resumed, or the loss is not finite.
    """
    torch.manual_seed(spec.training.seed)
    run = Run(folder, CosineClassifier(Identity(spec), people.count), spec.training, device=device)
    if Run.unfinished(folder):
        run.resume(identity)
    say(f"names of {people.count} people, {run.done} of {spec.training.epochs} epochs done")
    some = split.held_out[:_MEASURED]  # neighbours in the list: of one person

    def measure(network: nn.Module) -> tuple[float, float]:
        validation, held_out = (
            area_under_roc(_identity(network), images, rows, names, device=device)
            for rows in (split.validation, some)
        )
        return validation, held_out

    task = Objective(
        batches=people.batches, steps=people.steps, loss=people.loss, measure=measure, figure="auc"
    )
    for _ in run_epochs(run, task, identity=identity, written="AUC {:.3f}", say=say):
        pass
    return _identity(run.take_best())


def _identity(module: nn.Module) -> Identity:
    if not isinstance(module, CosineClassifier):  # what AveragedModel wraps is typed as any module
        raise TypeError(type(module).__name__)
    return module.identity


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
    others = np.sort(pairs.mismatched)
    below = np.searchsorted(others, pairs.matched, "left") + np.searchsorted(others, pairs.matched, "right")
    return float(below.mean() / (2 * len(others)))
