"""Training the vanilla autoencoder from images to bundle: the steps in their order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from lookalike.encoder.bundle.bundle import Bundle
from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.images.contact_sheet import save_image
from lookalike.encoder.images.preprocess import ImageSpec
from lookalike.encoder.text import printable
from lookalike.trainer.config import AESpec, Device, TrainingSpec
from lookalike.trainer.data.batches import batches
from lookalike.trainer.data.dataset import Dataset, Pixels, Split, read_pixel_cache
from lookalike.trainer.loop.loop import Objective, Run, pick_device
from lookalike.trainer.loop.progress import run_epochs
from lookalike.trainer.loop.setup import prepare_run
from lookalike.trainer.models.autoencoder import AE
from lookalike.trainer.models.descriptor import Descriptor, DescriptorSpec
from lookalike.trainer.models.face_model import FaceModel
from lookalike.trainer.models.identity import IdentitySpec
from lookalike.trainer.objectives.losses import mean_squared_error
from lookalike.trainer.publish.ae import (
    Figures,
    export_bundle,
    pca_psnr,
    reconstruction_psnr,
    reconstruction_sheet,
    with_mirrored,
)
from lookalike.trainer.recipes.identity import IdentitySampler, padded_spec, train_identity

_SHOWN: Final = 10
_MEASURED: Final = 1000
"""Held-out images that an epoch's figure is measured on; the bundle's is measured on all."""


def train_autoencoder(
    dataset: Dataset,
    out: Path,
    *,
    image: ImageSpec,
    network: AESpec,
    spec: TrainingSpec,
    descriptor: DescriptorSpec | None = None,
    names: IdentitySpec | None = None,
    device: Device = "auto",
    pictures: int = 0,
    resume: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[Bundle, Figures]:
    """Train, keep the epoch that is best on the validation people, write the bundle.

    Args:
        dataset: What to learn from.
        out: Folder of the bundle; ``out.run`` beside it holds checkpoints, log.csv and pictures.
        image: How images become pixels.
        network: The network's shape.
        spec: How to train.
        descriptor: The part of the latent that is searched by, learned from pictures alone; None: without.
        names: The part that is taught with people's names; None: without. A latent with neither is compared
            whole.
        device: Where to train.
        pictures: Every so many epochs a picture of held-out reconstructions; 0 for none.
        resume: Go on with the run in ``out.run``; without one there, begin.
        say: Takes a line for people.

    Raises:
        TrainingError: an unfinished run is in the way, or cannot be resumed, or the loss is not finite.
        InvalidArgumentError: something that is no bundle stands at ``out``, or mirror images are none of the data and
            a descriptor or names are asked for.
        DataError: too few images or people.
        ExportError: ONNX and torch disagree.
    """
    where = pick_device(device)
    if not dataset.mirrored and (descriptor is not None or names is not None):
        raise InvalidArgumentError(
            f"a descriptor and names count mirror images as alike, those of {dataset.name} are not; "
            "take --descriptor 0 and --labels none"
        )
    opened = prepare_run(dataset, out, image, resume=resume, say=say)
    folder, going_on, pixels, split = opened.folder, opened.going_on, opened.pixels, opened.split
    identity = opened.identity | {
        "network": network.to_json(),
        "training": spec.to_json(),
        "descriptor": None if descriptor is None else descriptor.to_json(),
        "names": None if names is None else names.to_json(),
    }
    if dataset.classes:
        identity["classes"] = list(dataset.classes)
    say(
        f"{dataset.name}: {len(split.train)} training, {len(split.validation)} validation and "
        f"{len(split.held_out)} held-out images, no person in two of these; training on {where.type}"
    )
    people = None if names is None else _people(dataset, image, split, names)
    pca = pca_psnr(pixels.images, split, network.latent, mirror=dataset.mirrored)
    say(f"PCA with {network.latent} components: held-out PSNR {pca:.2f} dB")

    torch.manual_seed(spec.seed)
    start = AE(network) if going_on else _start(network, pixels, split, spec, mirror=dataset.mirrored)
    run = Run(folder, start, spec, device=where)
    if going_on:
        run.resume(identity)
        say(f"resuming after epoch {run.done} of {spec.epochs}")
    _fit(run, pixels.images, split, identity, mirror=dataset.mirrored, pictures=pictures, say=say)
    best = _autoencoder(run.take_best())
    found = None if descriptor is None else _descriptor(descriptor, pixels.images, split, seed=spec.seed)
    known = None
    if names is not None and people is not None:
        known = train_identity(
            folder / "names",
            people,
            pixels.images,
            dataset.people,
            split,
            names,
            identity,
            device=where,
            say=say,
        )
    bundle, figures = export_bundle(
        FaceModel(best, found, known),
        out,
        image=image,
        images=pixels.images,
        people=dataset.people,
        split=split,
        training=identity,
        pca=pca,
        mirror=dataset.mirrored,
        classes=dataset.classes,
        labels=dataset.labels,
        noise=spec.noise,
    )
    Run.finish(folder)
    say(
        f"held-out PSNR {figures.held_out_psnr:.2f} dB, PCA of equal size {figures.pca_psnr:.2f} dB; "
        f"torch and ONNX differ by at most {max(figures.parity.values()):.0e}"
    )
    if figures.cleaned is not None:
        say(figures.cleaned.line())
    if figures.recall_at_1 is not None:
        say(
            f"held-out people find themselves first in {figures.recall_at_1:.1%} of searches among all images"
        )
    say(f"model {bundle.model_id[:12]} is in {printable(str(out))}")
    return bundle, figures


def _descriptor(spec: DescriptorSpec, images: NDArray[np.uint8], split: Split, *, seed: int) -> Descriptor:
    with tqdm(desc="descriptor", total=len(split.train), unit="image", disable=None, leave=False) as bar:
        return Descriptor.fit(spec, images, split.train, seed=seed, on_progress=bar.update)


def _people(dataset: Dataset, image: ImageSpec, split: Split, names: IdentitySpec) -> IdentitySampler:
    """Take them at the beginning: that names are missing is told at once."""
    wide = read_pixel_cache(dataset, padded_spec(image), progress=True)
    return IdentitySampler(wide.images, split.train, dataset.people, names)


def _start(network: AESpec, pixels: Pixels, split: Split, spec: TrainingSpec, *, mirror: bool) -> AE:
    return AE.from_pca(network, with_mirrored(pixels.images, split.train, mirror=mirror), seed=spec.seed)


def _fit(
    run: Run,
    images: NDArray[np.uint8],
    split: Split,
    identity: dict[str, Any],
    *,
    mirror: bool,
    pictures: int,
    say: Callable[[str], None],
) -> None:
    some = split.held_out[:: -(-len(split.held_out) // _MEASURED)]
    printable = split.held_out[:: max(1, len(split.held_out) // _SHOWN)][:_SHOWN]

    def measure(network: nn.Module) -> tuple[float, float]:
        validation, held_out = (
            reconstruction_psnr(network, images, indices, device=run.device, noise=run.spec.noise)
            for indices in (split.validation, some)
        )
        return validation, held_out

    task = reconstruction(images, split.train, run.spec, measure, mirror=mirror)
    for epoch in run_epochs(run, task, identity=identity, written="{:.2f} dB", say=say):
        if pictures and (epoch.number % pictures == 0 or epoch.number == run.spec.epochs):
            picture = reconstruction_sheet(run.average.module, images, printable, noise=run.spec.noise)
            save_image(run.folder / f"reconstructions-{epoch.number:04d}.png", picture)


def reconstruction(
    images: NDArray[np.uint8],
    train: NDArray[np.int64],
    spec: TrainingSpec,
    measure: Callable[[nn.Module], tuple[float, float]],
    *,
    mirror: bool = True,
) -> Objective:
    """Return the task of giving pictures back clean.

    Args:
        images: uint8 (N, S, S, C).
        train: Which of them to learn from.
        spec: How they are shown.
        measure: Network to PSNR in dB of validation and held-out images.
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
        loss=lambda back, target, _: mean_squared_error(back, target),
        measure=measure,
        figure="psnr",
    )


def _autoencoder(module: nn.Module) -> AE:
    if not isinstance(module, AE):  # what AveragedModel wraps is typed as any module
        raise TypeError(type(module).__name__)
    return module
