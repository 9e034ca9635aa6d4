"""Metrics of a denoiser, and its bundle.

Metrics are measured in torch with the weights as stored; the export proves that the graphs compute the same.

Legend: N images, S side, C channels; sigma the standard deviation of the noise, of 1, where white is 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from lookalike.encoder.bundle import Bundle, DenoiserSpec
from lookalike.encoder.export.torch_export import OPSET, export_denoiser, quantize_weights
from lookalike.encoder.runtime import save_denoiser
from lookalike.trainer.data import Split, add_noise, subsample, to_floats
from lookalike.trainer.models import CELL, SIZE_MULTIPLE, DenoiserNet, NoiseEstimator, reflect_pad
from lookalike.trainer.publish.ae import record_versions, rounded_parity

Images = NDArray[np.uint8]
_BATCH: Final = 32
_MEASURED: Final = 200
"""Held-out images that the bundle's metrics are measured on."""
_MAX_PSNR: Final = 99.0
"""dB: an exact output counts as this."""
_CLEAN_SIGMA: Final = 1.5 / 255
"""Estimates below this are of the noise that cameras and JPEG leave in any photograph."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LevelMetrics:
    """Means over images at one sigma, PSNR in dB, of pixels clipped to [0, 1].

    Attributes:
        sigma: Standard deviation of the noise.
        psnr_noisy: Of the input.
        psnr_known_sigma: Of the output, given sigma.
        psnr_blind: Of the output, given the estimated sigma.
        estimate: Mean estimate, over all places.
        estimate_error: Mean absolute error of the estimate at a place.
    """

    sigma: float
    psnr_noisy: float
    psnr_known_sigma: float
    psnr_blind: float
    estimate: float
    estimate_error: float

    def to_json(self) -> dict[str, float]:
        """Return JSON values, rounded; sigmas of 255."""
        return {
            "sigma": round(255 * self.sigma, 2),
            "noisy_psnr_db": round(self.psnr_noisy, 2),
            "known_sigma_psnr_db": round(self.psnr_known_sigma, 2),
            "blind_psnr_db": round(self.psnr_blind, 2),
            "estimate": round(255 * self.estimate, 2),
            "estimate_error": round(255 * self.estimate_error, 2),
        }

    def summary(self) -> str:
        """Return a line of text."""
        return (
            f"held-out PSNR at sigma {255 * self.sigma:.0f}: {self.psnr_noisy:.2f} dB, denoised "
            f"{self.psnr_known_sigma:.2f}, blind {self.psnr_blind:.2f} (estimate {255 * self.estimate:.1f})"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class DenoiserMetrics:
    """Metrics of a denoiser on the held-out images.

    Attributes:
        levels: Without noise and at several sigmas, ascending.
        images: Number of images measured on.
        parameters: Number of parameters of both networks.
        parity: Largest difference between torch and onnxruntime, by graph.
    """

    levels: Sequence[LevelMetrics]
    images: int
    parameters: int
    parity: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, rounded."""
        return {
            "held_out": [level.to_json() for level in self.levels],
            "held_out_images": self.images,
            "parameters": self.parameters,
            "parity": rounded_parity(self.parity),
        }


