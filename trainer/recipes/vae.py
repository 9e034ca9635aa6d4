"""Train a VAE or a conditional VAE, from images to bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lookalike.encoder.bundle import Bundle
from lookalike.encoder.errors import InvalidArgumentError, printable
from lookalike.encoder.images import ImageSpec
from lookalike.trainer.config import Device, ElboConfig, TrainingSpec, VAESpec
from lookalike.trainer.data import Dataset, labelled_batches
from lookalike.trainer.loop import Objective, RunInputs, prepare_run, run_epochs
from lookalike.trainer.models import CVAE, VAE
from lookalike.trainer.objectives import VAEObjective, evaluate_elbo
from lookalike.trainer.publish.ae import sample_saver
from lookalike.trainer.publish.vae import VAEMetrics, export_bundle

_MIN_BATCH: Final = 3
"""With fewer images, an odd one out would be a batch of one, which has no standard deviation."""
_MEASURED: Final = 1000
"""Held-out images that an epoch's metric is measured on; the bundle's is measured on all."""


def train_vae(
    dataset: Dataset,
    out: Path,
    *,
    image: ImageSpec,
    network: VAESpec,
    elbo: ElboConfig,
    spec: TrainingSpec,
    device: Device = "auto",
    sample_every: int = 0,
    resume: bool = False,
    log: Callable[[str], None] = lambda _: None,
) -> tuple[Bundle, VAEMetrics]:
    """Train, keep the epoch with the highest bound on the validation images, write the bundle.

    Args:
        dataset: The training data; its classes are those of a conditional model, and those that the latent
            prior of a VAE has Gaussians of.
        out: Folder of the bundle; ``out.run`` beside it holds the checkpoint, log.csv and sample images.
        image: How images become pixels.
        network: Shape of the network; with classes that of a conditional model.
        elbo: The objective.
        spec: How to train. With noise the encoder sees noisy images, and the likelihood is of clean ones.
        device: Where to train.
        sample_every: Epochs between two sheets of held-out reconstructions; 0: none.
        resume: Whether to resume the run in ``out.run``; if there is none, it starts.
        log: Called with each line of text.

    Raises:
        TrainingError: an unfinished run is in the way, or cannot be resumed, or the loss is not finite.
        InvalidArgumentError: ``out`` is something other than a bundle, or network and data do not fit.
        DataError: too few images.
        ExportError: ONNX and torch disagree.
    """
    _check(dataset, image, network, elbo, spec)
    inputs = prepare_run(
        dataset, out, image, device=device, resume=resume, log=log, labelled=network.classes > 0
    )
    images, split = inputs.pixels.images, inputs.split
    record = inputs.record | {
        "network": network.to_json(),
        "bound": elbo.to_json(),
        "training": spec.to_json(),
        "classes": list(dataset.classes),
    }
    log(
        f"{dataset.name}: {len(split.train)} training, {len(split.validation)} validation and "
        f"{len(split.held_out)} held-out images, {len(dataset.classes) or 'no'} classes; "
        f"training on {inputs.device.type}"
    )
    labels = np.array(dataset.labels or [-1] * len(dataset.paths), np.int64)
    torch.manual_seed(spec.seed)
    start = VAEObjective(CVAE(network) if network.classes else VAE(network), elbo)
    # Convolutions of few channels are two to three times as fast with the channels last.
    run = inputs.start(start.to(memory_format=torch.channels_last), spec, record)
    best = run_epochs(
        run,
        elbo_objective(run.network, inputs, labels, spec),
        metric="{:.2f} nats",
        log=log,
        on_epoch=sample_saver(run, lambda: run.average.network, images, split, sample_every),
    )
    bundle, metrics = export_bundle(
        best,
        out,
        image=image,
        images=images,
        labels=labels,
        classes=dataset.classes,
        split=split,
        training=record,
        mirror=elbo.mirror,
        device=inputs.device,
        noise=spec.noise,
        frame=dataset.frame_within(image.crop),
    )
    log(
        f"held-out -ELBO {metrics.held_out_nelbo:.2f} nats, {metrics.divergence:.2f} of it divergence; "
        f"weights in {metrics.bits} bits cost {metrics.rounding:.3f}; PSNR {metrics.held_out_psnr:.2f} dB"
    )
    if metrics.denoising is not None:
        log(metrics.denoising.summary())
    inputs.finish(bundle.model_id)
    return bundle, metrics


def _check(
    dataset: Dataset, image: ImageSpec, network: VAESpec, elbo: ElboConfig, spec: TrainingSpec
) -> None:
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
    if elbo.binarise == "dynamic" and network.likelihood != "bernoulli":
        raise InvalidArgumentError(
            f"binarise dynamic needs the Bernoulli likelihood, not {network.likelihood}; take binarise none"
        )
    if spec.batch < _MIN_BATCH:
        raise InvalidArgumentError(
            f"a batch of a VAE must be {_MIN_BATCH} or more, for its BatchNorm, not {spec.batch}"
        )


def elbo_objective(
    model: VAEObjective, inputs: RunInputs, labels: NDArray[np.int64], spec: TrainingSpec
) -> Objective[VAEObjective]:
    """Return the objective of raising the bound on the likelihood of images.

    An epoch's metric is the bound in nats on the validation images, and on some held-out images.

    Args:
        model: The network in training.
        inputs: Images and split.
        labels: int64 (N,).
        spec: How images are prepared.
    """
    elbo, conditional = model.spec, isinstance(model.network, CVAE)
    images, split = inputs.pixels.images, inputs.split
    parts = split.validation, split.held_out[:: -(-len(split.held_out) // _MEASURED)]

    def batches(epoch: int) -> Iterator[tuple[Tensor | tuple[Tensor, ...], Tensor]]:
        for batch, target, classes in labelled_batches(
            images,
            labels,
            split.train,
            size=spec.batch,
            shift=spec.shift,
            mirror=elbo.mirror,
            binarise=elbo.binarise == "dynamic",
            noise=spec.noise,
            seed=spec.seed,
            epoch=epoch,
        ):
            yield ((batch, classes) if conditional else batch), target

    def measure(average: VAEObjective) -> tuple[float, float]:
        validation, held_out = (
            -evaluate_elbo(
                average, images, rows, labels, device=inputs.device, samples=elbo.importance, noise=spec.noise
            )[0]
            for rows in parts
        )
        return validation, held_out

    return Objective(
        batches=batches,
        steps=-(-len(split.train) // spec.batch),
        loss=model.loss,
        measure=measure,
        metric="bound",
    )
