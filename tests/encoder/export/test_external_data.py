"""Weights beside an ONNX file are taken into the graph, from its own folder alone."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from lookalike.encoder.bundle import has_external_tensors
from lookalike.encoder.errors import OnnxImportError
from lookalike.encoder.runtime import Model
from tests.encoder.export.test_import_model import expected, network, pixels, wrapped


def outside(model: onnx.ModelProto, file: Path, location: str, *, size_threshold: int = 0) -> onnx.ModelProto:
    """Move the weights of a model into ``location`` beside ``file``, and return what is left."""
    onnx.save_model(
        model,
        file,
        save_as_external_data=True,
        location=location,
        size_threshold=size_threshold,
        convert_attribute=True,
    )
    left: onnx.ModelProto = onnx.load(file, load_external_data=False)
    assert has_external_tensors(left.SerializeToString())
    return left


@pytest.mark.parametrize("location", ["my.onnx.data", "weights.bin", "parts/all.bin"])
def test_weights_beside_the_file_are_merged(tmp_path: Path, location: str) -> None:
    (tmp_path / "parts").mkdir()
    left = outside(network(), tmp_path / "my.onnx", location)
    bundle = wrapped(left, tmp_path)
    assert not has_external_tensors(bundle.graph("encoder"))
    shutil.rmtree(tmp_path / "parts")
    wanted = expected((pixels() - 127.5) / 127.5)
    np.testing.assert_allclose(Model(bundle).encode(pixels()), wanted, rtol=1e-3, atol=1e-4)


def test_weights_in_constants_and_subgraphs_are_merged(tmp_path: Path) -> None:
    model = network()
    kernel = next(each for each in model.graph.initializer if each.name == "kernel")
    model.graph.node.insert(0, helper.make_node("Constant", [], ["kernel"], value=kernel))
    model.graph.initializer.remove(kernel)
    bundle = wrapped(outside(model, tmp_path / "my.onnx", "my.onnx.data"), tmp_path)
    wanted = expected((pixels() - 127.5) / 127.5)
    np.testing.assert_allclose(Model(bundle).encode(pixels()), wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "location", ["../secret.bin", "/etc/hostname", "link.bin", "folder/../../secret.bin", ""]
)
def test_weights_elsewhere_are_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(10_000))
    place = tmp_path / "place"
    place.mkdir()
    (place / "link.bin").symlink_to(tmp_path / "secret.bin")
    left = outside(network(), place / "my.onnx", "my.onnx.data")
    for tensor in left.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    with pytest.raises(OnnxImportError, match="outside of its folder") as caught:
        wrapped(left, place)
    assert "\n" not in str(caught.value)
    assert not (place / "mine").exists()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("location", "nowhere.bin", "which cannot be read .* put that file beside it"),
        ("location", ".", "which cannot be read"),
        ("offset", "999999", "is too short for its weights"),
        ("offset", "-8", "is too short for its weights"),
        ("length", "999999", "is too short for its weights"),
        ("length", "x", "is too short for its weights"),
    ],
)
def test_weights_that_are_not_there_are_said(tmp_path: Path, key: str, value: str, said: str) -> None:
    left = outside(network(), tmp_path / "my.onnx", "my.onnx.data")
    for tensor in left.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == key:
                entry.value = value
    with pytest.raises(OnnxImportError, match=said):
        wrapped(left, tmp_path)
