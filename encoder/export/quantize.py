"""ONNX graphs as they are stored: large weights in fewer bytes, and no notes of who made them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

SMALL_FROM: Final = 4096
"""Tensors of fewer values (biases, BatchNorm) stay float32: they cost nothing."""


def quantize_initializers(model: onnx.ModelProto) -> None:
    """Store large float32 weights in eight or sixteen bits where these hold them exactly.

    They are widened again when the model is loaded.
    """
    nodes: list[onnx.NodeProto] = []
    added: list[onnx.TensorProto] = []
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < SMALL_FROM:
            continue
        name = tensor.name
        if (eight := quantize_int8(values)) is not None:
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


def strip_metadata(message: Any) -> None:
    """Clear notes for debugging in an ONNX message: they name folders of this machine."""
    for note in ("metadata_props", "doc_string"):
        if note in message.DESCRIPTOR.fields_by_name:
            message.ClearField(note)
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for inner in value if isinstance(value, Sequence) else [value]:
                strip_metadata(inner)


def steps_of(largest: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return 1/127 of float32 values, rounded up to 11 bits: so products with -127 to 127 are exact."""
    mantissa, exponent = np.frexp(largest / 127)
    steps = np.ldexp(np.ceil(mantissa * 2048) / 2048, exponent).astype(np.float32)
    return np.where(steps > 0, steps, np.float32(1))


def quantize_int8(values: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]] | None:
    """Return whole numbers and the step of each row, or None where no such pair is exactly ``values``.

    The exporter may have turned a matrix: what was a row can lie along either axis.
    """
    for axis in range(min(values.ndim, 2)):
        others = tuple(other for other in range(values.ndim) if other != axis)
        steps = steps_of(np.abs(values).max(axis=others, keepdims=True))
        whole = np.rint(values / steps)
        if np.array_equal(whole * steps, values):
            return whole.astype(np.int8), steps
    return None
