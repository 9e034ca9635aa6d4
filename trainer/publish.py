"""From a trained network to a bundle with its figures.

They are measured in torch with the weights as stored; the export proves that the graphs compute the same.

Legend: N images, S side, C channels, D latent size.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from encoder.bundle import AffineMap, Bundle, BundleSpec, LatentStatistics
from encoder.export import OPSET, export_graphs, round_weights, save_bundle
from encoder.images import ImageSpec, to_uint8
from encoder.quality import psnr
from encoder.sheets import Tile, contact_sheet
from trainer.batches import ROWS, to_floats
from trainer.datasets import Split
from trainer.networks import AE, principal_axes
from trainer.training import reconstruction_psnr

__all__ = ["Figures", "bundle_of", "pca_psnr", "reconstruction_sheet"]

Images = NDArray[np.uint8]
_MOST_VALUES: Final = 1 << 28
"""PCA is fitted to so many values at most (1 GiB): at 45 px RGB 22,000 images and their mirror images."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """What is reported of a face model, on the held-out people.

    Attributes:
        held_out_psnr: dB of the mean squared error, reconstructions with the weights as stored.
        pca_psnr: dB, PCA of the same size fitted to the same training images and their mirror images (an even
            choice of them where they are more than 1 GiB of floats).
        parity: Largest difference between torch and onnxruntime, by graph.
    """

    held_out_psnr: float
    pca_psnr: float
    parity: Mapping[str, float]


def pca_psnr(images: Images, split: Split, latent: int) -> float:
    """Return the held-out PSNR in dB of PCA with ``latent`` components, output clipped to [0, 1]."""
    mean, axes, _ = principal_axes(mirrored_too(images, split.train).flatten(1), latent)
    total = 0.0
    for rows in _pieces(split.held_out):
        flat = to_floats(images[rows]).flatten(1)  # (B, P)
        back = (flat - mean) @ axes.T @ axes + mean
        total += (back.clamp(0, 1) - flat).square().mean().item() * len(rows)
    return psnr(total / len(split.held_out))


def mirrored_too(
    images: Images, indices: NDArray[np.int64], *, most_values: int = _MOST_VALUES
) -> torch.Tensor:
    """Return float32 (2N, C, S, S) in [0, 1]: images and their mirror images, evenly chosen to fit memory."""
    _, side, _, channels = images.shape
    count = min(len(indices), max(1, most_values // (2 * channels * side**2)))
    chosen = indices[np.arange(count) * len(indices) // count]
    both = torch.empty(2, len(chosen), channels, side, side)
    for start in range(0, len(chosen), ROWS):
        some = to_floats(images[chosen[start : start + ROWS]])
        both[0, start : start + ROWS] = some
        both[1, start : start + ROWS] = some.flip(3)
    return both.flatten(0, 1)


def bundle_of(
    network: AE,
    folder: Path,
    *,
    image: ImageSpec,
    images: Images,
    split: Split,
    training: Mapping[str, Any],
    pca: float,
) -> tuple[Bundle, Figures]:
    """Export, fit the map to embeddings on the training images, measure on the held-out ones, write.

    Args:
        network: Trained, on the CPU; its large weights are rounded to float16 here.
        folder: Where the bundle goes.
        image: How the images were made.
        images: uint8 (N, S, S, C).
        split: Who is on which side.
        training: Configuration for the record.
        pca: PSNR of PCA, from :func:`pca_psnr`.

    Raises:
        ExportError: ONNX and torch disagree; nothing is written.
        OptionError: something that is no bundle stands at ``folder``.
    """
    round_weights(network)
    network.eval()
    latent = network.spec.latent
    exported = export_graphs(
        network.encoder, network.decoder, size=image.size, channels=image.channels, latent=latent
    )
    # The mirrored average of what only tells left from right is nearly nothing: whitening fitted to the
    # averages would blow that up, so it is fitted to the latents themselves.
    statistics = LatentStatistics.of(_latents(network, images, split.train))
    affine = AffineMap.whitening(statistics)
    figures = Figures(
        held_out_psnr=reconstruction_psnr(network, images, split.held_out, device=torch.device("cpu")),
        pca_psnr=pca,
        parity=exported.parity,
    )
    spec = BundleSpec(
        kind="ae",
        image=image,
        latent=latent,
        embedding=len(affine.matrix),
        mirror=True,
        opset=OPSET,
        training={**training, **_versions()},
        figures={
            "held_out_psnr_db": round(figures.held_out_psnr, 2),
            "pca_psnr_db": round(figures.pca_psnr, 2),
            "held_out_images": len(split.held_out),
            "training_images": len(split.train),
            "parity": {name: float(f"{apart:.1e}") for name, apart in exported.parity.items()},
        },
    )
    return save_bundle(folder, exported, spec, statistics=statistics, affine=affine), figures


def reconstruction_sheet(network: nn.Module, images: Images, indices: NDArray[np.int64]) -> Images:
    """Draw originals above their reconstructions, uint8 (H, W, 3)."""
    with torch.no_grad():
        device = next(network.parameters()).device
        back = network.eval()(to_floats(images[indices]).to(device)).cpu().permute(0, 2, 3, 1).numpy()
    rows = [[Tile(pixels=pixels) for pixels in row] for row in (images[indices], to_uint8(back))]
    return contact_sheet(rows, row_labels=["original", "reconstruction"], side=96)


@torch.no_grad()
def _latents(network: AE, images: Images, indices: NDArray[np.int64]) -> NDArray[np.float32]:
    """Encode to float32 (N, D)."""
    pieces = [network.encoder(to_floats(images[rows])) for rows in _pieces(indices)]
    latents: NDArray[np.float32] = torch.cat(pieces).numpy()
    return latents


def _pieces(indices: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return np.array_split(indices, -(-len(indices) // ROWS))


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onnxruntime": version("onnxruntime"),
    }
