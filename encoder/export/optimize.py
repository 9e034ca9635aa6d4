"""Exported encoders made quicker: the same function in fewer and larger products. Needs the [train] extra.

- What is constant is computed here, and what occurs twice is computed once. What torch exports hides from
  onnxruntime that a convolution has no bias: it then neither fuses the normalization after it nor uses its
  blocked layout, and takes almost twice as long.
- Means over windows with reflected borders, which for onnxruntime are padding and convolutions of one
  channel, become products with a matrix along each axis.
- An input ``whole``, which may be left out, says whether to compute the parts of the latent that embeddings
  do not use.

Legend: N images, H, W height and width, D latent size.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxscript import ir, optimizer
from onnxscript.rewriter import pattern, rewrite

from lookalike.encoder.bundle import WHOLE, AffineMap, Bundle
from lookalike.encoder.errors import ExportError, one_line
from lookalike.encoder.export.parity import PARITY, run_all, session_of, strip_metadata

Floats = NDArray[np.float32]

_SEED: Final = 0
_ROUNDS: Final = 2
"""Of folding constants: what the first leaves behind is seen by the second."""


def optimize_bundle(where: str | os.PathLike[str], folder: str | os.PathLike[str]) -> Bundle:
    """Write a bundle with its encoder made quicker, and everything else as it is, under a new model_id.

    Args:
        where: Folder of the bundle, or its name.
        folder: Where to; may be the bundle's own folder.

    Raises:
        ExportError: It would compute something else; nothing is written.
        BundleKindError: It is a denoiser.
        InvalidArgumentError: The folder holds something else than a bundle.
        BundleError: The bundle cannot be used, or the folder cannot be written.
    """
    old = Bundle.open(where)
    pixels = old.golden["pixels"]
    graphs = {name: old.graph(name) for name in old.graphs}
    graphs["encoder"] = optimize_encoder(graphs["encoder"], old.affine, old.spec.image.shape, golden=pixels)
    bundle = Bundle.save(
        folder,
        spec=old.spec,
        graphs=graphs,
        golden=old.golden,
        statistics=old.statistics,
        affine=old.affine,
        calibration=old.calibration,
        sampling=old.sampling,
        tokenizer=None if old.spec.text is None else old.tokenizer,
    )
    if old.face_calibration is not None:
        bundle = bundle.recalibrated(old.face_calibration, folder, faces=True)
    return bundle if old.attributes is None else bundle.with_attributes(old.attributes, folder)


def optimize_encoder(
    graph: bytes, affine: AffineMap, shape: tuple[int, int, int], *, golden: NDArray[np.uint8] | None = None
) -> bytes:
    """Return an encoder that computes the same sooner, checked on noise and on ``golden``.

    Args:
        graph: ONNX; its first output is the latent, float32 (N, D).
        affine: From latents to embeddings: says which dimensions they use.
        shape: (S, S, C) of its images.
        golden: More images to check it on, uint8 (N, S, S, C).

    Raises:
        ExportError: It cannot be rewritten, or differs by more than :data:`PARITY`.
    """
    try:
        given = onnx.load_from_string(graph)
        if WHOLE in [each.name for each in given.graph.input]:
            return graph  # it is optimized already
        model = ir.from_proto(given)
        optimizer.optimize(model, num_iterations=_ROUNDS, onnx_shape_inference=True)
        model = rewrite(model, pattern_rewrite_rules=_RULES)
        optimizer.optimize(model)
        ir.passes.common.DeduplicateInitializersPass()(model)
        proto = onnx.shape_inference.infer_shapes(ir.to_proto(model))
        _add_switch(proto, np.asarray(affine.matrix.any(axis=0)))
        strip_metadata(proto)
        del proto.graph.value_info[:]
        onnx.checker.check_model(proto, full_check=True)
        data: bytes = proto.SerializeToString(deterministic=True)
        noise = np.random.default_rng(_SEED).integers(0, 256, (4, *shape), np.uint8)
        pixels = noise if golden is None else np.concatenate([golden, noise])
        difference = _difference(graph, data, pixels, affine)
    except Exception as error:  # onnxscript, onnx and onnxruntime each raise their own
        raise ExportError(
            f"the encoder cannot be optimized ({one_line(error)[:500]}); nothing was written"
        ) from error
    if not difference <= PARITY:
        raise ExportError(
            f"the encoder must stay the same to {PARITY:.0e}, optimized it differs by {difference:.1e}; "
            "nothing was written"
        )
    return data


def _difference(old: bytes, new: bytes, pixels: NDArray[np.uint8], affine: AffineMap) -> float:
    """Return the largest of outputs, and of embeddings without the rest of the latent, for (N, S, S, C)."""
    session = session_of(new)
    got, expected = run_all(session, pixels), run_all(session_of(old), pixels)
    pairs = list(zip(got, expected, strict=True))
    if session.get_overridable_initializers():
        (used, *_) = session.run(None, {session.get_inputs()[0].name: pixels, WHOLE: np.array(False)})
        pairs.append((affine(used), affine(expected[0])))
    return max(float(np.abs(each - reference).max()) for each, reference in pairs)


def _add_switch(model: onnx.ModelProto, used: NDArray[np.bool_]) -> None:
    """Add the input ``whole``: if it is false, the parts of the latent not ``used``, bool (D,), are zero.

    Only where there are such parts: the latent is then what several parts are concatenated to.
    """
    graph = model.graph
    (last,) = (node for node in graph.node if graph.output[0].name in node.output)
    unused = _unused_parts(graph, last, used)
    if not unused:
        return
    kept = _needed(graph, [name for name in last.input if name not in unused])
    ahead = _needed(graph, list(unused)) - kept
    moved = [node for node in graph.node if node.output[0] in ahead & _from_input(graph)]
    computed = helper.make_graph(moved, "computed", [], _floats(unused))
    zeros = helper.make_graph(_zeros(graph.input[0].name, unused), "zeros", [], _floats(unused, ".zeros"))
    results = [f"{name}.or_zeros" for name in unused]
    switch = helper.make_node("If", [WHOLE], results, then_branch=computed, else_branch=zeros)
    final = onnx.NodeProto()
    final.CopyFrom(last)
    del final.input[:]
    final.input.extend(f"{name}.or_zeros" if name in unused else name for name in last.input)
    gone = {node.output[0] for node in (*moved, last)}
    nodes = [node for node in graph.node if node.output[0] not in gone]
    del graph.node[:]
    graph.node.extend([*nodes, switch, final])
    graph.input.append(helper.make_tensor_value_info(WHOLE, TensorProto.BOOL, []))
    graph.initializer.append(numpy_helper.from_array(np.array(True), WHOLE))


def _unused_parts(graph: onnx.GraphProto, last: onnx.NodeProto, used: NDArray[np.bool_]) -> dict[str, int]:
    """Return the parts of the latent that are not used, and their widths."""
    if last.op_type != "Concat" or not used.any() or last.output[0] != graph.output[0].name:
        return {}
    shapes = {value.name: value.type.tensor_type.shape.dim for value in graph.value_info}
    widths = [shapes[name][1].dim_value for name in last.input if len(shapes.get(name, ())) == 2]
    ends = np.cumsum(widths).tolist()
    if len(widths) != len(last.input) or ends[-1] != len(used):
        return {}
    parts = zip(last.input, widths, ends, strict=True)
    return {name: width for name, width, end in parts if not used[end - width : end].any()}


def _needed(graph: onnx.GraphProto, names: list[str]) -> set[str]:
    """Return these values, and all that they are computed from."""
    makers = {output: node for node in graph.node for output in node.output}
    found, left = set[str](), list(names)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += makers[name].input if name in makers else ()
    return found


def _from_input(graph: onnx.GraphProto) -> set[str]:
    """Return the values that depend on the images."""
    found = {graph.input[0].name}
    for node in graph.node:
        if not found.isdisjoint(node.input):
            found.update(node.output)
    return found


def _zeros(pixels: str, parts: Mapping[str, int]) -> list[onnx.NodeProto]:
    """Return nodes that make zeros in place of parts, float32 (N, width)."""
    nodes = [helper.make_node("Shape", [pixels], ["zeros.count"], start=0, end=1)]
    for name, width in parts.items():
        nodes += [
            helper.make_node("Constant", [], [f"{name}.width"], value_ints=[width]),
            helper.make_node("Concat", ["zeros.count", f"{name}.width"], [f"{name}.shape"], axis=0),
            helper.make_node("ConstantOfShape", [f"{name}.shape"], [f"{name}.zeros"]),
        ]
    return nodes


def _floats(parts: Mapping[str, int], suffix: str = "") -> list[onnx.ValueInfoProto]:
    return [
        helper.make_tensor_value_info(name + suffix, TensorProto.FLOAT, [None, width])
        for name, width in parts.items()
    ]


def _local_mean(op: Any, image: Any, pads: Any, row: Any, column: Any) -> Any:
    """Gaussian means with reflected borders: (N, 1, H, W) -> (N, 1, H, W)."""
    padded = op.Pad(image, pads, mode="reflect")
    return op.Conv(op.Conv(padded, row, _outputs=["across"]), column, _outputs=["down"])


def _can_be_product(_context: Any, image: Any, pads: Any, row: Any, column: Any, **convs: Any) -> bool:
    shapes = [_array(kernel).shape for kernel in (row, column) if kernel.const_value is not None]
    plain = all(_is_plain(conv.producer()) for name, conv in convs.items() if name in ("across", "down"))
    return (
        len(shapes) == 2
        and shapes[0][:3] == (1, 1, 1)
        and shapes[1][:2] == (1, 1)
        and shapes[1][3] == 1
        and plain
        and _sides(image) is not None
        and _border(pads) is not None
    )


def _product_of_means(op: Any, image: Any, pads: Any, row: Any, column: Any, **_: Any) -> Any:
    height, width = _sides(image) or (0, 0)
    top, left, bottom, right = _border(pads) or (0, 0, 0, 0)
    return _along_both(
        op,
        image,
        window_means(_array(column).ravel(), height, before=top, after=bottom),
        window_means(_array(row).ravel(), width, before=left, after=right),
    )


def _cells(op: Any, response: Any, pads: Any) -> Any:
    """Means of positive and negative responses in cells: (N, F, H, W) -> (N, 2F, h, w)."""
    signed = op.Concat(op.Relu(response), op.Relu(op.Neg(response)), axis=1)
    return op.AveragePool(op.Pad(signed, pads, mode="reflect"), _outputs=["pooled"])


def _can_pool(_context: Any, response: Any, pads: Any, pooled: Any, **_: Any) -> bool:
    node = pooled.producer()
    plain = node.attributes.get_int("ceil_mode", 0) == 0 and not any(_ints(node, "pads", (0,)))
    return plain and _sides(response) is not None and _border(pads) is not None


def _product_of_cells(op: Any, response: Any, pads: Any, pooled: Any, **_: Any) -> Any:
    node = pooled.producer()
    steps = _ints(node, "strides", (1, 1))
    sizes = _ints(node, "kernel_shape", (1, 1))
    borders = _border(pads) or (0, 0, 0, 0)
    down, across = (
        window_means(
            np.full(sizes[axis], 1 / sizes[axis]),
            (_sides(response) or (0, 0))[axis],
            before=borders[axis],
            after=borders[axis + 2],
            step=steps[axis],
        )
        for axis in range(2)
    )
    positive = _along_both(op, op.Relu(response), down, across)
    # The mean is linear, and relu(-x) = relu(x) - x.
    return op.Concat(positive, op.Sub(positive, _along_both(op, response, down, across)), axis=1)


def window_means(weights: NDArray[Any], size: int, *, before: int, after: int, step: int = 1) -> Floats:
    """Return the matrix that maps values along an axis to their weighted means in windows, float32 (M, size).

    Args:
        weights: (k,), of the values in a window.
        size: Number of values.
        before: How many values are reflected before the first, which itself is not repeated.
        after: The same behind the last.
        step: From one window to the next.
    """
    places = np.pad(np.arange(size), (before, after), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(places, len(weights))[::step]  # (M, k)
    matrix = np.zeros((len(windows), size))
    np.add.at(matrix, (np.arange(len(windows))[:, None], windows), weights)
    return matrix.astype(np.float32)


def _along_both(op: Any, image: Any, down: Floats, across: Floats) -> Any:
    """(N, C, H, W) -> (N, C, H, w) -> (N, C, h, w)."""
    right = op.Constant(value=ir.tensor(np.ascontiguousarray(across.T)))
    return op.MatMul(op.Constant(value=ir.tensor(down)), op.MatMul(image, right))


def _array(value: Any) -> NDArray[Any]:
    return np.asarray(value.const_value.numpy())


def _sides(value: Any) -> tuple[int, int] | None:
    """Return H and W of (N, C, H, W), where they are fixed."""
    if value.shape is None or len(value.shape) != 4:
        return None
    height, width = value.shape[2], value.shape[3]
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def _border(pads: Any) -> tuple[int, int, int, int] | None:
    """Return how much is added at the top, left, bottom and right, where the rest stays as it is."""
    if pads.const_value is None:
        return None
    values = _array(pads).tolist()
    if len(values) != 8 or any(values[:2] + values[4:6]) or min(values) < 0:
        return None
    return values[2], values[3], values[6], values[7]


def _is_plain(node: Any) -> bool:
    """Whether a convolution has no bias, no padding, and steps of one."""
    return (
        len(node.inputs) == 2
        and not any(_ints(node, "pads", (0,)))
        and set(_ints(node, "strides", (1,))) | set(_ints(node, "dilations", (1,))) == {1}
        and node.attributes.get_string("auto_pad", "NOTSET") == "NOTSET"
    )


def _ints(node: Any, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(node.attributes.get_ints(name, default))


_Pattern = Callable[..., Any]


def _rule(found: _Pattern, made: _Pattern, condition: _Pattern) -> Any:
    return pattern.RewriteRule(found, made, condition)


_RULES: Final = [
    _rule(_local_mean, _product_of_means, _can_be_product),
    _rule(_cells, _product_of_cells, _can_pool),
]
