"""Torch module to bundle. Refuses to write when ONNX and torch disagree. Needs the [train] extra.

It takes any encoder and decoder, so it need not know the trainer:

    encoder  float32 (N, C, H, W) in [0, 1]  ->  (N, D), or that and the deviations (N, Z) of q(z|x)
    decoder  float32 (N, D)                  ->  (N, C, H, W), clipped here to [0, 1]

Legend: N images, H = W = S pixels, C channels, D latent size, Z numbers of it that a VAE draws.
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
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from encoder.bundle import AffineMap, Bundle, BundleSpec, Golden, LatentStatistics
from encoder.calibration import Calibration
from encoder.errors import ExportError
from encoder.images import to_uint8
from encoder.manifest import one_line
from encoder.rounding import eight_bits, steps_of
from encoder.sampling import Sampling

__all__ = ["OPSET", "PARITY", "Exported", "export_graphs", "round_weights", "save_bundle"]

OPSET: Final = 18
PARITY: Final = 1e-4
"""Largest allowed difference between torch and onnxruntime, on latents of about unit spread."""
_OUTPUTS: Final = {"encoder": ["latent", "deviation"], "decoder": ["image"]}
_SMALL_FROM: Final = 4096  # smaller tensors (biases, BatchNorm) stay float32: they cost nothing


@dataclass(frozen=True, slots=True)
class Exported:
    """ONNX bytes by graph name, and the largest difference from torch seen on each."""

    graphs: dict[str, bytes]
    parity: dict[str, float]


def round_weights(module: nn.Module, *, bits: Literal[8, 16] = 16) -> None:
    """Round large weights, in place, to what takes less room: they are stored so. Arithmetic stays float32.

    Figures taken afterwards are those of the model as stored.

    Args:
        module: Weights of fewer than 4,096 values stay as they are: they cost nothing.
        bits: 16: to float16, at half the bytes; a weight with a value beyond it (65504) stays as it is. 8: to
            127 steps each way for each row (what makes one output), at a quarter of the bytes; vectors, which
            have no rows, as with 16.
    """
    with torch.no_grad():
        for weight in module.parameters():
            if weight.numel() < _SMALL_FROM:
                continue
            if bits == 8 and weight.ndim > 1:
                rows = weight.flatten(1)
                step = steps_of(rows.abs().amax(1).numpy())
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

    Both are exported as they are in evaluation mode; they themselves are left as they are.

    Args:
        encoder: float32 (N, C, H, W) to (N, D), or to that and (N, Z).
        decoder: float32 (N, D) to (N, C, H, W).
        size: S.
        channels: C.
        latent: D.
        deviations: Z, of an encoder that gives deviations too; 0: it does not.
        seed: Of the random input.

    Raises:
        ExportError: torch cannot export, an output has another shape, the two are more than
            :data:`PARITY` apart, or a batch of one differs from a batch of five.
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
        exported.graphs[name] = _to_onnx(name, module, example, len(shapes[name]))
        exported.parity[name] = _parity(name, exported.graphs[name], module, example, shapes[name])
    return exported


def save_bundle(
    folder: Path,
    exported: Exported,
    spec: BundleSpec,
    *,
    statistics: LatentStatistics,
    affine: AffineMap,
    calibration: Calibration | None = None,
    sampling: Sampling | None = None,
) -> Bundle:
    """Write the bundle with golden values: four pictures the decoder draws of sampled latents.

    Raises:
        OptionError: something that is no bundle stands there.
    """
    rng = np.random.default_rng(0)
    drawn = rng.multivariate_normal(
        statistics.mean,
        statistics.covariance,
        size=4,
        method="eigh",
        check_valid="ignore",  # rounding to float32 leaves tiny negative eigenvalues
    )
    encode, decode = (_session(exported.graphs[name]) for name in ("encoder", "decoder"))
    pixels = to_uint8(_call(decode, drawn.astype(np.float32)))
    latents = _call(encode, pixels)
    return Bundle.save(
        folder,
        spec=spec,
        graphs=exported.graphs,
        statistics=statistics,
        affine=affine,
        golden=Golden(pixels, latents, _call(decode, latents)),
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


def _to_onnx(name: str, module: nn.Module, example: Tensor, outputs: int) -> bytes:
    try:
        model = _exported(name, module, example, outputs)
        _store_small(model)
        _forget(model)
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # torch, onnxscript and onnx each raise their own
        raise ExportError(
            f"torch cannot export the {name} ({one_line(error)[:500]}); nothing was written"
        ) from error
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _exported(name: str, module: nn.Module, example: Tensor, outputs: int) -> onnx.ModelProto:
    quiet = logging.root.manager.disable
    logging.disable()  # several loggers of torch write to stderr what the exception says too
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
                input_names=["pixels" if name == "encoder" else "latent"],
                output_names=_OUTPUTS[name][:outputs],
                dynamic_shapes=({0: torch.export.Dim("N")},),
            )
    finally:
        logging.disable(quiet)
    if program is None:
        raise RuntimeError("torch exported nothing")
    return program.model_proto


def _store_small(model: onnx.ModelProto) -> None:
    """Store large float32 weights in eight or sixteen bits where these hold them exactly.

    They are widened again when the model is loaded.
    """
    nodes: list[onnx.NodeProto] = []
    added: list[onnx.TensorProto] = []
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < _SMALL_FROM:
            continue
        name = tensor.name
        if (eight := eight_bits(values)) is not None:
            whole, steps = eight
            tensor.CopyFrom(onnx.numpy_helper.from_array(whole, f"{name}.eight"))
            added.append(onnx.numpy_helper.from_array(steps, f"{name}.steps"))
            nodes += [
                onnx.helper.make_node("Cast", [tensor.name], [f"{name}.whole"], to=onnx.TensorProto.FLOAT),
                onnx.helper.make_node("Mul", [f"{name}.whole", f"{name}.steps"], [name]),
            ]
            continue
        with np.errstate(over="ignore"):  # infinite, so not equal
            half = values.astype(np.float16)
        if np.array_equal(half, values):
            tensor.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}.half"))
            nodes.append(onnx.helper.make_node("Cast", [tensor.name], [name], to=onnx.TensorProto.FLOAT))
    model.graph.initializer.extend(added)
    nodes += model.graph.node
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _forget(message: Any) -> None:
    """Clear notes for debugging in an ONNX message: they name folders of this machine."""
    for note in ("metadata_props", "doc_string"):
        if note in message.DESCRIPTOR.fields_by_name:
            message.ClearField(note)
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for inner in value if isinstance(value, Sequence) else [value]:
                _forget(inner)


def _parity(
    name: str, graph: bytes, module: nn.Module, example: Tensor, shapes: Sequence[tuple[int, ...]]
) -> float:
    with torch.no_grad():
        made = module(example)
    expected = [each.numpy() for each in (made if isinstance(made, tuple) else (made,))]
    found = [each.shape for each in expected]
    if found != list(shapes):
        raise ExportError(
            f"the {name} must make {_told(shapes)} of {tuple(example.shape)}, it made {_told(found)}; "
            "nothing was written"
        )
    session = _session(graph)
    rows = example.numpy()
    together = _all_of(session, rows)
    alone = map(np.concatenate, zip(*(_all_of(session, row[None]) for row in rows), strict=True))
    apart = max(
        float(np.abs(each - wanted).max())
        for several in (together, alone)
        for each, wanted in zip(several, expected, strict=True)
    )
    if not apart <= PARITY:
        raise ExportError(
            f"ONNX and torch must agree to {PARITY:.0e}, the {name} is {apart:.1e} apart; nothing was written"
        )
    return apart


def _told(shapes: Sequence[tuple[int, ...]]) -> str:
    return " and ".join(str(tuple(shape)) for shape in shapes)


def _session(graph: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3  # its ERROR level: nothing on stderr
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _call(session: ort.InferenceSession, rows: NDArray[np.generic]) -> NDArray[np.float32]:
    return _all_of(session, rows)[0]


def _all_of(session: ort.InferenceSession, rows: NDArray[np.generic]) -> list[NDArray[np.float32]]:
    (feed,) = session.get_inputs()
    made: list[NDArray[np.float32]] = session.run(None, {feed.name: rows})
    return made
