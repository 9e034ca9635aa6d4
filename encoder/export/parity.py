"""Exported graphs: checked against their torch module, their weights quantized, their metadata removed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from lookalike.encoder.errors import ExportError

PARITY: Final = 1e-4
"""Largest allowed difference between torch and onnxruntime, on latents of about unit spread."""

Floats = NDArray[np.float32]


def session_of(graph: bytes) -> ort.InferenceSession:
    """Return a CPU session that logs nothing."""
    options = ort.SessionOptions()
    options.log_severity_level = 3  # its ERROR level: nothing on stderr
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def run_all(session: ort.InferenceSession, *rows: NDArray[Any]) -> list[Floats]:
    """Return all outputs, for inputs in the order of the graph."""
    names = [feed.name for feed in session.get_inputs()]
    outputs: list[Floats] = session.run(None, dict(zip(names, rows, strict=True)))
    return outputs


def parity_of(
    name: str,
    graph: bytes,
    inputs: Sequence[NDArray[Any]],
    expected: Sequence[NDArray[Any]],
    shapes: Sequence[tuple[int, ...]],
) -> float:
    """Return the largest difference between the outputs of a graph and the expected ones.

    Args:
        name: Name of the graph in messages.
        graph: ONNX.
        inputs: Each (N, ...).
        expected: Outputs of torch, each (N, ...).
        shapes: Required shapes of the outputs.

    Raises:
        ExportError: The difference is more than :data:`PARITY`, or a shape differs.
    """
    got = [each.shape for each in expected]
    if got != list(shapes):
        raise ExportError(
            f"the {name} must return {_text(shapes)} for {inputs[0].shape}, it returned {_text(got)}; "
            "nothing was written"
        )
    session = session_of(graph)
    together = run_all(session, *inputs)
    singles = (run_all(session, *(each[i : i + 1] for each in inputs)) for i in range(len(inputs[0])))
    alone = map(np.concatenate, zip(*singles, strict=True))
    difference = max(
        float(np.abs(each - reference).max())
        for several in (together, alone)
        for each, reference in zip(several, expected, strict=True)
    )
    if not difference <= PARITY:
        raise ExportError(
            f"ONNX and torch must agree to {PARITY:.0e}, the {name} differs by {difference:.1e}; nothing was "
            "written"
        )
    return difference


def _text(shapes: Sequence[tuple[int, ...]]) -> str:
    return " and ".join(str(tuple(shape)) for shape in shapes)


MIN_QUANTIZED_SIZE: Final = 4096
"""Smaller tensors (biases, BatchNorm) stay float32."""


def quantize_initializers(model: onnx.ModelProto) -> None:
    """Store large float32 weights as int8 or float16 where that is exact; the graph converts them back."""
    nodes: list[onnx.NodeProto] = []
    added: list[onnx.TensorProto] = []
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < MIN_QUANTIZED_SIZE:
            continue
        name = tensor.name
        if (int8 := quantize_int8(values)) is not None:
            whole, scales = int8
            tensor.CopyFrom(onnx.numpy_helper.from_array(whole, f"{name}.int8"))
            added.append(onnx.numpy_helper.from_array(scales, f"{name}.scales"))
            nodes += [
                onnx.helper.make_node("Cast", [tensor.name], [f"{name}.whole"], to=onnx.TensorProto.FLOAT),
                onnx.helper.make_node("Mul", [f"{name}.whole", f"{name}.scales"], [name]),
            ]
            continue
        with np.errstate(over="ignore"):  # becomes infinite, so not equal
            half = values.astype(np.float16)
        if np.array_equal(half, values):
            tensor.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}.half"))
            nodes.append(onnx.helper.make_node("Cast", [tensor.name], [name], to=onnx.TensorProto.FLOAT))
    model.graph.initializer.extend(added)
    nodes += model.graph.node
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def strip_metadata(message: Any) -> None:
    """Clear debugging metadata in an ONNX message: it names folders of this machine."""
    for note in ("metadata_props", "doc_string"):
        if note in message.DESCRIPTOR.fields_by_name:
            message.ClearField(note)
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for inner in value if isinstance(value, Sequence) else [value]:
                strip_metadata(inner)


def int8_scales(largest: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return 1/127 of float32 values, rounded up to 11 bits, so that products with -127..127 are exact."""
    mantissa, exponent = np.frexp(largest / 127)
    scales = np.ldexp(np.ceil(mantissa * 2048) / 2048, exponent).astype(np.float32)
    return np.where(scales > 0, scales, np.float32(1))


def quantize_int8(values: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]] | None:
    """Return int8 values and a scale for each row, or None where their product is not exactly ``values``.

    The exporter may have transposed a matrix: rows can lie along either axis.
    """
    for axis in range(min(values.ndim, 2)):
        others = tuple(other for other in range(values.ndim) if other != axis)
        scales = int8_scales(np.abs(values).max(axis=others, keepdims=True))
        whole = np.rint(values / scales)
        if np.array_equal(whole * scales, values):
            return whole.astype(np.int8), scales
    return None
