"""Pictures read whole and written again: depth, alpha, orientation, company stay, or are refused by name."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms, PngImagePlugin

from lookalike.encoder.errors import ImageError, ImageTooLargeError
from lookalike.encoder.images import (
    WRITABLE_FORMATS,
    ImageFile,
    decode_rgb,
    read_image_file,
    write_image_file,
)
from lookalike.encoder.images.read import png_chunks

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf/></x:xmpmeta>"


def values(channels: int, dtype: Any = np.uint8, *, height: int = 37, width: int = 61) -> NDArray[Any]:
    """Smooth with some grain, so that every filter and every byte has something to do."""
    rng = np.random.default_rng(channels)
    top = np.iinfo(dtype).max
    ramp = np.linspace(0, 0.9, width)[None, :, None] * np.linspace(0.3, 1, channels)
    grained = ramp + rng.uniform(0, 0.1, (height, width, channels))
    return np.asarray(grained * top, dtype)


def exif(orientation: int = 1) -> Image.Exif:
    made = Image.Exif()
    made[0x010F] = "Maker"
    made[0x0112] = orientation
    made.get_ifd(0x8769)[0x9003] = "2020:02:02 02:02:02"
    made.get_ifd(0x8825)[1] = "N"
    return made


def saved(pixels: NDArray[Any], kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    squeezed = pixels[..., 0] if pixels.shape[2] == 1 else pixels
    Image.fromarray(squeezed).save(out, kind, **options)
    return out.getvalue()


def deep_png(pixels: NDArray[np.uint16], *, interlace: bool = False) -> bytes:
    """16-bit PNG without filters, written by hand from the specification."""
    height, width, channels = pixels.shape
    raw = pixels.astype(">u2").view(np.uint8).reshape(height, -1)
    body = np.concatenate([np.zeros((height, 1), np.uint8), raw], axis=1).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(body))
        + chunk(b"IEND", b"")
    )


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def read(data: bytes, **options: Any) -> ImageFile:
    return read_image_file(data, max_pixels=10**6, name="it", **options)


def again(data: bytes, **options: Any) -> bytes:
    return write_image_file(read(data), name="it", **options)


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


# Pixels


@pytest.mark.parametrize(
    ("kind", "channels"),
    [*((kind, channels) for kind in ("PNG", "TIFF") for channels in MODES), ("WebP", 3), ("WebP", 4)],
)
def test_eight_bits_come_back_equal(kind: str, channels: int) -> None:
    pixels = values(channels)
    data = saved(pixels, kind, **({"lossless": True, "exact": True} if kind == "WebP" else {}))
    original = read(data)
    assert (original.kind, str(original.pixels.dtype), original.upright) == (kind, "uint8", True)
    np.testing.assert_array_equal(original.pixels, pixels)
    back = opened(write_image_file(original, name="it"))
    assert back.mode == MODES[channels]
    np.testing.assert_array_equal(np.asarray(back).reshape(pixels.shape), pixels)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bits_of_png_come_back_equal(channels: int) -> None:
    pixels = values(channels, np.uint16)
    original = read(deep_png(pixels))
    assert original.pixels.dtype == np.uint16
    np.testing.assert_array_equal(original.pixels, pixels)
    written = write_image_file(original, name="it")
    assert struct.unpack_from(">IIBB", written, 16) == (61, 37, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels])
    np.testing.assert_array_equal(read(written).pixels, pixels)
    # Another reader sees the same, in the eight bits that it keeps.
    if channels == 1:
        np.testing.assert_array_equal(np.asarray(opened(written)), pixels[..., 0])
    elif channels > 2:
        np.testing.assert_array_equal(np.asarray(opened(written)), pixels >> 8)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_of_tiff_come_back_equal(channels: int, order: Any, compression: str | None) -> None:
    pixels, out = values(channels, np.uint16), io.BytesIO()
    tifffile.imwrite(
        out,
        pixels if channels > 1 else pixels[..., 0],
        byteorder=order,
        compression=compression,
        predictor=compression is not None,
        photometric="rgb" if channels > 1 else "minisblack",
        extrasamples=["unassalpha"] if channels == 4 else None,
    )
    original = read(out.getvalue())
    np.testing.assert_array_equal(original.pixels, pixels)
    written = write_image_file(original, name="it")
    np.testing.assert_array_equal(read(written).pixels, pixels)
    other = tifffile.imread(io.BytesIO(written))  # a reader that has nothing to do with ours
    np.testing.assert_array_equal(other.reshape(pixels.shape), pixels)


def test_a_tiff_of_many_strips_comes_back_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lookalike.encoder.images.write._STRIP", 1000)
    for pixels in (values(3, np.uint16), values(4)):
        data = deep_png(pixels) if pixels.dtype == np.uint16 else saved(pixels, "PNG")
        for kind in ("TIFF", "PNG"):
            np.testing.assert_array_equal(read(again(data, kind=kind)).pixels, pixels)


@pytest.mark.parametrize("colours", [(0, 0, 0), (9, 9, 9)])
def test_a_palette_becomes_rgb_and_its_transparent_colour_alpha(colours: tuple[int, ...]) -> None:
    image = Image.fromarray(values(3)).quantize(16)
    out, clear = io.BytesIO(), io.BytesIO()
    image.save(out, "PNG")
    image.save(clear, "PNG", transparency=3)
    np.testing.assert_array_equal(read(out.getvalue()).pixels, np.asarray(image.convert("RGB")))
    assert read(clear.getvalue()).pixels.shape[2] == 4
    np.testing.assert_array_equal(read(clear.getvalue()).pixels[..., 3] == 0, np.asarray(image) == 3)


def test_a_transparent_colour_of_rgb_becomes_alpha() -> None:
    pixels = values(3)
    pixels[3, 4] = 1, 2, 3
    back = read(saved(pixels, "PNG", transparency=(1, 2, 3))).pixels
    assert back.shape[2] == 4
    assert np.argwhere(back[..., 3] == 0).tolist() == [[3, 4]]
    assert b"tRNS" not in dict(png_chunks(again(saved(pixels, "PNG", transparency=(1, 2, 3)))))


def test_a_jpeg_keeps_its_tables_and_sampling() -> None:
    for options in ({"quality": 60}, {"quality": 97, "subsampling": 0}, {"quality": 80, "subsampling": 1}):
        data = saved(values(3), "JPEG", **options)
        before, after = opened(data), opened(again(data))
        assert after.quantization == before.quantization  # type: ignore[attr-defined]
        assert after.layer == before.layer  # type: ignore[attr-defined]
        assert np.abs(np.asarray(before).astype(int) - np.asarray(after)).mean() < 2
    assert len(again(data, quality=20)) < len(again(data, quality=90))


# Company


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP", "TIFF", "AVIF"])
@pytest.mark.parametrize("to", [None, "JPEG", "PNG", "WebP", "TIFF"])
def test_metadata_and_profile_go_along(kind: str, to: str | None) -> None:
    tags = exif()
    options: dict[str, Any] = {"exif": tags, "icc_profile": PROFILE}
    if kind == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", XMP.decode())
        options["pnginfo"] = info
    elif kind == "TIFF":
        tags[700] = XMP
        for folder in (0x8769, 0x8825):  # or Pillow does not write them
            tags[folder] = dict(tags.get_ifd(folder))
    else:
        options["xmp"] = XMP
    data = saved(values(3), kind, **options)
    back = opened(again(data, kind=to))
    assert back.format == {None: kind.upper(), "WebP": "WEBP"}.get(to, to)
    found = back.getexif()
    assert found[0x010F] == "Maker"
    assert found.get_ifd(0x8769)[0x9003] == "2020:02:02 02:02:02"
    assert found.get_ifd(0x8825)[1] == "N"
    assert back.info["icc_profile"] == PROFILE
    told = back.info.get("xmp") or back.tag_v2[700]  # type: ignore[attr-defined]
    assert (told.encode() if isinstance(told, str) else told) == XMP


def test_parts_of_the_same_kind_are_the_same_bytes() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Author", "Ada")
    info.add_text("Note", "x" * 2000, zip=True)
    info.add(b"gAMA", struct.pack(">I", 45455))
    data = saved(values(3), "PNG", pnginfo=info, dpi=(300, 300), exif=exif())
    wanted = [whole for name, whole in png_chunks(data) if name not in (b"IHDR", b"IDAT", b"IEND")]
    got = [whole for name, whole in png_chunks(again(data)) if name not in (b"IHDR", b"IDAT", b"IEND")]
    assert sorted(got) == sorted(wanted)
    jpeg = saved(values(3), "JPEG", comment=b"hello", dpi=(240, 240), exif=exif(), icc_profile=PROFILE)
    iptc = b"\xff\xed" + struct.pack(">H", 20) + b"Photoshop 3.0\0abcd"
    back = again(jpeg[:2] + iptc + jpeg[2:])
    assert iptc in back
    assert opened(back).info["comment"] == b"hello"
    assert opened(back).info["dpi"] == (240, 240)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_taken_back(kind: str, orientation: int) -> None:
    pixels = values(3, height=16, width=40)
    how: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": 100, "subsampling": 0},
        "WebP": {"lossless": True},
    }
    options = how.get(kind, {})
    plain = np.asarray(opened(saved(pixels, kind, **options)))
    data = saved(pixels, kind, exif=exif(orientation), **options)
    (image := Image.fromarray(plain)).getexif()[0x0112] = orientation
    upright = {
        1: plain, 2: plain[:, ::-1], 3: plain[::-1, ::-1], 4: plain[::-1], 5: plain.swapaxes(0, 1),
        6: plain[::-1].swapaxes(0, 1), 7: plain[::-1, ::-1].swapaxes(0, 1), 8: plain[:, ::-1].swapaxes(0, 1),
    }[orientation]  # fmt: skip
    original = read(data)
    np.testing.assert_array_equal(original.pixels, upright)
    assert image.size == (40, 16)
    back = opened(write_image_file(original, name="it"))
    assert back.getexif().get(0x0112, 1) == 1
    assert back.getexif()[0x010F] == "Maker"
    assert back.size == upright.shape[1::-1]


# Refusals


def tiff_of(array: NDArray[Any], **options: Any) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, array, **options)
    return out.getvalue()


def animation(kind: str) -> bytes:
    frames = [Image.fromarray(values(3) // (i + 1)) for i in range(3)]
    out = io.BytesIO()
    frames[0].save(out, kind, save_all=True, append_images=frames[1:])
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (lambda: b"", "empty"),
        (lambda: b"no picture", "not an image"),
        (lambda: saved(values(3), "PNG")[:-100], "cut short"),
        (lambda: saved(values(3), "JPEG")[:-100], "cut short"),
        (lambda: deep_png(values(3, np.uint16))[:-300], "cut short"),
        (lambda: animation("GIF"), "holds 3 images"),
        (lambda: animation("WebP"), "holds 3 images"),
        (lambda: animation("PNG"), "holds 3 images"),
        (lambda: animation("TIFF"), "holds 3 images"),
        (lambda: cmyk("JPEG"), "CMYK"),
        (lambda: cmyk("TIFF"), "CMYK"),
        (lambda: tiff_of(values(1)[..., 0].astype(np.float32)), "32 bits"),
        (lambda: tiff_of(values(1)[..., 0].astype(np.int32)), "32 bits"),
        (lambda: tiff_of(values(1)[..., 0].astype(np.int16)), "bits"),
        (lambda: b"P5 2 1 65535\n\0\1\0\2", "more than 8 bits"),
        (lambda: b"P6\n# why\n1 1\n1023\n\0\1\0\2\0\3", "more than 8 bits"),
    ],
)
def test_what_could_not_be_written_again_is_refused_by_name(data: Any, reason: str) -> None:
    with pytest.raises(ImageError, match=reason) as caught:
        read(data())
    assert str(caught.value).startswith("it: ")
    assert "\n" not in str(caught.value)


def cmyk(kind: str) -> bytes:
    out = io.BytesIO()
    Image.fromarray(values(3)).convert("CMYK").save(out, kind)
    return out.getvalue()


def test_a_plain_pnm_comes_back() -> None:
    for data in (saved(values(1), "PPM"), saved(values(3), "PPM"), b"P5 2 1 255\n\1\2"):
        np.testing.assert_array_equal(read(again(data)).pixels, read(data).pixels)


@pytest.mark.parametrize(
    ("channels", "dtype", "kind", "lacks"),
    [
        (4, np.uint8, "JPEG", "cannot hold alpha"),
        (2, np.uint8, "BMP", "cannot hold gray and alpha"),
        (3, np.uint16, "JPEG", "cannot hold 16 bits"),
        (3, np.uint16, "WebP", "cannot hold 16 bits"),
        (3, np.uint8, "GIF", "writing GIF is not supported"),
    ],
)
def test_what_a_kind_cannot_hold_is_said(channels: int, dtype: Any, kind: str, lacks: str) -> None:
    pixels = values(channels, dtype)
    data = deep_png(pixels) if dtype == np.uint16 else saved(pixels, "PNG")
    with pytest.raises(ImageError, match=lacks):
        again(data, kind=kind)


def test_sides_that_a_kind_cannot_have_are_said() -> None:
    data = saved(values(3, height=1, width=70_000), "PNG")
    for kind in ("JPEG", "WebP"):
        with pytest.raises(ImageError, match=f"cannot be written as {kind}"):
            again(data, kind=kind)


def test_size_is_told_before_anything_is_decoded() -> None:
    sizes: list[int] = []
    with pytest.raises(ImageError):
        read(saved(values(3), "PNG")[:-100], on_size=sizes.append)
    assert sizes == [37 * 61]
    with pytest.raises(ImageTooLargeError):
        read_image_file(saved(values(3), "PNG"), max_pixels=100, name="it", on_size=sizes.append)
    assert len(sizes) == 1


def test_every_kind_that_can_be_written_is_written_as_that_kind() -> None:
    for kind in WRITABLE_FORMATS:
        assert read(again(saved(values(3), "PNG"), kind=kind)).kind == kind


# BMP


def bmp_of(pixels: NDArray[Any], *, version: int = 4, space: bytes = b"BGRs") -> bytes:
    """BMP with alpha, bottom row first, written by hand from the documentation of BITMAPV4HEADER."""
    height, width = pixels.shape[:2]
    size = {4: 108, 5: 124}[version]
    body = pixels[::-1, :, [2, 1, 0, 3]].tobytes()
    masks = struct.pack("<4I4s", 0xFF0000, 0xFF00, 0xFF, 0xFF000000, space)
    header = struct.pack("<IiiHHIIiiII", size, width, height, 1, 32, 3, len(body), 2835, 2835, 0, 0) + masks
    start = 14 + size
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + header.ljust(size, b"\0") + body


@pytest.mark.parametrize("version", [4, 5])
def test_alpha_of_bmp_comes_back(version: int) -> None:
    pixels = values(4)
    pixels[:, :20, 3] = 0
    data = bmp_of(pixels, version=version)
    np.testing.assert_array_equal(read(data).pixels, pixels)
    written = again(data)
    np.testing.assert_array_equal(read(written).pixels, pixels)
    image = opened(written)
    assert (image.format, image.mode) == ("BMP", "RGBA")
    np.testing.assert_array_equal(np.asarray(image), pixels)
    assert image.info["dpi"] == pytest.approx((72, 72), abs=0.1)
    np.testing.assert_array_equal(read(again(saved(pixels, "PNG"), kind="BMP")).pixels, pixels)


@pytest.mark.parametrize("space", [b"DEBM", b"KNIL"])
def test_a_profile_in_bmp_is_refused_by_name(space: bytes) -> None:
    with pytest.raises(ImageError, match="a color profile in BMP is not supported"):
        read(bmp_of(values(4), version=5, space=space))


@pytest.mark.parametrize("kind", ["BMP", "PNM"])
@pytest.mark.parametrize("company", [{"icc_profile": PROFILE}, {"exif": exif()}, {"xmp": XMP}])
def test_metadata_that_a_format_cannot_hold_are_not_lost_silently(kind: str, company: dict[str, Any]) -> None:
    with pytest.raises(ImageError, match=rf"{kind} cannot hold its metadata"):
        again(saved(values(3), "JPEG", **company), kind=kind)


# Every mode of Pillow


def of_mode(mode: str, size: tuple[int, int]) -> Image.Image:
    """Random pixels of a mode, black and white among them."""
    rng = np.random.default_rng(size[0])
    color = Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), np.uint8))
    gray, alpha = color.convert("L"), Image.fromarray(rng.integers(0, 256, size[::-1], np.uint8))
    if mode.startswith("I"):
        whole = rng.integers(0, 65536, size[::-1])
        return Image.fromarray(whole.astype(np.uint16 if mode == "I;16" else np.int32))
    if mode == "F":
        return Image.fromarray(rng.random(size[::-1], np.float32))
    if mode in ("P", "PA"):
        return color.quantize(16).convert(mode)
    made = (gray if mode in ("1", "L", "LA") else color).convert(mode)
    if mode in ("LA", "RGBA"):
        made.putalpha(alpha)
    return made


READ: list[tuple[str, str, dict[str, Any]]] = [
    *(("1", kind, {}) for kind in ("PNG", "TIFF", "BMP", "PPM", "GIF")),
    *(("1", "TIFF", {"compression": way}) for way in ("group3", "group4", "tiff_lzw", "packbits")),
    *(("1", "PNG", {"transparency": clear}) for clear in (0, 1)),
    *(("L", kind, {}) for kind in ("PNG", "TIFF", "BMP", "PPM", "GIF")),
    ("L", "PNG", {"transparency": 9}),
    *(("LA", kind, {}) for kind in ("PNG", "TIFF")),
    *(("P", kind, {}) for kind in ("PNG", "TIFF", "BMP", "GIF")),
    *(("P", kind, {"transparency": 3}) for kind in ("PNG", "GIF")),
    ("P", "PNG", {"transparency": bytes(range(0, 160, 10))}),
    ("PA", "TIFF", {}),
    *(("RGB", kind, {}) for kind in ("PNG", "TIFF", "BMP", "PPM")),
    ("RGB", "PNG", {"transparency": (1, 2, 3)}),
    *(("RGBA", kind, {}) for kind in ("PNG", "TIFF")),
]
SIZES = ((1, 1), (7, 3), (8, 2), (13, 9), (64, 40))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("mode", "kind", "options"), READ)
def test_images_of_these_modes_are_read_and_come_back(
    mode: str, kind: str, options: dict[str, Any], size: tuple[int, int]
) -> None:
    image, out = of_mode(mode, size), io.BytesIO()
    image.save(out, kind, **options)
    data = out.getvalue()
    whole = read(data)
    seen = np.asarray(opened(data).convert("RGBA")).astype(int)  # (H, W, 4)
    colors = np.broadcast_to(whole.colors, (*whole.pixels.shape[:2], 3))
    np.testing.assert_array_equal(colors, seen[..., :3])
    if whole.pixels.shape[2] in (2, 4):
        np.testing.assert_array_equal(whole.pixels[..., -1], seen[..., 3])
    else:
        assert (seen[..., 3] == 255).all()
    back = read(write_image_file(whole, kind="PNG", name="it"))
    np.testing.assert_array_equal(back.pixels, whole.pixels)
    if kind != "GIF":
        np.testing.assert_array_equal(read(again(data)).pixels, whole.pixels)
    over_white = seen[..., :3] * seen[..., 3:] / 255 + 255 - seen[..., 3:]
    assert np.abs(decode_rgb(data, name="it") - over_white).max() <= 1


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_sixteen_bits_with_a_transparent_gray_are_read(size: tuple[int, int]) -> None:
    image, out = of_mode("I;16", size), io.BytesIO()
    gray = np.asarray(image)
    image.save(out, "PNG", transparency=int(gray[0, 0]))
    whole = read(out.getvalue())
    np.testing.assert_array_equal(whole.pixels[..., 0], gray)
    np.testing.assert_array_equal(whole.pixels[..., 1], np.where(gray == gray[0, 0], 0, 65535))
    assert (decode_rgb(out.getvalue(), name="it")[0, 0] == 255).all()


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    ("mode", "kind", "reason"),
    [
        ("CMYK", "JPEG", "its pixels are CMYK"),
        ("CMYK", "TIFF", "its pixels are CMYK"),
        ("YCbCr", "TIFF", "its pixels are YCbCr"),
        ("LAB", "TIFF", "its pixels are LAB"),
        ("RGBX", "TIFF", "1 channels beside its colors"),
        ("I", "TIFF", "32 bits"),
        ("F", "TIFF", "32 bits"),
        ("I;16", "PPM", "PNM with more than 8 bits"),
    ],
)
def test_images_of_these_modes_are_decoded_but_not_changed(
    mode: str, kind: str, reason: str, size: tuple[int, int]
) -> None:
    image, out = of_mode(mode, size), io.BytesIO()
    image.save(out, kind)
    with pytest.raises(ImageError, match=rf"^it: .*{reason}.*; convert it[^\n]*$"):
        read(out.getvalue())
    assert decode_rgb(out.getvalue(), name="it").shape == (*size[::-1], 3)
