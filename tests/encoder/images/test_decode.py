"""Bytes -> pixels: every format and mode, limits, damaged files, threads."""

import io
import re
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest
import simplejpeg  # type: ignore[import-untyped]  # its stub file lies beside another module
from numpy.typing import NDArray
from PIL import Image, features
from skimage.data import astronaut

from lookalike.encoder.errors import ImageError, ImageTooLargeError, printable
from lookalike.encoder.images import Crop, ImageSpec, decode_rgb, encode_png, read_pixels
from lookalike.encoder.images import decode as decoding
from lookalike.encoder.images.decode import decode

PHOTOGRAPH: NDArray[np.uint8] = astronaut()  # type: ignore[no-untyped-call]  # scikit-image is half typed
"""Eileen Collins (NASA, public domain), 512x512."""
AVIF = ("AVIF",) if features.check("avif") else ()
SPEC = ImageSpec(size=16)
MODES = {  # what can be written by Pillow without loss of kind
    "1": "PNG GIF BMP TIFF TIFF-lzw PPM WEBP JPEG",
    "L": "PNG GIF BMP TIFF TIFF-lzw PPM WEBP JPEG",
    "P": "PNG GIF BMP TIFF TIFF-lzw WEBP",
    "LA": "PNG GIF TIFF TIFF-lzw WEBP",
    "PA": "TIFF TIFF-lzw WEBP",
    "RGB": "PNG GIF BMP TIFF TIFF-lzw PPM WEBP JPEG",
    "RGBA": "PNG GIF BMP TIFF TIFF-lzw PPM WEBP",
    "CMYK": "TIFF TIFF-lzw WEBP JPEG",
    "YCbCr": "TIFF TIFF-lzw WEBP JPEG",
    "LAB": "TIFF TIFF-lzw WEBP",
    "I;16": "PNG TIFF TIFF-lzw PPM",
    "F": "TIFF TIFF-lzw PPM",
}
DAMAGEABLE = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "TIFF-lzw", "TIFF-jpeg", "BMP", "PPM", *AVIF)


@cache
def photograph() -> NDArray[np.uint8]:
    """The astronaut (NASA, public domain), 64x64."""
    return np.array(Image.fromarray(PHOTOGRAPH).resize((64, 64)))


