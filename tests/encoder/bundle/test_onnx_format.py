"""No graph reads other files: tensors in them are found wherever ONNX allows one."""

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from lookalike.encoder.bundle import Bundle, has_external_tensors
from lookalike.encoder.errors import BundleCorruptError, OnnxImportError
from lookalike.encoder.export.onnx_graph import OnnxGraph
from lookalike.encoder.runtime import Model
from tests.fixtures.tiny_models import forge, pictures

ELSEWHERE = "elsewhere.bin"


def weights(*, external: bool, name: str = "w") -> TensorProto:
    tensor = numpy_helper.from_array(np.ones((4, 4), np.float32), name)
    if external:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=ELSEWHERE)
    return tensor


def as_initializer(tensor: TensorProto) -> onnx.ModelProto:
    return model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], initializer=[tensor])


def as_constant(tensor: TensorProto) -> onnx.ModelProto:
    return model_of(constant(tensor))


def as_list_of_tensors(tensor: TensorProto) -> onnx.ModelProto:
    node = helper.make_node("MatMul", ["x", "x"], ["y"])
    node.attribute.append(helper.make_attribute("extra", [tensor]))
    return model_of([node])


def in_a_branch(tensor: TensorProto) -> onnx.ModelProto:
    branch = helper.make_graph(constant(tensor, "z"), "branch", [], [out("z")])
    nodes = [
        helper.make_node("Constant", [], ["yes"], value=helper.make_tensor("", TensorProto.BOOL, [], [True])),
        helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch),
    ]
    return model_of(nodes)


def two_branches_deep(tensor: TensorProto) -> onnx.ModelProto:
    inner = in_a_branch(tensor).graph
    del inner.input[:]
    yes = helper.make_node(
        "Constant", [], ["now"], value=helper.make_tensor("", TensorProto.BOOL, [], [True])
    )
    return model_of([yes, helper.make_node("If", ["now"], ["y"], then_branch=inner, else_branch=inner)])


def in_a_function(tensor: TensorProto) -> onnx.ModelProto:
    model = model_of([helper.make_node("Mine", ["x"], ["y"], domain="mine")])
    function = helper.make_function(
        "mine", "Mine", ["x"], ["y"], constant(tensor), [helper.make_opsetid("", 18)]
    )
    model.functions.append(function)
    return model


def as_sparse_values(tensor: TensorProto) -> onnx.ModelProto:
    flat = onnx.TensorProto.FromString(tensor.SerializeToString())
    del flat.dims[:]
    flat.dims.append(16)
    indices = numpy_helper.from_array(np.arange(16), "i")
    model = model_of([helper.make_node("MatMul", ["x", "w"], ["y"])])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(flat, indices, [4, 4]))
    return model


def as_sparse_constant(tensor: TensorProto) -> onnx.ModelProto:
    sparse = as_sparse_values(tensor).graph.sparse_initializer[0]
    node = helper.make_node("Constant", [], ["w"], sparse_value=sparse)
    return model_of([node, helper.make_node("MatMul", ["x", "w"], ["y"])])


def constant(tensor: TensorProto, to: str = "y") -> list[onnx.NodeProto]:
    return [
        helper.make_node("Constant", [], ["w"], value=tensor),
        helper.make_node("MatMul", ["x", "w"], [to]),
    ]


def out(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)


def model_of(nodes: list[onnx.NodeProto], initializer: list[TensorProto] | None = None) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])
    return helper.make_model(helper.make_graph(nodes, "g", [x], [out("y")], initializer))


PLACES = (
    as_initializer,
    as_constant,
    as_list_of_tensors,
    in_a_branch,
    two_branches_deep,
    in_a_function,
    as_sparse_values,
    as_sparse_constant,
)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_an_external_tensor_is_found_wherever_it_is(place: Callable[[TensorProto], onnx.ModelProto]) -> None:
    assert has_external_tensors(place(weights(external=True)).SerializeToString())
    assert not has_external_tensors(place(weights(external=False)).SerializeToString())


def test_a_location_alone_and_a_flag_alone_are_enough() -> None:
    flag, location = weights(external=False), weights(external=False)
    flag.data_location = TensorProto.EXTERNAL
    location.external_data.add(key="location", value=ELSEWHERE)
    for tensor in (flag, location):
        assert has_external_tensors(as_initializer(tensor).SerializeToString())


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_a_bundle_with_one_is_refused_before_anything_is_read(
    place: Callable[[TensorProto], onnx.ModelProto],
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / ELSEWHERE).write_bytes(b"\1" * 64)
    monkeypatch.chdir(tmp_path)  # where onnxruntime would look
    graph = place(weights(external=True)).SerializeToString()
    forged = tmp_path / "forged"
    shutil.copytree(tiny_model, forged)
    forge(forged, files={"encoder.onnx": graph})
    with pytest.raises(BundleCorruptError, match=r"is refused: encoder\.onnx reads its weights from other"):
        Model(Bundle.open(forged)).encode(pictures(1))


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_an_import_with_one_is_refused(place: Callable[[TensorProto], onnx.ModelProto]) -> None:
    with pytest.raises(
        OnnxImportError, match=r"its weights are in (elsewhere\.bin, which cannot|another file)"
    ):
        OnnxGraph.parse(place(weights(external=True)).SerializeToString(), Path("a.onnx"))


def test_shipped_graphs_hold_all_they_need(shipped_graph: bytes) -> None:
    assert not has_external_tensors(shipped_graph)
    for end in (1, 100, len(shipped_graph) // 2, len(shipped_graph) - 1):
        with pytest.raises(ValueError, match="cut short"):
            has_external_tensors(shipped_graph[:end])


@pytest.fixture
def shipped_graph() -> bytes:
    return Bundle.open("faces").graph("encoder")


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with suppress(ValueError):
        assert has_external_tensors(data) in (True, False)


def test_nesting_without_end_is_refused() -> None:
    data = b""
    for _ in range(200):  # a graph in an attribute of a node in a graph
        data = field(1, field(5, field(6, data)))
    with pytest.raises(ValueError, match="nested too deeply"):
        has_external_tensors(field(7, data))


def field(number: int, content: bytes) -> bytes:
    size, out = len(content), b""
    while size > 0x7F:
        out += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | 2]) + out + bytes([size]) + content
