"""Turn the bytes of an image file into a model's input, the same for training and serving.

Legend: H, W = height and width as shown; S = side of a model's input; C channels (1 gray, 3 RGB).
Pixels are ``uint8``, 0 black to 255 white. The same bytes and the same ``ImageSpec`` always give the same
pixels. ``encoder/images/decode.py`` says how each file format is read.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Final, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lookalike.encoder.errors import InvalidArgumentError, printable
from lookalike.encoder.images.decode import DECODING, DecodedImage, PixelBudget, decode
from lookalike.encoder.images.metadata import Box, orient, shown_size, stored_box

Resampling = Literal["bilinear", "bicubic", "lanczos"]
_CROP_FORMS = "write full, center:FRACTION or X,Y,W,H (fractions of width and height)"
_MIN_FRACTION = 0.01


@dataclass(frozen=True, kw_only=True)
class Crop:
    """The part of an image to use, as fractions of it.

    A centered square (``full``, ``center:FRACTION``) is never stretched; a ``window`` is taken exactly and
    stretched to a square when it is not one.

    Attributes:
        fraction: Side of a centered square as a fraction of the image's shorter side, 0.01..1; 1 is the
            largest square, also called ``full``.
        window: ``(x, y, width, height)`` as fractions of the image's width and height; replaces the
            centered square.

    Raises:
        InvalidArgumentError: A value is out of range.
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
                    f"crop: a box must lie inside the image and be at least {_MIN_FRACTION} wide and high, "
                    f"not {_comma(self.window)}; X, Y, W, H are fractions with X+W and Y+H at most 1"
                )

    @classmethod
    def parse(cls, text: str) -> Crop:
        """``full``, ``center:FRACTION`` or ``X,Y,W,H``; ``str(crop)`` gives it back.

        Raises:
            InvalidArgumentError: The text is none of these, or a value is out of range.
        """
        form = text.strip().lower()
        if form == "full":
            return cls()
        window = None
        try:
            if form.startswith("center:"):
                fraction = float(form.removeprefix("center:"))
            else:
                fraction = 1.0
                x, y, width, height = (float(part) for part in form.split(","))
                window = x, y, width, height
        except ValueError as error:
            raise InvalidArgumentError(f"crop: cannot read '{printable(text)}'; {_CROP_FORMS}") from error
        return cls(fraction=fraction, window=window)

    def __str__(self) -> str:
        if self.window is not None:
            return _comma(self.window)
        return "full" if self.fraction == 1.0 else f"center:{_number(self.fraction)}"

    def widened(self, factor: float) -> Crop:
        """Return a larger centered square, at most ``full``; a window stays as it is. For display."""
        return self if self.window is not None else Crop(fraction=min(1.0, self.fraction * factor))

    def box(self, width: int, height: int) -> Box:
        """Return (left, top, right, bottom) in pixels, not rounded, of an image of ``width`` x ``height``."""
        if self.window is not None:
            x, y, across, down = self.window
            right, bottom = min((x + across) * width, width), min((y + down) * height, height)
            return _tidy(x * width, y * height, right, bottom)
        side = self.fraction * min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        return _tidy(left, top, left + side, top + side)