def written(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    kind, _, compression = kind.partition("-")
    if compression:
        options["compression"] = {"lzw": "tiff_lzw", "jpeg": "jpeg"}[compression]
    image.save(out, kind, **options)
    return out.getvalue()


def grey_png(values: NDArray[np.generic]) -> bytes:
    return written(Image.fromarray(values), "PNG")


@pytest.mark.parametrize(("mode", "kind"), [(mode, kind) for mode in MODES for kind in MODES[mode].split()])
def test_every_mode_that_a_format_can_hold(mode: str, kind: str) -> None:
    image = Image.fromarray(photograph())
    if mode in {"I;16", "F"}:
        grey = np.asarray(image.convert("L"))
        image = Image.fromarray(
            grey.astype(np.uint16) * 257 if mode == "I;16" else grey.astype(np.float32) / 255
        )
    elif mode != "PA":
        image = image.convert(mode)
    else:
        image = image.convert("P").convert("PA")
    options = {"lossless": True} if kind == "WEBP" else {"quality": 98} if kind == "JPEG" else {}
    data = written(image, kind, **options)
    for channels in (1, 3):
        pixels = read_pixels(data, ImageSpec(size=64, channels=channels), name="x")
        assert pixels.shape == (64, 64, channels)
        expected = Image.fromarray(photograph()).convert("L" if channels == 1 else "RGB")
        if mode in {"1", "L", "LA", "I;16", "F"}:
            expected = expected.convert("L").convert(expected.mode)
        error = np.abs(pixels.reshape(64, 64, -1) - np.asarray(expected, float).reshape(64, 64, -1)).mean()
        assert error < {"1": 90, "P": 20, "PA": 20, "LAB": 8, "CMYK": 8}.get(mode, 4 if kind != "GIF" else 20)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P", "RGB", "L"])
def test_what_is_transparent_becomes_white(mode: str) -> None:
    image = Image.new(mode, (20, 20), 0)
    if mode in {"LA", "RGBA"}:
        image.putalpha(0)
        data = written(image, "PNG")
    else:
        data = written(image, "PNG", transparency=(0, 0, 0) if mode == "RGB" else 0)
    assert read_pixels(data, SPEC, name="x").min() == 255


def test_half_transparent_black_is_grey() -> None:
    data = written(Image.new("RGBA", (20, 20), (0, 0, 0, 128)), "PNG")
    np.testing.assert_array_equal(np.unique(read_pixels(data, SPEC, name="x")), 127)


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    values = np.array([0, 128, 129, 257, 32768, 65406, 65535] * 3, np.uint16).reshape(1, 21).repeat(21, 0)
    expected = np.array([0, 0, 1, 1, 128, 254, 255] * 3, np.uint8)
    for data in (grey_png(values), b"P5 21 21 65535\n" + values.astype(">u2").tobytes()):
        np.testing.assert_array_equal(decode_rgb(data, name="x")[5, :, 0], expected)


def test_rules_for_integers_and_floats() -> None:
    def first_row(values: NDArray[np.generic]) -> list[int]:
        data = written(Image.fromarray(np.tile(values, (8, 1))), "TIFF")
        return [int(value) for value in decode_rgb(data, name="x")[0, :, 1]]

    assert first_row(np.array([-5, 0, 257, 65535, 10**6], np.int32)) == [0, 0, 1, 255, 255]
    assert first_row(np.array([-1, 0, 0.5, 1], np.float32)) == [0, 0, 128, 255]
    assert first_row(np.array([-1, 0, 100, 300], np.float32)) == [0, 0, 100, 255]
    assert first_row(np.array([np.nan, np.inf, 0.5, 1], np.float32)) == [0, 0, 128, 255]


def test_the_first_picture_of_an_animation() -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP", "TIFF", "PNG"):
        data = written(frames[0], kind, save_all=True, append_images=frames[1:])
        assert read_pixels(data, SPEC, name="x")[8, 8, 0] > 200


@pytest.mark.parametrize(
    ("mode", "options"), [("RGB", {"progressive": True}), ("RGB", {"keep_rgb": True}), ("CMYK", {})]
)
def test_other_kinds_of_jpeg(mode: str, options: dict[str, object]) -> None:
    image = Image.fromarray(photograph()).convert(mode)
    pixels = decode_rgb(written(image, "JPEG", quality=98, **options), name="x")
    assert np.abs(pixels.astype(int) - photograph()).mean() < 5


@pytest.mark.parametrize("kind", DAMAGEABLE)
def test_a_wrong_name_is_no_obstacle(kind: str) -> None:
    assert (
        read_pixels(written(Image.fromarray(photograph()), kind), SPEC, name="holiday.mp3").shape
        == SPEC.shape
    )


def test_harmless_faults_in_a_jpeg_are_forgiven() -> None:
    data = written(Image.fromarray(photograph()), "JPEG")
    scan = data.index(b"\xff\xda")
    for faulty in (data + b"appended by a camera", data[:scan] + b"\0\0junk" + data[scan:]):
        np.testing.assert_array_equal(decode_rgb(faulty, name="x"), decode_rgb(data, name="x"))
    with pytest.raises(ValueError, match="extraneous"):  # so Pillow decided
        simplejpeg.decode_jpeg(data[:scan] + b"\0\0junk" + data[scan:])


@pytest.mark.parametrize("kind", DAMAGEABLE)
def test_files_cut_short(kind: str) -> None:
    data = written(Image.fromarray(photograph()), kind)
    for length in {0, 1, 2, 3, 10, 30, *range(0, len(data) - 30, max(1, len(data) // 40))}:
        with pytest.raises(ImageError, match=r"^a\.pic: ") as caught:
            decode_rgb(data[:length], name="a.pic")
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("kind", DAMAGEABLE)
def test_damaged_files_raise_image_errors_only(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    data = written(Image.fromarray(photograph()), kind)
    rng = np.random.default_rng(7)
    refused = 0
    for turn in range(150):
        damaged = bytearray(data)
        # Half of the damage goes where it hurts most: into the header.
        reach = len(data) if turn % 2 else min(len(data), 200)
        for _ in range(int(rng.integers(1, 6))):
            damaged[int(rng.integers(reach))] = int(rng.integers(256))
        if turn % 10 == 0:
            del damaged[int(rng.integers(reach)) :]
        try:
            assert read_pixels(bytes(damaged), SPEC, max_pixels=10**6, name="x").shape == SPEC.shape
        except ImageError as error:
            refused += 1
            assert str(error).isprintable()  # noqa: PT017 # either outcome is right
    assert refused > 0
    if "-" not in kind:  # libtiff has its own mind about the standard error stream
        assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"\xff\xd8", b"RIFF", b"%!PS-Adobe-3.0", b"hello world", b"\0" * 5000]
)
def test_what_is_no_picture(data: bytes) -> None:
    with pytest.raises(ImageError, match=r"^notes\.txt: "):
        decode_rgb(data, name="notes.txt")


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def large(kind: str) -> bytes:
    """A file whose header claims 60000x60000 pixels, and holds none."""
    if kind == "PNG":
        return png_header(60000, 60000)
    if kind == "GIF":
        frame = b"," + struct.pack("<HHHHB", 0, 0, 60000, 60000, 0)
        return b"GIF89a" + struct.pack("<HHBBB", 10, 10, 0, 0, 0) + frame + b"\x02\0;"
    if kind == "PPM":
        return b"P6 60000 60000 255\n"
    if kind == "BMP":
        return b"BM" + struct.pack("<IIIIIIHHIIIIII", 54, 0, 54, 40, 60000, 60000, 1, 24, 0, 0, 0, 0, 0, 0)
    data = written(Image.fromarray(photograph()), "JPEG")
    return data.replace(struct.pack(">HH", 64, 64), struct.pack(">HH", 60000, 60000), 1)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "PPM", "BMP", "JPEG"])
def test_the_limit_is_checked_before_decoding(kind: str) -> None:
    with pytest.raises(
        ImageTooLargeError, match=r"^x: .*3600000000 pixels, above the limit of 50000000"
    ) as caught:
        decode_rgb(large(kind), name="x")
    assert "bomb" not in str(caught.value)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "PPM", "BMP", "JPEG"])
