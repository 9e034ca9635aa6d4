"""Edit an imported ONNX graph. Needs the [import] extra.

Preprocessing becomes part of the graph, so that it takes the same input as every encoder here, and one output
is kept:

    uint8 (N, S, S, C) > float > [repeat to RGB] > [BGR] > (x - mean) / std > its layout > latent (N, D)

Legend: N images, S side, C channels of the images, K channels of the network (1 or 3), D latent size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self, final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from lookalike.encoder.bundle import has_external_tensors
from lookalike.encoder.errors import InvalidArgumentError, OnnxImportError, one_line, printable
from lookalike.encoder.export.external_data import merge_external
from lookalike.encoder.images import ImageSpec

_MIN_OPSET: Final = 9  # opset: the operators added here have not changed since
_CONVERTED_OPSET: Final = 13  # older ones are converted to it
_KNOWN_DOMAINS: Final = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}  # those of onnxruntime
_PIXELS, _LATENT = "lookalike/pixels", "lookalike/latent"


@dataclass(frozen=True, kw_only=True, slots=True)
class Normalization:
    """Normalization of values of 0..255 that a network expects.

    Attributes:
        mean: One number or three, in the order of the network's channels.
        std: The same; the divisor.
        rgb: Whether the channel order is RGB; else BGR.
        gray: Whether the images are gray, even if the network takes three channels.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    rgb: bool = True
    gray: bool = False

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InvalidArgumentError: They are neither one nor three, not finite, or a divisor is not positive.
        """
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, 3) or not all(map(math.isfinite, values)):
                raise InvalidArgumentError(f"--{name} must be one finite number or three, not {values}")
        if min(self.std) <= 0:
            raise InvalidArgumentError(f"--std must be over 0, not {self.std}; 1 leaves values unchanged")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Feed:
    """Input of the network: side (None for any), channels, layout and type."""

    name: str
    side: int | None
    channels: Literal[1, 3]
    channels_first: bool
    type: int


@final
class OnnxGraph:
    """A network with one image input; changed in place.

    Attributes:
        side: S, or None for any.
        channels: K, 1 or 3.
    """

    def __init__(self, model: onnx.ModelProto, where: str) -> None:
        self._model, self._where = model, where
        self._feed = _feed_of(model, where)
        self.side, self.channels = self._feed.side, self._feed.channels

    @classmethod
    def parse(cls, data: bytes, file: Path) -> Self:
        """Read an ONNX file, and refuse what a bundle cannot hold or onnxruntime cannot run.

        Raises:
            OnnxImportError: As :func:`load_graph` says, or it takes no image.
        """
        return cls(load_graph(data, file), printable(str(file)))

    @property
    def opset(self) -> int:
        """Version of ONNX's own operators."""
        return _opset(self._model)

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs."""
        return [str(value.name) for value in self._model.graph.output]

    def add_preprocessing(self, image: ImageSpec, normalization: Normalization) -> None:
        """Prepend the normalization, and allow any number of images.

        Raises:
            InvalidArgumentError: Three means for one channel.
        """
        graph = self._model.graph
        nodes = [*_preprocessing(self._feed, image.channels, normalization), *graph.node]
        del graph.node[:], graph.input[:], graph.value_info[:]  # their shapes may be fixed to one image
        graph.node.extend(nodes)
        graph.input.append(helper.make_tensor_value_info(_PIXELS, TensorProto.UINT8, ["N", *image.shape]))
        for value in graph.output:
            value.type.tensor_type.ClearField("shape")

    def make_batch_dynamic(self) -> bool:
        """Let every Reshape to a fixed number of rows keep its number of rows; return whether there was any.

        Exports with a batch of one write that number into the shapes. Only a run can tell whether the rows
        are images.
        """
        graph = self._model.graph
        constants = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
                constants[node.output[0]] = node.attribute[0].t
        shapes: list[onnx.TensorProto] = []
        for node in graph.node:
            if node.op_type != "Reshape" or node.input[1] not in constants:
                continue
            shape = numpy_helper.to_array(constants[node.input[1]]).copy()
            if len(shape) > 1 and shape[0] > 0 and shape.all():
                shape[0] = 0  # copies the input's number, unless allowzero is set
                node.input[1] = f"lookalike/shape{len(shapes)}"
                shapes.append(numpy_helper.from_array(shape, node.input[1]))
                for attribute in node.attribute:
                    if attribute.name == "allowzero":
                        attribute.i = 0
        graph.initializer.extend(shapes)
        return bool(shapes)

    def set_output(self, output: str, *, first: bool = False) -> None:
        """Keep only ``output``, as float32 (N, D); ``first``: the first vector of a row for each image."""
        graph = self._model.graph
        if first:  # (N, tokens, D) -> (N, D)
            index = numpy_helper.from_array(np.array(0, np.int64))
            graph.node.append(helper.make_node("Constant", [], ["lookalike/first"], value=index))
            graph.node.append(
                helper.make_node("Gather", [output, "lookalike/first"], ["lookalike/token"], axis=1)
            )
            output = "lookalike/token"
        # (N, D) or (N, D, 1, 1) -> (N, D)
        graph.node.append(helper.make_node("Flatten", [output], ["lookalike/flat"], axis=1))
        graph.node.append(helper.make_node("Cast", ["lookalike/flat"], [_LATENT], to=TensorProto.FLOAT))
        del graph.output[:]
        graph.output.append(helper.make_tensor_value_info(_LATENT, TensorProto.FLOAT, ["N", None]))

    def to_bytes(self) -> bytes:
        """Serialize as an ONNX file.

        Raises:
            OnnxImportError: It is too large for one.
        """
        try:
            data: bytes = self._model.SerializeToString(deterministic=True)
        except Exception as error:  # protobuf: over 2 GiB
            raise OnnxImportError(f"{self._where}: cannot be written ({one_line(error)[:200]})") from error
        return data


_PREFERRED: Final[tuple[str, ...]] = ("image_embeds", "text_embeds", "pooler_output")
"""Outputs of exports that are the vector of an image or text, where there are several."""
_TOKENS: Final = "last_hidden_state"


def pick_output(
    outputs: Mapping[str, NDArray[Any]], requested: str | None, where: str, *, latent: int | None = None
) -> tuple[str, bool]:
    """Return the output that is a vector for each image or text, and whether it is the first of a row.

    Args:
        outputs: What a network gave for one, by name.
        requested: The name to take; None: the only one that can be meant.
        where: What messages call the network.
        latent: The length of the vector, if only one will do.

    Raises:
        InvalidArgumentError: None will do, or several.
    """
    vectors = [name for name, array in outputs.items() if _is_vector(array, latent)]
    if requested is not None:
        vectors = [name for name in vectors if name == requested]
    elif len(vectors) > 1:
        preferred: list[str] = [name for name in _PREFERRED if name in vectors]
        vectors = preferred[:1] or vectors
    if len(vectors) == 1:
        return vectors[0], False
    row = outputs.get(_TOKENS)
    if not vectors and requested in (None, _TOKENS) and latent is None and _is_row(row):
        return _TOKENS, True  # the token that stands for all of the image
    shapes = ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in outputs.items())
    which = f"--output {requested}" if requested is not None else "the output"
    what = "a vector" if latent is None else f"a vector of {latent} numbers"
    rule = f"must be {what} for each image" if not vectors else "is ambiguous; choose one with --output"
    raise InvalidArgumentError(f"{where}: {printable(which)} {rule}; it has {printable(shapes)[:400]}")


def _is_row(array: NDArray[Any] | None) -> bool:
    """Whether floats are (1, tokens, D)."""
    if array is None or array.dtype.kind != "f" or array.ndim != 3:
        return False
    return len(array) == 1 and min(array.shape[1:]) > 1


def _is_vector(array: NDArray[Any], latent: int | None) -> bool:
    """Whether floats are (1, D) or (1, D, 1, 1), D over 1."""
    return (
        array.dtype.kind == "f"
        and array.ndim in (2, 4)
        and len(array) == 1
        and array.size == array.shape[1] > 1
        and latent in (None, array.size)
    )


def load_graph(data: bytes, file: Path) -> onnx.ModelProto:
    """Read an ONNX file with the weights that lie beside it, in an opset that has the operators added here.

    Raises:
        OnnxImportError: It is not ONNX, has weights outside of its folder or custom operators.
    """
    where = printable(str(file))
    try:
        model = onnx.load_from_string(data)
    except (MemoryError, RecursionError):
        raise  # they say nothing of the input
    except Exception as error:  # protobuf and onnx each raise their own
        raise OnnxImportError(
            f"{where}: is not an ONNX file ({one_line(error)[:200]}); export it again"
        ) from error
    merge_external(model, file.parent, where)
    if has_external_tensors(model.SerializeToString()):  # such as those of training, which nobody needs here
        raise OnnxImportError(
            f"{where}: some of its weights are in another file; export it again in one file"
        )
    _check(model, where)
    return _upgraded(model, where)


def _check(model: onnx.ModelProto, where: str) -> None:
    if not model.graph.node:
        raise OnnxImportError(f"{where}: is not an ONNX file with a network; export it again")
    known = _KNOWN_DOMAINS | {function.domain for function in model.functions}
    foreign = {f"{node.domain}.{node.op_type}" for node in _nodes(model.graph) if node.domain not in known}
    if foreign:
        names = printable(", ".join(sorted(foreign)))[:200]
        raise OnnxImportError(
            f"{where}: needs operators that onnxruntime does not have, {names}; export it without them"
        )


def _upgraded(model: onnx.ModelProto, where: str) -> onnx.ModelProto:
    """Convert an old opset to one that has the operators added here."""
    if _opset(model) >= _MIN_OPSET:
        return model
    try:
        return onnx.version_converter.convert_version(model, _CONVERTED_OPSET)
    except Exception as error:
        raise OnnxImportError(
            f"{where}: opset {_opset(model)} is older than {_MIN_OPSET} and cannot be converted "
            f"({one_line(error)[:200]}); export it with a later one"
        ) from error


def _opset(model: onnx.ModelProto) -> int:
    versions = {entry.domain: int(entry.version) for entry in model.opset_import}
    return versions.get("", versions.get("ai.onnx", 1))


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _feed_of(model: onnx.ModelProto, where: str) -> _Feed:
    """Return the input, and drop weights that old files list among the inputs."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, 4)  # earlier versions list weights as inputs
    signature = "; ".join(_signature(value) for value in inputs) or "none"
    if len(inputs) != 1:
        raise OnnxImportError(
            f"{where}: an encoder must have one input, this has {len(inputs)} ({printable(signature)}); "
            "export it alone"
        )
    kind = inputs[0].type.tensor_type
    dims = [int(dim.dim_value) for dim in kind.shape.dim]  # 0: open
    last = len(dims) == 4 and dims[3] in (1, 3) and dims[1] not in (1, 3)
    channels = (dims[3] if last else dims[1]) if len(dims) == 4 else 0
    sides = {side for side in (dims[1:3] if last else dims[2:]) if side}
    floats = kind.elem_type in (TensorProto.FLOAT, TensorProto.FLOAT16)
    if not floats or len(dims) != 4 or channels not in (0, 1, 3) or len(sides) > 1:
        raise OnnxImportError(
            f"{where}: an image input must be float (N, C, S, S) or (N, S, S, C) with 1 or 3 channels, "
            f"this input is {printable(signature)}; export it so"
        )
    return _Feed(
        name=inputs[0].name,
        side=next(iter(sides), None),
        channels=1 if channels == 1 else 3,  # open: three
        channels_first=not last,
        type=kind.elem_type,
    )


