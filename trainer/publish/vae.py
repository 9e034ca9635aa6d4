"""From a trained VAE to a bundle with its metrics, measured with the weights as stored.

Legend: N images, S side, C channels, Z dimensions of the prior, K classes, D = Z + K latent size.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lookalike.encoder.bundle import (
    Bundle,
    BundleSpec,
    Calibration,
    LatentStatistics,
    ReconstructionErrorStats,
)
from lookalike.encoder.detect import Frame
from lookalike.encoder.export.torch_export import OPSET, export_graphs, quantize_weights, save_bundle
from lookalike.encoder.images import ImageSpec, NoiseSpec
from lookalike.trainer.config import Likelihood
from lookalike.trainer.data import Split, chunked, to_floats
from lookalike.trainer.models import CVAE, VAE, to_pixels
from lookalike.trainer.objectives import DIGIT_VALUES, VAEObjective, evaluate_elbo
from lookalike.trainer.publish.ae import (
    DenoisingMetrics,
    average,
    count_images,
    measure_errors,
    reconstruction_psnr,
    record_versions,
    rounded_parity,
)
from lookalike.trainer.publish.latent_prior import fit_latent_prior
from lookalike.trainer.publish.metric import select_metric

Images = NDArray[np.uint8]
Floats = NDArray[np.float32]
Reals = NDArray[np.float64]
Rows = NDArray[np.int64]
_MIN_VARIANCE: Final = 1e-6
_MAX_ROUNDING_COST: Final = 0.1
"""Nats of a validation digit that eight-bit weights may cost (more for larger images); else sixteen bits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VAEMetrics:
    """Metrics of a VAE. Bounds are in nats an image, given the true label for a conditional model.

    Attributes:
        validation_nelbo: Negative ELBO of the validation images, pixels binarised as in training.
        held_out_nelbo: The same for the held-out images.
        divergence: KL(q(z|x) || N(0, I)) in that.
        held_out_psnr: dB of the mean squared error, reconstructions of the means.
        label_accuracy: Share of the held-out images whose most probable class is right; None for a VAE.
        neighbour_accuracy: Share of the validation images classified right by their five nearest training
            images; None without classes.
        embedding: Name of the embedding map.
        bits: Of the stored weights.
        rounding: Nats that rounding the weights costs on the validation images.
        parity: Largest difference between torch and onnxruntime, by graph.
        denoising: PSNR of denoised held-out images; None for a model trained without noise.
    """

    validation_nelbo: float
    held_out_nelbo: float
    divergence: float
    held_out_psnr: float
    label_accuracy: float | None
    neighbour_accuracy: float | None
    embedding: str
    bits: int
    rounding: float
    parity: Mapping[str, float]
    denoising: DenoisingMetrics | None = None

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, rounded."""
        values = {
            "validation_nelbo_nats": round(self.validation_nelbo, 2),
            "held_out_nelbo_nats": round(self.held_out_nelbo, 2),
            "held_out_divergence_nats": round(self.divergence, 2),
            "held_out_psnr_db": round(self.held_out_psnr, 2),
            "held_out_label_accuracy": self.label_accuracy and round(self.label_accuracy, 4),
            "validation_neighbour_accuracy": self.neighbour_accuracy and round(self.neighbour_accuracy, 4),
            "compared_by": self.embedding,
            "weight_bits": self.bits,
            "rounding_cost_nats": round(self.rounding, 3),
            "parity": rounded_parity(self.parity),
        }
        values |= {} if self.denoising is None else self.denoising.to_json()
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class _Data:
    """What a model is measured on."""

    images: Images
    labels: Rows
    split: Split
    device: torch.device
    noise: NoiseSpec | None

    def nelbo(self, model: VAEObjective, rows: Rows) -> tuple[float, float]:
        """Return the negative ELBO and the divergence in it, in nats."""
        return evaluate_elbo(
            model.to(self.device), self.images, rows, self.labels, device=self.device, noise=self.noise
        )

    @torch.no_grad()
    def encode(self, network: VAE | CVAE, rows: Rows, *, mirrored: bool = False) -> tuple[Floats, Floats]:
        """Encode to latents float32 (N, D), as the bundle does, and deviations (N, Z)."""
        posterior = _Posterior(network.encoder).to(self.device).eval()
        images = self.images[:, :, ::-1] if mirrored else self.images
        parts = [posterior(to_floats(images[chunk]).to(self.device)) for chunk in chunked(rows)]
        latents, deviations = (torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True))
        return latents, deviations


def export_bundle(
    model: VAEObjective,
    folder: Path,
    *,
    image: ImageSpec,
    images: Images,
    labels: Rows,
    classes: tuple[str, ...],
    split: Split,
    training: Mapping[str, Any],
    mirror: bool,
    device: torch.device,
    noise: NoiseSpec | None = None,
    frame: Frame | None = None,
) -> tuple[Bundle, VAEMetrics]:
    """Whiten, round, export, select the embedding map, fit the latent prior, measure, and write.

    Args:
        model: Trained, on the CPU.
        folder: Folder of the bundle.
        image: How images became pixels.
        images: uint8 (N, S, S, C).
        labels: int64 (N,), -1 if the class is unknown.
        classes: K names.
        split: The parts the images belong to.
        training: Record of the run.
        mirror: Whether an embedding averages the latents of an image and of its mirror image.
        device: Where to measure.
        noise: The noise it was trained to remove.
        frame: Where the landmarks of a face lie in its images; None: that is not known.

    Raises:
        ExportError: ONNX and torch disagree; nothing is written.
        InvalidArgumentError: ``folder`` is something other than a bundle.
    """
    data = _Data(images, labels, split, device, noise)
    prior = model.network.spec.latent
    if model.spec.align:
        means, deviations = data.encode(model.network.eval().to(device), split.train)
        whiten_posterior(model.network.cpu(), means[:, :prior], deviations)
    model, bits, rounding = _quantized(model.to(memory_format=torch.contiguous_format), data)
    network = model.network.cpu().eval()
    conditional = isinstance(network, CVAE)
    latent = prior + network.spec.classes
    exported = export_graphs(
        _Posterior(network.encoder),
        _Decoder(network.decoder, network.spec.likelihood, prior if conditional else None),
        size=image.size,
        channels=image.channels,
        latent=latent,
        deviations=prior,
    )
    train, deviations = data.encode(network, split.train)
    validation, _ = data.encode(network, split.validation)
    statistics = LatentStatistics.from_latents(train)
    affine, name, accuracy = select_metric(
        statistics,
        average(train, data.encode(network, split.train, mirrored=True)[0]) if mirror else train,
        labels[split.train],
        average(validation, data.encode(network, split.validation, mirrored=True)[0])
        if mirror
        else validation,
        labels[split.validation],
        prior=prior,
    )
    nelbo, divergence = data.nelbo(model, split.held_out)
    held_out, _ = data.encode(network, split.held_out)
    metrics = VAEMetrics(
        validation_nelbo=data.nelbo(model, split.validation)[0],
        held_out_nelbo=nelbo,
        divergence=divergence,
        held_out_psnr=reconstruction_psnr(network, images, split.held_out, device=device),
        label_accuracy=_accuracy(held_out[:, prior:], labels[split.held_out]) if conditional else None,
        neighbour_accuracy=accuracy,
        embedding=name,
        bits=bits,
        rounding=rounding,
        parity=exported.parity,
        denoising=DenoisingMetrics.measure(network, images, split.held_out, noise, device=device),
    )
    spec = BundleSpec(
        kind="cvae" if conditional else "vae",
        image=image,
        latent=latent,
        embedding=len(affine.matrix),
        mirror=mirror,
        opset=OPSET,
        labels="class" if classes else "none",
        classes=classes,
        denoises=noise,
        frame=frame,
        training=record_versions(training),
        figures={**metrics.to_json(), **count_images(split)},
    )
    errors = measure_errors(network, images, split.validation, device)
    epsilon = np.random.default_rng(0).standard_normal(deviations.shape, np.float32)
    bundle = save_bundle(
        folder,
        exported,
        spec,
        statistics=statistics,
        affine=affine,
        calibration=Calibration(reconstruction_errors=ReconstructionErrorStats.from_errors(errors)),
        sampling=fit_latent_prior(train[:, :prior] + deviations * epsilon, labels[split.train], len(classes)),
    )
    return bundle, metrics


def _quantized(model: VAEObjective, data: _Data) -> tuple[VAEObjective, int, float]:
    """Return the model with weights of eight bits, or of sixteen; the bits, and the nats they cost."""
    before, _ = data.nelbo(model, data.split.validation)
    choices: tuple[Literal[8, 16], ...] = (8, 16)
    for bits in choices:
        quantized = copy.deepcopy(model).cpu()
        quantize_weights(quantized, bits=bits)
        after, _ = data.nelbo(quantized, data.split.validation)
        if after - before <= _MAX_ROUNDING_COST * max(1.0, data.images[0].size / DIGIT_VALUES):
            break
    return quantized, bits, after - before


def _accuracy(probabilities: Floats, labels: Rows) -> float:
    return float((probabilities.argmax(1) == labels).mean())


def whitening_map(means: Floats, deviations: Floats) -> tuple[Reals, Reals, Reals]:
    """Return the map of latents z to ``matrix @ (z - center)``, which have mean 0 and covariance I.

    Of all such maps it is the one under which the mean variance of q(z|x) stays diagonal, ascending: the
    generalized eigenvectors of the covariance of latents and that of q(z|x).

    Args:
        means: float32 (N, Z), of q(z|x).
        deviations: float32 (N, Z), of q(z|x).

    Returns:
        center float64 (Z,), matrix float64 (Z, Z), and its inverse.
    """
    center = means.mean(0, dtype=np.float64)
    centered = means - center
    within = np.square(deviations, dtype=np.float64).mean(0).clip(_MIN_VARIANCE)  # (Z,)
    scale = np.sqrt(within)
    aggregate = centered.T @ centered / len(centered) / np.outer(scale, scale) + np.eye(len(scale))
    variance, axes = np.linalg.eigh(aggregate)  # each 1 or more
    spread, axes = np.sqrt(variance[::-1]), axes[:, ::-1]
    return center, (axes / spread).T / scale, scale[:, None] * axes * spread


@torch.no_grad()
def whiten_posterior(network: VAE | CVAE, means: Floats, deviations: Floats) -> None:
    """Whiten the aggregate posterior of a network, in place; its reconstructions stay the same.

    A decoder generates good images from N(0, I) only if the training latents are spread like it. For images
    of thousands of values the divergence is too small a part of the bound to achieve that: latents stay
    correlated, and most samples of N(0, I) lie outside of them. A linear map of the latents corrects it.

    Args:
        network: In evaluation mode.
        means: float32 (N, Z), of q(z|x) of the training images.
        deviations: float32 (N, Z).
    """
    center, matrix, inverse = (
        torch.from_numpy(np.ascontiguousarray(each)) for each in whitening_map(means, deviations)
    )
    encoder, first, norm = network.encoder, *network.decoder.first_layer
    encoder.mean.bias.copy_(matrix @ (encoder.mean.bias.double() - center))
    encoder.mean.weight.copy_(matrix @ encoder.mean.weight.double())
    encoder.mixing = matrix.square().float()
    weight = first.weight[:, : len(center)].double()
    if norm.running_mean is None:
        raise TypeError("the decoder's BatchNorm keeps running statistics")
    norm.running_mean -= (weight @ center).float()  # z = center + inverse @ (the new latent)
    first.weight[:, : len(center)] = (weight @ inverse).float()


class _Posterior(nn.Module):
    """(N, C, S, S) -> latent (N, D), the mean and the class probabilities; deviation (N, Z)."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance, scores = self.encoder(images)
        latent = mean if scores is None else torch.cat([mean, scores.softmax(1)], 1)
        return latent, (log_variance / 2).exp()


class _Decoder(nn.Module):
    """(N, D) -> (N, C, S, S) in [0, 1]; after the Z dimensions of the prior come class weights, if any."""

    def __init__(self, decoder: nn.Module, likelihood: Likelihood, prior: int | None) -> None:
        super().__init__()
        self.decoder = decoder
        self.likelihood: Likelihood = likelihood
        self.prior = prior

    def forward(self, latent: Tensor) -> Tensor:
        if self.prior is None:
            return to_pixels(self.decoder(latent), self.likelihood)
        return to_pixels(self.decoder(latent[:, : self.prior], latent[:, self.prior :]), self.likelihood)
