"""From a trained network to a bundle with its figures.

They are measured in torch with the weights as stored; the export proves that the graphs compute the same.

Legend: N images, S side, C channels, D latent size.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lookalike.encoder.bundle.bundle import Bundle
from lookalike.encoder.bundle.calibration import Calibration
from lookalike.encoder.bundle.ood import reconstruction_errors
from lookalike.encoder.bundle.spec import BundleSpec
from lookalike.encoder.bundle.whitening import AffineMap, LatentStatistics
from lookalike.encoder.export.torch_export import OPSET, export_graphs, quantize_weights, save_bundle
from lookalike.encoder.images.contact_sheet import Tile, contact_sheet
from lookalike.encoder.images.noise import NoiseSpec
from lookalike.encoder.images.preprocess import ImageSpec, to_uint8
from lookalike.encoder.metrics import psnr_from_mse
from lookalike.trainer.data.batches import EVAL_BATCH, chunked, subsample, to_floats
from lookalike.trainer.data.dataset import Split
from lookalike.trainer.data.noise import make_noisy
from lookalike.trainer.fitting.calibration import calibration_of
from lookalike.trainer.models.autoencoder import principal_axes
from lookalike.trainer.models.face_model import FaceModel
from lookalike.trainer.objectives.losses import mean_squared_error
from lookalike.trainer.publish.latent_prior import fit_latent_prior

Images = NDArray[np.uint8]
_MOST_VALUES: Final = 1 << 28
"""PCA is fitted to so many values at most (1 GiB): at 45 px RGB 22,000 images and their mirror images."""


@torch.no_grad()
def reconstruction_psnr(
    network: nn.Module,
    images: Images,
    indices: NDArray[np.int64],
    *,
    device: torch.device,
    noise: NoiseSpec | None = None,
) -> float:
    """Return the PSNR in dB of the mean squared error over ``images[indices]``, output clipped to [0, 1].

    With noise, of what is given back of noisy images; the same noise whenever it is measured.
    """
    network.eval()
    total = 0.0
    rng = np.random.default_rng(0)
    for rows in chunked(indices):
        batch = to_floats(images[rows])  # (B, C, S, S)
        noisy = batch if noise is None else make_noisy(batch, noise, rng)
        back = network(noisy.to(device)).clamp(0, 1)
        total += mean_squared_error(back, batch.to(device)).item() * len(rows)
    return psnr_from_mse(total / len(indices))


@dataclass(frozen=True, kw_only=True, slots=True)
class DenoisingMetrics:
    """PSNR in dB of the mean squared error of held-out images under the noise of the training.

    Attributes:
        noise: What was put on them, as it is written on a command line.
        noisy: Of the images with the noise.
        cleaned: Of what the network gives back of them.
    """

    noise: str
    noisy: float
    cleaned: float

    @classmethod
    def measure(
        cls,
        network: nn.Module,
        images: NDArray[np.uint8],
        indices: NDArray[np.int64],
        noise: NoiseSpec | None,
        *,
        device: torch.device,
    ) -> Self | None:
        """Measure it on ``images[indices]``, uint8 (N, S, S, C); None where there is no noise."""
        if noise is None:
            return None
        noisy, cleaned = (
            reconstruction_psnr(each, images, indices, device=device, noise=noise)
            for each in (nn.Identity(), network)
        )
        return cls(noise=str(noise), noisy=noisy, cleaned=cleaned)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, rounded to what they are good for."""
        return {
            "held_out_noisy_psnr_db": round(self.noisy, 2),
            "held_out_cleaned_psnr_db": round(self.cleaned, 2),
        }

    def line(self) -> str:
        """Return a line for people."""
        return f"held-out PSNR under noise {self.noise}: {self.noisy:.2f} dB, cleaned {self.cleaned:.2f} dB"


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """What is reported of a face model, on the held-out people.

    Attributes:
        held_out_psnr: dB of the mean squared error, reconstructions with the weights as stored.
        pca_psnr: dB, PCA of the same size fitted to the same training images and their mirror images (an even
            choice of them where they are more than 1 GiB of floats).
        recall_at_1: Share of the held-out images with another of their person that find one first among all
            images, in [0, 1]; None where no one held out has two.
        parity: Largest difference between torch and onnxruntime, by graph.
        cleaned: What is given back of noisy held-out images; None where it was not taught to clean.
    """

    held_out_psnr: float
    pca_psnr: float
    recall_at_1: float | None
    parity: Mapping[str, float]
    cleaned: DenoisingMetrics | None = None


