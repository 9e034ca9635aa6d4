"""Networks made elsewhere: wrapped they give what they gave; what cannot serve is refused."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from lookalike.encoder.bundle import Bundle
from lookalike.encoder.detect import ARCFACE_FRAME, LFW_FRAME, Frame
from lookalike.encoder.errors import InvalidArgumentError, OnnxImportError
from lookalike.encoder.export.import_model import import_onnx
from lookalike.encoder.export.onnx_graph import Normalization
from lookalike.encoder.images import Crop
from lookalike.encoder.runtime import Model
from tests.fixtures.command import lookalike, one_line
from tests.fixtures.people import write_people

SIDE, LATENT = 16, 6


@pytest.fixture(autouse=True)
def _models_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """New models go into the test's folder."""
    monkeypatch.setenv("LOOKALIKE_MODELS", str(tmp_path))


PLAIN = Normalization(mean=(127.5,), std=(127.5,))


def network(
    *,
    batch: int | str = "N",
    channels: int = 3,
    last: bool = False,
    side: int | str = SIDE,
    half: bool = False,
    opset: int = 18,
    pooled: bool = False,
    extra: Sequence[onnx.NodeProto] = (),
    outputs: Sequence[str] = ("vector",),
    reshape: bool | str = False,
) -> onnx.ModelProto:
    """Three features of each cell of 4 x 4, weighed: tiny, and every channel and place counts.

    uint8 pictures in, as :func:`expected` computes by hand.
    """
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    real = np.float16 if half else np.float32
    kernel, weights = parts(channels)
    nodes = [helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2])] if last else []
    nodes += [
        helper.make_node("Conv", ["planes" if last else "image", "kernel"], ["cells"], strides=[4, 4]),
        helper.make_node("Relu", ["cells"], ["positive"]),
    ]
    if reshape:
        nodes.append(helper.make_node("Identity", ["one_row"], ["computed"]))
        rows = "computed" if reshape == "computed" else "one_row"
        nodes.append(helper.make_node("Reshape", ["positive", rows], ["row"]))
        if opset >= 14:
            nodes[-1].attribute.append(helper.make_attribute("allowzero", 1))
    else:
        nodes.append(helper.make_node("Flatten", ["positive"], ["row"]))
    nodes.append(helper.make_node("MatMul", ["row", "weights"], ["flat" if pooled else "vector"]))
    if pooled:
        nodes.append(helper.make_node("Reshape", ["flat", "to_cells"], ["vector"]))
    shape = [batch, side, side, channels] if last else [batch, channels, side, side]
    graph = helper.make_graph(
        [*nodes, *extra],
        "tiny",
        [helper.make_tensor_value_info("image", kind, shape)],
        [helper.make_tensor_value_info(name, kind, None) for name in outputs],
        [
            numpy_helper.from_array(kernel.astype(real), "kernel"),
            numpy_helper.from_array(weights.astype(real), "weights"),
            numpy_helper.from_array(np.array([1, 48], np.int64), "one_row"),
            numpy_helper.from_array(np.array([-1, LATENT, 1, 1], np.int64), "to_cells"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def parts(channels: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(0)
    return rng.normal(0, 0.2, (3, channels, 4, 4)), rng.normal(0, 0.2, (3 * 16, LATENT))


def expected(images: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """What :func:`network` makes of prepared images (N, 16, 16, K): (N, 6)."""
    kernel, weights = parts(images.shape[3])
    cells = images.reshape(-1, 4, 4, 4, 4, images.shape[3])  # (N, row, y, column, x, K)
    found = np.einsum("nryxck,fkyc->nfrx", cells, kernel)
    vectors: NDArray[np.float64] = np.maximum(found, 0).reshape(len(images), -1) @ weights
    return vectors


def write(model: onnx.ModelProto, folder: Path) -> Path:
    file = folder / "my.onnx"
    file.write_bytes(model.SerializeToString())
    return file


def wrapped(model: onnx.ModelProto, folder: Path, **options: Any) -> Bundle:
    chosen: dict[str, Any] = {"size": None, "normalization": PLAIN, "crop": Crop(), "mirror": False}
    return import_onnx(write(model, folder), folder / "mine", **(chosen | options))


def pixels(count: int = 3, channels: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (count, SIDE, SIDE, channels), dtype=np.uint8)


@pytest.mark.parametrize("last", [False, True], ids=["NCHW", "NHWC"])
@pytest.mark.parametrize("rgb", [True, False], ids=["rgb", "bgr"])
def test_pictures_are_prepared_as_told(tmp_path: Path, last: bool, rgb: bool) -> None:
    mean, std = (100.0, 110.0, 120.0), (50.0, 60.0, 70.0)
    told = Normalization(mean=mean, std=std, rgb=rgb)
    bundle = wrapped(network(last=last), tmp_path, normalization=told)
    seen = pixels()[..., :: 1 if rgb else -1].astype(np.float64)
    wanted = expected((seen - mean) / std)
    np.testing.assert_allclose(Model(bundle).encode(pixels()), wanted, rtol=1e-3, atol=1e-4)
    spec = bundle.spec
    assert (spec.kind, spec.labels, spec.latent, spec.embedding, spec.opset) == (
        "encoder",
        "unknown",
        6,
        6,
        18,
    )
    assert (spec.image.size, spec.image.channels, str(spec.image.crop)) == (SIDE, 3, "full")
    assert spec.training["order"] == ("rgb" if rgb else "bgr")
    assert (bundle.graphs, list(bundle.golden)) == (("encoder",), ["pixels", "latents"])
    assert Bundle.open(bundle.folder).model_id == bundle.model_id


def test_an_embedding_is_the_vector_at_unit_length(tmp_path: Path) -> None:
    model = Model(wrapped(network(), tmp_path))
    latents = model.encode(pixels())
    unit = latents / np.linalg.norm(latents, axis=1, keepdims=True)
    np.testing.assert_allclose(model.embed(pixels()), unit, atol=1e-6)
    model.check()


def test_mirror_images_are_averaged_unless_told_otherwise(tmp_path: Path) -> None:
    model = Model(wrapped(network(), tmp_path, mirror=True))
    np.testing.assert_allclose(model.embed(pixels()), model.embed(pixels()[:, :, ::-1]), atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"batch": 1},
        {"batch": 8},
        {"batch": 1, "reshape": True},
        {"batch": 1, "reshape": True, "pooled": True},
        {"batch": ""},
        {"pooled": True},
        {"opset": 9},
        {"opset": 13},
        {"opset": 21},
        {"outputs": ("vector", "cells")},
        {"side": "S"},
    ],
    ids=str,
)
def test_networks_of_many_kinds_give_what_they_gave(tmp_path: Path, options: dict[str, Any]) -> None:
    size = SIDE if "side" in options else None
    model = Model(wrapped(network(**options), tmp_path, size=size))
    wanted = expected((pixels() - 127.5) / 127.5)
    np.testing.assert_allclose(model.encode(pixels()), wanted, rtol=1e-3, atol=1e-4)


def test_half_precision_comes_out_single(tmp_path: Path) -> None:
    model = Model(wrapped(network(half=True), tmp_path))
    wanted = expected((pixels() - 127.5) / 127.5)
    assert model.encode(pixels()).dtype == np.float32
    np.testing.assert_allclose(model.encode(pixels()), wanted, rtol=0.05, atol=0.02)


def test_an_old_opset_is_converted(tmp_path: Path) -> None:
    model = wrapped(network(opset=8), tmp_path)
    assert model.spec.opset == 13
    wanted = expected((pixels() - 127.5) / 127.5)
    np.testing.assert_allclose(Model(model).encode(pixels()), wanted, rtol=1e-3, atol=1e-4)


def test_weights_listed_as_inputs_are_none(tmp_path: Path) -> None:
    old = network()
    old.ir_version = 3
    for tensor in old.graph.initializer:
        old.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        )
    assert wrapped(old, tmp_path).spec.latent == LATENT


def test_grey_pictures_go_into_one_channel_or_three(tmp_path: Path) -> None:
    grey = pixels(channels=1)
    one = wrapped(network(channels=1), tmp_path)
    assert one.spec.image.channels == 1
    prepared = (grey - 127.5) / 127.5
    np.testing.assert_allclose(Model(one).encode(grey), expected(prepared), rtol=1e-3, atol=1e-4)
    told = Normalization(mean=(127.5,), std=(127.5,), gray=True, rgb=False)
    three = wrapped(network(), tmp_path, normalization=told)
    assert three.spec.image.channels == 1
    wanted = expected(prepared.repeat(3, axis=3))
    np.testing.assert_allclose(Model(three).encode(grey), wanted, rtol=1e-3, atol=1e-4)


def test_one_of_several_outputs_is_named(tmp_path: Path) -> None:
    twice = helper.make_node("Add", ["vector", "vector"], ["double"])
    several = network(extra=[twice], outputs=("vector", "double", "cells"))
    with pytest.raises(
        InvalidArgumentError, match=r"is ambiguous; .*vector float32 \(1, 6\), double .*cells"
    ):
        wrapped(several, tmp_path)
    with pytest.raises(InvalidArgumentError, match="--output cells must be a vector for each image; it has"):
        wrapped(several, tmp_path, output="cells")
    with pytest.raises(InvalidArgumentError, match="--output nothing must be a vector"):
        wrapped(several, tmp_path, output="nothing")
    latents = Model(wrapped(several, tmp_path, output="double")).encode(pixels())
    np.testing.assert_allclose(latents, 2 * expected((pixels() - 127.5) / 127.5), rtol=1e-3, atol=1e-3)


def test_a_network_that_takes_one_picture_at_a_time_is_run_so(tmp_path: Path) -> None:
    model = Model(wrapped(network(batch=1, reshape="computed"), tmp_path))
    assert model.bundle.spec.batch == 1
    model.check()
    wanted = expected((pixels(7) - 127.5) / 127.5)
    np.testing.assert_allclose(model.encode(pixels(7)), wanted, rtol=1e-3, atol=1e-4)
    assert Bundle.open(model.bundle.folder).spec == model.bundle.spec
    assert wrapped(network(), tmp_path).spec.batch is None


def test_a_network_that_mixes_the_pictures_of_a_batch_is_refused(tmp_path: Path) -> None:
    mean = helper.make_node("ReduceMean", ["vector"], ["mean"], axes=[0], keepdims=1)
    mixed = network(
        extra=[mean, helper.make_node("Add", ["vector", "mean"], ["mixed"])], outputs=["mixed"], opset=13
    )
    with pytest.raises(OnnxImportError, match="a batch of five images must give the same as each alone"):
        wrapped(mixed, tmp_path)


def _foreign(model: onnx.ModelProto) -> None:
    model.graph.node[1].domain = "my.company"
    model.opset_import.append(helper.make_opsetid("my.company", 1))


def _two_inputs(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["N", 1]))


def _words(model: onnx.ModelProto) -> None:
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("image", TensorProto.INT64, ["N", 128]))


