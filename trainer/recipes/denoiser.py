"""Train a denoiser, from images to bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lookalike.encoder.bundle import Bundle
from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.images import NoiseSpec
from lookalike.trainer.config import DenoiserShape, Device, PatchSpec, TrainingSpec
from lookalike.trainer.data import (
    Dataset,
    Source,
    Split,
    noisy_batches,
    photographs,
    sources_of,
    subsample,
    views_of,
)
from lookalike.trainer.loop import Objective, muon, prepare_run, run_epochs
from lookalike.trainer.models import BlindDenoiser, DenoiserOutput
from lookalike.trainer.objectives import denoising_loss, estimation_loss
from lookalike.trainer.publish.denoiser import (
    DenoiserMetrics,
    export_bundle,
    measure_levels,
    psnr_known_sigma,
)

_MEASURED: Final = 64
"""Images that an epoch's metric is measured on; the bundle's is measured on more."""
_MIN_PATCHES: Final = 1024
"""Patches in an epoch at least: many can be cut from a few large images."""
_PHOTOGRAPHS: Final = 0.1
"""Share of the patches from scikit-learn's photographs, in addition to LFW's faces."""


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
    log: Callable[[str], None] = lambda _: None,
) -> tuple[Bundle, DenoiserMetrics]:
    """Train, keep the epoch with the highest PSNR on the validation images, write the bundle.

    Args:
        dataset: The training data.
        out: Folder of the bundle; ``out.run`` beside it holds the checkpoint and log.csv.
        shape: Sizes of the networks.
        patches: How patches are cut.
        noise: Added to them; Gaussian.
        spec: How to train; its ``noise`` and ``shift`` are not used.
        device: Where to train.
        resume: Whether to resume the run in ``out.run``; if there is none, it starts.
        log: Called with each line of text.

    Raises:
        TrainingError: an unfinished run is in the way, or cannot be resumed, or the loss is not finite.
        InvalidArgumentError: ``out`` is something other than a bundle, the noise is not Gaussian, or a patch
            is larger than the images.
        DataError: too few images.
        ExportError: ONNX and torch disagree.
    """
    if noise.kind != "gaussian" or noise.is_zero:
        raise InvalidArgumentError(
            f"a denoiser is trained on Gaussian noise, got {noise}; take a SIGMA or LO:HI of 255, "
            "or train an autoencoder for other kinds"
        )
    views = views_of(dataset)
    inputs = prepare_run(dataset, out, next(iter(views)), device=device, resume=resume, log=log)
    images, split = inputs.pixels.images, inputs.split
    sources, fingerprints = sources_of(dataset, views, split.train, side=patches.side)
    if dataset.name == "lfw":
        extra = photographs(side=patches.side)
        sources.append(Source(extra, np.arange(len(extra)), _PHOTOGRAPHS))
    record = inputs.record | {
        "views": fingerprints,
        "network": shape.to_json(),
        "patches": asdict(patches),
        "noise": noise.to_json(),
        "training": spec.to_json(),
    }
    torch.manual_seed(spec.seed)
    # With the channels last a step on small patches takes half the time in bfloat16; on large ones the same.
    start = BlindDenoiser(shape).to(memory_format=torch.channels_last)
    log(
        f"{dataset.name}: {len(split.train)} training, {len(split.validation)} validation and "
        f"{len(split.held_out)} held-out images; "
        f"{sum(weight.numel() for weight in start.parameters()):,} weights; training on {inputs.device.type}"
    )
    best = run_epochs(
        inputs.start(start, spec, record, optimizer=muon),
        denoising_objective(sources, images, split, patches, noise, spec, device=inputs.device),
        metric="{:.2f} dB",
        log=log,
    )
    bundle, metrics = export_bundle(
        best,
        out,
        images=images,
        split=split,
        low=noise.low,
        high=noise.high,
        training=record,
        device=inputs.device,
    )
    for level in metrics.levels:
        log(level.summary())
    inputs.finish(bundle.model_id)
    return bundle, metrics


def denoising_objective(
    sources: Sequence[Source],
    images: NDArray[np.uint8],
    split: Split,
    patches: PatchSpec,
    noise: NoiseSpec,
    spec: TrainingSpec,
    *,
    device: torch.device,
) -> Objective[BlindDenoiser]:
    """Return the objective of denoising patches and of estimating their noise level.

    An epoch has as many patches as there are training images, but at least 1,024. Its metric is the mean PSNR
    in dB at two known sigmas, on some validation images and on as many held-out ones.

    Args:
        sources: Images to cut patches from.
        images: uint8 (N, S, S, C), to measure on.
        split: The parts they belong to.
        patches: How patches are cut.
        noise: Added to them.
        spec: Batch size and seed.
        device: Where the network is.
    """
    steps = -(-max(len(split.train), _MIN_PATCHES) // spec.batch)
    parts = [subsample(part, _MEASURED) for part in (split.validation, split.held_out)]
    sigmas = measure_levels(noise.low, noise.high)

    def batches(epoch: int) -> Iterator[tuple[tuple[Tensor, Tensor], Tensor]]:
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

    def loss(output: DenoiserOutput, clean: Tensor, _: float) -> Tensor:
        denoising = denoising_loss(output.denoised, clean, output.sigma)
        return denoising + estimation_loss(output.estimated, output.sigma)

    def measure(network: BlindDenoiser) -> tuple[float, float]:
        validation, held_out = (
            float(
                np.mean([psnr_known_sigma(network, images, rows, sigma, device=device) for sigma in sigmas])
            )
            for rows in parts
        )
        return validation, held_out

    return Objective(batches=batches, steps=steps, loss=loss, measure=measure, metric="psnr_db")
