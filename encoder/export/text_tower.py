"""The text tower of an imported model: a graph from tokens to vectors of the same space. Needs [import].

Graphs take ``input_ids`` and perhaps ``attention_mask``, int64 or int32; here they all take

    tokens, mask  int64 (N, T)  >  their type  >  latent  float32 (N, D)

Legend: N texts, T tokens, D latent size.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper

from lookalike.encoder.bundle import TextSpec, Tokenizer, usual_length
from lookalike.encoder.errors import InvalidArgumentError, OnnxImportError, one_line, printable
from lookalike.encoder.export.onnx_graph import load_graph, pick_output
from lookalike.encoder.files import read_bounded

_TOKENS, _MASK, _LATENT = "lookalike/tokens", "lookalike/mask", "lookalike/text"
_INTEGERS: Final = (TensorProto.INT64, TensorProto.INT32)
_USUAL_LENGTH: Final = 77  # of CLIP
_EXAMPLES: Final = ("two parrots on a branch", "a red car in the snow")
_MOST_JSON: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class TextFiles:
    """Files of a text tower.

    Attributes:
        graph: ONNX.
        tokenizer: ``tokenizer.json``.
        config: ``tokenizer_config.json``, which may say how long texts may be; None: there is none.
    """

    graph: Path
    tokenizer: Path
    config: Path | None = None


@dataclass(frozen=True, slots=True)
class TextTower:
    """What a bundle holds of a text tower.

    Attributes:
        graph: ONNX.
        tokenizer: Content of ``tokenizer.json``.
        spec: The length of texts.
        golden: tokens, mask int64 (N, T) and text float32 (N, D).
    """

    graph: bytes
    tokenizer: bytes
    spec: TextSpec
    golden: dict[str, NDArray[Any]]


def import_text(files: TextFiles, latent: int) -> TextTower:
    """Read a text tower for images of ``latent`` numbers, and try it.

    Raises:
        OnnxImportError: It is no network from tokens to a vector of this length.
        MissingExtraError: The extra ``text`` is not installed.
    """
    where = printable(str(files.graph))
    data = _read(files.tokenizer)
    try:
        tokenizer = Tokenizer(data)
    except InvalidArgumentError as error:
        raise OnnxImportError(f"{printable(str(files.tokenizer))}: {error}; fetch it again") from error
    usual = None if files.config is None else usual_length(_read(files.config))
    model = load_graph(_read(files.graph, most=1 << 31), files.graph)
    length = _rewire(model, where)
    spec = tokenizer.spec(fixed=length, usual=usual or _USUAL_LENGTH)
    ready = Tokenizer(data, spec)
    pairs = [ready(text) for text in _EXAMPLES]
    count = min(tokens.shape[1] for tokens, _ in pairs)
    tokens, mask = (np.concatenate([each[part][:, :count] for each in pairs]) for part in (0, 1))
    names = [str(value.name) for value in model.graph.output]
    outputs = _run(model, tokens[:1], mask[:1], where)
    output, first = pick_output(dict(zip(names, outputs, strict=True)), None, where, latent=latent)
    _set_output(model, output, first=first)
    rows = [_run(model, tokens[n : n + 1], mask[n : n + 1], where)[0] for n in range(len(tokens))]
    vectors: NDArray[np.float32] = np.concatenate(rows)
    if not np.isfinite(vectors).all() or float(vectors.std(axis=0).max()) == 0:
        raise OnnxImportError(f"{where}: gives the same vector for every text, or NaN; export it again")
    graph = model.SerializeToString(deterministic=True)
    return TextTower(graph, data, spec, {"tokens": tokens, "mask": mask, "text": vectors})


def _read(file: Path, *, most: int = _MOST_JSON) -> bytes:
    try:
        return read_bounded(file, most=most)
    except OSError as error:
        raise OnnxImportError(
            f"{printable(str(file))}: cannot be read ({error.strerror}); check the path"
        ) from error


def _rewire(model: onnx.ModelProto, where: str) -> int | None:
    """Give the graph the inputs of every text tower here; return T where it takes one length alone."""
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    masks = [value for value in inputs if "mask" in value.name]
    tokens = [value for value in inputs if "mask" not in value.name]
    kinds = {int(value.type.tensor_type.elem_type) for value in inputs}
    if len(tokens) != 1 or len(masks) > 1 or not kinds <= set(_INTEGERS):
        names = printable(", ".join(str(value.name) for value in inputs))
        raise OnnxImportError(
            f"{where}: a text tower takes input_ids and perhaps attention_mask, this one {names}; "
            "export it alone"
        )
    nodes = [
        helper.make_node("Cast", [ours], [value.name], to=value.type.tensor_type.elem_type)
        for ours, value in zip((_TOKENS, _MASK), (*tokens, *masks), strict=False)
    ]
    dims = tokens[0].type.tensor_type.shape.dim
    length = int(dims[1].dim_value) if len(dims) == 2 else 0
    kept = [*nodes, *graph.node]
    del graph.node[:], graph.input[:], graph.value_info[:]
    graph.node.extend(kept)
    for name in (_TOKENS, _MASK):
        graph.input.append(helper.make_tensor_value_info(name, TensorProto.INT64, ["N", "T"]))
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    return length or None


def _set_output(model: onnx.ModelProto, output: str, *, first: bool) -> None:
    if first:
        raise AssertionError("a text tower gives a vector")
    graph = model.graph
    graph.node.append(helper.make_node("Cast", [output], [_LATENT], to=TensorProto.FLOAT))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(_LATENT, TensorProto.FLOAT, ["N", None]))


def _run(
    model: onnx.ModelProto, tokens: NDArray[np.int64], mask: NDArray[np.int64], where: str
) -> list[NDArray[Any]]:
    options = ort.SessionOptions()
    options.log_severity_level = 4  # onnxruntime's FATAL level: what fails is raised here
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        outputs: list[NDArray[Any]] = session.run(None, {_TOKENS: tokens, _MASK: mask})
    except (MemoryError, RecursionError):
        raise  # they say nothing of the input
    except Exception as error:  # onnxruntime raises its own types from C++
        raise OnnxImportError(
            f"{where}: onnxruntime cannot run it ({one_line(error)[:300]}); export it again"
        ) from error
    return outputs
