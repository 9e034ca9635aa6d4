"""Export torch modules as a bundle, only if ONNX and torch agree. Needs the [train] extra.

It takes any encoder and decoder:

    encoder  float32 (N, C, H, W) in [0, 1]  ->  (N, D), or that and the standard deviations (N, Z) of q(z|x)
    decoder  float32 (N, D)                  ->  (N, C, H, W), clipped here to [0, 1]

and any denoiser and noise estimator for images of any size:

    denoiser   float32 (N, 3, H, W) in [0, 1], sigma (N, H, W)  ->  (N, 3, H, W), not clipped
    estimator  float32 (N, 3, H, W) in [0, 1]                   ->  sigma (N, H/C, W/C), in cells of C x C

Legend: N images, H = W = S pixels, C channels, D latent size, Z dimensions of it with a prior.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim

from lookalike.encoder.bundle import AffineMap, Bundle, BundleSpec, Calibration, LatentPrior, LatentStatistics
from lookalike.encoder.errors import ExportError, one_line
from lookalike.encoder.export.optimize import optimize_encoder
from lookalike.encoder.export.parity import (
    MIN_QUANTIZED_SIZE,
    int8_scales,
    parity_of,
    quantize_initializers,
    run_all,
    session_of,
    strip_metadata,
)
from lookalike.encoder.images import to_uint8

OPSET: Final = 18
_INPUTS: Final = {
    "encoder": ["pixels"],
    "decoder": ["latent"],
    "denoiser": ["pixels", "sigma"],
    "estimator": ["pixels"],
}
_OUTPUTS: Final = {
    "encoder": ["latent", "deviation"],
    "decoder": ["image"],
    "denoiser": ["denoised"],
    "estimator": ["sigma"],
}


@dataclass(frozen=True, slots=True)
class Exported:
    """ONNX bytes by graph name, and the largest difference from torch seen on each."""

    graphs: dict[str, bytes]
    parity: dict[str, float]


def quantize_weights(module: nn.Module, *, bits: Literal[8, 16] = 16) -> None:
    """Round large weights in place to the precision they are stored in. Arithmetic stays float32.

    Metrics measured afterwards are those of the stored model.

    Args:
        module: Weights of fewer than 4,096 values stay unchanged.
        bits: 16 rounds to float16; a weight with a value beyond 65504 stays unchanged. 8 rounds to int8 with
            a scale for each row (one output channel); vectors are rounded as with 16.
    """
    with torch.no_grad():
        for weight in module.parameters():
            if weight.numel() < MIN_QUANTIZED_SIZE:
                continue
            if bits == 8 and weight.ndim > 1:
                rows = weight.flatten(1)
                step = int8_scales(rows.abs().amax(1).numpy())
                scale = torch.from_numpy(step)[:, None]
                weight.copy_(((rows / scale).round() * scale).view_as(weight))
            elif (half := weight.half().float()).isfinite().all():
                weight.copy_(half)


def export_graphs(
    encoder: nn.Module,
    decoder: nn.Module,
    *,
    size: int,
    channels: int,
    latent: int,
    deviations: int = 0,
    seed: int = 0,
) -> Exported:
    """Export both modules and compare them with torch on random input.

    Copies in evaluation mode are exported; the modules are not changed.

    Args:
        encoder: float32 (N, C, H, W) to (N, D), or to that and (N, Z).
        decoder: float32 (N, D) to (N, C, H, W).
        size: S.
        channels: C.
        latent: D.
        deviations: Z, if the encoder also gives deviations; else 0.
        seed: Of the random input.

    Raises:
        ExportError: Torch cannot export, an output has another shape, they differ by more than
            :data:`PARITY`, or a batch of one differs from a batch of five.
    """
    source = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (5, size, size, channels), generator=source, dtype=torch.uint8)
    latents = torch.randn(5, latent, generator=source)
    modules: dict[str, tuple[nn.Module, Tensor]] = {
        "encoder": (_FromPixels(encoder), pixels),
        "decoder": (_ToImage(decoder), latents),
    }
    shapes: dict[str, list[tuple[int, ...]]] = {
        "encoder": [(5, latent)],
        "decoder": [(5, size, size, channels)],
    }
    if deviations:
        shapes["encoder"].append((5, deviations))
    exported = Exported({}, {})
    for name, (module, example) in modules.items():
        module = copy.deepcopy(module).cpu().eval()
        exported.graphs[name] = _to_onnx(name, module, (example,), ({0: Dim("N")},), len(shapes[name]))
        exported.parity[name] = _parity(name, exported.graphs[name], module, (example,), shapes[name])
    return exported


def export_denoiser(
    denoiser: nn.Module, estimator: nn.Module, *, size_multiple: int, cell: int, seed: int = 0
) -> Exported:
    """Export both modules and compare them with torch on random images of two sizes.

    Copies in evaluation mode are exported; the modules are not changed. The result is
    for :func:`~lookalike.encoder.runtime.denoiser.save_denoiser`.

    Args:
        denoiser: float32 (N, 3, H, W) and (N, H, W) to (N, 3, H, W).
        estimator: float32 (N, 3, H, W) to (N, H/C, W/C).
        size_multiple: What H and W are multiples of.
        cell: C; divides the size multiple.
        seed: Of the random images.

    Raises:
        ExportError: Torch cannot export, an output has another shape, they differ by more than
            :data:`PARITY`, or a batch of one differs from a batch of five.
    """
    source = torch.Generator().manual_seed(seed)
    unit = size_multiple * (-(-16 // size_multiple) | 1)  # odd: not a multiple of anything larger
    free = {0: Dim("N"), 1: size_multiple * Dim("h", min=1), 2: size_multiple * Dim("w", min=1)}
    exported = Exported({}, {})
    modules = {"denoiser": _Denoise(denoiser), "estimator": _Estimates(estimator)}
    for name, fresh in modules.items():
        module = copy.deepcopy(fresh).cpu().eval()
        for high, wide in ((2, 3), (5, 2)):
            pixels = torch.rand(5, high * unit, wide * unit, 3, generator=source)
            sigma = torch.rand(pixels.shape[:3], generator=source) * 0.3
            given, dims = ((pixels, sigma), (free, free)) if name == "denoiser" else ((pixels,), (free,))
            if name not in exported.graphs:
                exported.graphs[name] = _to_onnx(name, module, given, dims, 1)
            cells = (5, high * unit // cell, wide * unit // cell)
            shape = tuple(pixels.shape) if name == "denoiser" else cells
            difference = _parity(name, exported.graphs[name], module, given, [shape])
            exported.parity[name] = max(difference, exported.parity.get(name, 0.0))
    return exported


def save_bundle(
    folder: Path,
    exported: Exported,
    spec: BundleSpec,
    *,
    statistics: LatentStatistics,
    affine: AffineMap,
    calibration: Calibration | None = None,
    sampling: LatentPrior | None = None,
) -> Bundle:
    """Write the bundle with golden values: four images that the decoder generates from sampled latents.

    The encoder is optimized first.

    Raises:
        ExportError: It cannot be, or then differs by more than :data:`PARITY`.
        InvalidArgumentError: The folder holds something else than a bundle.
    """
    rng = np.random.default_rng(0)
    sampled = rng.multivariate_normal(
        statistics.mean,
        statistics.covariance,
        size=4,
        method="eigh",
        check_valid="ignore",  # rounding to float32 leaves tiny negative eigenvalues
    )
    graphs = exported.graphs | {
        "encoder": optimize_encoder(exported.graphs["encoder"], affine, spec.image.shape)
    }
    encode, decode = (session_of(graphs[name]) for name in ("encoder", "decoder"))
    pixels = to_uint8(run_all(decode, sampled.astype(np.float32))[0])
    latents = run_all(encode, pixels)[0]
    return Bundle.save(
        folder,
        spec=spec,
        graphs=graphs,
        statistics=statistics,
        affine=affine,
        golden={"pixels": pixels, "latents": latents, "decoded": run_all(decode, latents)[0]},
        calibration=calibration,
        sampling=sampling,
    )


class _FromPixels(nn.Module):
    """uint8 (N, H, W, C) -> latent (N, D), and deviation (N, Z): scaling lives in the graph."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, pixels: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        image = pixels.float() / 255  # (N, H, W, C) in [0, 1]
        latent: Tensor | tuple[Tensor, Tensor] = self.encoder(
            image.permute(0, 3, 1, 2)
        )  # (N, C, H, W) -> (N, D)
        return latent


