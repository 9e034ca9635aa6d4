"""Tensors of an ONNX graph that lie in other files, found without the onnx package.

onnxruntime reads such files from wherever the graph says, relative to the current folder: a stranger's model
could read the files of whoever opens it. So graphs are checked before onnxruntime sees them.

The messages and field numbers are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3, the wire
format is that of https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

_FIELDS: Final[dict[str, dict[int, str]]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
"""Message to its fields that hold messages in which a tensor may be; all of them are read, whatever stands
between them."""
_EXTERNAL_DATA: Final = 13
_DATA_LOCATION: Final = 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_DEPTH: Final = 100
"""Of messages within messages: what protobuf itself allows."""


def has_external_tensors(data: bytes) -> bool:
    """Whether a tensor anywhere in a graph, also in a subgraph, function or constant, lies in another file.

    Args:
        data: A serialized ``ModelProto``.

    Raises:
        ValueError: It is none: cut short, too deeply nested, or of another format.
    """
    left = [("model", memoryview(data), 0)]
    while left:
        message, part, depth = left.pop()
        if depth > _MAX_DEPTH:
            raise ValueError("its messages are nested too deeply")
        for field, value in _fields(part):
            if message == "tensor":
                if field == _EXTERNAL_DATA or (field == _DATA_LOCATION and value != 0):
                    return True
            elif (inner := _FIELDS[message].get(field)) is not None:
                if not isinstance(value, memoryview):
                    raise ValueError(f"field {field} of a {message} is not a message")
                left.append((inner, value, depth + 1))
    return False


def _fields(part: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the number and value of each field of a message: a number, or bytes."""
    at = 0
    while at < len(part):
        key, at = _varint(part, at)
        field, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(part, at)
            yield field, value
            continue
        if kind == _BYTES:
            size, at = _varint(part, at)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind} is not used by ONNX")
        if at + size > len(part):
            raise ValueError("it is cut short")
        yield field, part[at : at + size]
        at += size


def _varint(part: memoryview, at: int) -> tuple[int, int]:
    """Return the number at an offset, and the offset behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(part):
            break
        byte = part[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, at
    raise ValueError("it is cut short")
