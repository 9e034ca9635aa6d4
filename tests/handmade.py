"""Hand-made models that draw by class: two ONNX graphs of a few matrices, made in no time. Not a test.

A picture is ``sigmoid(latent @ OUT)``: every number of a latent lights its own pixels, so what was drawn can
be read off a picture.

And a cleaner: a blend with a box filter, the more of it the larger sigma is, and an estimate of noise from a
difference of two Laplacians (Immerkaer, Fast Noise Variance Estimation, 1996).
"""

from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from lookalike.encoder.bundle.bundle import Bundle, BundleSpec, Golden
from lookalike.encoder.bundle.denoiser import CleanerBundle, CleanerSpec
from lookalike.encoder.bundle.latent_prior import Mixture, Sampling
from lookalike.encoder.bundle.manifest import Kind
from lookalike.encoder.bundle.whitening import AffineMap, LatentStatistics
from lookalike.encoder.images.preprocess import ImageSpec
from lookalike.encoder.runtime.denoiser import save_cleaner
from lookalike.encoder.runtime.model import Model

SIZE: Final = 28
Z: Final = 3
CLASSES: Final = ("nil", "one", "two", "1/2 ../..")

Floats = NDArray[np.float32]


def out_of(latent: int) -> Floats:
    """(D, 784): the pixels of a picture shared out among the numbers of a latent."""
    owner = np.arange(SIZE * SIZE) * latent // (SIZE * SIZE)
    return np.asarray(2 * (owner == np.arange(latent)[:, None]), np.float32)


def make_digits(
    folder: Path,
    *,
    kind: Kind = "cvae",
    sampling: Sampling | None = None,
    classes: tuple[str, ...] = CLASSES,
) -> Bundle:
    """Save such a model of grey pictures 28x28; D is Z, and of a cvae Z + K."""
    latent = Z + len(classes) if kind == "cvae" else Z
    graphs = {"encoder": _encoder(latent, drawn=Z), "decoder": _decoder(latent)}
    pixels = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 1), dtype=np.uint8)
    latents = _run(graphs["encoder"], pixels)
    mean = np.zeros(latent, np.float32)
    mean[:Z] = 0.5, -0.5, 1
    statistics = LatentStatistics(mean, np.diag(np.linspace(0.5, 2, latent)).astype(np.float32))
    return Bundle.save(
        folder,
        spec=BundleSpec(
            kind=kind,
            image=ImageSpec(size=SIZE, channels=1),
            latent=latent,
            embedding=latent,
            mirror=False,
            opset=18,
            labels="class" if classes else "none",
            classes=classes,
        ),
        graphs=graphs,
        statistics=statistics,
        affine=AffineMap(np.eye(latent, dtype=np.float32), mean),
        golden=Golden(pixels, latents, _run(graphs["decoder"], latents)),
        sampling=sampling,
    )


def drawn_of_classes(size: int = Z, classes: int = len(CLASSES)) -> Sampling:
    """A Gaussian for each class around (k, k, ...), of other widths, and a mixture of two far apart."""
    k = np.arange(classes)
    return Sampling(
        mixture=Mixture.of(
            np.array([0.5, 0.5]), np.array([[9.0], [-9.0]]) * np.ones(size), np.eye(size) * np.ones((2, 1, 1))
        ),
        by_class=Mixture.of(
            (k + 1) / (k + 1).sum(),
            k[:, None] * np.ones(size),
            (k + 1)[:, None, None] ** 2 / 100 * np.eye(size),
        ),
    )


def every_kind(home: Path) -> dict[str, Model]:
    """One of each kind by its name; `bare`: a vae that knows nothing but N(0, I) and its statistics."""
    kinds: tuple[Kind, ...] = ("ae", "vae", "cvae")
    made: dict[str, Model] = {
        kind: Model(make_digits(home / kind, kind=kind, sampling=drawn_of_classes())) for kind in kinds
    }
    return {**made, "bare": Model(make_digits(home / "bare", kind="vae", classes=()))}


def _encoder(latent: int, *, drawn: int) -> bytes:
    """(N, 28, 28, 1) of 0..255 to logits of their means in each number's pixels; class weights sum to 1."""
    share = out_of(latent).T * (latent / (2 * SIZE * SIZE * 255))
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["floats", "flat"], ["rows"]),
        helper.make_node("MatMul", ["rows", "share"], ["parts"]),
    ]
    constants = {"flat": np.array([-1, SIZE * SIZE]), "share": share}
    if drawn == latent:
        nodes.append(helper.make_node("Identity", ["parts"], ["latent"]))
    else:
        constants["lengths"] = np.array([drawn, latent - drawn])
        nodes += [
            helper.make_node("Split", ["parts", "lengths"], ["mean", "logits"], axis=1),
            helper.make_node("Softmax", ["logits"], ["weights"], axis=1),
            helper.make_node("Concat", ["mean", "weights"], ["latent"], axis=1),
        ]
    return _graph(
        nodes,
        constants,
        helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", SIZE, SIZE, 1]),
        helper.make_tensor_value_info("latent", TensorProto.FLOAT, ["N", latent]),
    )


