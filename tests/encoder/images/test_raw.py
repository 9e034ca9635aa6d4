"""Camera raw files: the preview that the camera made, upright; else what the sensor saw, at half its size."""

import io
import struct
from typing import BinaryIO, Literal

import numpy as np
import pytest
import rawpy
from numpy.typing import NDArray
from PIL import Image

from lookalike.encoder.errors import ImageError, ImageTooLargeError
from lookalike.encoder.images import ImageSpec, decode_rgb, image_size, read_image_file, read_pixels
from lookalike.encoder.images.find import format_of
from tests.fixtures.raw import dng

TURNS = {1: 0, 3: 2, 6: 3, 8: 1}
"""Orientation to quarter turns to the left."""


def corners(height: int, width: int) -> NDArray[np.uint8]:
    """An image whose quarters are red, green, blue and gray."""
    pixels = np.full((height, width, 3), 90, np.uint8)
    pixels[: height // 2, : width // 2] = (200, 40, 40)
    pixels[: height // 2, width // 2 :] = (40, 200, 40)
    pixels[height // 2 :, : width // 2] = (40, 40, 200)
    return pixels


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=95)
    return out.getvalue()


def strongest(pixels: NDArray[np.uint8]) -> list[int]:
    """Of each quarter, the color that is strongest; 3: none is."""
    height, width = pixels.shape[:2]
    quarters = [
        pixels[y, x].astype(int) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)
    ]
    return [int(each.argmax()) if np.ptp(each) > 60 else 3 for each in quarters]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("with_preview", [True, False])
def test_raw_files_are_read_upright(order: str, orientation: int, with_preview: bool) -> None:
    sensor = corners(120, 160)
    preview = jpeg(corners(480, 640)) if with_preview else None
    data = dng(sensor, preview=preview, orientation=orientation, order=order)
    found = format_of(data)
    assert found is not None
    assert found.kind == "RAW"
    expected = np.rot90(corners(480, 640) if with_preview else sensor[::2, ::2], TURNS[orientation])
    pixels = decode_rgb(data, name="a.dng")
    assert pixels.shape == expected.shape
    assert strongest(pixels) == strongest(expected)
    if with_preview:
        assert np.abs(pixels.astype(int) - expected).mean() < 4
    assert read_pixels(data, ImageSpec(size=32, channels=1), name="a.dng").shape == (32, 32, 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [None, 160, 640])
def test_a_raw_file_is_opened_once(
    side: int | None, channels: Literal[1, 3], monkeypatch: pytest.MonkeyPatch
) -> None:
    preview = None if side is None else jpeg(corners(side * 3 // 4, side))
    data, opened = dng(corners(120, 160), preview=preview), list[object]()
    read = rawpy.imread

    def counted(file: BinaryIO) -> rawpy.RawPy:
        opened.append(file)
        return read(file)

    monkeypatch.setattr(rawpy, "imread", counted)
    assert read_pixels(data, ImageSpec(size=32, channels=channels), name="a.dng").any()
    assert len(opened) == 1


def test_a_preview_that_is_too_small_is_left_out() -> None:
    data = dng(corners(120, 160), preview=jpeg(np.zeros((120, 160, 3), np.uint8)))
    pixels = decode_rgb(data, name="a.dng")
    assert pixels.shape == (60, 80, 3)
    assert strongest(pixels) == [0, 1, 2, 3]


def test_a_tiff_file_is_no_raw_file_and_a_raw_file_called_so_is() -> None:
    out = io.BytesIO()
    Image.fromarray(corners(120, 160)).save(out, "TIFF")
    found = format_of(out.getvalue())
    assert found is not None
    assert found.kind == "TIFF"
    np.testing.assert_array_equal(decode_rgb(out.getvalue(), name="a.dng"), corners(120, 160))
    assert decode_rgb(dng(corners(120, 160)), name="a.tif").shape == (60, 80, 3)


@pytest.mark.parametrize(
    "start",
    [
        b"II*\0\x10\0\0\0CR\x02\0",
        b"\0\0\0\x18ftypcrx \0\0\0\x01crx ",
        b"FUJIFILMCCD-RAW 0201",
        b"IIRO\x08\0\0\0",
        b"IIRS\x08\0\0\0",
        b"MMOR\0\0\0\x08",
        b"IIU\0\x18\0\0\0",
        struct.pack("<2sHIHHHIII", b"II", 42, 8, 1, 262, 3, 1, 32803, 0),
        struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 262, 3, 1, 34892, 0, 0),
        struct.pack("<2sHIHHHIIIHHHIII", b"II", 42, 8, 1, 330, 4, 1, 26, 0, 1, 262, 3, 1, 32803, 0),
        struct.pack("<2sHIHHHIII2IHHHIII", b"II", 42, 8, 1, 330, 4, 2, 26, 0, 34, 34, 1, 262, 3, 1, 32803, 0),
    ],
)
def test_raw_files_of_other_cameras_are_known_by_what_they_hold(start: bytes) -> None:
    found = format_of(start + bytes(200))
    assert found is not None
    assert found.kind == "RAW"
    with pytest.raises(
        ImageError, match=r"^a\.nef: this RAW file is damaged, cut short or of an unsupported"
    ):
        decode_rgb(start + bytes(200), name="a.nef")


def test_directories_that_lead_in_circles_end() -> None:
    circle = struct.pack("<2sHIHHHIII", b"II", 42, 8, 1, 330, 4, 1, 8, 0)
    found = format_of(circle)
    assert found is not None
    assert found.kind == "TIFF"


def test_a_large_sensor_is_refused_before_it_is_developed() -> None:
    data = dng(corners(120, 160))
    assert image_size(data, max_pixels=10**6, name="a.dng") == (80, 60)
    with pytest.raises(ImageTooLargeError, match="80x60 is 4800 pixels"):
        decode_rgb(data, max_pixels=4000, name="a.dng")


@pytest.mark.parametrize("with_preview", [True, False])
def test_sensor_values_are_not_denoised(with_preview: bool) -> None:
    data = dng(corners(120, 160), preview=jpeg(corners(480, 640)) if with_preview else None)
    with pytest.raises(ImageError, match="it is a camera raw file; develop it"):
        read_image_file(data, max_pixels=10**6, name="a.dng")


def test_damaged_raw_files_raise_image_errors_only() -> None:
    rng = np.random.default_rng(0)
    whole = [dng(corners(32, 48), preview=preview, order=order)
             for preview in (None, jpeg(corners(480, 640))) for order in "<>"]  # fmt: skip
    for turn in range(100):
        damaged = bytearray(whole[turn % 4])
        for _ in range(2):  # most of them where the directories are
            damaged[-1 - int(rng.integers(400 if turn % 10 else len(damaged)))] = int(rng.integers(256))
        try:
            read_pixels(
                bytes(damaged[: len(damaged) - 40 * (turn % 7 == 6)]),
                ImageSpec(size=8),
                max_pixels=10**6,
                name="it",
            )
        except ImageError as error:
            assert str(error).startswith("it: ")  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
