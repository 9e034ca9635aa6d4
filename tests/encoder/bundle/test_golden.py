"""Golden values: the graphs of a bundle give them here, or the model does not answer."""

from pathlib import Path

import numpy as np
import pytest

from lookalike.encoder.bundle import AffineMap, Bundle, LatentStatistics
from lookalike.encoder.errors import BundleCorruptError, GoldenMismatchError
from lookalike.encoder.runtime import Model
from tests.fixtures.tiny_models import CHANNELS, SIZE, arrays_of, forge, negated, npz, pictures, weighed


def test_golden_values_are_what_the_graphs_gave(tiny: Bundle) -> None:
    golden, image = tiny.golden, tiny.spec.image
    assert isinstance(tiny.affine, AffineMap)
    assert isinstance(tiny.statistics, LatentStatistics)
    assert golden["pixels"].shape[1:] == pictures(1).shape[1:] == image.shape
    assert np.ptp(golden["pixels"]) > 50  # pictures, not a flat grey
    model = Model(tiny)
    np.testing.assert_allclose(model.encode(golden["pixels"]), golden["latents"], atol=1e-5)
    np.testing.assert_allclose(model.decode(golden["latents"]), golden["decoded"], atol=1e-5)


@pytest.mark.parametrize("name", ["latents", "decoded"])
def test_other_golden_values_are_refused_by_name(copy: Path, name: str) -> None:
    arrays = arrays_of(copy, "golden.npz")
    forge(copy, files={"golden.npz": npz(**(arrays | {name: arrays[name][::-1]}))})
    model = Model(Bundle.open(copy))
    for _ in range(2):  # it stays refused
        with pytest.raises(GoldenMismatchError, match=r"faces does not reproduce its golden values here"):
            model.check()


@pytest.mark.parametrize(("graph", "ask"), [("encoder", "embed"), ("decoder", "decode")])
def test_golden_values_are_checked_when_a_graph_is_loaded(copy: Path, graph: str, ask: str) -> None:
    bundle = Bundle.open(copy)
    rows = {"embed": bundle.golden["pixels"], "decode": bundle.golden["latents"]}[ask]
    forge(copy, files={f"{graph}.onnx": negated(bundle.graph(graph))})
    model = Model.open(copy)
    with pytest.raises(
        GoldenMismatchError, match=rf"faces does not .*: {graph} differs by .* standard deviations"
    ):
        getattr(model, ask)(rows)
    with pytest.raises(GoldenMismatchError):
        model.check()


@pytest.mark.parametrize(("graph", "ask"), [("encoder", "pixels"), ("decoder", "latents")])
def test_a_graph_that_gives_nan_is_refused(copy: Path, graph: str, ask: str) -> None:
    bundle = Bundle.open(copy)
    forge(copy, files={f"{graph}.onnx": weighed(bundle.graph(graph), float("nan"))})
    with pytest.raises(GoldenMismatchError, match=rf"{graph} differs by nan standard deviations"):
        getattr(Model.open(copy), {"pixels": "encode", "latents": "decode"}[ask])(bundle.golden[ask])


def test_graph_that_gives_one_number_a_row_is_refused(copy: Path) -> None:
    # It would fill a row of any length by broadcasting.
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["pixels"], ["real"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["real", "axes"], ["latent"], keepdims=0),
            helper.make_node("Unsqueeze", ["latent", "last"], ["column"]),
        ],
        "mean",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", SIZE, SIZE, CHANNELS])],
        [helper.make_tensor_value_info("column", TensorProto.FLOAT, ["N", 1])],
        [
            helper.make_tensor("axes", TensorProto.INT64, [3], [1, 2, 3]),
            helper.make_tensor("last", TensorProto.INT64, [1], [1]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    forge(copy, files={"encoder.onnx": model.SerializeToString()})
    with pytest.raises(BundleCorruptError, match=r"its output has shape \(4, 1\), not \(4, 4\)"):
        Model.open(copy).check()