def test_a_raised_limit_brings_no_other_exception(kind: str) -> None:
    with pytest.raises(ImageError):
        decode_rgb(large(kind), max_pixels=60000 * 60000 - 1, name="x")


def test_the_limit_itself_is_allowed() -> None:
    for kind in ("PNG", "JPEG"):
        data = written(Image.new("RGB", (40, 30)), kind)
        assert decode_rgb(data, max_pixels=1200, name="x").shape == (30, 40, 3)
        with pytest.raises(ImageTooLargeError, match="40x30 is 1200 pixels, above the limit of 1199"):
            decode_rgb(data, max_pixels=1199, name="x")


def test_pillow_may_have_its_own_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [written(Image.fromarray(photograph()), kind) for kind in DAMAGEABLE]
    for limit in (
        3000,
        1000,
        1,
    ):  # 64x64 is less than twice the first limit, where Pillow warns but does not refuse
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        for data in files:
            try:
                message = str(decode_rgb(data, name="x").shape)
            except ImageTooLargeError as error:  # some formats keep to the limit, others need not
                message = str(error)
            refusal = f"x: 4096 pixels, above the limit of {2 * limit}; shrink the image"
            assert message in {"(64, 64, 3)", refusal if limit < 3000 else ""}


def test_pillows_warnings_are_silenced_here_and_nowhere_else() -> None:
    ifd = struct.pack("<HHII", 271, 2, 40, 10**6) + struct.pack("<HHIHH", 256, 3, 1, 20, 0)
    odd = b"II*\0\x08\0\0\0" + struct.pack("<H", 2) + ifd + bytes(4)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with pytest.raises(ImageError):
            decode_rgb(odd, name="x")
        assert seen == []
        with pytest.raises(OSError, match=r"."):
            Image.open(io.BytesIO(odd))
        assert len(seen) > 0


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "GIF"])
def test_threads_get_the_same_pixels(kind: str) -> None:
    data = written(Image.fromarray(photograph()), kind)
    alone = read_pixels(data, SPEC, name="x")
    with ThreadPoolExecutor(8) as pool:
        for pixels in pool.map(lambda _: read_pixels(data, SPEC, name="x"), range(200)):
            np.testing.assert_array_equal(pixels, alone)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Zoë 1.jpg", "Zoë 1.jpg"),
        ("a\nb\x1b[2J", r"a\nb\x1b[2J"),
        ("\udcff", r"\udcff"),
        ("\u202egpj", r"\u202egpj"),
    ],
)
def test_names_are_shown_on_one_line(name: str, expected: str) -> None:
    assert printable(name) == expected
    with pytest.raises(ImageError) as caught:
        decode_rgb(b"", name=name)
    assert str(caught.value).startswith(f"{expected}: ")
    str(caught.value).encode()