def pca_psnr(images: Images, split: Split, latent: int, *, mirror: bool = True) -> float:
    """Return the held-out PSNR in dB of PCA with ``latent`` components, output clipped to [0, 1]."""
    mean, axes, _ = principal_axes(with_mirrored(images, split.train, mirror=mirror).flatten(1), latent)
    total = 0.0
    for rows in chunked(split.held_out):
        flat = to_floats(images[rows]).flatten(1)  # (B, P)
        back = (flat - mean) @ axes.T @ axes + mean
        total += (back.clamp(0, 1) - flat).square().mean().item() * len(rows)
    return psnr_from_mse(total / len(split.held_out))


def with_mirrored(
    images: Images, indices: NDArray[np.int64], *, mirror: bool = True, most_values: int = _MOST_VALUES
) -> torch.Tensor:
    """Return float32 (2N, C, S, S) in [0, 1]: images and their mirror images, evenly chosen to fit memory.

    Without ``mirror`` (N, C, S, S), the images alone.
    """
    _, side, _, channels = images.shape
    times = 2 if mirror else 1
    chosen = subsample(indices, most_values // (times * channels * side**2))
    both = torch.empty(times, len(chosen), channels, side, side)
    for start in range(0, len(chosen), EVAL_BATCH):
        some = to_floats(images[chosen[start : start + EVAL_BATCH]])
        both[0, start : start + EVAL_BATCH] = some
        if mirror:
            both[1, start : start + EVAL_BATCH] = some.flip(3)
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
) -> tuple[Bundle, Figures]:
    """Export, fit the map to embeddings, calibrate on the validation people, measure, write.

    Args:
        network: Trained, on the CPU; its large weights are rounded to eight bits here.
        folder: Where the bundle goes.
        image: How the images were made.
        images: uint8 (N, S, S, C).
        people: Whose the images are.
        split: Who is on which side.
        training: Configuration for the record.
        pca: PSNR of PCA, from :func:`pca_psnr`.
        mirror: Whether an embedding averages the latents of an image and of its mirror image.
        classes: Names of the classes that pictures can be drawn of.
        labels: The class of each image, -1 where it is not known.
        noise: What it was taught to clean.

    Raises:
        ExportError: ONNX and torch disagree; nothing is written.
        OptionError: something that is no bundle stands at ``folder``.
    """
    quantize_weights(network, bits=8)
    network.eval()
    exported = export_graphs(
        network.encoder, network.decoder, size=image.size, channels=image.channels, latent=network.latent
    )
    latents = _latents(network, images, split.train)
    statistics = LatentStatistics.from_latents(latents)
    affine = _affine(network, statistics)
    figures = Figures(
        held_out_psnr=reconstruction_psnr(network, images, split.held_out, device=torch.device("cpu")),
        pca_psnr=pca,
        recall_at_1=_recall_at_1(network, affine, images, people, split, mirror=mirror),
        parity=exported.parity,
        cleaned=DenoisingMetrics.measure(network, images, split.held_out, noise, device=torch.device("cpu")),
    )
    spec = BundleSpec(
        kind="ae",
        image=image,
        latent=network.latent,
        embedding=len(affine.matrix),
        mirror=mirror,
        opset=OPSET,
        labels="person" if network.named else "class" if classes else "none",
        classes=classes,
        denoises=noise,
        training={**training, **versions_here()},
        figures=_to_json(figures, split),
    )
    calibration = _calibration(network, affine, images, people, split, mirror=mirror)
    sampling = None
    if classes:
        sampling = fit_latent_prior(
            latents[:, : network.appearance], np.array(labels)[split.train], len(classes)
        )
    bundle = save_bundle(
        folder,
        exported,
        spec,
        statistics=statistics,
        affine=affine,
        calibration=calibration,
        sampling=sampling,
    )
    return bundle, figures


def _affine(network: FaceModel, statistics: LatentStatistics) -> AffineMap:
    """Compare by descriptor and identity where there are any, else by the whitened latent.

    What names taught is compared about its own origin: centred, it tells validation people apart less well
    (AUC 0.943 for 0.945). Whitening is fitted to the latents themselves: in averages with the mirror image,
    what only tells left from right is nearly nothing, and would be blown up.
    """
    numbers = network.latent - network.appearance
    if not numbers:
        return AffineMap.whitening(statistics)
    offset = np.zeros_like(statistics.mean) if network.named else statistics.mean
    return AffineMap(np.eye(numbers, network.latent, network.appearance, np.float32), offset)


