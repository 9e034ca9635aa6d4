"""Import an ONNX network as a bundle for search. Needs the [import] extra.

The network is run to check it: a batch of five images must give the same as each image alone.

Legend: N images, S side, C channels, D latent size.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from lookalike.encoder.bundle import (
    AffineMap,
    Bundle,
    BundleSpec,
    LatentStatistics,
    absolute_path,
    check_target,
)
from lookalike.encoder.detect import Frame
from lookalike.encoder.errors import InvalidArgumentError, OnnxImportError, one_line, printable
from lookalike.encoder.files import read_bounded
from lookalike.encoder.images import Crop, ImageSpec

if TYPE_CHECKING:
    from lookalike.encoder.export.onnx_graph import Normalization, OnnxGraph


_MAX_DIFFERENCE: Final = 1e-2
"""Largest difference of a batch from single images, in standard deviations: float16 networks round."""
_SEED: Final = 0
_QUIET: Final = 4  # onnxruntime's FATAL level: what fails is raised here


def need_extra() -> None:
    """Check that onnx is installed.

    Raises:
        OnnxImportError: It is not installed.
    """
    if importlib.util.find_spec("onnx") is None:
        raise OnnxImportError("importing a network needs onnx; pip install 'lookalike[import]'")


def import_onnx(
    file: Path,
    folder: Path,
    *,
    size: int | None,
    normalization: Normalization,
    crop: Crop,
    output: str | None = None,
    mirror: bool = True,
    frame: Frame | None = None,
) -> Bundle:
    """Write the network in ``file`` as a bundle of kind ``encoder``.

    Args:
        file: ONNX, in a single file.
        folder: Where the bundle goes.
        size: S, if the network does not fix it.
        normalization: Normalization of its input.
        crop: How images are framed.
        output: Its output; None for the only one that is a vector for each image.
        mirror: Whether to average with the mirror image.
        frame: Where the landmarks of a face lie in its input; None: it is not for faces, or not known.

    Raises:
        OnnxImportError: It is not a network from an image to a vector, or cannot be run here.
        InvalidArgumentError: an option does not fit the network, or something that is no bundle stands at
            ``folder``.
    """
    from lookalike.encoder.export.onnx_graph import OnnxGraph

    check_target(absolute_path(folder))
    data = _read(file)
    network = OnnxGraph.parse(data, file)
    channels = 1 if normalization.gray else network.channels
    image = ImageSpec(size=_side(network, size), channels=channels, crop=crop)
    network.add_preprocessing(image, normalization)
    pixels = _synthetic(image, 5)
    name = _choose_output(network, pixels, output, file)
    network.set_output(name)
    try:
        latents = _checked_latents(network.to_bytes(), pixels, file)
    except OnnxImportError:
        if not network.make_batch_dynamic():
            raise
        latents = _checked_latents(network.to_bytes(), pixels, file)
    latent = latents.shape[1]
    spec = BundleSpec(
        kind="encoder",
        image=image,
        latent=latent,
        embedding=latent,
        mirror=mirror,
        opset=network.opset,
        labels="unknown",
        frame=frame,
        training={
            "imported": file.name,
            "sha256": hashlib.sha256(data).hexdigest(),
            "mean": list(normalization.mean),
            "std": list(normalization.std),
            "order": "rgb" if normalization.rgb else "bgr",
            "output": name,
        },
    )
    unit = np.eye(latent, dtype=np.float32)
    zero = np.zeros(latent, np.float32)
    return Bundle.save(
        folder,
        spec=spec,
        graphs={"encoder": network.to_bytes()},
        statistics=LatentStatistics(zero, unit),  # unknown, and never sampled from
        affine=AffineMap(unit, zero),
        golden={"pixels": pixels[:4], "latents": latents[:4]},
    )


_MOST_BYTES: Final = 1 << 31  # of any ONNX file (protobuf)


def _read(file: Path) -> bytes:
    try:
        return read_bounded(file, most=_MOST_BYTES)
    except OSError as error:
        raise OnnxImportError(
            f"{printable(str(file))}: cannot be read ({error.strerror}); check the path"
        ) from error


def _side(network: OnnxGraph, size: int | None) -> int:
    side = network.side or size
    if side is None:
        raise InvalidArgumentError("this network takes images of any size; choose one with --size")
    if size not in (None, side):
        raise InvalidArgumentError(f"this network takes {side}x{side}, not --size {size}; leave --size out")
    return side


def _synthetic(image: ImageSpec, count: int) -> NDArray[np.uint8]:
    """Return blotches with noise, uint8 (N, S, S, C), the same on every machine."""
    rng = np.random.default_rng(_SEED)
    tiles = -(-image.size // 8)
    coarse = rng.integers(0, 224, (count, 8, 8, image.channels))
    smooth = coarse.repeat(tiles, axis=1).repeat(tiles, axis=2)[:, : image.size, : image.size]
    return (smooth + rng.integers(0, 32, smooth.shape)).astype(np.uint8)


def _choose_output(network: OnnxGraph, pixels: NDArray[np.uint8], requested: str | None, file: Path) -> str:
    """Return the name of the output that is a vector for each image."""
    names = network.outputs
    outputs = _run(network.to_bytes(), pixels[:1], file)
    shapes = ", ".join(
        f"{name} {array.dtype} {array.shape}" for name, array in zip(names, outputs, strict=True)
    )
    vectors = [name for name, array in zip(names, outputs, strict=True) if _is_vector(array)]
    if requested is not None:
        vectors = [name for name in vectors if name == requested]
    if len(vectors) != 1:
        which = f"--output {requested}" if requested is not None else "the output"
        rule = "must be a vector for each image" if not vectors else "is ambiguous; choose one with --output"
        raise InvalidArgumentError(
            f"{printable(str(file))}: {printable(which)} {rule}; it has {printable(shapes)[:400]}"
        )
    return vectors[0]


def _is_vector(array: NDArray[Any]) -> bool:
    """Whether floats are (1, D) or (1, D, 1, 1), D over 1."""
    return (
        array.dtype.kind == "f"
        and array.ndim in (2, 4)
        and len(array) == 1
        and array.size == array.shape[1] > 1
    )


def _checked_latents(graph: bytes, pixels: NDArray[np.uint8], file: Path) -> NDArray[np.float32]:
    """Return the latents of ``pixels``, each computed alone, if the batch gives the same."""
    alone: NDArray[np.float32] = np.concatenate([_run(graph, row[None], file)[0] for row in pixels])
    where = printable(str(file))
    if not np.isfinite(alone).all() or float(alone.std(axis=0).max()) == 0:
        raise OnnxImportError(
            f"{where}: gives the same vector for every image, or NaN; check --mean and --std"
        )
    try:
        (together,) = _run(graph, pixels, file)
    except OnnxImportError as error:
        raise OnnxImportError(
            f"{where}: takes only one image at a time ({one_line(error)[:200]}); export it with a dynamic "
            "batch"
        ) from error
    same_shape = together.shape == alone.shape
    difference = float(np.abs(together - alone).max() / alone.std()) if same_shape else math.inf
    if not difference <= _MAX_DIFFERENCE:
        raise OnnxImportError(
            f"{where}: a batch of five images must give the same as each alone, it differs by "
            f"{difference:.1e} standard deviations; export it with a dynamic batch, in evaluation mode"
        )
    return alone


def _run(graph: bytes, pixels: NDArray[np.uint8], file: Path) -> list[NDArray[Any]]:
    options = ort.SessionOptions()
    options.log_severity_level = _QUIET
    try:
        session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        outputs: list[NDArray[Any]] = session.run(None, {session.get_inputs()[0].name: pixels})
    except (MemoryError, RecursionError):
        raise  # they say nothing of the input
    except Exception as error:  # onnxruntime raises its own types from C++
        raise OnnxImportError(
            f"{printable(str(file))}: onnxruntime cannot run it ({one_line(error)[:300]}); export it again"
        ) from error
    return outputs
