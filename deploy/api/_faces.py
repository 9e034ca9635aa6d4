"""Faces of a photograph: where they are, and their pixels.

Legend: n faces, H, W = height and width of the photograph as shown, S = side of a face that is cut out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from lookalike._images import ImageLike, Images, InputImage, Pixels, Sheet
from lookalike.encoder.detect import INDEX_THRESHOLD, Face, Frame, face_finder
from lookalike.encoder.detect import Faces as FaceSpec
from lookalike.encoder.images import decode_rgb, grid
from lookalike.searcher.faces import WHOLE_HEAD, FaceCut, FaceView, FoundFaces
from lookalike.searcher.figures import faces_sheet


@dataclass(frozen=True, eq=False, repr=False)
class Faces(Sheet):
    """The faces of one photograph, from left to right; a sequence of ``Face``.

    A face has ``box`` (x, y, width, height) and ``landmarks`` (x, y of the eyes, the tip of the nose and the
    corners of the mouth), in fractions of the photograph as shown, ``score`` in 0 to 1, and ``width`` in
    pixels. Shown in a notebook: the photograph with numbered boxes, and the faces beside it.

    Attributes:
        pixels: The photograph as shown, uint8 (H, W, 3).
        found: n faces.
    """

    pixels: Pixels = field(repr=False)
    found: tuple[Face, ...]

    def __len__(self) -> int:
        return len(self.found)

    def __getitem__(self, number: int) -> Face:
        return self.found[number]

    def __iter__(self) -> Iterator[Face]:
        return iter(self.found)

    def __repr__(self) -> str:
        height, width = self.pixels.shape[:2]
        return f"<Faces {len(self)} in {width}x{height}>"

    def cut(self, *, size: int = 256, frame: str = "lfw", margin: float = WHOLE_HEAD) -> Images:
        """Return the faces upright, as images uint8 (n, S, S, 3).

        Args:
            size: S in pixels, 16 to 4096.
            frame: Where the landmarks lie in what a model sees: ``lfw``, ``arcface``, or ten numbers
                ``x,y,...`` in fractions of its side.
            margin: How much more is shown on each side, in fractions of that; 0: what the model sees.

        Raises:
            InvalidArgumentError: an argument is out of range.
        """
        cut = FaceCut(size=size, frame=Frame.parse(frame), margin=margin)(self.pixels, self.found)
        return Images(lambda: grid(list(cut)), cut)


def faces(image: ImageLike, *, threshold: float = INDEX_THRESHOLD, max_pixels: int | None = None) -> Faces:
    """Find the faces of a photograph. Needs ``pip install 'lookalike[faces]'``.

    Args:
        image: The photograph: a path, bytes, a PIL image or an array (H, W), (H, W, 1) or (H, W, 3), uint8 or
            float in [0, 1].
        threshold: Smallest score of a face, 0.1 to less than 1; below 0.8 more things are taken for a face.
        max_pixels: Larger images are refused; None: 50 million pixels.

    Returns:
        The faces from left to right, none where there is none; ``faces.cut()`` gives their pixels.

    Raises:
        ImageError: the image cannot be read.
        InvalidArgumentError: an argument is of another type, shape or range.
        MissingExtraError: the extra ``faces`` is not installed.

    Examples:
        >>> found = lookalike.faces("group.jpg")
        >>> [face.box for face in found], found.cut(size=112, frame="arcface", margin=0).pixels
    """
    spec, given = FaceSpec(threshold=threshold), InputImage.of(image)
    finder = face_finder()
    pixels = decode_rgb(given.data, max_pixels=max_pixels, name=given.name)
    found = tuple(finder.find(pixels, threshold=spec.threshold))

    def sheet() -> Pixels:
        height, width = pixels.shape[:2]
        view = FaceView.of(pixels, found, FaceCut())
        return faces_sheet([FoundFaces(path=given.name, width=width, height=height, faces=found, view=view)])

    return Faces(sheet, pixels, found)