def _signature(value: onnx.ValueInfoProto) -> str:
    kind = value.type.tensor_type
    dims = ", ".join(dim.dim_param or str(dim.dim_value or "?") for dim in kind.shape.dim)
    return f"{value.name} {TensorProto.DataType.Name(kind.elem_type).lower()} ({dims})"


def _preprocessing(feed: _Feed, given: int, normalization: Normalization) -> list[onnx.NodeProto]:
    """Return nodes from uint8 (N, S, S, C) to the network's input."""
    if feed.channels == 1 and given == 3:
        raise AssertionError("a gray network needs gray images")
    if feed.channels == 1 and max(len(normalization.mean), len(normalization.std)) > 1:
        raise InvalidArgumentError(
            "this network takes one channel; give one number for --mean and one for --std"
        )
    nodes: list[onnx.NodeProto] = []
    current = _PIXELS

    def step(kind: str, *constants: NDArray[Any], **attributes: Any) -> None:
        nonlocal current
        inputs = [current] * (3 if kind == "Concat" else 1)
        for constant in constants:
            inputs.append(f"lookalike/constant{len(nodes)}")
            value = numpy_helper.from_array(constant)
            nodes.append(helper.make_node("Constant", [], [inputs[-1]], value=value))
        current = f"lookalike/{len(nodes)}_{kind}"
        nodes.append(helper.make_node(kind, inputs, [current], **attributes))

    step("Cast", to=TensorProto.FLOAT)  # (N, S, S, C) in 0..255
    if given < feed.channels:
        step("Concat", axis=3)  # (N, S, S, 1) -> (N, S, S, 3)
    elif feed.channels == 3 and not normalization.rgb:
        step("Gather", np.array([2, 1, 0], np.int64), axis=3)
    step("Sub", np.array(normalization.mean, np.float32))
    step("Div", np.array(normalization.std, np.float32))
    if feed.channels_first:
        step("Transpose", perm=[0, 3, 1, 2])  # (N, S, S, K) -> (N, K, S, S)
    step("Cast", to=feed.type)
    nodes[-1].output[0] = feed.name
    return nodes
