"""What a caller may pass as an image, and the images that come back.

Legend: N images, H, W = height and width, C channels (1 gray, 3 RGB), S = side of a model's input.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lookalike.encoder.detect import ChosenFace
from lookalike.encoder.errors import ImageError, InvalidArgumentError, printable
from lookalike.encoder.files import atomic_write, read_bounded
from lookalike.encoder.images import (
    Crop,
    decode_rgb,
    encode_png,
    encode_pnm,
    save_image,
    to_uint8,
)
from lookalike.encoder.runtime import Model
from lookalike.searcher.generation import InputFraming, read_input

Pixels = NDArray[np.uint8]
ImageLike: TypeAlias = str | os.PathLike[str] | bytes | Image.Image | NDArray[Any]
"""A path, the bytes of an image file, a PIL image, or an array as :meth:`InputImage.of` takes."""

_PNG_MODES: Final = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
_ORIENTATION: Final = 0x0112


@dataclass(frozen=True, slots=True)
class InputImage:
    """An image as the bytes of a file; a query for the searcher.

    Attributes:
        name: What messages call it.
        data: The whole file.
        is_file: Whether the caller gave a file or its bytes, not pixels.
    """

    name: str
    data: bytes
    is_file: bool

    def __str__(self) -> str:
        return self.name

    def read_bytes(self) -> bytes:
        """Return the whole file."""
        return self.data

    @classmethod
    def of(cls, image: ImageLike, *, name: str = "image") -> InputImage:
        """Read a file, or make one of pixels: all images then go through the same decoder, crop and resize.

        Args:
            image: The image.
            name: What messages call it; a file is called by its path.

        Raises:
            ImageError: the file cannot be read.
            InvalidArgumentError: it is not an image of a kind that is taken.
        """
        if isinstance(image, bytes):
            return cls(name, image, True)
        if isinstance(image, str | os.PathLike):
            path = Path(image)
            try:
                return cls(str(path), read_bounded(path, pipe=True), True)
            except (OSError, ValueError) as error:  # ValueError: a null byte in the path
                reason = getattr(error, "strerror", None) or error
                raise ImageError(f"{printable(str(path))}: cannot be read ({reason})") from error
        if isinstance(image, Image.Image) and image.mode != "F":
            return cls(name, _png_of(image, name), False)
        if isinstance(image, np.ndarray | Image.Image):
            return cls(name, encode_pnm(_checked(np.asarray(image), name)), False)
        raise InvalidArgumentError(
            f"{name}: an image is a path, bytes, a PIL image or a NumPy array, not {type(image).__name__}"
        )


def input_images(images: ImageLike | Iterable[ImageLike]) -> Iterator[InputImage]:
    """Yield one image or several as files, one at a time."""
    single = isinstance(images, np.ndarray) and images.ndim < 4
    if single or isinstance(images, str | bytes | os.PathLike | Image.Image):
        yield InputImage.of(images)  # type: ignore[arg-type]  # one image, as was just found out
        return
    if not isinstance(images, Iterable):
        raise InvalidArgumentError(
            f"images are one image or several of them, not {type(images).__name__}; give a list"
        )
    for number, image in enumerate(images):
        yield InputImage.of(image, name=f"image {number}")


def model_pixels(
    model: Model,
    images: ImageLike | Iterable[ImageLike],
    crop: str | None,
    max_pixels: int | None,
    *,
    faces: bool = False,
    face: int | None = None,
) -> tuple[list[str], Pixels]:
    """Frame and resize images for a model: return their names and uint8 (N, S, S, C).

    Args:
        model: The model.
        images: The images.
        crop: How they are framed; None: as the model does.
        max_pixels: Larger images are refused.
        faces: Whether the most prominent face of each is cut out instead.
        face: Number of the face that is cut out instead.

    Raises:
        ImageError: one cannot be read, or has no such face.
        InvalidArgumentError: one is not an image, there is no such crop, or a crop and a face are asked for.
    """
    framing: InputFraming = None if crop is None else Crop.parse(crop)
    if faces or face is not None:
        if crop is not None:
            raise InvalidArgumentError(f"images are cut to {crop} or to a face; leave one of the two out")
        framing = ChosenFace(face)
    names, pixels = [], []
    for image in input_images(images):
        names.append(image.name)
        pixels.append(read_input(model, image.data, framing, max_pixels=max_pixels, name=image.name))
    return names, np.array(pixels, np.uint8).reshape(-1, *model.bundle.spec.image.shape)


@dataclass(frozen=True, eq=False)
class Sheet:
    """A result that shows itself as one image, in a notebook by itself."""

    _draw: Callable[[], Pixels] = field(repr=False)

    def sheet(self) -> Pixels:
        """Return all of it as one image, uint8 (H, W, 3)."""
        return self._draw()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the sheet as PNG, JPEG or WebP, by the suffix of ``path``.

        Raises:
            InvalidArgumentError: it has another suffix, or cannot be written there.
        """
        save_image(Path(path), self.sheet())

    def _repr_png_(self) -> bytes:
        return encode_png(self.sheet())