def _four_channels(model: onnx.ModelProto) -> None:
    model.graph.input[0].CopyFrom(
        helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 4, SIDE, SIDE])
    )


def _oblong(model: onnx.ModelProto) -> None:
    model.graph.input[0].CopyFrom(
        helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIDE, 2 * SIDE])
    )


def _unheard(model: onnx.ModelProto) -> None:
    model.graph.node[1].op_type = "Unheard"


def _constant(model: onnx.ModelProto) -> None:
    weights = model.graph.initializer[1]
    weights.CopyFrom(numpy_helper.from_array(np.zeros((48, LATENT), np.float32), "weights"))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_foreign, r"operators that onnxruntime does not have, my\.company\.Relu"),
        (_two_inputs, r"one input, this has 2 \(image float \(N, 3, 16, 16\); mask float \(N, 1\)\)"),
        (_words, r"this input is image int64 \(N, 128\)"),
        (_four_channels, r"with 1 or 3 channels, this input is image float \(N, 4, 16, 16\)"),
        (_oblong, r"this input is image float \(N, 3, 16, 32\)"),
        (_unheard, "onnxruntime cannot run it"),
        (_constant, "gives the same vector for every image"),
    ],
)
def test_what_cannot_serve_is_refused_on_one_line(tmp_path: Path, spoil: Any, said: str) -> None:
    model = network()
    spoil(model)
    with pytest.raises(OnnxImportError, match=said) as caught:
        wrapped(model, tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "my.onnx") in str(caught.value)
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("data", [b"", b"no network", b"\x08\x07", bytes(1000)])
def test_what_is_no_onnx_file_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "my.onnx").write_bytes(data)
    with pytest.raises(OnnxImportError, match="is not an ONNX file"):
        import_onnx(tmp_path / "my.onnx", tmp_path / "mine", size=None, normalization=PLAIN, crop=Crop())
    with pytest.raises(OnnxImportError, match="cannot be read"):
        import_onnx(tmp_path / "nowhere", tmp_path / "mine", size=None, normalization=PLAIN, crop=Crop())


