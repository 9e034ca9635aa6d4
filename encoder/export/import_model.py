"""Import an ONNX network as a bundle for search. Needs the [import] extra.

The network is run to check it: a batch of five images must give the same as each image alone. One that takes
a single image at a time is run so.

Legend: N images, S side, C channels, D latent size.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

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
from lookalike.encoder.images import Crop, ImageSpec, Resampling

if TYPE_CHECKING:
    from lookalike.encoder.export.onnx_graph import Normalization, OnnxGraph
    from lookalike.encoder.export.text_tower import TextFiles


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
    usual_size: int | None = None,
    resampling: Resampling = "bilinear",
    text: TextFiles | None = None,
    source: str | None = None,
) -> Bundle:
    """Write the network in ``file`` as a bundle of kind ``encoder``.

    Args:
        file: ONNX; weights may lie in other files of its folder.
        folder: Where the bundle goes.
        size: S, if the network does not fix it.
        normalization: Normalization of its input.
        crop: How images are framed.
        output: Its output; None for the only one that is a vector for each image.
        mirror: Whether to average with the mirror image.
        frame: Where the landmarks of a face lie in its input; None: it is not for faces, or not known.
        usual_size: S, if the network does not fix it and ``size`` is not given.
        resampling: Filter of the resize.
        text: Its text tower, if it has one.
        source: What the bundle says it was made of; None: the file's name.

    Raises:
        OnnxImportError: It is not a network from an image to a vector, or cannot be run here.
        InvalidArgumentError: an option does not fit the network, or something that is no bundle stands at
            ``folder``.
    """
    from lookalike.encoder.export.onnx_graph import OnnxGraph, pick_output
    from lookalike.encoder.export.text_tower import import_text

    check_target(absolute_path(folder))
    data = _read(file)
    network = OnnxGraph.parse(data, file)
    channels = 1 if normalization.gray else network.channels
    side = _side(network, size, usual_size)
    image = ImageSpec(size=side, channels=channels, crop=crop, resampling=resampling)
    network.add_preprocessing(image, normalization)
    pixels = _synthetic(image, 5)
    tried = _run(network.to_bytes(), pixels[:1], file)
    name, first = pick_output(dict(zip(network.outputs, tried, strict=True)), output, printable(str(file)))
    network.set_output(name, first=first)
    graph = network.to_bytes()
    latents = _latents_alone(graph, pixels, file)
    batch: Literal[1] | None = None
    if not _takes_batches(graph, pixels, latents, file):
        batch = 1
        if network.make_batch_dynamic() and _takes_batches(network.to_bytes(), pixels, latents, file):
            graph, batch = network.to_bytes(), None
    latent = latents.shape[1]
    tower = None if text is None else import_text(text, latent)
    spec = BundleSpec(
        kind="encoder",
        image=image,
        latent=latent,
        embedding=latent,
        mirror=mirror,
        opset=network.opset,
        labels="unknown",
        frame=frame,
        batch=batch,
        text=None if tower is None else tower.spec,
        training={
            "imported": source or file.name,
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
        graphs={"encoder": graph} | ({} if tower is None else {"text": tower.graph}),
        statistics=LatentStatistics(zero, unit),  # unknown, and never sampled from
        affine=AffineMap(unit, zero),
        golden={"pixels": pixels[:4], "latents": latents[:4], **({} if tower is None else tower.golden)},
        tokenizer=None if tower is None else tower.tokenizer,
    )


_MOST_BYTES: Final = 1 << 31  # of any ONNX file (protobuf)


def _read(file: Path) -> bytes:
    try:
        return read_bounded(file, most=_MOST_BYTES)
    except OSError as error:
        raise OnnxImportError(
            f"{printable(str(file))}: cannot be read ({error.strerror}); check the path"
        ) from error


def _side(network: OnnxGraph, size: int | None, usual: int | None) -> int:
    side = network.side or size or usual
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


def _latents_alone(graph: bytes, pixels: NDArray[np.uint8], file: Path) -> NDArray[np.float32]:
    """Return the latents of ``pixels``, each computed alone."""
    alone: NDArray[np.float32] = np.concatenate([_run(graph, row[None], file)[0] for row in pixels])
    if not np.isfinite(alone).all() or float(alone.std(axis=0).max()) == 0:
        raise OnnxImportError(
            f"{printable(str(file))}: gives the same vector for every image, or NaN; check --mean and --std"
        )
    return alone


def _takes_batches(graph: bytes, pixels: NDArray[np.uint8], alone: NDArray[np.float32], file: Path) -> bool:
    """Whether a graph takes several images at once.

    Raises:
        OnnxImportError: It does, and gives something else than for each of them alone.
    """
    try:
        (together,) = _run(graph, pixels, file)
    except OnnxImportError:
        return False
    if together.shape != alone.shape:
        return False
    difference = float(np.abs(together - alone).max() / alone.std())
    if not difference <= _MAX_DIFFERENCE:
        raise OnnxImportError(
            f"{printable(str(file))}: a batch of five images must give the same as each alone, it differs by "
            f"{difference:.1e} standard deviations; export it with a dynamic batch, in evaluation mode"
        )
    return True


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
