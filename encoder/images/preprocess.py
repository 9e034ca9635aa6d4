"""The only owner of pixels: bytes of a picture file -> what a model sees, for training as for serving.

Legend: H, W = height and width as shown; S = side of a model's input; C channels (1 grey, 3 RGB).
Pixels are ``uint8``, 0 black to 255 white. The same bytes and the same ``ImageSpec`` always give the same
pixels. How kinds of file and pixel are read is said in ``encoder/images/decode.py``.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Final, Literal, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.images.decode import DEFAULT_MAX_PIXELS, DecodedImage, decode
from lookalike.encoder.images.exif import Box, orient, shown_size, stored_box
from lookalike.encoder.text import printable

_CROP_FORMS = "write full, center:FRACTION or X,Y,W,H (fractions of width and height)"
_MIN_FRACTION = 0.01


@dataclass(frozen=True, kw_only=True)
class Crop:
    """Which part of a picture is wanted, as fractions of it.

    A centered square (``full``, ``center:FRACTION``) is never stretched; a ``window`` is taken exactly and
    stretched to a square when it is not one.

    Attributes:
        fraction: side of a centered square as a fraction of the picture's shorter side, 0.01..1; 1 is the
            largest one, also called ``full``.
        window: ``(x, y, width, height)`` as fractions of the picture's width and height; replaces the
            centered square.

    Raises:
        InvalidArgumentError: a value is out of range.
    """

    fraction: float = 1.0
    window: tuple[float, float, float, float] | None = None

    def __post_init__(self) -> None:
        if not _MIN_FRACTION <= self.fraction <= 1.0:  # NaN too
            raise InvalidArgumentError(
                f"crop: the fraction of a centered square must be {_MIN_FRACTION} to 1, not {self.fraction}; "
                "use full for the largest square"
            )
        if self.window is not None:
            x, y, width, height = self.window
            if not (_fits(x, width) and _fits(y, height)):
                raise InvalidArgumentError(
                    f"crop: a box must lie inside the picture and be at least {_MIN_FRACTION} wide and high, "
                    f"not {_comma(self.window)}; X, Y, W, H are fractions with X+W and Y+H at most 1"
                )

    @classmethod
    def parse(cls, text: str) -> Crop:
        """``full``, ``center:FRACTION`` or ``X,Y,W,H``; ``str(crop)`` gives it back.

        Raises:
            InvalidArgumentError: the text is none of these, or a value is out of range.
        """
        form = text.strip().lower()
        if form == "full":
            return cls()
        try:
            if form.startswith("center:"):
                return cls(fraction=float(form.removeprefix("center:")))
            x, y, width, height = (float(part) for part in form.split(","))
        except ValueError as error:
            raise InvalidArgumentError(f"crop: cannot read '{printable(text)}'; {_CROP_FORMS}") from error
        return cls(window=(x, y, width, height))

    def __str__(self) -> str:
        if self.window is not None:
            return _comma(self.window)
        return "full" if self.fraction == 1.0 else f"center:{_number(self.fraction)}"

    def widened(self, factor: float) -> Crop:
        """A centered square with more around it, at most the whole; a window as it is. For showing people."""
        return self if self.window is not None else Crop(fraction=min(1.0, self.fraction * factor))

    def box(self, width: int, height: int) -> Box:
        """(left, top, right, bottom) in pixels, not rounded, of a picture shown as ``width`` x ``height``."""
        if self.window is not None:
            x, y, across, down = self.window
            right, bottom = min((x + across) * width, width), min((y + down) * height, height)
            return _tidy(x * width, y * height, right, bottom)
        side = self.fraction * min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        return _tidy(left, top, left + side, top + side)


LFW_CROP: Final = Crop(fraction=0.36)
"""80 of 250 pixels off each side, as the coursework that our autoencoder comes from has it."""


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """How a model wants its pictures; saved in the model.

    Attributes:
        size: side S of the square input, in pixels, 8..1024.
        channels: 1 (grey) or 3 (RGB).
        crop: the part of the picture that is seen.
        quick_jpeg: JPEG files are decoded as small as the model sees them, at half the cost; pixels then
            differ from those of the same picture in another format (some 40 dB, else some 50 dB).

    Raises:
        InvalidArgumentError: a value is out of range.
    """

    size: int
    channels: Literal[1, 3] = 3
    crop: Crop = field(default_factory=Crop)
    quick_jpeg: bool = False

    def __post_init__(self) -> None:
        if type(self.size) is not int or not 8 <= self.size <= 1024:
            raise InvalidArgumentError(
                f"size must be a whole number of pixels from 8 to 1024, not {self.size!r}"
            )
        if type(self.channels) is not int or self.channels not in (1, 3):
            raise InvalidArgumentError(f"channels must be 1 (grey) or 3 (RGB), not {self.channels!r}")
        if type(self.quick_jpeg) is not bool:
            raise InvalidArgumentError(f"quick_jpeg must be true or false, not {self.quick_jpeg!r}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(S, S, C)."""
        return self.size, self.size, self.channels

    def to_json(self) -> dict[str, object]:
        """A dictionary of plain values that ``from_json`` takes back; ``quick_jpeg`` only where it is set."""
        values = {"size": self.size, "channels": self.channels, "crop": str(self.crop)}
        return {**values, "quick_jpeg": True} if self.quick_jpeg else values

    @classmethod
    def from_json(cls, values: Mapping[str, object]) -> ImageSpec:
        """The inverse of ``to_json``.

        Raises:
            InvalidArgumentError: a key is unknown or missing, or a value cannot be.
        """
        keys = {"size", "channels", "crop"}
        if set(values) - {"quick_jpeg"} != keys:
            odd = ", ".join(sorted(printable(str(key)) for key in (set(values) ^ keys) - {"quick_jpeg"}))
            raise InvalidArgumentError(
                f"an image spec holds exactly size, channels and crop; unknown or missing: {odd}"
            )
        size, channels, crop = values["size"], values["channels"], values["crop"]
        if not isinstance(crop, str):
            raise InvalidArgumentError(f"crop must be text, not {crop!r}; {_CROP_FORMS}")
        # __post_init__ checks the types too
        return cls(
            size=cast("int", size),
            channels=cast("Literal[1, 3]", channels),
            crop=Crop.parse(crop),
            quick_jpeg=cast("bool", values.get("quick_jpeg", False)),
        )


