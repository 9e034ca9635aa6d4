"""Weights that an ONNX file keeps in files beside it: taken into the graph. Needs the [import] extra.

A graph may name any file as the place of its weights, so only files of its own folder are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import onnx
from onnx import TensorProto

from lookalike.encoder.errors import OnnxImportError, one_line, printable
from lookalike.encoder.files import read_bounded

_MOST_BYTES: Final = (1 << 31) - (1 << 20)  # of a graph with its weights (protobuf)


def merge_external(model: onnx.ModelProto, folder: Path, where: str) -> None:
    """Take the weights that lie in other files of ``folder`` into the graph, in place.

    Args:
        model: The graph.
        folder: That of its file.
        where: What messages call it.

    Raises:
        OnnxImportError: A file is not in this folder, cannot be read or is too short, or all are too large.
    """
    contents: dict[str, bytes] = {}
    size = 0
    for tensor in _tensors(model):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        place = {entry.key: entry.value for entry in tensor.external_data}
        name = place.get("location", "")
        if name not in contents:
            contents[name] = _read(folder, name, where)
            size += len(contents[name])
        if size > _MOST_BYTES:
            raise OnnxImportError(
                f"{where}: its weights are larger than 2 GiB, more than one ONNX file holds; export it in "
                "float16 or int8"
            )
        try:
            start = int(place.get("offset", 0))
            length = int(place.get("length", len(contents[name]) - start))
        except ValueError:
            start = length = -1
        if start < 0 or length < 0 or start + length > len(contents[name]):
            raise OnnxImportError(
                f"{where}: {printable(name)} is too short for its weights; fetch or export both files again"
            )
        tensor.raw_data = contents[name][start : start + length]
        del tensor.external_data[:]
        tensor.data_location = TensorProto.DEFAULT


def _read(folder: Path, name: str, where: str) -> bytes:
    """Return a file of the folder; links that lead out of it are refused."""
    file = folder / name
    try:
        inside = bool(name) and file.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):
        inside = False
    if not inside:
        raise OnnxImportError(
            f"{where}: its weights are in {printable(name) or 'a file without a name'}, outside of its "
            "folder; put both files into one folder and export it again"
        )
    try:
        return read_bounded(file, most=_MOST_BYTES)
    except (OSError, ValueError) as error:
        reason = one_line(error)
        raise OnnxImportError(
            f"{where}: its weights are in {printable(name)}, which cannot be read ({reason}); put that file "
            "beside it"
        ) from error


def _tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Yield every tensor of the graph, its subgraphs and functions."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from _node_tensors(node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _node_tensors(node)


def _node_tensors(node: onnx.NodeProto) -> Iterator[TensorProto]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        sparse = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
        for each in (*sparse, *attribute.sparse_tensors):
            yield from (each.values, each.indices)
        for inner in (attribute.g, *attribute.graphs):
            yield from _graph_tensors(inner)
