"""Training a VAE or a conditional one from images to bundle: the steps in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lookalike.encoder.bundle.bundle import Bundle
from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.images.contact_sheet import save_image
from lookalike.encoder.images.preprocess import ImageSpec
from lookalike.encoder.text import printable
from lookalike.trainer.config import Device, ElboConfig, TrainingSpec, VAESpec
from lookalike.trainer.data.batches import labelled_batches
from lookalike.trainer.data.dataset import Dataset, Split
from lookalike.trainer.loop.loop import Objective, Run, pick_device
from lookalike.trainer.loop.progress import run_epochs
from lookalike.trainer.loop.setup import RunInputs, prepare_run
from lookalike.trainer.models.vae import CVAE, VAE
from lookalike.trainer.objectives.elbo import VAEObjective, evaluate_elbo
from lookalike.trainer.publish.ae import reconstruction_sheet
from lookalike.trainer.publish.vae import VAEMetrics, export_bundle

_SHOWN: Final = 10
_FEWEST: Final = 3
"""Images of a batch: of fewer, an odd one out would be a batch of one, which has no deviation."""
_MEASURED: Final = 1000
"""Held-out images that an epoch's figure is measured on; the bundle's is measured on all."""


def train_vae(
    dataset: Dataset,
    out: Path,
    *,
    image: ImageSpec,
    network: VAESpec,
    bound: ElboConfig,
    spec: TrainingSpec,
    device: Device = "auto",
    pictures: int = 0,
    resume: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[Bundle, VAEMetrics]:
    """Train, keep the epoch of the highest bound on the validation images, write the bundle.

    Args:
        dataset: What to learn from; its classes are the conditional model's, and those that a VAE's Gaussians
            by class are fitted to.
        out: Folder of the bundle; ``out.run`` beside it holds checkpoints, log.csv and pictures.
        image: How images become pixels.
        network: The network's shape; with classes a conditional model's.
        bound: What is maximised, and what is shown.
        spec: How to train. With noise the encoder sees noisy pictures, and the likelihood is of clean ones.
        device: Where to train.
        pictures: Every so many epochs a picture of held-out reconstructions; 0 for none.
        resume: Go on with the run in ``out.run``; without one there, begin.
        say: Takes a line for people.

    Raises:
        TrainingError: an unfinished run is in the way, or cannot be resumed, or the loss is not finite.
        InvalidArgumentError: something that is no bundle stands at ``out``, or network and data differ in classes.
        DataError: too few images.
        ExportError: ONNX and torch disagree.
    """
    where = pick_device(device)
    _check(dataset, image, network, bound)
    if spec.batch < _FEWEST:
        raise InvalidArgumentError(
            f"a batch of a VAE must be {_FEWEST} or more, for its BatchNorm, not {spec.batch}"
        )
    opened = prepare_run(dataset, out, image, resume=resume, say=say, labelled=network.classes > 0)
    identity = opened.identity | {
        "network": network.to_json(),
        "bound": bound.to_json(),
        "training": spec.to_json(),
        "classes": list(dataset.classes),
    }
    split = opened.split
    say(
        f"{dataset.name}: {len(split.train)} training, {len(split.validation)} validation and "
        f"{len(split.held_out)} held-out images, {len(dataset.classes) or 'no'} classes; "
        f"training on {where.type}"
    )
    torch.manual_seed(spec.seed)
    start = VAEObjective(CVAE(network) if network.classes else VAE(network), bound)
    # Convolutions of few channels are two to three times as fast with the channels last.
    run = Run(opened.folder, start.to(memory_format=torch.channels_last), spec, device=where)
    if opened.going_on:
        run.resume(identity)
        say(f"resuming after epoch {run.done} of {spec.epochs}")
    labels = np.array(dataset.labels or [-1] * len(dataset.paths), np.int64)
    _fit(run, opened, labels, identity, pictures=pictures, say=say)
    bundle, figures = export_bundle(
        _bounded(run.take_best()),
        out,
        image=image,
        images=opened.pixels.images,
        labels=labels,
        classes=dataset.classes,
        split=split,
        training=identity,
        mirror=bound.mirror,
        device=where,
        noise=spec.noise,
    )
    Run.finish(opened.folder)
    say(
        f"held-out -ELBO {figures.held_out_nelbo:.2f} nats, {figures.divergence:.2f} of it divergence; "
        f"weights in {figures.bits} bits cost {figures.rounding:.3f}; PSNR {figures.held_out_psnr:.2f} dB"
    )
    if figures.cleaned is not None:
        say(figures.cleaned.line())
    say(f"model {bundle.model_id[:12]} is in {printable(str(out))}")
    return bundle, figures


def _check(dataset: Dataset, image: ImageSpec, network: VAESpec, bound: ElboConfig) -> None:
    if (image.size, image.channels) != (network.size, network.channels):
        raise InvalidArgumentError(
            f"network and images must be of one shape, got {network.size} pixels with {network.channels} "
            f"channels and {image.size} with {image.channels}"
        )
    if network.classes and network.classes != len(dataset.classes):
        raise InvalidArgumentError(
            f"a conditional model has the classes of its data, got {network.classes} and "
            f"{len(dataset.classes)} of {printable(dataset.name)}"
        )
    if bound.binarise == "dynamic" and network.likelihood != "bernoulli":
        raise InvalidArgumentError("pixels that are drawn black or white are Bernoulli's; take binarise none")


def _fit(
    run: Run,
    opened: RunInputs,
    labels: NDArray[np.int64],
    identity: dict[str, Any],
    *,
    pictures: int,
    say: Callable[[str], None],
) -> None:
    images, split = opened.pixels.images, opened.split
    drawn = split.held_out[:: max(1, len(split.held_out) // _SHOWN)][:_SHOWN]
    model = _bounded(run.network)
    task = likelihood_task(model, images, labels, split, run.spec, device=run.device)
    for epoch in run_epochs(run, task, identity=identity, written="{:.2f} nats", say=say):
        if pictures and (epoch.number % pictures == 0 or epoch.number == run.spec.epochs):
            network = _bounded(run.average.module).network
            picture = reconstruction_sheet(network, images, drawn, noise=run.spec.noise)
            save_image(run.folder / f"reconstructions-{epoch.number:04d}.png", picture)


def likelihood_task(
    model: VAEObjective,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    split: Split,
    spec: TrainingSpec,
    *,
    device: torch.device,
) -> Objective:
    """Return the task of raising the bound on the likelihood of pictures.

    An epoch's figure is the bound in nats on the validation images, and on some of those held out.

    Args:
        model: What is trained.
        images: uint8 (N, S, S, C).
        labels: int64 (N,).
        split: Which of them to learn from.
        spec: How they are shown.
        device: Where the network is.
    """
    bound = model.spec
    some = split.held_out[:: -(-len(split.held_out) // _MEASURED)]

    def shown_in(epoch: int) -> Iterator[tuple[Tensor | tuple[Tensor, ...], Tensor]]:
        for batch, target, told in labelled_batches(
            images,
            labels,
            split.train,
            size=spec.batch,
            shift=spec.shift,
            mirror=bound.mirror,
            binarise=bound.binarise == "dynamic",
            noise=spec.noise,
            seed=spec.seed,
            epoch=epoch,
        ):
            yield ((batch, told) if isinstance(model.network, CVAE) else batch), target

    def measure(network: nn.Module) -> tuple[float, float]:
        validation, held_out = (
            -evaluate_elbo(
                _bounded(network),
                images,
                rows,
                labels,
                device=device,
                draws=bound.importance,
                noise=spec.noise,
            )[0]
            for rows in (split.validation, some)
        )
        return validation, held_out

    return Objective(
        batches=shown_in,
        steps=-(-len(split.train) // spec.batch),
        loss=model.loss,
        measure=measure,
        figure="bound",
    )


def _bounded(module: nn.Module) -> VAEObjective:
    if not isinstance(module, VAEObjective):  # what AveragedModel wraps is typed as any module
        raise TypeError(type(module).__name__)
    return module