LFW_CROP: Final = Crop(fraction=0.36)
"""Cuts 80 of 250 pixels off each side of an LFW image."""


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """The input format of a model; saved in its bundle.

    Attributes:
        size: Side S of the square input, in pixels, 8..1024.
        channels: 1 (gray) or 3 (RGB).
        crop: The part of the image that is used.
        quick_jpeg: Decode JPEG files at about the model's size, at half the cost; pixels then differ more
            from those of the same image in another format (PSNR 40 dB instead of 50 dB).
        resampling: Filter of the resize; each is widened when reducing, so that no pixel is skipped.

    Raises:
        InvalidArgumentError: A value is out of range.
    """

    size: int
    channels: Literal[1, 3] = 3
    crop: Crop = field(default_factory=Crop)
    quick_jpeg: bool = False
    resampling: Resampling = "bilinear"

    def __post_init__(self) -> None:
        if type(self.size) is not int or not 8 <= self.size <= 1024:
            raise InvalidArgumentError(
                f"size must be a whole number of pixels from 8 to 1024, not {self.size!r}"
            )
        if type(self.channels) is not int or self.channels not in (1, 3):
            raise InvalidArgumentError(f"channels must be 1 (gray) or 3 (RGB), not {self.channels!r}")
        if type(self.quick_jpeg) is not bool:
            raise InvalidArgumentError(f"quick_jpeg must be true or false, not {self.quick_jpeg!r}")
        if self.resampling not in get_args(Resampling):
            raise InvalidArgumentError(
                f"resampling must be {', '.join(get_args(Resampling))}, not {printable(str(self.resampling))}"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(S, S, C)."""
        return self.size, self.size, self.channels

    def to_json(self) -> dict[str, object]:
        """Return JSON values that :meth:`from_json` reads back equal, without optional defaults."""
        values: dict[str, object] = {"size": self.size, "channels": self.channels, "crop": str(self.crop)}
        optional = {name: getattr(self, name) for name in _OPTIONAL}
        return values | {name: value for name, value in optional.items() if value != _OPTIONAL[name]}

    @classmethod
    def from_json(cls, values: Mapping[str, object]) -> ImageSpec:
        """Read what :meth:`to_json` wrote.

        Raises:
            InvalidArgumentError: A key is unknown or missing, or a value is invalid.
        """
        keys = {"size", "channels", "crop"}
        if set(values) - set(_OPTIONAL) != keys:
            odd = ", ".join(sorted(printable(str(key)) for key in (set(values) ^ keys) - set(_OPTIONAL)))
            raise InvalidArgumentError(
                f"an image spec has exactly size, channels and crop; unknown or missing: {odd}"
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
            resampling=cast("Resampling", values.get("resampling", "bilinear")),
        )


_OPTIONAL: Final[Mapping[str, object]] = {"quick_jpeg": False, "resampling": "bilinear"}
"""Fields that JSON leaves out where they have these values."""


def read_pixels(
    data: bytes, spec: ImageSpec, *, crop: Crop | None = None, max_pixels: int | None = None, name: str
) -> NDArray[np.uint8]:
    """Decode, orient, crop and resize one image for a model. Safe to call from many threads at once.

    Args:
        data: Content of the file.
        spec: The model's input format.
        crop: Replaces ``spec.crop`` (a query may be framed differently).
        max_pixels: Larger images are refused, before they are decoded; None: as :func:`~.decode.decode` says.
        name: Name of the file in messages.

    Returns:
        ``uint8 (S, S, C)``, contiguous, owned by the caller.

    Raises:
        ImageTooLargeError: The image has more pixels than the limit.
        ImageError: The bytes are not a readable image.
    """
    part = spec.crop if crop is None else crop
    with DECODING.acquire() as wait_for:
        decoded = decode(
            data,
            channels=spec.channels,
            shrink=partial(_shrink, part, spec.size if spec.quick_jpeg else 2 * spec.size),
            max_pixels=max_pixels,
            on_size=wait_for,
            name=name,
        )
        box = _stored(part, decoded.width, decoded.height, decoded.orientation)
        pixels = _resize(decoded.pixels, _scaled(box, decoded.shrink), spec.size, spec.resampling)
        orientation = decoded.orientation
        del decoded
    return np.array(orient(pixels, orientation), order="C")


def decode_rgb(data: bytes, *, max_pixels: int | None = None, name: str) -> NDArray[np.uint8]:
    """Return the whole image as shown, ``uint8 (H, W, 3)``, contiguous; errors as for ``read_pixels``."""
    with decoded_rgb(data, max_pixels=max_pixels, name=name) as pixels:
        return pixels


@contextmanager
def decoded_rgb(
    data: bytes, *, max_pixels: int | None = None, budget: PixelBudget = DECODING, name: str
) -> Iterator[NDArray[np.uint8]]:
    """Give the whole image as :func:`decode_rgb` does; until the block ends, it counts as in progress.

    Args:
        data: Content of the file.
        max_pixels: As for :func:`read_pixels`.
        budget: Where it waits for room.
        name: Name of the file in messages.

    Raises:
        ImageError, ImageTooLargeError: As :func:`read_pixels`.
    """
    with budget.acquire() as wait_for:
        decoded: DecodedImage = decode(
            data, channels=3, shrink=lambda *_: 1, max_pixels=max_pixels, on_size=wait_for, name=name
        )
        yield np.require(orient(decoded.pixels, decoded.orientation), requirements=["C", "W"])


def to_uint8(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Convert values of 0..1 to 0..255, rounded; values outside are clipped, NaN becomes 0."""
    scaled: NDArray[np.float32] = np.clip(
        np.nan_to_num(values, nan=0.0, posinf=1.0, neginf=0.0), 0.0, 1.0
    ) * np.float32(255.0)
    return np.rint(scaled).astype(np.uint8)


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode ``uint8 (H, W, 3)``, ``(H, W, 1)`` or ``(H, W)`` as a PNG file."""
    out = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels).save(out, "PNG")
    return out.getvalue()


def encode_pnm(pixels: NDArray[np.uint8]) -> bytes:
    """Encode ``uint8 (H, W, 3)``, ``(H, W, 1)`` or ``(H, W)`` as an uncompressed PNM file.

    This way pixels in memory go through :func:`read_pixels` like those of a file.
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
    # 0.29 * 100 is 28.999999999999996: without rounding, a box would miss whole pixels by a tiny fraction.
    left, top, right, bottom = (round(edge, 6) for edge in edges)
    return left, top, right, bottom


@lru_cache(maxsize=256)  # called twice for each image, and most images have one of few sizes
def _stored(crop: Crop, width: int, height: int, orientation: int) -> Box:
    return stored_box(crop.box(*shown_size(width, height, orientation)), width, height, orientation)


def _scaled(box: Box, shrink: int) -> Box:
    left, top, right, bottom = box
    return left / shrink, top / shrink, right / shrink, bottom / shrink


def _shrink(crop: Crop, side: int, width: int, height: int, orientation: int) -> int:
    """Return how many times smaller an image can be decoded with the crop still ``side`` wide and high.

    With twice the model's size, the filter does at least the last halving, so that JPEG gives nearly the same
    pixels as other formats.
    """
    left, top, right, bottom = _stored(crop, width, height, orientation)
    room = min(right - left, bottom - top) / side
    return 8 if room >= 8 else 4 if room >= 4 else 2 if room >= 2 else 1


def _resize(pixels: NDArray[np.uint8], box: Box, size: int, resampling: Resampling) -> NDArray[np.uint8]:
    """Resize the box of ``pixels (h, w, C)`` to ``(S, S, C)``; pixels outside the box have no influence."""
    left, top = math.floor(box[0]), math.floor(box[1])
    right, bottom = math.ceil(box[2]), math.ceil(box[3])
    inner = pixels[top:bottom, left:right]
    if (
        inner.shape[2] == 3 and not inner.strides[2]
    ):  # gray, three times the same channel: see samples.bytes_of
        gray = _resize(pixels[..., :1], box, size, resampling)
        return np.broadcast_to(gray, (size, size, pixels.shape[2]))
    if (left, top, right, bottom) == box and inner.shape[:2] == (size, size):
        return inner
    # When reducing, Pillow widens each filter so that no pixel is skipped.
    image = Image.fromarray(inner[:, :, 0] if inner.shape[2] == 1 else inner)
    part = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
    filtered = image.resize((size, size), Image.Resampling[resampling.upper()], box=part)
    return np.asarray(filtered).reshape(size, size, pixels.shape[2])
