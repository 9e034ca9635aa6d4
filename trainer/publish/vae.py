"""From a trained VAE to a bundle with its figures, measured with the weights as stored.

Legend: N images, S side, C channels, Z numbers that are drawn, K classes, D = Z + K latent size.
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

from lookalike.encoder.bundle.bundle import Bundle
from lookalike.encoder.bundle.calibration import Calibration
from lookalike.encoder.bundle.ood import ReconstructionErrorStats, reconstruction_errors
from lookalike.encoder.bundle.spec import BundleSpec
from lookalike.encoder.bundle.whitening import LatentStatistics
from lookalike.encoder.export.torch_export import OPSET, export_graphs, quantize_weights, save_bundle
from lookalike.encoder.images.noise import NoiseSpec
from lookalike.encoder.images.preprocess import ImageSpec
from lookalike.trainer.config import Likelihood
from lookalike.trainer.data.batches import chunked, to_floats
from lookalike.trainer.data.dataset import Split
from lookalike.trainer.models.vae import CVAE, VAE, to_pixels
from lookalike.trainer.objectives.elbo import VAEObjective, evaluate_elbo
from lookalike.trainer.publish.ae import DenoisingMetrics, reconstruction_psnr, versions_here
from lookalike.trainer.publish.latent_prior import fit_latent_prior
from lookalike.trainer.publish.metric import select_metric

Images = NDArray[np.uint8]
Floats = NDArray[np.float32]
Reals = NDArray[np.float64]
_LEAST: Final = 1e-6
_COSTS: Final = 0.1
"""Nats of a validation digit that eight bits may cost, of a larger picture as many more as it has values;
sixteen are taken where they cost more."""
_DIGIT: Final = 28 * 28


@dataclass(frozen=True, kw_only=True, slots=True)
class VAEMetrics:
    """What is reported of a VAE. Bounds are in nats an image, given the true label of a conditional model.

    Attributes:
        validation_nelbo: Negative ELBO of the validation images, pixels binarised as in training.
        held_out_nelbo: The same of the held-out images.
        divergence: KL(q(z|x) || N(0, I)) in that.
        held_out_psnr: dB of the mean squared error, reconstructions of the means.
        label_accuracy: Share of the held-out images whose most probable class is theirs; None of a VAE.
        neighbour_accuracy: Share of the validation images that their five nearest training images tell the
            class of; None without classes.
        compared: Name of the map to embeddings.
        bits: Of the stored weights.
        rounding: Nats of the validation images that these cost.
        parity: Largest difference between torch and onnxruntime, by graph.
        cleaned: What is given back of noisy held-out images; None where it was not taught to clean.
    """

    validation_nelbo: float
    held_out_nelbo: float
    divergence: float
    held_out_psnr: float
    label_accuracy: float | None
    neighbour_accuracy: float | None
    compared: str
    bits: int
    rounding: float
    parity: Mapping[str, float]
    cleaned: DenoisingMetrics | None = None

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, rounded to what they are good for."""
        values = {
            "validation_nelbo_nats": round(self.validation_nelbo, 2),
            "held_out_nelbo_nats": round(self.held_out_nelbo, 2),
            "held_out_divergence_nats": round(self.divergence, 2),
            "held_out_psnr_db": round(self.held_out_psnr, 2),
            "held_out_label_accuracy": self.label_accuracy and round(self.label_accuracy, 4),
            "validation_neighbour_accuracy": self.neighbour_accuracy and round(self.neighbour_accuracy, 4),
            "compared_by": self.compared,
            "weight_bits": self.bits,
            "rounding_cost_nats": round(self.rounding, 3),
            "parity": {name: float(f"{apart:.1e}") for name, apart in self.parity.items()},
        }
        values |= {} if self.cleaned is None else self.cleaned.to_json()
        return {name: value for name, value in values.items() if value is not None}


