"""Teaching names: the run that makes the part of the latent that tells people apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lookalike.trainer.data.dataset import Split
from lookalike.trainer.loop.loop import Objective, Run
from lookalike.trainer.loop.progress import run_epochs
from lookalike.trainer.models.identity import (
    CosineClassifier,
    Identity,
    IdentitySampler,
    IdentitySpec,
    area_under_roc,
)

__all__ = ["train_identity"]

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
