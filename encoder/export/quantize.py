"""ONNX graphs as they are stored: large weights in fewer bytes, and no notes of who made them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import onnx

from lookalike.encoder.export.rounding import quantize_int8

__all__ = ["SMALL_FROM", "quantize_initializers", "strip_metadata"]

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
