"""How well a cleaner cleans, and its bundle with these figures.

They are measured in torch with the weights as stored; the export proves that the graphs compute the same.

Legend: N images, S side, C channels; sigma the deviation of the noise, of 1, where white is 1.
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

from lookalike.encoder.bundle.bundle import Bundle
from lookalike.encoder.bundle.spec import DenoiserSpec
from lookalike.encoder.export.torch_export import OPSET, export_denoiser, quantize_weights
from lookalike.encoder.runtime.denoiser import save_denoiser
from lookalike.trainer.data.batches import subsample, to_floats
from lookalike.trainer.data.dataset import Split
from lookalike.trainer.data.noise import add_noise
from lookalike.trainer.models.denoiser import SIZE_MULTIPLE, BlindDenoiser
from lookalike.trainer.publish.ae import versions_here

Images = NDArray[np.uint8]
_AT_ONCE: Final = 32
_MEASURED: Final = 200
"""Held-out images that the bundle's figures are measured on."""
_BEST: Final = 99.0
"""dB: what is given back as it was counts as this."""
_AS_GOOD_AS_CLEAN: Final = 1.5 / 255
"""Estimates below this are of what cameras and JPEG leave in any photograph."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cleaning:
    """Means over images at one sigma, PSNR in dB, of pixels clipped to [0, 1].

    Attributes:
        sigma: The deviation of the noise.
        noisy: Of what came in.
        told: Cleaned by the network that is told sigma.
        blind: Cleaned by the network that is told the estimate.
        estimate: Mean estimate.
        error: Mean distance of the estimate from sigma.
    """

    sigma: float
    noisy: float
    told: float
    blind: float
    estimate: float
    error: float

    def to_json(self) -> dict[str, float]:
        """Return JSON values, deviations of 255."""
        return {
            "sigma": round(255 * self.sigma, 2),
            "noisy_psnr_db": round(self.noisy, 2),
            "known_sigma_psnr_db": round(self.told, 2),
            "blind_psnr_db": round(self.blind, 2),
            "estimate": round(255 * self.estimate, 2),
            "estimate_error": round(255 * self.error, 2),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class DenoiserMetrics:
    """What is reported of a cleaner, on the held-out images.

    Attributes:
        levels: At no noise and at several sigmas, ascending.
        images: How many were measured on.
        parameters: Numbers that both networks learned.
        parity: Largest difference between torch and onnxruntime, by graph.
    """

    levels: Sequence[Cleaning]
    images: int
    parameters: int
    parity: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, rounded to what they are good for."""
        return {
            "held_out": [level.to_json() for level in self.levels],
            "held_out_images": self.images,
            "parameters": self.parameters,
            "parity": {name: float(f"{apart:.1e}") for name, apart in self.parity.items()},
        }


def measure_levels(low: float, high: float) -> tuple[float, float]:
    """Return the sigmas that an epoch is measured at: a third and two thirds of the way, 25 and 50 of 75."""
    return low + (high - low) / 3, low + 2 * (high - low) / 3


@torch.no_grad()
def cleaning_at(
    network: BlindDenoiser, images: Images, rows: NDArray[np.int64], sigma: float, *, device: torch.device
) -> Cleaning:
    """Measure on ``images[rows]``, uint8 (N, S, S, C), with the same noise whenever it is measured."""
    network.eval()
    found = np.concatenate([_measured(network, *each, sigma) for each in _noisy(images, rows, sigma, device)])
    noisy, told, blind, estimate, error = found.mean(0).tolist()
    return Cleaning(sigma=sigma, noisy=noisy, told=told, blind=blind, estimate=estimate, error=error)


@torch.no_grad()
def psnr_known_sigma(
    network: BlindDenoiser, images: Images, rows: NDArray[np.int64], sigma: float, *, device: torch.device
) -> float:
    """Return ``told`` of :func:`cleaning_at`, at half its work."""
    network.eval()
    found = [
        _psnr(network(noisy, _told(noisy, sigma)).cleaned, clean).double()
        for noisy, clean in _noisy(images, rows, sigma, device)
    ]
    return torch.cat(found).mean().item()


def _noisy(
    images: Images, rows: NDArray[np.int64], sigma: float, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield noisy and clean pixels, both (B, 3, S, S); of grey pictures all channels have the same noise."""
    rng = np.random.default_rng(0)
    for some in np.array_split(rows, -(-len(rows) // _AT_ONCE)):
        clean = to_floats(images[some])
        levels = torch.full((len(some),), sigma)
        noisy = add_noise(clean, levels, kind="gaussian", rng=rng)
        yield noisy.expand(-1, 3, -1, -1).to(device), clean.expand(-1, 3, -1, -1).to(device)


def _measured(network: BlindDenoiser, noisy: Tensor, clean: Tensor, sigma: float) -> NDArray[np.float64]:
    """Return noisy, told and blind PSNR, the estimate and its distance from sigma: (B, 5)."""
    told = network(noisy, _told(noisy, sigma)).cleaned
    blind = network(noisy)
    columns = [_psnr(each, clean) for each in (noisy, told, blind.cleaned)]
    columns += [blind.estimated, (blind.estimated - sigma).abs()]
    return torch.stack(columns, 1).double().cpu().numpy()


def _told(noisy: Tensor, sigma: float) -> Tensor:
    return torch.full((len(noisy),), sigma, device=noisy.device)


def _psnr(made: Tensor, clean: Tensor) -> Tensor:
    """Return the PSNR in dB of each image, (B,)."""
    error = (made.float().clamp(0, 1) - clean).square().mean((1, 2, 3))
    return (-10 * error.clamp_min(1e-12).log10()).clamp_max(_BEST)


def export_bundle(
    network: BlindDenoiser,
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
        network: Trained, on the CPU.
        folder: Where to.
        images: uint8 (N, S, S, C).
        split: Which of them are held out.
        low: Lowest sigma it was trained for.
        high: Highest.
        training: What the run was.
        device: Where to measure.

    Raises:
        ExportError: ONNX and torch disagree.
        OptionError: something that is no bundle stands there.
    """
    quantize_weights(network.eval())
    exported = export_denoiser(network.cleaner, network.estimator, size_multiple=SIZE_MULTIPLE)
    rows = subsample(split.held_out, _MEASURED)
    network = network.to(device)
    figures = DenoiserMetrics(
        levels=[
            cleaning_at(network, images, rows, sigma, device=device)
            for sigma in sorted({0.0, *measure_levels(low, high), high})
        ],
        images=len(rows),
        parameters=sum(weight.numel() for weight in network.parameters()),
        parity=exported.parity,
    )
    spec = DenoiserSpec(
        size_multiple=SIZE_MULTIPLE,
        receptive_field=network.shape.reach,
        deviations=(low, high),
        clean_below=_AS_GOOD_AS_CLEAN,
        opset=OPSET,
        training={**training, **versions_here()},
        figures=figures.to_json() | {"training_images": len(split.train)},
    )
    return save_denoiser(folder, spec=spec, graphs=exported.graphs), figures