def _calibration(
    network: FaceModel,
    affine: AffineMap,
    images: Images,
    people: Sequence[str],
    split: Split,
    *,
    mirror: bool,
) -> Calibration:
    """Fit to people whom the network has not learned from."""
    rows = split.validation
    with torch.no_grad():
        back = [network(to_floats(images[some])).clamp(0, 1).permute(0, 2, 3, 1) for some in chunked(rows)]
    return calibration_of(
        affine(_compared(network, images, rows, mirror=mirror)),
        [people[row] for row in rows],
        reconstruction_errors(images[rows], torch.cat(back).numpy()),
    )


def _recall_at_1(
    network: FaceModel,
    affine: AffineMap,
    images: Images,
    people: Sequence[str],
    split: Split,
    *,
    mirror: bool,
) -> float | None:
    """Let held-out images query all others: the share that finds its person first."""
    everyone = np.concatenate([split.train, split.validation, split.held_out])
    names = np.array([people[row] for row in everyone])
    alike, counts = np.unique(names, return_counts=True)
    some = np.flatnonzero(np.isin(names, alike[counts > 1]))
    asking = some[some >= len(everyone) - len(split.held_out)]
    if not len(asking):
        return None
    embeddings = affine(_compared(network, images, everyone, mirror=mirror))
    right = 0
    for rows in chunked(asking):
        likeness = embeddings[rows] @ embeddings.T
        likeness[np.arange(len(rows)), rows] = -2
        right += int((names[likeness.argmax(1)] == names[rows]).sum())
    return right / len(asking)


def _to_json(figures: Figures, split: Split) -> dict[str, Any]:
    found = {} if figures.recall_at_1 is None else {"held_out_recall_at_1": round(figures.recall_at_1, 3)}
    if figures.cleaned is not None:
        found |= figures.cleaned.to_json()
    return found | {
        "held_out_psnr_db": round(figures.held_out_psnr, 2),
        "pca_psnr_db": round(figures.pca_psnr, 2),
        "held_out_images": len(split.held_out),
        "training_images": len(split.train),
        "parity": {name: float(f"{apart:.1e}") for name, apart in figures.parity.items()},
    }


def reconstruction_sheet(
    network: nn.Module, images: Images, indices: NDArray[np.int64], *, noise: NoiseSpec | None = None
) -> Images:
    """Draw originals above their reconstructions, uint8 (H, W, 3); with noise, noisy images between them."""
    shown = to_floats(images[indices])
    if noise is not None:
        shown = make_noisy(shown, noise, np.random.default_rng(0))
    with torch.no_grad():
        back = network.eval()(shown.to(next(network.parameters()).device)).cpu()
    seen, drawn = (to_uint8(each.permute(0, 2, 3, 1).numpy()) for each in (shown, back))
    told = {"original": images[indices], "noisy": seen, "reconstruction": drawn}
    if noise is None:
        del told["noisy"]
    rows = [[Tile(pixels=pixels) for pixels in row] for row in told.values()]
    return contact_sheet(rows, row_labels=list(told), side=96)


@torch.no_grad()
def _latents(network: FaceModel, images: Images, indices: NDArray[np.int64]) -> NDArray[np.float32]:
    """Encode to float32 (N, D)."""
    encoded = [network.encoder(to_floats(images[rows])) for rows in chunked(indices)]
    latents: NDArray[np.float32] = torch.cat(encoded).numpy()
    return latents


def _compared(
    network: FaceModel, images: Images, indices: NDArray[np.int64], *, mirror: bool
) -> NDArray[np.float32]:
    """Encode images to float32 (N, D); with ``mirror``, to averages with their mirror images."""
    if not mirror:
        return _latents(network, images, indices)
    both = _latents(network, images, indices) + _latents(network, images[:, :, ::-1], indices)
    halved: NDArray[np.float32] = both / np.float32(2)
    return halved


def versions_here() -> dict[str, str]:
    """Return the versions of what a bundle was made with."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onnxruntime": version("onnxruntime"),
    }
