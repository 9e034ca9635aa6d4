"""How the pictures of a collection are framed: one part of each, or each face in it.

Legend: n faces, S side of a model's input, C its channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lookalike.encoder.detect.align import Frame
from lookalike.encoder.detect.face import Face
from lookalike.encoder.detect.finder import INDEX_THRESHOLD, cut_faces, face_finder
from lookalike.encoder.detect.yunet import YuNet
from lookalike.encoder.errors import InvalidArgumentError, printable
from lookalike.encoder.images import Crop, ImageSpec, decoded_rgb


@dataclass(frozen=True, slots=True)
class Faces:
    """How pictures are framed where each face of a picture counts as an image.

    Attributes:
        threshold: Smallest score of a face, 0 to 1.
        detector: Name of the detector.

    Raises:
        InvalidArgumentError: The threshold is out of range, or there is no such detector.
    """

    threshold: float = INDEX_THRESHOLD
    detector: str = YuNet.name

    def __post_init__(self) -> None:
        if not 0.1 <= self.threshold < 1:
            raise InvalidArgumentError(
                f"the threshold of faces is 0.1 to less than 1, {self.threshold} is not; "
                f"leave it out for {INDEX_THRESHOLD}"
            )
        if self.detector != YuNet.name:
            raise InvalidArgumentError(
                f"there is no detector {printable(self.detector)} here, only {YuNet.name}; "
                "upgrade lookalike, or index into another collection"
            )

    @classmethod
    def parse(cls, text: str) -> Faces:
        """Read what ``str`` writes: ``faces:DETECTOR:THRESHOLD``.

        Raises:
            InvalidArgumentError: It is something else.
        """
        word, *parts = text.split(":")
        try:
            detector, threshold = parts
            value = float(threshold)
        except ValueError:
            word = ""
        if word != "faces":
            raise InvalidArgumentError(f"cannot read '{printable(text)}'; write faces:DETECTOR:THRESHOLD")
        return cls(value, detector)

    def __str__(self) -> str:
        return f"faces:{self.detector}:{self.threshold:g}"


Framing: TypeAlias = Crop | Faces


def parse_framing(text: str) -> Framing:
    """Read what ``str`` writes of a :class:`Crop` or of :class:`Faces`.

    Raises:
        InvalidArgumentError: It is something else.
    """
    return Faces.parse(text) if text.startswith("faces:") else Crop.parse(text)


def read_faces(
    data: bytes, spec: ImageSpec, frame: Frame, faces: Faces, *, max_pixels: int | None = None, name: str
) -> tuple[list[Face], NDArray[np.uint8]]:
    """Find the faces in an image file, and cut them out for a model.

    Args:
        data: Content of the file.
        spec: The model's input format; its crop is not used.
        frame: Where the model has the landmarks.
        faces: Which faces.
        max_pixels: Larger images are refused; None: the default limit.
        name: Name of the file in messages.

    Returns:
        n faces from left to right, and uint8 (n, S, S, C).

    Raises:
        ImageError: The bytes are not a readable image, or it is too large.
        MissingExtraError: The extra ``faces`` is not installed.
    """
    # The photograph counts against the pixels in progress until its faces are cut out.
    with decoded_rgb(data, max_pixels=max_pixels, name=name) as pixels:
        found = face_finder().find(pixels, threshold=faces.threshold)
        return found, cut_for_model(pixels, found, frame, spec)


def cut_for_model(
    pixels: NDArray[np.uint8], faces: list[Face], frame: Frame, spec: ImageSpec
) -> NDArray[np.uint8]:
    """Return n faces of a picture, uint8 (H, W, 3), as a model takes them: uint8 (n, S, S, C)."""
    cut = cut_faces(pixels, faces, frame, spec.size)
    if spec.channels == 3:
        return cut
    gray = [np.asarray(Image.fromarray(each).convert("L")) for each in cut]
    return np.array(gray, np.uint8).reshape(len(faces), *spec.shape)
