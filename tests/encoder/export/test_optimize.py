"""Optimized encoders: the same latents in operations that onnxruntime is quick at, and parts left out."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch.nn.functional import conv1d, pad

from lookalike.encoder.bundle import WHOLE, AffineMap, Bundle, BundleSpec, LatentStatistics
from lookalike.encoder.errors import ExportError
from lookalike.encoder.export import optimize
from lookalike.encoder.export.optimize import optimize_bundle, optimize_encoder, window_means
from lookalike.encoder.export.parity import PARITY
from lookalike.encoder.export.torch_export import OPSET, Exported, export_graphs, save_bundle
from lookalike.encoder.images import ImageSpec
from lookalike.encoder.runtime import Model
from lookalike.trainer.config import AESpec
from lookalike.trainer.models import AE, Descriptor, DescriptorSpec, FaceModel, Identity, IdentitySpec

SIZE, APPEARANCE, PART = 16, 6, 5
LATENT = APPEARANCE + 2 * PART
USED = np.eye(2 * PART, LATENT, APPEARANCE, dtype=np.float32)


@pytest.fixture(scope="module")
def network() -> FaceModel:
    """A face model of random weights."""
    torch.manual_seed(0)
    return FaceModel(
        AE(AESpec(size=SIZE, channels=3, latent=APPEARANCE, hidden=(16,))),
        Descriptor(DescriptorSpec(size=SIZE, dim=PART, filters=4, patch=5)),
        Identity(IdentitySpec(size=SIZE, dim=PART, widths=(8, 16))),
    ).eval()


@pytest.fixture(scope="module")
def exported(network: FaceModel) -> Exported:
    return export_graphs(network.encoder, network.decoder, size=SIZE, channels=3, latent=LATENT)


@pytest.fixture(scope="module")
def affine() -> AffineMap:
    return AffineMap(USED, np.zeros(LATENT, np.float32))


@pytest.fixture(scope="module")
def bundle(exported: Exported, affine: AffineMap, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("models") / "faces"
    spec = BundleSpec(
        kind="ae",
        image=ImageSpec(size=SIZE),
        latent=LATENT,
        embedding=2 * PART,
        mirror=True,
        opset=OPSET,
    )
    unit = LatentStatistics(np.zeros(LATENT, np.float32), np.eye(LATENT, dtype=np.float32))
    return save_bundle(folder, exported, spec, statistics=unit, affine=affine)


def noise(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)


def run(graph: bytes, pixels: NDArray[np.uint8], **switches: bool) -> NDArray[np.float32]:
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    feeds = {"pixels": pixels} | {name: np.array(value) for name, value in switches.items()}
    (latents,) = session.run(None, feeds)
    assert isinstance(latents, np.ndarray)
    return latents


def operations(graph: bytes) -> Counter[str]:
    """How often each operation occurs at the top of a graph."""
    return Counter(node.op_type for node in onnx.load_from_string(graph).graph.node)


@pytest.mark.slow  # torch exports a network
def test_an_optimized_encoder_gives_the_same_latents(exported: Exported, affine: AffineMap) -> None:
    old = exported.graphs["encoder"]
    new = optimize_encoder(old, affine, (SIZE, SIZE, 3))
    for count in (1, 2, 7):
        expected = run(old, noise(count))
        np.testing.assert_allclose(run(new, noise(count)), expected, atol=PARITY)
        assert run(new, noise(count)).std() > 0.1
    assert optimize_encoder(old, affine, (SIZE, SIZE, 3)) == new  # the same bytes on every run


@pytest.mark.slow  # torch exports a network
def test_what_onnxruntime_is_slow_at_is_gone(exported: Exported, affine: AffineMap) -> None:
    old = operations(exported.graphs["encoder"])
    new = operations(optimize_encoder(exported.graphs["encoder"], affine, (SIZE, SIZE, 3)))
    assert {"Pad", "AveragePool", "CastLike"} <= set(old)
    assert not {"Pad", "AveragePool", "CastLike", "Neg"} & set(new)
    assert new["Conv"] == 3  # of one filter bank and two layers, not of the windows, nor of their copy


@pytest.mark.slow  # torch exports a network
def test_an_optimized_encoder_stays_as_it_is(exported: Exported, affine: AffineMap) -> None:
    new = optimize_encoder(exported.graphs["encoder"], affine, (SIZE, SIZE, 3))
    assert optimize_encoder(new, affine, (SIZE, SIZE, 3)) == new


@pytest.mark.slow  # torch exports a network
def test_onnxruntime_fuses_convolution_normalization_and_activation(bundle: Bundle, tmp_path: Path) -> None:
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "run.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(bundle.graph("encoder"), options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(tmp_path / "run.onnx").graph.node
    after_convolutions = {name for node in nodes if node.op_type == "Conv" for name in node.output}
    assert after_convolutions
    followers = [node.op_type for node in nodes if after_convolutions & set(node.input)]
    assert "BatchNormalization" not in followers


@pytest.mark.slow  # torch exports a network
def test_parts_that_embeddings_do_not_use_can_be_left_out(exported: Exported, affine: AffineMap) -> None:
    new = optimize_encoder(exported.graphs["encoder"], affine, (SIZE, SIZE, 3))
    whole, used = run(new, noise(3)), run(new, noise(3), whole=False)
    np.testing.assert_array_equal(run(new, noise(3), whole=True), whole)
    np.testing.assert_array_equal(used[:, APPEARANCE:], whole[:, APPEARANCE:])
    assert not used[:, :APPEARANCE].any()
    assert whole[:, :APPEARANCE].any()
    outside = [node.output[0] for node in onnx.load_from_string(new).graph.node if node.op_type == "Gemm"]
    assert len(outside) == 2  # the projections; the autoencoder is inside the condition


@pytest.mark.slow  # torch exports a network
def test_nothing_is_left_out_where_all_is_used(exported: Exported) -> None:
    every = AffineMap(np.eye(LATENT, dtype=np.float32), np.zeros(LATENT, np.float32))
    new = optimize_encoder(exported.graphs["encoder"], every, (SIZE, SIZE, 3))
    assert WHOLE not in [each.name for each in onnx.load_from_string(new).graph.input]


@pytest.mark.slow  # torch exports a network
def test_a_saved_bundle_embeds_without_the_rest_of_the_latent(bundle: Bundle) -> None:
    model = Model(bundle, threads=1)
    model.check()
    for count in (0, 1, 3, 12):
        expected = bundle.affine(model.mean_latents(noise(count)))
        np.testing.assert_allclose(model.embed(noise(count)), expected, atol=1e-5)
    assert model.encode(noise(2))[:, :APPEARANCE].any()
    assert model.mean_latents(noise(12))[:, :APPEARANCE].any()


@pytest.mark.slow  # torch exports a network
def test_an_older_bundle_is_optimized_as_it_is(bundle: Bundle, exported: Exported, tmp_path: Path) -> None:
    old = Bundle.save(
        tmp_path / "old",
        spec=bundle.spec,
        graphs=exported.graphs,
        golden=bundle.golden,
        statistics=bundle.statistics,
        affine=bundle.affine,
    )
    new = optimize_bundle(old.folder, tmp_path / "new")
    assert new.model_id == bundle.model_id
    assert new.graph("decoder") == old.graph("decoder")
    np.testing.assert_allclose(Model(new).embed(noise(9)), Model(old).embed(noise(9)), atol=PARITY)
    assert optimize_bundle(old.folder, old.folder).model_id == new.model_id  # in its place


def test_an_encoder_that_would_change_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    real = optimize.window_means
    monkeypatch.setattr(optimize, "window_means", lambda *args, **options: 1.1 * real(*args, **options))
    every = AffineMap(np.eye(CELLS, dtype=np.float32), np.zeros(CELLS, np.float32))
    with pytest.raises(ExportError, match=r"must stay the same to 1e-04, optimized it differs by"):
        optimize_encoder(_row_and_column("none"), every, (SIZE, SIZE, 1))


def test_what_is_no_graph_is_refused(affine: AffineMap) -> None:
    with pytest.raises(ExportError, match=r"^the encoder cannot be optimized \("):
        optimize_encoder(b"\x08no graph", affine, (SIZE, SIZE, 3))


@given(
    size=st.integers(4, 20),
    window=st.integers(1, 5),
    before=st.integers(0, 3),
    after=st.integers(0, 3),
    step=st.integers(1, 3),
)
def test_window_means_are_a_padded_convolution(
    size: int, window: int, before: int, after: int, step: int
) -> None:
    rng = np.random.default_rng(size)
    weights, values = rng.normal(size=window), rng.normal(size=size)
    padded = pad(torch.from_numpy(values)[None, None], (before, after), mode="reflect")
    if padded.shape[2] < window:
        return
    expected = conv1d(padded, torch.from_numpy(weights)[None, None], stride=step)[0, 0]
    matrix = window_means(weights, size, before=before, after=after, step=step)
    np.testing.assert_allclose(matrix @ values, expected.numpy(), atol=1e-5)


CELLS = 2 * 6 * 6
"""Of an encoder of means over windows."""


def _row_and_column(change: str) -> bytes:
    """An encoder of means over windows of gray images, with a change that makes it none.

    Where a convolution has no bias, it is what torch makes of that.
    """
    rng = np.random.default_rng(2)
    channels = 2 if change == "channels" else 1
    row, column = (rng.normal(size=(channels, channels, *shape)) for shape in ((1, 5), (5, 1)))
    weights = {"row": row, "column": column, "bias": rng.normal(size=channels)}
    initializers: dict[str, NDArray[Any]] = {
        name: value.astype(np.float32) for name, value in weights.items()
    }
    initializers |= {"pads": np.array([0, 0, 2, 2, 0, 0, 2, 2]), "flat": np.array([0, -1])}
    initializers |= {"white": np.array(255, np.float32), "zero": np.array(0, np.float64)}
    initializers |= {"first": rng.normal(size=(SIZE * SIZE, PART)).astype(np.float32)}
    initializers |= {"values": np.array([0, SIZE * SIZE]), "all cells": np.array([0, CELLS])}
    mode = "edge" if change == "edge" else "reflect"
    steps = [2, 2] if change == "steps" else [1, 1]
    bias = "bias" if change == "bias" else "no bias"
    around = [1, 1, 1, 1] if change == "zeros" else [0, 0, 0, 0]
    nodes = [
        helper.make_node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "white"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["image"], perm=[0, 3, 1, 2]),
        helper.make_node("Pad", ["image", "pads"], ["padded"], mode=mode),
        helper.make_node("Shape", ["row"], ["filters"], start=0, end=1),
        helper.make_node("CastLike", ["zero", "padded"], ["no"]),
        helper.make_node("Expand", ["no", "filters"], ["no bias"]),
        helper.make_node("Conv", ["padded", "row", bias], ["across"], strides=steps),
        helper.make_node("Conv", ["across", "column"], ["down"], pads=around),
        helper.make_node("Relu", ["down"], ["positive"]),
        helper.make_node("Neg", ["down"], ["opposite"]),
        helper.make_node("Relu", ["opposite"], ["negative"]),
        helper.make_node("Concat", ["positive", "negative"], ["signed"], axis=1),
        helper.make_node("Pad", ["signed", "pads"], ["around"], mode=mode),
        helper.make_node(
            "AveragePool", ["around"], ["cells"], kernel_shape=[4, 4], strides=[3, 3], pads=around
        ),
    ]
    if change == "part":
        nodes += [
            helper.make_node("Reshape", ["cells", "all cells"], ["searched"]),
            helper.make_node("Reshape", ["image", "values"], ["flat image"]),
            helper.make_node("MatMul", ["flat image", "first"], ["appearance"]),
            helper.make_node("Concat", ["appearance", "searched"], ["latent"], axis=1),
        ]
    else:
        nodes.append(helper.make_node("Reshape", ["cells", "flat"], ["latent"]))
    given = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", SIZE, SIZE, channels])
    latent = helper.make_tensor_value_info("latent", TensorProto.FLOAT, ["N", None])
    values = [numpy_helper.from_array(np.asarray(value), name) for name, value in initializers.items()]
    graph = helper.make_graph(nodes, "encoder", [given], [latent], values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("change", ["none", "channels", "edge", "steps", "bias", "zeros"])
def test_what_is_almost_a_mean_stays_the_same(change: str) -> None:
    old, shape = _row_and_column(change), (SIZE, SIZE, 2 if change == "channels" else 1)
    pixels = np.random.default_rng(3).integers(0, 256, (3, *shape), np.uint8)
    expected = run(old, pixels)
    every = AffineMap(np.eye(expected.shape[1], dtype=np.float32), np.zeros(expected.shape[1], np.float32))
    new = optimize_encoder(old, every, shape)
    np.testing.assert_allclose(run(new, pixels), expected, atol=PARITY)
    assert ("Pad" not in operations(new)) == (change == "none")
    assert "CastLike" not in operations(new)


def test_a_part_that_is_not_used_is_left_out_where_that_is_asked_for() -> None:
    old = _row_and_column("part")
    pixels = np.random.default_rng(3).integers(0, 256, (3, SIZE, SIZE, 1), np.uint8)
    expected = run(old, pixels)
    searched = AffineMap(
        np.eye(CELLS, PART + CELLS, PART, dtype=np.float32), np.zeros(PART + CELLS, np.float32)
    )
    new = optimize_encoder(old, searched, (SIZE, SIZE, 1))
    np.testing.assert_allclose(run(new, pixels), expected, atol=PARITY)
    used = run(new, pixels, whole=False)
    np.testing.assert_allclose(used[:, PART:], expected[:, PART:], atol=PARITY)
    assert not used[:, :PART].any()
    assert operations(new)["MatMul"] == 6  # two for the means, four for the cells; the seventh is conditional
    assert optimize_encoder(new, searched, (SIZE, SIZE, 1)) == new
