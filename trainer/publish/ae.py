"""From a trained autoencoder to a bundle with its metrics; what the other publishers share.

Metrics are measured in torch with the weights as stored; the export proves that the graphs compute the same.

Legend: N images, S side, C channels, D latent size.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lookalike.encoder.bundle import AffineMap, Bundle, BundleSpec, LatentStatistics, reconstruction_errors
from lookalike.encoder.detect import Frame
from lookalike.encoder.export.torch_export import OPSET, export_graphs, quantize_weights, save_bundle
from lookalike.encoder.images import ImageSpec, NoiseSpec, Tile, contact_sheet, save_image, to_uint8
from lookalike.encoder.metrics import psnr_from_mse
from lookalike.trainer.data import EVAL_BATCH, Split, chunked, make_noisy, subsample, to_floats
from lookalike.trainer.fitting import calibration_of
from lookalike.trainer.loop import EpochLog, Run
from lookalike.trainer.models import FaceModel, principal_axes
from lookalike.trainer.objectives import mean_squared_error
from lookalike.trainer.publish.baselines import names_of, recall_at_1
from lookalike.trainer.publish.latent_prior import fit_latent_prior

Images = NDArray[np.uint8]
Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
_MAX_VALUES: Final = 1 << 28
"""PCA is fitted to this many values at most (1 GiB): at 45 px RGB 22,000 images and their mirror images."""
_SAMPLES: Final = 10
_CPU: Final = torch.device("cpu")
_MAX_BYSTANDERS: Final = 4000
"""Training images that the calibration searches, beside those of the validation people."""


@torch.no_grad()
def reconstruction_psnr(
    network: nn.Module,
    images: Images,
    indices: Rows,
    *,
    device: torch.device,
    noise: NoiseSpec | None = None,
) -> float:
    """Return the PSNR in dB of the mean squared error over ``images[indices]``, output clipped to [0, 1].

    With noise the network gets noisy images, always with the same noise, and the target is the clean image.
    """
    network.eval()
    total = 0.0
    rng = np.random.default_rng(0)
    for rows in chunked(indices):
        batch = to_floats(images[rows])  # (B, C, S, S)
        inputs = batch if noise is None else make_noisy(batch, noise, rng)
        outputs = network(inputs.to(device)).clamp(0, 1)
        total += mean_squared_error(outputs, batch.to(device)).item() * len(rows)
    return psnr_from_mse(total / len(indices))


@dataclass(frozen=True, kw_only=True, slots=True)
class DenoisingMetrics:
    """PSNR in dB of the mean squared error of held-out images under the noise of the training.

    Attributes:
        noise: The noise, as written on a command line.
        noisy: Of the noisy images.
        denoised: Of the network's output for them.
    """

    noise: str
    noisy: float
    denoised: float

    @classmethod
    def measure(
        cls,
        network: nn.Module,
        images: Images,
        indices: Rows,
        noise: NoiseSpec | None,
        *,
        device: torch.device,
    ) -> Self | None:
        """Measure on ``images[indices]``, uint8 (N, S, S, C); None without noise."""
        if noise is None:
            return None
        noisy, denoised = (
            reconstruction_psnr(each, images, indices, device=device, noise=noise)
            for each in (nn.Identity(), network)
        )
        return cls(noise=str(noise), noisy=noisy, denoised=denoised)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, rounded."""
        return {
            "held_out_noisy_psnr_db": round(self.noisy, 2),
            "held_out_cleaned_psnr_db": round(self.denoised, 2),
        }

    def summary(self) -> str:
        """Return a line of text."""
        return f"held-out PSNR under noise {self.noise}: {self.noisy:.2f} dB, denoised {self.denoised:.2f} dB"


@dataclass(frozen=True, kw_only=True, slots=True)
class AEMetrics:
    """Metrics of an autoencoder or face model on the held-out people.

    Attributes:
        held_out_psnr: dB of the mean squared error, reconstructions with the weights as stored.
        pca_psnr: dB, PCA of the same size fitted to the same training images and their mirror images (an even
            choice of them if they are more than 1 GiB of floats).
        recall_at_1: Share of the held-out images with another image of their person, or class, whose nearest
            image among all is of that person, in [0, 1]; None if no held-out person has two images.
        parity: Largest difference between torch and onnxruntime, by graph.
        denoising: PSNR of denoised held-out images; None for a model trained without noise.
    """

    held_out_psnr: float
    pca_psnr: float
    recall_at_1: float | None
    parity: Mapping[str, float]
    denoising: DenoisingMetrics | None = None

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, rounded."""
        recall = None if self.recall_at_1 is None else round(self.recall_at_1, 3)
        return {
            **({} if recall is None else {"held_out_recall_at_1": recall}),
            **({} if self.denoising is None else self.denoising.to_json()),
            "held_out_psnr_db": round(self.held_out_psnr, 2),
            "pca_psnr_db": round(self.pca_psnr, 2),
            "parity": rounded_parity(self.parity),
        }


def rounded_parity(parity: Mapping[str, float]) -> dict[str, float]:
    """Round the differences between torch and onnxruntime to two digits."""
    return {name: float(f"{difference:.1e}") for name, difference in parity.items()}


def record_versions(training: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a training with the versions of the software that it ran with."""
    return {
        **training,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onnxruntime": version("onnxruntime"),
    }


