"""Train the vanilla autoencoder or the face model, from images to bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from lookalike.encoder.bundle import Bundle
from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.images import ImageSpec
from lookalike.trainer.config import AESpec, Device, TrainingSpec
from lookalike.trainer.data import Dataset, batches, read_pixel_cache
from lookalike.trainer.loop import Objective, RunInputs, prepare_run, run_epochs
from lookalike.trainer.models import (
    AE,
    Descriptor,
    DescriptorSpec,
    FaceModel,
    IdentitySpec,
    TextureDescriptor,
    TextureSpec,
)
from lookalike.trainer.objectives import mean_squared_error
from lookalike.trainer.publish.ae import (
    AEMetrics,
    export_bundle,
    pca_psnr,
    reconstruction_psnr,
    sample_saver,
    with_mirrored,
)
from lookalike.trainer.publish.baselines import comparison_lines, measure_baselines, names_of
from lookalike.trainer.recipes.identity import IdentitySampler, train_identity, with_surroundings

_MEASURED: Final = 1000
"""Held-out images that an epoch's metric is measured on; the bundle's is measured on all."""


def train_autoencoder(
    dataset: Dataset,
    out: Path,
    *,
    image: ImageSpec,
    network: AESpec,
    spec: TrainingSpec,
    descriptor: DescriptorSpec | None = None,
    texture: TextureSpec | None = None,
    identity: IdentitySpec | None = None,
    device: Device = "auto",
    sample_every: int = 0,
    resume: bool = False,
    log: Callable[[str], None] = lambda _: None,
) -> tuple[Bundle, AEMetrics]:
    """Train, keep the best epoch on the validation people, write the bundle.

    Args:
        dataset: The training data.
        out: Folder of the bundle; ``out.run`` beside it holds the checkpoint, log.csv and sample images.
        image: How images become pixels.
        network: Shape of the autoencoder.
        spec: How to train it.
        descriptor: The part of the latent for search that is fitted to images alone; None: without.
        texture: The part for images that are not framed alike, which is fitted to images, and to their
            classes where they have some; None: without.
        identity: The part that is trained with people's names; None: without. Without these three parts, the
            whole latent is compared.
        device: Where to train.
        sample_every: Epochs between two sheets of held-out reconstructions; 0: none.
        resume: Whether to resume the run in ``out.run``; if there is none, it starts.
        log: Called with each line of text.

    Raises:
        TrainingError: an unfinished run is in the way, or cannot be resumed, or the loss is not finite.
        InvalidArgumentError: ``out`` is something other than a bundle, or a descriptor or an identity network
            is requested for images that must not be mirrored.
        DataError: too few images or people.
        ExportError: ONNX and torch disagree.
    """
    mirror = dataset.mirrored
    if not mirror and any(part is not None for part in (descriptor, texture, identity)):
        raise InvalidArgumentError(
            f"descriptors and --subfolders person need mirror images, {dataset.name} cannot be mirrored; "
            "take --descriptor 0, --texture 0 and --subfolders none"
        )
    inputs = prepare_run(dataset, out, image, device=device, resume=resume, log=log)
    images, split = inputs.pixels.images, inputs.split
    record = inputs.record | {
        "network": network.to_json(),
        "training": spec.to_json(),
        "descriptor": None if descriptor is None else descriptor.to_json(),
        "texture": None if texture is None else texture.to_json(),
        "identity": None if identity is None else identity.to_json(),
    }
    if dataset.classes:
        record["classes"] = list(dataset.classes)
    log(
        f"{dataset.name}: {len(split.train)} training, {len(split.validation)} validation and "
        f"{len(split.held_out)} held-out images, "
        f"{'split by image' if dataset.classes else 'no person in two of these'}; "
        f"training on {inputs.device.type}"
    )
    sampler = None
    if identity is not None:  # read first: missing names must stop the training before it starts
        padded = read_pixel_cache(*with_surroundings(dataset, image), progress=True)
        sampler = IdentitySampler(padded.images, split.train, dataset.people, identity)
    pca = pca_psnr(images, split, network.latent, mirror=mirror)
    log(f"PCA with {network.latent} components: held-out PSNR {pca:.2f} dB")
    torch.manual_seed(spec.seed)
    if inputs.resume:
        start = AE(network)
    else:
        start = AE.from_pca(network, with_mirrored(images, split.train, mirror=mirror), seed=spec.seed)
    run = inputs.start(start, spec, record)
    best = run_epochs(
        run,
        reconstruction(images, split.train, spec, _measure(inputs, spec), mirror=mirror),
        metric="{:.2f} dB",
        log=log,
        on_epoch=sample_saver(run, lambda: run.average, images, split, sample_every),
    )
    fitted = _fit_descriptor(inputs, descriptor, spec.seed)
    surface = _fit_texture(inputs, texture, dataset, spec.seed)
    trained = None
    if identity is not None and sampler is not None:
        trained = train_identity(inputs, sampler, dataset.people, identity, record)
    bundle, metrics = export_bundle(
        FaceModel(best, fitted, trained, surface),
        out,
        image=image,
        images=images,
        people=dataset.people,
        split=split,
        training=record,
        pca=pca,
        mirror=mirror,
        classes=dataset.classes,
        labels=dataset.labels,
        noise=spec.noise,
        frame=dataset.frame_within(image.crop),
    )
    log(
        f"held-out PSNR {metrics.held_out_psnr:.2f} dB, PCA of equal size {metrics.pca_psnr:.2f} dB; "
        f"torch and ONNX differ by at most {max(metrics.parity.values()):.0e}"
    )
    if metrics.denoising is not None:
        log(metrics.denoising.summary())
    if metrics.recall_at_1 is not None:
        what = "images of the same class" if dataset.classes else "held-out people"
        log(f"{what} are found first in {metrics.recall_at_1:.1%} of searches among all images; others:")
        names = names_of(dataset.people, dataset.classes, dataset.labels)
        baselines = measure_baselines(images, names, split, shipped=dataset.name not in ("lfw", "mnist"))
        for line in comparison_lines(metrics.recall_at_1, baselines):
            log(line)
    inputs.finish(bundle.model_id)
    return bundle, metrics


def _fit_descriptor(inputs: RunInputs, spec: DescriptorSpec | None, seed: int) -> Descriptor | None:
    if spec is None:
        return None
    images, rows = inputs.pixels.images, inputs.split.train
    with tqdm(desc="descriptor", total=len(rows), unit="image", disable=None, leave=False) as bar:
        return Descriptor.fit(spec, images, rows, seed=seed, on_progress=bar.update)


def _fit_texture(
    inputs: RunInputs, spec: TextureSpec | None, dataset: Dataset, seed: int
) -> TextureDescriptor | None:
    if spec is None:
        return None
    images, rows = inputs.pixels.images, inputs.split.train
    labels = np.array(dataset.labels, np.int64) if dataset.classes else None
    with tqdm(desc="texture", total=len(rows), unit="image", disable=None, leave=False) as bar:
        return TextureDescriptor.fit(spec, images, rows, labels=labels, seed=seed, on_progress=bar.update)


def _measure(inputs: RunInputs, spec: TrainingSpec) -> Callable[[nn.Module], tuple[float, float]]:
    held_out = inputs.split.held_out
    parts = inputs.split.validation, held_out[:: -(-len(held_out) // _MEASURED)]

    def measure(network: nn.Module) -> tuple[float, float]:
        validation, held_out = (
            reconstruction_psnr(network, inputs.pixels.images, rows, device=inputs.device, noise=spec.noise)
            for rows in parts
        )
        return validation, held_out

    return measure


def reconstruction(
    images: NDArray[np.uint8],
    train: NDArray[np.int64],
    spec: TrainingSpec,
    measure: Callable[[nn.Module], tuple[float, float]],
    *,
    mirror: bool = True,
) -> Objective[Any]:
    """Return the objective of reconstructing clean images.

    Args:
        images: uint8 (N, S, S, C).
        train: Which of them to train on.
        spec: How they are prepared.
        measure: Network to PSNR in dB on validation and held-out images.
        mirror: Whether half of them are mirrored.
    """
    return Objective(
        batches=lambda epoch: batches(
            images,
            train,
            size=spec.batch,
            shift=spec.shift,
            noise=spec.noise,
            mirror=mirror,
            seed=spec.seed,
            epoch=epoch,
        ),
        steps=-(-len(train) // spec.batch),
        loss=lambda output, target, _: mean_squared_error(output, target),
        measure=measure,
        metric="psnr",
    )
