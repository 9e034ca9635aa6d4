"""One list of formats: each name that a file may have, each beginning, HEIC, and files whose names lie."""

import io
import itertools
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from lookalike.encoder.errors import ImageError
from lookalike.encoder.images import (
    IMAGE_SUFFIXES,
    ImageSpec,
    decode_rgb,
    is_image,
    read_image_file,
    read_pixels,
    write_image_file,
)
from lookalike.encoder.images.find import format_of, formats
from tests.fixtures.heic import TURNED_HEIC, gradient
from tests.fixtures.raw import dng

PIXELS = np.full((16, 20, 3), 77, np.uint8)


def saved(kind: str, mode: str = "RGB", **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(out, kind, **options)
    return out.getvalue()


def saved_large() -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((480, 640, 3), 77, np.uint8)).save(out, "JPEG")
    return out.getvalue()


FILES: dict[str, Callable[[], bytes]] = {
    ".jpg": lambda: saved("JPEG"),
    ".mpo": lambda: saved("MPO", save_all=True, append_images=[Image.fromarray(PIXELS)]),
    ".png": lambda: saved("PNG"),
    ".apng": lambda: saved("PNG", save_all=True, append_images=[Image.fromarray(PIXELS // 2)]),
    ".webp": lambda: saved("WEBP", lossless=True),
    ".gif": lambda: saved("GIF"),
    ".bmp": lambda: saved("BMP"),
    ".tif": lambda: saved("TIFF"),
    ".ppm": lambda: saved("PPM"),
    ".pbm": lambda: saved("PPM", "1"),
    ".pgm": lambda: saved("PPM", "L"),
    ".pfm": lambda: b"Pf\n20 16\n-1.0\n" + np.full((16, 20), 77 / 255, "<f4").tobytes(),
    ".avif": lambda: saved("AVIF", quality=100),
    ".avifs": lambda: saved("AVIF", save_all=True, append_images=[Image.fromarray(PIXELS)]),
    ".heic": lambda: TURNED_HEIC,
    ".dng": lambda: dng(np.full((32, 48, 3), 200, np.uint8), preview=saved_large()),
}


def test_every_suffix_belongs_to_a_format_and_counts_as_an_image() -> None:
    assert {suffix for each in formats() for suffix in each.suffixes} == IMAGE_SUFFIXES
    assert set(FILES) <= IMAGE_SUFFIXES
    for suffix in IMAGE_SUFFIXES:
        assert is_image(f"a{suffix}")
        assert is_image(f"A{suffix.upper()}")
        assert not is_image(suffix)


@pytest.mark.parametrize(("content", "name"), list(itertools.product(FILES, [".jpg", ".heic", ".txt", ""])))
def test_the_content_decides_not_the_name(content: str, name: str) -> None:
    data = FILES[content]()
    found = format_of(data)
    assert found is not None
    assert content in found.suffixes
    pixels = read_pixels(data, ImageSpec(size=8), name=f"file{name}")
    if content not in (".heic", ".pbm"):
        assert abs(int(pixels[4, 4, 0]) - 77) <= 3


def test_brands_of_heif_are_told_apart() -> None:
    def start(brand: bytes, *others: bytes) -> bytes:
        return b"\0\0\0\x1cftyp" + brand + bytes(4) + b"".join(others)

    kinds = {
        start(b"avif"): "AVIF",
        start(b"avis"): "AVIF",
        start(b"mif1", b"mif1", b"avif"): "AVIF",
        start(b"msf1", b"avis"): "AVIF",
        start(b"mif1", b"mif1", b"heic"): "HEIC",
        start(b"heic", b"mif1"): "HEIC",
        start(b"heix"): "HEIC",
        start(b"hevc"): "HEIC",
        start(b"crx ", b"crx "): "RAW",
        start(b"isom", b"mp42"): None,
        start(b"qt  "): None,
    }
    for data, kind in kinds.items():
        found = format_of(data)
        assert (None if found is None else found.kind) == kind, data


def test_heic_is_read_upright_and_written_as_something_else() -> None:
    pixels = decode_rgb(TURNED_HEIC, name="it")
    assert pixels.shape == (64, 80, 3)
    assert np.abs(pixels.astype(int) - gradient()).mean() < 4
    image = read_image_file(TURNED_HEIC, max_pixels=10**6, name="it")
    np.testing.assert_array_equal(image.pixels, pixels)
    back = Image.open(io.BytesIO(write_image_file(image, kind="JPEG", name="it")))
    assert back.size == (80, 64)
    assert back.getexif().get(0x112, 1) == 1
    with pytest.raises(ImageError, match="writing HEIC is not supported; choose another format"):
        write_image_file(image, name="it")


def test_damaged_heic_raises_image_errors_only() -> None:
    rng = np.random.default_rng(0)
    for turn in range(200):
        damaged = bytearray(TURNED_HEIC)
        for _ in range(3):
            damaged[int(rng.integers(len(damaged)))] = int(rng.integers(256))
        try:
            read_pixels(
                bytes(damaged[: len(damaged) - turn % 7 * 40]), ImageSpec(size=8), max_pixels=10**6, name="it"
            )
        except ImageError as error:
            assert str(error).startswith("it: ")  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