def pca_psnr(images: Images, split: Split, latent: int, *, mirror: bool = True) -> float:
    """Return the held-out PSNR in dB of PCA with ``latent`` components, output clipped to [0, 1]."""
    mean, axes, _ = principal_axes(with_mirrored(images, split.train, mirror=mirror).flatten(1), latent)
    total = 0.0
    for rows in chunked(split.held_out):
        flat = to_floats(images[rows]).flatten(1)  # (B, P)
        reconstruction = (flat - mean) @ axes.T @ axes + mean
        total += (reconstruction.clamp(0, 1) - flat).square().mean().item() * len(rows)
    return psnr_from_mse(total / len(split.held_out))


def with_mirrored(
    images: Images, indices: Rows, *, mirror: bool = True, max_values: int = _MAX_VALUES
) -> Tensor:
    """Return float32 (2N, C, S, S) in [0, 1]: images and their mirror images, evenly chosen to fit memory.

    Without ``mirror`` (N, C, S, S), the images alone.
    """
    _, side, _, channels = images.shape
    copies = 2 if mirror else 1
    chosen = subsample(indices, max_values // (copies * channels * side**2))
    both = torch.empty(copies, len(chosen), channels, side, side)
    for start in range(0, len(chosen), EVAL_BATCH):
        batch = to_floats(images[chosen[start : start + EVAL_BATCH]])
        both[0, start : start + EVAL_BATCH] = batch
        if mirror:
            both[1, start : start + EVAL_BATCH] = batch.flip(3)
    return both.flatten(0, 1)


def export_bundle(
    network: FaceModel,
    folder: Path,
    *,
    image: ImageSpec,
    images: Images,
    people: Sequence[str],
    split: Split,
    training: Mapping[str, Any],
    pca: float,
    mirror: bool = True,
    classes: tuple[str, ...] = (),
    labels: Sequence[int] = (),
    noise: NoiseSpec | None = None,
    frame: Frame | None = None,
) -> tuple[Bundle, AEMetrics]:
    """Export the network, fit the embedding map, calibrate on the validation people, measure, and write.

    Args:
        network: Trained, on the CPU; its large weights are rounded to eight bits here.
        folder: Folder of the bundle.
        image: How images became pixels.
        images: uint8 (N, S, S, C).
        people: The person on each image.
        split: The parts they belong to.
        training: Record of the run.
        pca: PSNR of PCA, from :func:`pca_psnr`.
        mirror: Whether an embedding averages the latents of an image and of its mirror image.
        classes: Names of the classes to fit the latent prior to.
        labels: The class of each image, -1 if unknown.
        noise: The noise it was trained to remove.
        frame: Where the landmarks of a face lie in its images; None: that is not known.

    Raises:
        ExportError: ONNX and torch disagree; nothing is written.
        InvalidArgumentError: ``folder`` is something other than a bundle.
    """
    quantize_weights(network, bits=8)
    network.eval()
    exported = export_graphs(
        network.encoder, network.decoder, size=image.size, channels=image.channels, latent=network.latent
    )
    latents = _latents(network, images, split.train)
    statistics = LatentStatistics.from_latents(latents)
    affine = _embedding_map(network, statistics)

    def embed(rows: Rows) -> Floats:
        vectors = _latents(network, images, rows)
        return affine(average(vectors, _latents(network, images[:, :, ::-1], rows)) if mirror else vectors)

    metrics = AEMetrics(
        held_out_psnr=reconstruction_psnr(network, images, split.held_out, device=_CPU),
        pca_psnr=pca,
        recall_at_1=recall_at_1(embed, names_of(people, classes, labels), split),
        parity=exported.parity,
        denoising=DenoisingMetrics.measure(network, images, split.held_out, noise, device=_CPU),
    )
    spec = BundleSpec(
        kind="ae",
        image=image,
        latent=network.latent,
        embedding=len(affine.matrix),
        mirror=mirror,
        opset=OPSET,
        labels="person" if network.supervised else "class" if classes else "none",
        classes=classes,
        denoises=noise,
        frame=frame,
        training=record_versions(training),
        figures={**metrics.to_json(), **count_images(split)},
    )
    calibration = calibration_of(
        embed(split.validation),
        [people[row] for row in split.validation],
        measure_errors(network, images, split.validation, _CPU),
        others=embed(split.train[:_MAX_BYSTANDERS]),
    )
    prior = None
    if classes:
        prior = fit_latent_prior(
            latents[:, : network.appearance], np.array(labels)[split.train], len(classes)
        )
    bundle = save_bundle(
        folder,
        exported,
        spec,
        statistics=statistics,
        affine=affine,
        calibration=calibration,
        sampling=prior,
    )
    return bundle, metrics


def _embedding_map(network: FaceModel, statistics: LatentStatistics) -> AffineMap:
    """Embed by descriptor and identity if there are any, else by the whitened latent.

    Supervised vectors are not centered: centered, they tell validation people apart less well (AUC 0.943
    instead of 0.945). Whitening is fitted to the latents themselves: in averages with the mirror image,
    left-right differences nearly vanish, and would be amplified.
    """
    dim = network.latent - network.appearance
    if not dim:
        return AffineMap.whitening(statistics)
    offset = np.zeros_like(statistics.mean) if network.supervised else statistics.mean
    return AffineMap(np.eye(dim, network.latent, network.appearance, np.float32), offset)


def count_images(split: Split) -> dict[str, int]:
    """Return the numbers of held-out and training images, for bundle.json."""
    return {"held_out_images": len(split.held_out), "training_images": len(split.train)}


@torch.no_grad()
def measure_errors(
    network: nn.Module, images: Images, rows: Rows, device: torch.device
) -> NDArray[np.float64]:
    """Return the reconstruction errors float64 (N, 2) of images that the network was not trained on."""
    outputs = [network(to_floats(images[chunk]).to(device)).clamp(0, 1).cpu() for chunk in chunked(rows)]
    return reconstruction_errors(images[rows], torch.cat(outputs).permute(0, 2, 3, 1).numpy())


def average(latents: Floats, mirrored: Floats) -> Floats:
    """Return the averages float32 (N, D) of latents with those of the mirror images."""
    both: Floats = (latents + mirrored) / np.float32(2)
    return both


@torch.no_grad()
def _latents(network: FaceModel, images: Images, indices: Rows) -> Floats:
    """Encode to float32 (N, D)."""
    latents: Floats = torch.cat(
        [network.encoder(to_floats(images[rows])) for rows in chunked(indices)]
    ).numpy()
    return latents


def reconstruction_sheet(
    network: nn.Module, images: Images, indices: Rows, *, noise: NoiseSpec | None = None
) -> Images:
    """Return originals above reconstructions, uint8 (H, W, 3); with noise, the noisy images between them."""
    inputs = to_floats(images[indices])
    if noise is not None:
        inputs = make_noisy(inputs, noise, np.random.default_rng(0))
    with torch.no_grad():
        outputs = network.eval()(inputs.to(next(network.parameters()).device)).cpu()
    noisy, reconstructed = (to_uint8(each.permute(0, 2, 3, 1).numpy()) for each in (inputs, outputs))
    rows = {"original": images[indices], "noisy": noisy, "reconstruction": reconstructed}
    if noise is None:
        del rows["noisy"]
    tiles = [[Tile(pixels=pixels) for pixels in row] for row in rows.values()]
    return contact_sheet(tiles, row_labels=list(rows), side=96)


def sample_saver(
    run: Run[Any], network: Callable[[], nn.Module], images: Images, split: Split, sample_every: int
) -> Callable[[EpochLog], None]:
    """Return a callback that saves held-out reconstructions in the run's folder every so many epochs.

    Args:
        run: The run.
        network: Returns the averaged network.
        images: uint8 (N, S, S, C).
        split: The parts they belong to.
        sample_every: Epochs between two sheets, the last epoch included; 0: none.
    """
    rows = split.held_out[:: max(1, len(split.held_out) // _SAMPLES)][:_SAMPLES]

    def save(result: EpochLog) -> None:
        if sample_every and (result.epoch % sample_every == 0 or result.epoch == run.spec.epochs):
            sheet = reconstruction_sheet(network(), images, rows, noise=run.spec.noise)
            save_image(run.folder / f"reconstructions-{result.epoch:04d}.png", sheet)

    return save