@torch.no_grad()
def measure_level(
    denoiser: DenoiserNet,
    estimator: NoiseEstimator,
    images: Images,
    rows: NDArray[np.int64],
    sigma: float,
    *,
    device: torch.device,
) -> LevelMetrics:
    """Measure on ``images[rows]``, uint8 (N, S, S, C), always with the same noise."""
    denoiser.eval()
    estimator.eval()
    columns = []
    for noisy, clean in _noisy(images, rows, sigma, device):
        height, width = noisy.shape[2:]
        padded = reflect_pad(noisy)
        cells = estimator(padded)  # (B, H/8, W/8)
        spread = functional.interpolate(cells[:, None], scale_factor=float(CELL), mode="bilinear")[:, 0]
        known = denoiser(padded, torch.full_like(padded[:, 0], sigma))[:, :, :height, :width]
        blind = denoiser(padded, spread)[:, :, :height, :width]
        values = [psnr(each, clean) for each in (noisy, known, blind)]
        values += [cells.mean((1, 2)), (cells - sigma).abs().mean((1, 2))]
        columns.append(torch.stack(values, 1).double().cpu().numpy())  # (B, 5)
    psnr_noisy, known_sigma, psnr_blind, estimate, error = np.concatenate(columns).mean(0).tolist()
    return LevelMetrics(
        sigma=sigma,
        psnr_noisy=psnr_noisy,
        psnr_known_sigma=known_sigma,
        psnr_blind=psnr_blind,
        estimate=estimate,
        estimate_error=error,
    )


def _noisy(
    images: Images, rows: NDArray[np.int64], sigma: float, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield noisy and clean pixels, both (B, 3, S, S); gray images have the same noise in all channels."""
    rng = np.random.default_rng(0)
    for chunk in np.array_split(rows, -(-len(rows) // _BATCH)):
        clean = to_floats(images[chunk])
        noisy = add_noise(clean, _full(clean, sigma), kind="gaussian", rng=rng)
        yield noisy.expand(-1, 3, -1, -1).to(device), clean.expand(-1, 3, -1, -1).to(device)


def _full(images: Tensor, sigma: float) -> Tensor:
    return torch.full((len(images),), sigma, device=images.device)


def psnr(output: Tensor, clean: Tensor) -> Tensor:
    """Return the PSNR in dB of each image, (B,)."""
    error = (output.float().clamp(0, 1) - clean).square().mean((1, 2, 3))
    return (-10 * error.clamp_min(1e-12).log10()).clamp_max(_MAX_PSNR)


def export_bundle(
    denoiser: DenoiserNet,
    estimator: NoiseEstimator,
    folder: Path,
    *,
    images: Images,
    split: Split,
    low: float,
    high: float,
    training: Mapping[str, Any],
    device: torch.device,
) -> tuple[Bundle, DenoiserMetrics]:
    """Round the weights to sixteen bits, in place, measure, export, and write the bundle.

    Args:
        denoiser: Trained, on the CPU.
        estimator: Trained, on the CPU.
        folder: Folder of the bundle.
        images: uint8 (N, S, S, C).
        split: The parts they belong to.
        low: Lowest sigma of the training.
        high: Highest sigma.
        training: Record of the run.
        device: Where to measure.

    Raises:
        ExportError: ONNX and torch disagree.
        InvalidArgumentError: ``folder`` is something other than a bundle.
    """
    for network in (denoiser, estimator):
        quantize_weights(network.eval(), bits=8)
    exported = export_denoiser(denoiser, estimator, size_multiple=SIZE_MULTIPLE, cell=CELL)
    rows = subsample(split.held_out, _MEASURED)
    denoiser, estimator = denoiser.to(device), estimator.to(device)
    metrics = DenoiserMetrics(
        levels=[
            measure_level(denoiser, estimator, images, rows, sigma, device=device)
            for sigma in sorted({0.0, low + (high - low) / 3, low + 2 * (high - low) / 3, high})
        ],
        images=len(rows),
        parameters=sum(weight.numel() for net in (denoiser, estimator) for weight in net.parameters()),
        parity=exported.parity,
    )
    spec = DenoiserSpec(
        size_multiple=SIZE_MULTIPLE,
        receptive_field=denoiser.spec.receptive_field,
        estimator_field=denoiser.spec.estimator_field,
        cell=CELL,
        deviations=(low, high),
        clean_below=_CLEAN_SIGMA,
        opset=OPSET,
        training=record_versions(training),
        figures=metrics.to_json() | {"training_images": len(split.train)},
    )
    return save_denoiser(folder, spec=spec, graphs=exported.graphs), metrics
