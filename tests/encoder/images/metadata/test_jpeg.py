"""JPEG files that hold more than one image: all of it is kept, and found where the file says it is."""

import io
import itertools
import struct
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lookalike.encoder.errors import ImageError
from lookalike.encoder.images import ImageFile, read_image_file, write_image_file
from lookalike.encoder.images.metadata import end_of_image, holds_images, is_progressive, segments

XMP = b'<d xmlns:Container="http://ns.google.com/photos/1.0/container/" Item:Semantic="GainMap"/>'


def noisy(seed: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    return np.clip(120 + rng.normal(0, 25, (48, 64, 3)), 0, 255).astype(np.uint8)


def jpeg(seed: int, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(noisy(seed)).save(out, "JPEG", **options)
    return out.getvalue()


def orientation(value: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x112] = value
    return tags


def several(count: int, **options: Any) -> bytes:
    """A file with an index, such as stereo cameras and gain maps have."""
    out = io.BytesIO()
    first, *others = (Image.fromarray(noisy(seed)) for seed in range(count))
    first.save(out, "MPO", save_all=True, append_images=others, quality=95, **options)
    return out.getvalue()


def read(data: bytes) -> ImageFile:
    return read_image_file(data, max_pixels=10**6, name="it")


def changed(data: bytes, **options: Any) -> bytes:
    """Other pixels, and so another length."""
    image = read(data)
    image.pixels[:] = image.pixels // 32 * 32
    return write_image_file(image, name="it", **options)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("turn", [1, 6])
def test_further_images_are_kept_and_found(count: int, turn: int) -> None:
    data = several(count, exif=orientation(turn), xmp=XMP)
    before, after = Image.open(io.BytesIO(data)), Image.open(io.BytesIO(changed(data)))
    assert after.format == "MPO"
    assert after.n_frames == count  # type: ignore[attr-defined]
    assert after.getexif()[0x112] == turn  # what goes with the others is not turned, so nothing is
    assert after.size == before.size
    assert after.info["xmp"] == XMP
    for frame in range(1, count):
        before.seek(frame)
        after.seek(frame)
        np.testing.assert_array_equal(np.asarray(after), np.asarray(before))
    after.seek(0)
    before.seek(0)
    assert np.abs(np.asarray(after).astype(int) - np.asarray(before)).mean() > 5


@pytest.mark.parametrize(
    "tail",
    [
        jpeg(1),
        b"\0" * 50 + jpeg(1) + jpeg(2),
        struct.pack(">I", 24) + b"ftypmp42" + bytes(500),
        b"appended by a camera",
        b"",
    ],
)
def test_what_follows_an_image_is_kept(tail: bytes) -> None:
    data = jpeg(0, exif=orientation(6)) + tail
    whole = changed(data)
    assert whole.endswith(b"\xff\xd9" + tail)
    assert end_of_image(whole) == len(whole) - len(tail)
    further = holds_images(tail)
    assert Image.open(io.BytesIO(whole)).size == ((64, 48) if further else (48, 64))
    assert Image.open(io.BytesIO(whole)).getexif()[0x112] == (6 if further else 1)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WebP", "AVIF", "BMP", "PNM"])
def test_what_another_format_cannot_hold_is_said(kind: str) -> None:
    for data in (several(2), jpeg(0) + jpeg(1)):
        with pytest.raises(ImageError, match=rf"^it: {kind} cannot hold the further images of this file"):
            changed(data, kind=kind)
    assert changed(jpeg(0) + b"junk", kind=kind)


def test_the_end_is_found_in_every_kind_of_file() -> None:
    for progressive, quality, optimize in itertools.product((False, True), (5, 50, 100), (False, True)):
        data = jpeg(3, progressive=progressive, quality=quality, optimize=optimize, exif=orientation(3))
        assert end_of_image(data + jpeg(1)) == len(data)
        assert is_progressive(data) == progressive
    restarts = jpeg(3, restart_marker_blocks=1)
    assert end_of_image(restarts + b"\xff\xd9") == len(restarts)


def test_damaged_files_raise_nothing() -> None:
    data, rng = several(3), np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(4):
            damaged[int(rng.integers(600))] = int(rng.integers(256))
        end = end_of_image(bytes(damaged))
        assert 0 <= end <= len(damaged)
        assert sum(1 for _ in segments(bytes(damaged))) < 1000
        try:
            changed(bytes(damaged))
        except ImageError as error:
            assert str(error).startswith("it: ")  # noqa: PT017