def read_pixels(
    data: bytes, spec: ImageSpec, *, crop: Crop | None = None, max_pixels: int = DEFAULT_MAX_PIXELS, name: str
) -> NDArray[np.uint8]:
    """Decode, orient, crop and resize one picture for a model. Safe to call from many threads at once.

    Args:
        data: the whole file.
        spec: what the model wants.
        crop: used in place of ``spec.crop`` (a query picture may be framed otherwise).
        max_pixels: larger pictures are refused from their header.
        name: what to call the file in messages.

    Returns:
        ``uint8 (S, S, C)``, contiguous, owned by the caller.

    Raises:
        ImageTooLargeError: the picture has more than ``max_pixels`` pixels.
        ImageError: the bytes are no picture that can be read.
    """
    part = spec.crop if crop is None else crop
    picture = decode(
        data,
        channels=spec.channels,
        shrink=partial(_shrink, part, spec.size if spec.quick_jpeg else 2 * spec.size),
        max_pixels=max_pixels,
        name=name,
    )
    box = _stored(part, picture.width, picture.height, picture.orientation)
    pixels = _resize(picture.pixels, _scaled(box, picture.shrink), spec.size)
    return np.array(orient(pixels, picture.orientation), order="C")


def decode_rgb(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS, name: str) -> NDArray[np.uint8]:
    """The whole picture as shown, ``uint8 (H, W, 3)``, contiguous; errors as for ``read_pixels``."""
    picture: DecodedImage = decode(data, channels=3, shrink=lambda *_: 1, max_pixels=max_pixels, name=name)
    return np.array(orient(picture.pixels, picture.orientation), order="C")


def to_uint8(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Values of 0..1 in any shape -> 0..255, rounded; values outside are clipped, NaN becomes black."""
    scaled: NDArray[np.float32] = np.clip(
        np.nan_to_num(values, nan=0.0, posinf=1.0, neginf=0.0), 0.0, 1.0
    ) * np.float32(255.0)
    return np.rint(scaled).astype(np.uint8)


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """``uint8 (H, W, 3)``, ``(H, W, 1)`` or ``(H, W)`` -> the bytes of a PNG file."""
    out = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels).save(out, "PNG")
    return out.getvalue()


def encode_pnm(pixels: NDArray[np.uint8]) -> bytes:
    """``uint8 (H, W, 3)``, ``(H, W, 1)`` or ``(H, W)`` -> the bytes of an uncompressed PNM file.

    Pixels in memory go through :func:`read_pixels` this way, and give what a file of them gives.
    """
    kind = "P6" if pixels.ndim == 3 and pixels.shape[2] == 3 else "P5"
    return f"{kind} {pixels.shape[1]} {pixels.shape[0]} 255\n".encode() + pixels.tobytes()


def _fits(start: float, length: float) -> bool:
    return 0.0 <= start < 1.0 and _MIN_FRACTION <= length <= 1.0 and start + length <= 1.0 + 1e-9


def _number(value: float) -> str:
    return repr(float(value)).removesuffix(".0")


def _comma(values: tuple[float, ...]) -> str:
    return ",".join(_number(value) for value in values)


def _tidy(*edges: float) -> Box:
    # 0.29 * 100 is 28.999999999999996: without this, whole pixels would be missed by a hair.
    left, top, right, bottom = (round(edge, 6) for edge in edges)
    return left, top, right, bottom


@lru_cache(maxsize=256)  # asked twice of each picture, and most are of few sizes
def _stored(crop: Crop, width: int, height: int, orientation: int) -> Box:
    return stored_box(crop.box(*shown_size(width, height, orientation)), width, height, orientation)


def _scaled(box: Box, shrink: int) -> Box:
    left, top, right, bottom = box
    return left / shrink, top / shrink, right / shrink, bottom / shrink


def _shrink(crop: Crop, side: int, width: int, height: int, orientation: int) -> int:
    """How many times smaller a picture may be decoded with the crop still ``side`` wide and high.

    With twice a model's size the filter does at least the last halving: so JPEG gives nearly the pixels that
    other formats give.
    """
    left, top, right, bottom = _stored(crop, width, height, orientation)
    room = min(right - left, bottom - top) / side
    return 8 if room >= 8 else 4 if room >= 4 else 2 if room >= 2 else 1


def _resize(pixels: NDArray[np.uint8], box: Box, size: int) -> NDArray[np.uint8]:
    """The box of ``pixels (h, w, C)`` -> ``(S, S, C)``; pixels outside the box have no influence."""
    left, top = math.floor(box[0]), math.floor(box[1])
    right, bottom = math.ceil(box[2]), math.ceil(box[3])
    inner = pixels[top:bottom, left:right]
    if (left, top, right, bottom) == box and inner.shape[:2] == (size, size):
        return inner
    # A triangle, widened when reducing so that nothing is skipped; it also enlarges smoothly.
    image = Image.fromarray(inner[:, :, 0] if inner.shape[2] == 1 else inner)
    part = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
    filtered = image.resize((size, size), Image.Resampling.BILINEAR, box=part)
    return np.asarray(filtered).reshape(size, size, pixels.shape[2])
