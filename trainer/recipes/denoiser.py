"""Training a cleaner from images to bundle: the steps in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lookalike.encoder.bundle.bundle import Bundle
from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.images.noise import NoiseSpec
from lookalike.encoder.text import printable
from lookalike.trainer.config import Device, TrainingSpec
from lookalike.trainer.data.batches import subsample
from lookalike.trainer.data.dataset import Dataset, Split
from lookalike.trainer.data.patches import PatchSpec, Source, noisy_batches, photographs, sources_of, views_of
from lookalike.trainer.loop.loop import Objective, Run, pick_device
from lookalike.trainer.loop.optim import muon
from lookalike.trainer.loop.progress import run_epochs
from lookalike.trainer.loop.setup import prepare_run
from lookalike.trainer.models.denoiser import BlindDenoiser, DenoiserOutput, DenoiserShape
from lookalike.trainer.objectives.losses import denoising_loss, estimation_loss
from lookalike.trainer.publish.denoiser import (
    DenoiserMetrics,
    export_bundle,
    measure_levels,
    psnr_known_sigma,
)

__all__ = ["denoising_objective", "train_denoiser"]

_MEASURED: Final = 64
"""Images that an epoch's figure is measured on; the bundle's is measured on more."""
_FEWEST: Final = 1024
"""Patches in an epoch at least: of a few large pictures many can be cut."""
_PHOTOGRAPHS: Final = 0.1
"""Share of the patches that come from scikit-learn's photographs, beside the faces of LFW."""


def train_denoiser(
    dataset: Dataset,
    out: Path,
    *,
    shape: DenoiserShape,
    patches: PatchSpec,
    noise: NoiseSpec,
    spec: TrainingSpec,
    device: Device = "auto",
    resume: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[Bundle, DenoiserMetrics]:
    """Train, keep the epoch of the highest PSNR on the validation images, write the bundle.

    Args:
        dataset: What to learn from.
        out: Folder of the bundle; ``out.run`` beside it holds checkpoints and log.csv.
        shape: Sizes of the networks.
        patches: How patches are cut.
        noise: What is put on them; Gaussian.
        spec: How to train; its ``noise`` and ``shift`` are not used.
        device: Where to train.
        resume: Go on with the run in ``out.run``; without one there, begin.
        say: Takes a line for people.

    Raises:
        TrainingError: an unfinished run is in the way, or cannot be resumed, or the loss is not finite.
        InvalidArgumentError: something that is no bundle stands at ``out``, the noise is not Gaussian, or a patch is
            larger than the pictures.
        DataError: too few images.
        ExportError: ONNX and torch disagree.
    """
    if noise.kind != "gaussian" or noise.is_zero:
        raise InvalidArgumentError(
            f"a cleaner learns to take off Gaussian noise, got {noise}; take a SIGMA or LO:HI of 255, "
            "or an autoencoder for other kinds"
        )
    where = pick_device(device)
    views = views_of(dataset)
    opened = prepare_run(dataset, out, next(iter(views)), resume=resume, say=say)
    sources, fingerprints = sources_of(dataset, views, opened.split.train, side=patches.side)
    if dataset.name == "lfw":
        extra = photographs(side=patches.side)
        sources.append(Source(extra, np.arange(len(extra)), _PHOTOGRAPHS))
    identity = opened.identity | {
        "views": fingerprints,
        "network": shape.to_json(),
        "patches": asdict(patches),
        "noise": noise.to_json(),
        "training": spec.to_json(),
    }
    torch.manual_seed(spec.seed)
    # With the channels last a step on small patches takes half the time in bfloat16; on large ones the same.
    start = BlindDenoiser(shape).to(memory_format=torch.channels_last)
    say(
        f"{dataset.name}: {len(opened.split.train)} training, {len(opened.split.validation)} validation and "
        f"{len(opened.split.held_out)} held-out images; "
        f"{sum(weight.numel() for weight in start.parameters()):,} weights; training on {where.type}"
    )
    run = Run(opened.folder, start, spec, device=where, optimizer=muon)
    if opened.going_on:
        run.resume(identity)
        say(f"resuming after epoch {run.done} of {spec.epochs}")
    task = denoising_objective(
        sources, opened.pixels.images, opened.split, patches, noise, spec, device=where
    )
    for _ in run_epochs(run, task, identity=identity, written="{:.2f} dB", say=say):
        pass
    bundle, figures = export_bundle(
        _blind(run.take_best()),
        out,
        images=opened.pixels.images,
        split=opened.split,
        low=noise.low,
        high=noise.high,
        training=identity,
        device=where,
    )
    Run.finish(opened.folder)
    for level in figures.levels:
        say(
            f"held-out PSNR at sigma {255 * level.sigma:.0f}: {level.noisy:.2f} dB, cleaned "
            f"{level.told:.2f}, blind {level.blind:.2f} (estimate {255 * level.estimate:.1f})"
        )
    say(f"model {bundle.model_id[:12]} is in {printable(str(out))}")
    return bundle, figures


def denoising_objective(
    sources: Sequence[Source],
    images: NDArray[np.uint8],
    split: Split,
    patches: PatchSpec,
    noise: NoiseSpec,
    spec: TrainingSpec,
    *,
    device: torch.device,
) -> Objective:
    """Return the task of giving back clean patches and of telling how noisy they were.

    An epoch shows as many patches as there are training images, and some at least. Its figure is the PSNR in
    dB at two sigmas, told, on some of the validation images, and on as many of those held out.

    Args:
        sources: What patches are cut from.
        images: uint8 (N, S, S, C), to measure on.
        split: Which of them.
        patches: How patches are cut.
        noise: What is put on them.
        spec: How many are shown.
        device: Where the network is.
    """
    steps = -(-max(len(split.train), _FEWEST) // spec.batch)
    chosen = [subsample(part, _MEASURED) for part in (split.validation, split.held_out)]

    def shown_in(epoch: int) -> Iterator[tuple[tuple[Tensor, Tensor], Tensor]]:
        for noisy, sigma, clean in noisy_batches(
            sources,
            patches,
            low=noise.low,
            high=noise.high,
            size=spec.batch,
            steps=steps,
            seed=spec.seed,
            epoch=epoch,
        ):
            yield (noisy.contiguous(memory_format=torch.channels_last), sigma), clean

    def loss(made: DenoiserOutput, clean: Tensor, _: float) -> Tensor:
        cleaned = denoising_loss(made.cleaned, clean, made.sigma)
        return cleaned + estimation_loss(made.estimated, made.sigma)

    def measure(network: nn.Module) -> tuple[float, float]:
        blind = _blind(network)
        levels = measure_levels(noise.low, noise.high)
        validation, held_out = (
            float(np.mean([psnr_known_sigma(blind, images, rows, each, device=device) for each in levels]))
            for rows in chosen
        )
        return validation, held_out

    return Objective(batches=shown_in, steps=steps, loss=loss, measure=measure, figure="psnr_db")


def _blind(module: nn.Module) -> BlindDenoiser:
    if not isinstance(module, BlindDenoiser):  # what AveragedModel wraps is typed as any module
        raise TypeError(type(module).__name__)
    return module