@pytest.mark.parametrize(
    ("options", "more", "said"),
    [
        ({}, {"size": 24}, r"takes 16x16, not --size 24; leave --size out"),
        ({"side": "S"}, {}, "choose one with --size"),
        (
            {"channels": 1},
            {"normalization": Normalization(mean=(1.0, 2.0, 3.0), std=(1.0,))},
            "takes one channel",
        ),
        ({"outputs": ("cells",)}, {}, "the output must be a vector for each image"),
    ],
)
def test_options_that_do_not_fit_the_network_are_refused(
    tmp_path: Path, options: dict[str, Any], more: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=said):
        wrapped(network(**options), tmp_path, **more)


@pytest.mark.parametrize(
    ("mean", "std"), [((), (1.0,)), ((0.0, 1.0), (1.0,)), ((np.nan,), (1.0,)), ((0.0,), (0.0,))]
)
def test_numbers_that_cannot_be_are_refused(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    with pytest.raises(InvalidArgumentError, match=r"--(mean|std)"):
        Normalization(mean=mean, std=std)


def test_a_wrapped_graph_is_valid_onnx(tmp_path: Path) -> None:
    graph = wrapped(network(), tmp_path).graph("encoder")
    onnx.checker.check_model(onnx.load_from_string(graph), full_check=True)
    (feed,) = ort.InferenceSession(graph).get_inputs()
    assert (feed.type, feed.shape) == ("tensor(uint8)", ["N", SIDE, SIDE, 3])


def test_import_index_and_search_from_the_command(tmp_path: Path) -> None:
    write(network(), tmp_path)
    write_people(tmp_path / "people", people=6, each=4)
    words = "models import my.onnx --size 16 --mean 127.5 --std 127.5,128,129 --bgr --name arcface"
    done = lookalike(*words.split(), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'arcface'}\n")
    assert done.stderr.startswith("arcface: encoder, 16x16x3, latent 6, crop full, id ")
    listed = lookalike("models", "arcface", cwd=tmp_path).stdout
    assert "how it was trained is not known" in listed
    done = lookalike("index", "people", "--collection", "p", "--model", "arcface", cwd=tmp_path)
    assert done.returncode == 0
    query = "people/person-2/1.png"
    done = lookalike(
        "search", query, "--collection", "p", "--exclude-self", "-n", "3", "--json", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    (answer,) = json.loads(done.stdout)
    assert answer["results"][0]["person"] == "person-2"
    for verb in (f"reconstruct {query}", "generate"):
        refused = lookalike(*verb.split(), "--model", "arcface", "--out", "new.png", cwd=tmp_path)
        assert refused.returncode == 2
        assert "model arcface has no decoder; it has encoder; it can search, not generate" in one_line(
            refused
        )
    refused = lookalike(
        "edit", query, "--model", "arcface", "--add", "Smiling", "--out", "new.png", cwd=tmp_path
    )
    assert refused.returncode == 2
    assert "model arcface has no decoder, so it can search, not edit" in one_line(refused)


@pytest.mark.parametrize("words", [(), ("--preset", "clip"), ("--mean", "0.5", "--std", "0.5")])
def test_a_network_that_is_not_there_is_said_first(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = lookalike("models", "import", "nowhere.onnx", *words, cwd=tmp_path)
    assert done.returncode == 1
    assert "nowhere.onnx: cannot be read (there is no such file or folder); check the path" in one_line(done)


@pytest.mark.parametrize(
    ("text", "frame"),
    [
        ("arcface", ARCFACE_FRAME),
        ("LFW", LFW_FRAME),
        (
            ".3,.4,.7,.4,.5,.6,.35,.8,.65,.8",
            Frame(((0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8))),
        ),
    ],
)
def test_the_frame_of_a_face_network_is_saved_and_named(tmp_path: Path, text: str, frame: Frame) -> None:
    write(network(), tmp_path)
    words = f"models import my.onnx --mean 127.5 --std 127.5 --name mine --frame {text}"
    done = lookalike(*words.split(), cwd=tmp_path)
    assert done.returncode == 0
    named = f"faces of photographs are cut out for it: frame {frame}"
    assert done.stderr.splitlines()[1:] == [named]
    bundle = Bundle.open(tmp_path / "mine")
    assert bundle.face_frame == frame
    assert f"  {named}\n" in lookalike("models", "mine", cwd=tmp_path).stdout
    (listed,) = json.loads(lookalike("models", "mine", "--json", cwd=tmp_path).stdout)
    assert listed["frame"] == str(frame)


def test_without_a_frame_faces_cannot_be_cut_out(tmp_path: Path) -> None:
    bundle = wrapped(network(), tmp_path)
    assert bundle.spec.frame is None
    assert "frame" not in lookalike("models", "mine", cwd=tmp_path).stdout
    with pytest.raises(InvalidArgumentError, match="import one with --frame"):
        _ = bundle.face_frame


def test_an_imported_encoder_can_be_calibrated_and_warns_of_nothing(tmp_path: Path) -> None:
    bundle = wrapped(network(), tmp_path)
    write_people(tmp_path / "people", people=16, each=4)
    done = lookalike("calibrate", "people", "--model", "mine", "--out", "mine", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["errors"] is None
    calibrated = Bundle.open(bundle.folder)
    assert calibrated.calibration is not None
    assert calibrated.model_id == bundle.model_id


@pytest.mark.parametrize(
    ("code", "words", "said"),
    [
        (2, "my.onnx --mean a --std 1 --name new", "must be one number, or three"),
        (2, "my.onnx --mean 1,2 --std 1 --name new", "must be one number, or three"),
        (2, "my.onnx --mean 1 --std 0 --name new", "--std must be over 0"),
        (2, "my.onnx --mean 1 --std 1 --name a/b", "--name must be a folder name"),
        (2, "my.onnx --mean 1 --std 1 --name people", "only a bundle is replaced"),
        (
            2,
            "my.onnx --mean 1 --std 1 --name new --frame eyes",
            "write lfw, arcface or x,y of five landmarks",
        ),
        (2, "my.onnx --mean 1 --std 1 --name new --frame 1,2,3", "five landmarks have ten numbers"),
        (2, "my.onnx --mean 1 --std 1 --name new --frame 9,9,1,1,1,0,0,1,0,0", "from -1 to 2"),
        (2, "my.onnx --mean 1 --std 1 --name new --crop middle", "write full, center:FRACTION or X,Y,W,H"),
        (1, "nowhere.onnx --mean 1 --std 1 --name new", "nowhere.onnx: cannot be read"),
        (1, "people/person-0/0.png --mean 1 --std 1 --name new", "is not an ONNX file"),
    ],
)
def test_errors_are_one_line_with_a_code(tmp_path: Path, code: int, words: str, said: str) -> None:
    write(network(), tmp_path)
    write_people(tmp_path / "people", people=1, each=1)
    done = lookalike("models", "import", *words.split(), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr.splitlines()[-1]
    assert not (tmp_path / "new").exists()


def test_without_onnx_it_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys, importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'onnx' else find(name, *a)\n"
        "sys.argv = 'lookalike models import my.onnx --mean 1 --std 1 --name new'.split()\n"
        "from lookalike.deploy.cli.main import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.endswith("pip install 'lookalike[import]'\n")