def export_bundle(
    model: VAEObjective,
    folder: Path,
    *,
    image: ImageSpec,
    images: Images,
    labels: NDArray[np.int64],
    classes: tuple[str, ...],
    split: Split,
    training: Mapping[str, Any],
    mirror: bool,
    device: torch.device,
    noise: NoiseSpec | None = None,
) -> tuple[Bundle, VAEMetrics]:
    """Align, round, export, choose the map to embeddings, fit what is drawn from, measure, write.

    Args:
        model: Trained, on the CPU.
        folder: Where the bundle goes.
        image: How the images were made.
        images: uint8 (N, S, S, C).
        labels: int64 (N,), -1 where the class is not known.
        classes: K names.
        split: Which image is on which side.
        training: Configuration for the record.
        mirror: Whether an embedding averages the latents of an image and of its mirror image.
        device: Where to measure.
        noise: What it was taught to clean.

    Raises:
        ExportError: ONNX and torch disagree; nothing is written.
        OptionError: something that is no bundle stands at ``folder``.
    """
    if model.spec.align:
        _align(model.network.eval(), images, split.train, device)
    model, bits, rounding = _rounded(
        model.to(memory_format=torch.contiguous_format), images, labels, split, device, noise
    )
    network = model.network.cpu().eval()
    conditional = isinstance(network, CVAE)
    drawn = network.spec.latent
    latent = drawn + network.spec.classes
    exported = export_graphs(
        _Posterior(network.encoder),
        _Picture(network.decoder, network.spec.likelihood, drawn if conditional else None),
        size=image.size,
        channels=image.channels,
        latent=latent,
        deviations=drawn,
    )
    train, deviations = _encoded(network, images, split.train, device)
    validation, _ = _encoded(network, images, split.validation, device)
    statistics = LatentStatistics.from_latents(train)
    affine, compared, share = select_metric(
        statistics,
        _compared(network, images, split.train, train, device) if mirror else train,
        labels[split.train],
        _compared(network, images, split.validation, validation, device) if mirror else validation,
        labels[split.validation],
        drawn=drawn,
    )
    nelbo, divergence = evaluate_elbo(
        model.to(device), images, split.held_out, labels, device=device, noise=noise
    )
    held_out, _ = _encoded(network, images, split.held_out, device)
    figures = VAEMetrics(
        validation_nelbo=evaluate_elbo(model, images, split.validation, labels, device=device, noise=noise)[
            0
        ],
        held_out_nelbo=nelbo,
        divergence=divergence,
        held_out_psnr=reconstruction_psnr(network, images, split.held_out, device=device),
        label_accuracy=_right(held_out[:, drawn:], labels[split.held_out]) if conditional else None,
        neighbour_accuracy=share,
        compared=compared,
        bits=bits,
        rounding=rounding,
        parity=exported.parity,
        cleaned=DenoisingMetrics.measure(network, images, split.held_out, noise, device=device),
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
        training={**training, **versions_here()},
        figures=figures.to_json()
        | {"held_out_images": len(split.held_out), "training_images": len(split.train)},
    )
    deviates = np.random.default_rng(0).standard_normal(deviations.shape, np.float32)
    bundle = save_bundle(
        folder,
        exported,
        spec,
        statistics=statistics,
        affine=affine,
        calibration=_usual(network, images, split.validation, device),
        sampling=fit_latent_prior(
            train[:, :drawn] + deviations * deviates, labels[split.train], len(classes)
        ),
    )
    return bundle, figures


def aligning(means: Floats, deviations: Floats) -> tuple[Reals, Reals, Reals]:
    """Return the map of latents z to ``matrix @ (z - centre)``, which have mean 0 and covariance I.

    Of all such maps it is the one under which the mean variance of q(z|x) stays diagonal, most of it told
    first: the generalised eigenvectors of the covariance of latents and that of q(z|x).

    Args:
        means: float32 (N, Z), of q(z|x).
        deviations: float32 (N, Z), of q(z|x).

    Returns:
        centre float64 (Z,), matrix float64 (Z, Z), and its inverse.
    """
    centre = means.mean(0, dtype=np.float64)
    apart = means - centre
    within = np.square(deviations, dtype=np.float64).mean(0).clip(_LEAST)  # (Z,)
    scale = np.sqrt(within)
    whole = apart.T @ apart / len(apart) / np.outer(scale, scale) + np.eye(len(scale))
    variance, axes = np.linalg.eigh(whole)  # each 1 or more
    spread, axes = np.sqrt(variance[::-1]), axes[:, ::-1]
    return centre, (axes / spread).T / scale, scale[:, None] * axes * spread