@dataclass(frozen=True, eq=False, repr=False)
class Images(Sheet):
    """Images that a model made. ``np.asarray(images)`` gives the pixels.

    Attributes:
        pixels: uint8 (N, H, W, C); of rows of images (N, columns, H, W, C).
    """

    pixels: Pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, item: Any) -> Pixels:
        return np.asarray(self.pixels[item])

    def __iter__(self) -> Iterator[Pixels]:
        return iter(self.pixels)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.pixels, dtype) if copy else np.asarray(self.pixels, dtype)

    def __repr__(self) -> str:
        return f"<Images uint8 {self.pixels.shape}>"


@dataclass(frozen=True, eq=False, slots=True)
class DenoisedImage:
    """A denoised image file.

    Attributes:
        data: The bytes of the file: same size, bit depth, alpha and metadata as the input. An image file
            keeps its type; arrays and PIL images become PNG.
        sigma: Standard deviation of the noise, in [0, 1] of white, as estimated or as given; None of a model
            that does neither.
        changed: False where no pixel changed, such as of an image with hardly any noise.
    """

    data: bytes = field(repr=False)
    sigma: float | None
    changed: bool

    @property
    def pixels(self) -> Pixels:
        """The image as uint8 (H, W, 3)."""
        return decode_rgb(self.data, name="denoised image")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file as it is.

        Raises:
            InvalidArgumentError: it cannot be written there.
        """
        try:
            atomic_write(Path(path), self.data)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InvalidArgumentError(
                f"{printable(str(path))}: cannot write here ({reason}); choose another place"
            ) from error

    def _repr_png_(self) -> bytes:
        return encode_png(self.pixels)


def _png_of(image: Image.Image, name: str) -> bytes:
    out, exif = io.BytesIO(), Image.Exif()
    try:
        image.load()
        exif[_ORIENTATION] = image.getexif().get(_ORIENTATION, 1)
        if image.mode == "I":
            image = Image.fromarray(np.clip(np.asarray(image), 0, 65_535).astype(np.uint16))
        elif image.mode not in _PNG_MODES:
            image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        image.save(out, "PNG", compress_level=1, exif=exif)
    except (MemoryError, RecursionError):
        raise  # they say nothing of the input
    except Exception as error:  # Pillow reads lazily and raises whatever a damaged file makes it stumble over
        raise ImageError(f"{name}: this PIL image cannot be read ({printable(str(error))})") from error
    return out.getvalue()


def _checked(array: NDArray[Any], name: str) -> Pixels:
    """Return an array as uint8 (H, W) or (H, W, 1 or 3)."""
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3)) or not array.size:
        raise InvalidArgumentError(
            f"{name}: an array has shape (H, W), (H, W, 1) or (H, W, 3), not {array.shape}"
        )
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f":
        raise InvalidArgumentError(
            f"{name}: an array is uint8, or float in [0, 1], not {array.dtype}; convert it with "
            "array.astype(numpy.uint8)"
        )
    if not (array.min() >= 0 and array.max() <= 1):  # NaN too
        raise InvalidArgumentError(
            f"{name}: a float array lies in [0, 1], this one in [{array.min():g}, {array.max():g}]; "
            "divide it by 255"
        )
    return to_uint8(array.astype(np.float32))