def _decoder(latent: int) -> bytes:
    nodes = [
        helper.make_node("MatMul", ["latent", "out"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["rows"]),
        helper.make_node("Reshape", ["rows", "shape"], ["image"]),
    ]
    return _graph(
        nodes,
        {"out": out_of(latent), "shape": np.array([-1, SIZE, SIZE, 1])},
        helper.make_tensor_value_info("latent", TensorProto.FLOAT, ["N", latent]),
        helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", SIZE, SIZE, 1]),
    )


def make_cleaner(folder: Path, *, multiple: int = 4, reach: int = 3, box: int = 7) -> CleanerBundle:
    """Save a cleaner that blends with the mean of `box` x `box` pixels; at sigma 0 it changes nothing."""
    spec = CleanerSpec(
        multiple=multiple, reach=reach, deviations=(0.0, 75 / 255), clean_below=2 / 255, opset=18
    )
    graphs = {"cleaner": box_cleaner(box, multiple), "estimator": laplacian_estimator()}
    return save_cleaner(folder, spec=spec, graphs=graphs)


def box_cleaner(box: int, multiple: int) -> bytes:
    """pixels + w (mean of the box - pixels), w = sigma / (sigma + 0.02); H, W must be multiples."""
    kernel = np.full((3, 1, box, box), 1 / box**2, np.float32)
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["image"], perm=[0, 3, 1, 2]),
        # Sides that are no multiples fail here, as they would where a network halves them.
        helper.make_node("SpaceToDepth", ["image"], ["blocks"], blocksize=multiple),
        helper.make_node("DepthToSpace", ["blocks"], ["whole"], blocksize=multiple),
        helper.make_node("Conv", ["whole", "kernel"], ["mean"], group=3, pads=[box // 2] * 4),
        helper.make_node("Sub", ["mean", "whole"], ["change"]),
        helper.make_node("Add", ["sigma", "half"], ["most"]),
        helper.make_node("Div", ["sigma", "most"], ["share"]),
        helper.make_node("Reshape", ["share", "column"], ["weight"]),
        helper.make_node("Mul", ["weight", "change"], ["step"]),
        helper.make_node("Add", ["whole", "step"], ["blended"]),
        helper.make_node("Transpose", ["blended"], ["cleaned"], perm=[0, 2, 3, 1]),
    ]
    constants = {"kernel": kernel, "half": np.float32(0.02), "column": np.array([-1, 1, 1, 1])}
    return _graph(
        nodes,
        {name: np.asarray(value) for name, value in constants.items()},
        [
            helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", "H", "W", 3]),
            helper.make_tensor_value_info("sigma", TensorProto.FLOAT, ["N"]),
        ],
        helper.make_tensor_value_info("cleaned", TensorProto.FLOAT, ["N", "H", "W", 3]),
    )


def laplacian_estimator() -> bytes:
    """sqrt(pi / 2) / 6 times the mean of |pixels * (1 -2 1, -2 4 -2, 1 -2 1)|, over all channels."""
    mask = np.outer([1, -2, 1], [1, -2, 1]).astype(np.float32)
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["image"], perm=[0, 3, 1, 2]),
        helper.make_node("Pad", ["image", "rim"], ["wide"], mode="edge"),  # also one pixel has neighbours
        helper.make_node("Conv", ["wide", "kernel"], ["edges"], group=3),
        helper.make_node("Abs", ["edges"], ["sizes"]),
        helper.make_node("Mul", ["sizes", "scale"], ["parts"]),
        helper.make_node("ReduceMean", ["parts", "axes"], ["sigma"], keepdims=0),
    ]
    constants = {
        "kernel": np.broadcast_to(mask, (3, 1, 3, 3)).copy(),
        "scale": np.asarray(np.sqrt(np.pi / 2) / 6, np.float32),
        "axes": np.array([1, 2, 3]),
        "rim": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    }
    return _graph(
        nodes,
        constants,
        helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", "H", "W", 3]),
        helper.make_tensor_value_info("sigma", TensorProto.FLOAT, ["N"]),
    )


def _graph(
    nodes: list[onnx.NodeProto],
    constants: dict[str, NDArray[np.generic]],
    given: onnx.ValueInfoProto | list[onnx.ValueInfoProto],
    made: onnx.ValueInfoProto,
) -> bytes:
    held = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    inputs = given if isinstance(given, list) else [given]
    graph = helper.make_graph(nodes, "hand-made", inputs, [made], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def _run(graph: bytes, rows: NDArray[np.generic]) -> Floats:
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (made,) = session.run(None, {session.get_inputs()[0].name: rows})
    result: Floats = made
    return result