@torch.no_grad()
def whiten_posterior(network: VAE | CVAE, means: Floats, deviations: Floats) -> None:
    """Align a network's latents, in place: it gives back every picture as before.

    Args:
        network: In evaluation.
        means: float32 (N, Z), of q(z|x) of the training images.
        deviations: float32 (N, Z).
    """
    centre, matrix, inverse = (_tensor(each) for each in aligning(means, deviations))
    encoder, first, norm = network.encoder, *network.decoder.entrance
    encoder.mean.bias.copy_(matrix @ (encoder.mean.bias.double() - centre))
    encoder.mean.weight.copy_(matrix @ encoder.mean.weight.double())
    encoder.mixing = matrix.square().float()
    told = first.weight[:, : len(centre)].double()
    if norm.running_mean is None:
        raise TypeError("the decoder's BatchNorm keeps running statistics")
    norm.running_mean -= (told @ centre).float()  # z = centre + inverse @ what is told now
    first.weight[:, : len(centre)] = (told @ inverse).float()


def _tensor(values: Reals) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))


def _align(network: VAE | CVAE, images: Images, rows: NDArray[np.int64], device: torch.device) -> None:
    means, deviations = _encoded(network.to(device), images, rows, device)
    whiten_posterior(network.cpu(), means[:, : network.spec.latent], deviations)


def _rounded(
    model: VAEObjective,
    images: Images,
    labels: NDArray[np.int64],
    split: Split,
    device: torch.device,
    noise: NoiseSpec | None,
) -> tuple[VAEObjective, int, float]:
    """Return the model with weights of eight bits, or of sixteen; which, and what they cost."""
    before = evaluate_elbo(model.to(device), images, split.validation, labels, device=device, noise=noise)[0]
    each: tuple[Literal[8, 16], ...] = (8, 16)
    for bits in each:
        small = copy.deepcopy(model).cpu()
        quantize_weights(small, bits=bits)
        after = evaluate_elbo(small.to(device), images, split.validation, labels, device=device, noise=noise)[
            0
        ]
        if after - before <= _COSTS * max(1.0, images[0].size / _DIGIT):
            break
    return small, bits, after - before


@torch.no_grad()
def _encoded(
    network: VAE | CVAE, images: Images, rows: NDArray[np.int64], device: torch.device
) -> tuple[Floats, Floats]:
    """Encode to latents float32 (N, D), as the bundle does, and deviations (N, Z)."""
    posterior = _Posterior(network.encoder).to(device).eval()
    made = [posterior(to_floats(images[some]).to(device)) for some in chunked(rows)]
    latents, deviations = (torch.cat(parts).cpu().numpy() for parts in zip(*made, strict=True))
    return latents, deviations


def _compared(
    network: VAE | CVAE, images: Images, rows: NDArray[np.int64], latents: Floats, device: torch.device
) -> Floats:
    """Return the averages float32 (N, D) of latents with those of the mirror images."""
    mirrored, _ = _encoded(network, images[:, :, ::-1], rows, device)
    both: Floats = (latents + mirrored) / np.float32(2)
    return both


def _right(probabilities: Floats, labels: NDArray[np.int64]) -> float:
    return float((probabilities.argmax(1) == labels).mean())


def _usual(network: VAE | CVAE, images: Images, rows: NDArray[np.int64], device: torch.device) -> Calibration:
    """Measure how far off drawings of pictures usually are, so that a search can say what is unlike them."""
    with torch.no_grad():
        back = [
            network(to_floats(images[some]).to(device)).cpu().permute(0, 2, 3, 1) for some in chunked(rows)
        ]
    return Calibration(
        reconstruction_errors=ReconstructionErrorStats.from_errors(
            reconstruction_errors(images[rows], torch.cat(back).numpy())
        )
    )


class _Posterior(nn.Module):
    """(N, C, S, S) -> latent (N, D), the mean and the class probabilities; deviation (N, Z)."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance, scores = self.encoder(images)
        latent = mean if scores is None else torch.cat([mean, scores.softmax(1)], 1)
        return latent, (log_variance / 2).exp()


class _Picture(nn.Module):
    """(N, D) -> (N, C, S, S) in [0, 1]; what lies behind the Z numbers that are drawn are class weights."""

    def __init__(self, decoder: nn.Module, likelihood: Likelihood, drawn: int | None) -> None:
        super().__init__()
        self.decoder = decoder
        self.likelihood: Likelihood = likelihood
        self.drawn = drawn

    def forward(self, latent: Tensor) -> Tensor:
        if self.drawn is None:
            return to_pixels(self.decoder(latent), self.likelihood)
        return to_pixels(self.decoder(latent[:, : self.drawn], latent[:, self.drawn :]), self.likelihood)
