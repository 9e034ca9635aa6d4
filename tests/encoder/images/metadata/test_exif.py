"""EXIF orientation: every value, both ways of decoding, boxes and damaged EXIF."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lookalike.encoder.images import Crop, ImageSpec, decode_rgb, read_pixels
from lookalike.encoder.images.metadata import (
    exif_orientation,
    jpeg_orientation,
    orient,
    shown_size,
    stored_box,
)

# What a viewer does with stored pixels, in words of numpy: EXIF 2.32, tag 274.
EXPECTED: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.rot90(np.fliplr(a)),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(np.fliplr(a), -1),
    8: np.rot90,
}
KINDS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "PNG": {},
    "TIFF": {},
    "WEBP": {"lossless": True},
}


def stored_picture() -> NDArray[np.uint8]:
    """A smooth picture without any symmetry, 48 high, 80 wide."""
    y, x = np.mgrid[0:48, 0:80]
    return np.stack([3 * x, 5 * y, x + y], axis=2).astype(np.uint8)


def exif(orientation: int) -> bytes:
    block = Image.Exif()
    block[0x0112] = orientation
    return block.tobytes()


def written(pixels: NDArray[np.uint8], kind: str, orientation: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, exif=exif(orientation), **KINDS[kind])
    return out.getvalue()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_whole_picture_is_turned(kind: str, orientation: int) -> None:
    stored = stored_picture()
    plain = decode_rgb(written(stored, kind, 1), name="plain")
    turned = decode_rgb(written(stored, kind, orientation), name="turned")
    np.testing.assert_array_equal(turned, EXPECTED[orientation](plain))
    assert turned.flags.c_contiguous


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("crop", ["full", "center:0.5", "0.25,0,0.5,0.5", "0.1,0.3,0.33,0.6"])
def test_the_crop_means_the_picture_as_shown(kind: str, orientation: int, crop: str) -> None:
    spec = ImageSpec(size=12, crop=Crop.parse(crop))
    shown = np.ascontiguousarray(EXPECTED[orientation](stored_picture()))
    expected = read_pixels(written(shown, "PNG", 1), spec, name="shown").astype(int)
    got = read_pixels(written(stored_picture(), kind, orientation), spec, name="stored").astype(int)
    assert got.shape == (12, 12, 3)
    # The order of the two passes of a resize, and JPEG itself, may move a value a little.
    assert np.abs(got - expected).max() <= (4 if kind == "JPEG" else 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_holds_the_same_pixels_as_shown_and_as_stored(orientation: int) -> None:
    stored = stored_picture()
    shown = orient(stored, orientation)
    assert shown_size(80, 48, orientation) == (shown.shape[1], shown.shape[0])
    left, top, right, bottom = (int(edge) for edge in stored_box((5, 7, 21, 30), 80, 48, orientation))
    np.testing.assert_array_equal(orient(stored[top:bottom, left:right], orientation), shown[7:30, 5:21])


def test_orientation_is_found_behind_other_segments() -> None:
    data = written(stored_picture(), "JPEG", 6)
    assert jpeg_orientation(data) == 6
    comment = b"\xff\xfe\x00\x06Exif"
    assert jpeg_orientation(data[:2] + comment + b"\xff" + data[2:]) == 6
    assert jpeg_orientation(written(stored_picture(), "JPEG", 1)) == 1


def test_both_byte_orders() -> None:
    little = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x08\0\0\0\0\0\0\0"
    big = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x08\0\0\0\0\0\0"
    assert exif_orientation(little) == exif_orientation(big) == 8
    assert exif_orientation(b"Exif\0\0" + big) == 8


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_values_that_make_no_sense_are_ignored(value: int) -> None:
    assert exif_orientation(exif(value)) == 1


def test_damaged_exif_is_no_exif() -> None:
    whole = exif(6)
    assert exif_orientation(whole) == 6
    rng = np.random.default_rng(0)
    for length in range(len(whole)):
        assert exif_orientation(whole[:length]) in range(1, 9)
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[int(rng.integers(len(whole)))] = int(rng.integers(256))
        assert exif_orientation(bytes(damaged)) in range(1, 9)
    data = written(stored_picture(), "JPEG", 6)
    for length in range(min(len(data), 200)):
        assert jpeg_orientation(data[:length]) in (1, 6)