def test_ordinary_jpeg_does_not_go_through_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_decode_with_pillow", None)
    for mode in ("RGB", "L"):
        data = written(Image.fromarray(photograph()).convert(mode), "JPEG")
        picture = decode(data, channels=3, shrink=lambda *_: 4, name="x")
        assert (picture.shrink, picture.pixels.shape) == (4, (16, 16, 3))
        read_pixels(data, ImageSpec(size=8, crop=Crop.parse("center:0.5")), name="x")


def test_the_filter_of_warnings_can_be_copied_by_its_pattern() -> None:
    decode_rgb(encode_png(np.zeros((2, 2, 3), np.uint8)), name="black")
    (message,) = (
        message for _, message, *_ in warnings.filters if type(message).__module__.startswith("lookalike")
    )
    assert message is not None
    assert not re.compile(message.pattern).match("anything")  # scikit-learn's workers take filters so


@cache
def phone_photograph(width: int, height: int) -> bytes:
    """As large as those of a phone with that many pixels, and black: so it is made quickly."""
    return written(Image.new("L", (width, height)), "JPEG", quality=30)


def test_photographs_of_phones_pass() -> None:
    for spec in (SPEC, ImageSpec(size=64, channels=1), ImageSpec(size=64, crop=Crop.parse("center:0.36"))):
        assert read_pixels(phone_photograph(8160, 6144), spec, name="x").shape == spec.shape


def resized(data: bytes, width: int, height: int) -> bytes:
    """A JPEG file whose header claims another size."""
    return data.replace(struct.pack(">HH", 64, 64), struct.pack(">HH", height, width), 1)


@pytest.mark.parametrize(
    ("kind", "size", "crop", "limit"),
    [
        ("JPEG", (12000, 10001), "full", 120_000_000),
        ("JPEG", (10000, 5001), "0,0,0.0101,0.0101", 50_000_000),  # too small a part to be decoded small
        ("JPEG-progressive", (10000, 5001), "full", 50_000_000),  # unpacked as a whole
        ("PNG", (10000, 5001), "full", 50_000_000),
    ],
)
def test_the_limit_depends_on_what_is_decoded(
    kind: str, size: tuple[int, int], crop: str, limit: int
) -> None:
    kind, _, progressive = kind.partition("-")
    if kind == "PNG":
        data = png_header(*size)
    else:
        image = Image.fromarray(photograph())
        data = resized(written(image, kind, progressive=bool(progressive)), *size)
    spec = ImageSpec(size=64, crop=Crop.parse(crop))
    pixels = size[0] * size[1]
    hint = "shrink the image or raise --max-pixels (in Python max_pixels), where there is such an option"
    with pytest.raises(ImageTooLargeError) as caught:
        read_pixels(data, spec, name="x")
    assert (
        str(caught.value) == f"x: {size[0]}x{size[1]} is {pixels} pixels, above the limit of {limit}; {hint}"
    )
    with pytest.raises(ImageTooLargeError, match=f"above the limit of {pixels - 1};"):
        read_pixels(data, spec, max_pixels=pixels - 1, name="x")