class _ToImage(nn.Module):
    """latent (N, D) -> float32 (N, H, W, C) in [0, 1]."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, latent: Tensor) -> Tensor:
        image: Tensor = self.decoder(latent)  # (N, C, H, W)
        return image.clamp(0, 1).permute(0, 2, 3, 1)  # (N, H, W, C)


class _Denoise(nn.Module):
    """pixels (N, H, W, 3), sigma (N, H, W) -> denoised (N, H, W, 3)."""

    def __init__(self, denoiser: nn.Module) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, pixels: Tensor, sigma: Tensor) -> Tensor:
        image: Tensor = self.denoiser(pixels.permute(0, 3, 1, 2), sigma)  # (N, 3, H, W)
        return image.permute(0, 2, 3, 1)  # (N, H, W, 3)


class _Estimates(nn.Module):
    """pixels (N, H, W, 3) -> sigma (N, H/C, W/C)."""

    def __init__(self, estimator: nn.Module) -> None:
        super().__init__()
        self.estimator = estimator

    def forward(self, pixels: Tensor) -> Tensor:
        sigma: Tensor = self.estimator(pixels.permute(0, 3, 1, 2))  # (N, 3, H, W) -> (N, H/C, W/C)
        return sigma


def _to_onnx(
    name: str, module: nn.Module, given: tuple[Tensor, ...], free: tuple[Any, ...], outputs: int
) -> bytes:
    """Export; ``free`` gives the dynamic axes of each tensor of ``given``."""
    try:
        model = _exported(name, module, given, free, outputs)
        quantize_initializers(model)
        strip_metadata(model)
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # torch, onnxscript and onnx each raise their own
        raise ExportError(
            f"torch cannot export the {name} ({one_line(error)[:500]}); nothing was written"
        ) from error
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _exported(
    name: str, module: nn.Module, given: tuple[Tensor, ...], free: tuple[Any, ...], outputs: int
) -> onnx.ModelProto:
    quiet = logging.root.manager.disable
    logging.disable()  # torch logs to stderr what the exception says too
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter's deprecation warnings
            program = torch.onnx.export(
                module,
                given,
                dynamo=True,
                verbose=False,
                optimize=False,
                opset_version=OPSET,
                input_names=_INPUTS[name],
                output_names=_OUTPUTS[name][:outputs],
                dynamic_shapes=free,
            )
    finally:
        logging.disable(quiet)
    if program is None:
        raise RuntimeError("torch exported nothing")
    return program.model_proto


def _parity(
    name: str,
    graph: bytes,
    module: nn.Module,
    given: tuple[Tensor, ...],
    shapes: Sequence[tuple[int, ...]],
) -> float:
    with torch.no_grad():
        outputs = module(*given)
    expected = [each.numpy() for each in (outputs if isinstance(outputs, tuple) else (outputs,))]
    return parity_of(name, graph, [each.numpy() for each in given], expected, shapes)
