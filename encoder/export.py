"""Torch module to bundle. Refuses to write when ONNX and torch disagree. Needs the [train] extra.

It takes any encoder and decoder, so it need not know the trainer:

    encoder  float32 (N, C, H, W) in [0, 1]  ->  (N, D)
    decoder  float32 (N, D)                  ->  (N, C, H, W), clipped here to [0, 1]

Legend: N images, H = W = S pixels, C channels, D latent size.
"""

from __future__ import annotations

import copy
import io
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from encoder.bundle import AffineMap, Bundle, BundleSpec, Golden, LatentStatistics
from encoder.errors import ExportError
from encoder.images import to_uint8

__all__ = ["OPSET", "PARITY", "Exported", "export_graphs", "round_weights", "save_bundle"]

OPSET: Final = 18
PARITY: Final = 1e-4
"""Largest allowed difference between torch and onnxruntime, on latents of about unit spread."""
_HALF_FROM: Final = 4096  # smaller tensors (biases, BatchNorm) stay float32: they cost nothing


@dataclass(frozen=True, slots=True)
class Exported:
    """ONNX bytes by graph name, and the largest difference from torch seen on each."""

    graphs: dict[str, bytes]
    parity: dict[str, float]


def round_weights(module: nn.Module) -> None:
    """Round large weights, in place, to what float16 can hold: they are stored so, at half the bytes.

    Figures taken afterwards are those of the model as stored; arithmetic stays float32.
    """
    with torch.no_grad():
        for weight in module.parameters():
            if weight.numel() >= _HALF_FROM:
                weight.copy_(weight.half().float())


def export_graphs(
    encoder: nn.Module, decoder: nn.Module, *, size: int, channels: int, latent: int, seed: int = 0
) -> Exported:
    """Export both modules and compare them with torch on random input.

    Raises:
        ExportError: more than :data:`PARITY` apart, or a batch of one differs from a batch of five.
    """
    source = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (5, size, size, channels), generator=source, dtype=torch.uint8)
    latents = torch.randn(5, latent, generator=source)
    modules: dict[str, tuple[nn.Module, Tensor]] = {
        "encoder": (_FromPixels(encoder), pixels),
        "decoder": (_ToImage(decoder), latents),
    }
    exported = Exported({}, {})
    for name, (module, example) in modules.items():
        module = copy.deepcopy(module).cpu().eval()
        exported.graphs[name] = _to_onnx(module, example, output="latent" if name == "encoder" else "image")
        exported.parity[name] = _parity(name, exported.graphs[name], module, example)
    return exported


def save_bundle(
    folder: Path, exported: Exported, spec: BundleSpec, *, statistics: LatentStatistics, affine: AffineMap
) -> Bundle:
    """Write the bundle with golden values: four pictures the decoder draws of sampled latents.

    Raises:
        OptionError: something that is no bundle stands there.
    """
    rng = np.random.default_rng(0)
    drawn = rng.multivariate_normal(statistics.mean, statistics.covariance, size=4, method="eigh")
    encode, decode = (
        ort.InferenceSession(exported.graphs[name], providers=["CPUExecutionProvider"])
        for name in ("encoder", "decoder")
    )
    pixels = to_uint8(_call(decode, drawn.astype(np.float32)))
    latents = _call(encode, pixels)
    return Bundle.save(
        folder,
        spec=spec,
        graphs=exported.graphs,
        statistics=statistics,
        affine=affine,
        golden=Golden(pixels, latents, _call(decode, latents)),
    )


class _FromPixels(nn.Module):
    """uint8 (N, H, W, C) -> latent (N, D): scaling lives in the graph."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, pixels: Tensor) -> Tensor:
        image = pixels.float() / 255  # (N, H, W, C) in [0, 1]
        latent: Tensor = self.encoder(image.permute(0, 3, 1, 2))  # (N, C, H, W) -> (N, D)
        return latent


class _ToImage(nn.Module):
    """latent (N, D) -> float32 (N, H, W, C) in [0, 1]."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, latent: Tensor) -> Tensor:
        image: Tensor = self.decoder(latent)  # (N, C, H, W)
        return image.clamp(0, 1).permute(0, 2, 3, 1)  # (N, H, W, C)


def _to_onnx(module: nn.Module, example: Tensor, *, output: str) -> bytes:
    batch = torch.export.Dim("N")
    loud = logging.getLogger("torch.onnx")
    level = loud.level
    loud.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter's notes to its own developers
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                verbose=False,
                optimize=False,
                opset_version=OPSET,
                input_names=["pixels" if output == "latent" else "latent"],
                output_names=[output],
                dynamic_shapes=({0: batch},),
            )
    finally:
        loud.setLevel(level)
    if program is None:
        raise ExportError("torch exported nothing; check the versions of torch and onnxscript")
    model = program.model_proto
    _store_half(model)
    onnx.checker.check_model(model, full_check=True)
    buffer = io.BytesIO()
    onnx.save_model(model, buffer)
    return buffer.getvalue()


def _store_half(model: onnx.ModelProto) -> None:
    """Store large float32 weights that float16 holds exactly as float16, cast back when loaded."""
    casts = []
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        half = values.astype(np.float16)
        if values.dtype != np.float32 or values.size < _HALF_FROM or not np.array_equal(half, values):
            continue
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}.half"))
        casts.append(onnx.helper.make_node("Cast", [tensor.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _parity(name: str, graph: bytes, module: nn.Module, example: Tensor) -> float:
    with torch.no_grad():
        expected = module(example).numpy()
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    rows = example.numpy()
    together = _call(session, rows)
    alone = np.concatenate([_call(session, row[None]) for row in rows])
    apart = float(max(np.abs(together - expected).max(), np.abs(alone - expected).max()))
    if not apart <= PARITY:
        raise ExportError(
            f"ONNX and torch must agree to {PARITY:.0e}, the {name} is {apart:.1e} apart; nothing was written"
        )
    return apart


def _call(session: ort.InferenceSession, rows: NDArray[np.generic]) -> NDArray[np.float32]:
    (feed,) = session.get_inputs()
    (out,) = session.run(None, {feed.name: rows})
    result: NDArray[np.float32] = out
    return result
