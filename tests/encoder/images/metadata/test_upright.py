"""What goes with an image that is turned upright: EXIF sizes, thumbnails and XMP say what the pixels say."""

import io
import itertools
import struct
import time
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from lookalike.encoder.images import read_image_file, write_image_file
from lookalike.encoder.images.metadata import ExifBlock, orient, upright_exif, upright_xmp

WIDTH, HEIGHT = 50, 40
NAMESPACES = 'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/"'


def scene(height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    """As stored, without any symmetry."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 200 // width, y * 200 // height, np.full(x.shape, 90)], axis=2).astype(np.uint8)


def jpeg(pixels: NDArray[np.uint8], quality: int = 95) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=quality, subsampling=0)
    return out.getvalue()


def exif(
    orientation: int, *, order: str = "<", kinds: tuple[int, int] = (4, 4), thumbnail: bytes = b""
) -> bytes:
    """Orientation and sizes in the main folder and in EXIF's, and a thumbnail."""

    def folder(tags: dict[int, tuple[int, int]], following: int) -> bytes:
        entries = b"".join(
            struct.pack(f"{order}HHI", tag, kind, 1)
            + struct.pack(f"{order}{'H2x' if kind == 3 else 'I'}", value)
            for tag, (kind, value) in tags.items()
        )
        return struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", following)

    wide, high = kinds
    sizes = {0xA002: (wide, WIDTH), 0xA003: (high, HEIGHT)}
    small = {
        0x100: (4, 25),
        0x101: (4, 20),
        0x103: (3, 6),
        0x112: (3, orientation),
        0x201: (4, 0),
        0x202: (4, 0),
    }
    main = {0x100: (wide, WIDTH), 0x101: (high, HEIGHT), 0x112: (3, orientation), 0x8769: (4, 0)}
    inner_at = 8 + len(folder(main, 0))
    small_at = inner_at + len(folder(sizes, 0))
    data_at = small_at + len(folder(small, 0))
    main[0x8769] = (4, inner_at)
    small |= {0x201: (4, data_at), 0x202: (4, len(thumbnail))}
    return (
        {"<": b"II*\0", ">": b"MM\0*"}[order]
        + struct.pack(f"{order}I", 8)
        + folder(main, small_at if thumbnail else 0)
        + folder(sizes, 0)
        + folder(small, 0)
        + thumbnail
    )


def sizes_in(data: bytes) -> list[tuple[int | None, int | None]]:
    block = ExifBlock(data)
    inner = block.folder(block.value(block.main, 0x8769) or 0)
    small = block.folder(block.read(block.thumbnail_link()))
    pairs = [(block.main, 0x100), (inner, 0xA002), (small, 0x100)]
    return [(block.value(tags, first), block.value(tags, first + 1)) for tags, first in pairs]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_of_every_order_and_type(orientation: int) -> None:
    stored = scene(20, 25)
    shown = orient(stored, orientation)
    for order, wide, high in itertools.product("<>", (3, 4), (3, 4)):
        before = exif(orientation, order=order, kinds=(wide, high), thumbnail=jpeg(stored))
        after = upright_exif(before)
        turned = [(w, h) if orientation < 5 else (h, w) for w, h in sizes_in(before)]
        assert sizes_in(after) == turned, (order, wide, high)
        block = ExifBlock(after)
        assert block.value(block.main, 0x112) == 1
        small = block.folder(block.read(block.thumbnail_link()))
        at, length = (block.value(small, tag) or 0 for tag in (0x201, 0x202))
        thumbnail = np.asarray(Image.open(io.BytesIO(block.part(at, length))))
        assert thumbnail.shape == shown.shape
        assert np.abs(thumbnail.astype(int) - shown).mean() < 6
        assert block.value(small, 0x112) == 1
        assert len(after) == len(before)
        assert upright_exif(b"Exif\0\0" + before) == b"Exif\0\0" + after


def test_a_thumbnail_that_cannot_be_turned_is_taken_out() -> None:
    for thumbnail in (b"\xff\xd8 not an image", jpeg(scene(20, 25), quality=2)[:-200]):
        block = ExifBlock(upright_exif(exif(6, thumbnail=thumbnail)))
        assert block.read(block.thumbnail_link()) == 0
    plain = exif(1, thumbnail=b"whatever")
    assert upright_exif(plain) == plain


def test_damaged_exif_raises_nothing() -> None:
    whole, rng = exif(6, thumbnail=jpeg(scene(20, 25))), np.random.default_rng(0)
    for length in range(200):
        assert len(upright_exif(whole[:length])) == length
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[int(rng.integers(200))] = int(rng.integers(256))
        assert len(upright_exif(bytes(damaged))) == len(whole)


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("quote", ['"', "'"])
@pytest.mark.parametrize("as_elements", [False, True])
@pytest.mark.parametrize("prefixes", [("tiff", "exif"), ("t", "e")])
def test_xmp_in_every_form(
    orientation: int, quote: str, as_elements: bool, prefixes: tuple[str, str]
) -> None:
    def packet(turn: int, width: int, height: int) -> bytes:
        tiff, inner = prefixes
        values = {
            f"{tiff}:Orientation": turn,
            f"{tiff}:ImageWidth": width,
            f"{tiff}:ImageLength": height,
            f"{inner}:PixelXDimension": width,
            f"{inner}:PixelYDimension": height,
            "other:Orientation": 6,
        }
        spaces = (
            f"xmlns:{tiff}='http://ns.adobe.com/tiff/1.0/' xmlns:{inner}=\"http://ns.adobe.com/exif/1.0/\""
        )
        if as_elements:
            return f"<d {spaces}>{''.join(f'<{k}>{v}</{k}>' for k, v in values.items())}</d>".encode()
        return f"<d {spaces} {' '.join(f'{k}={quote}{v}{quote}' for k, v in values.items())}/>".encode()

    sides = (1000, 750)
    expected = packet(1, *(sides if orientation < 5 else sides[::-1]))
    assert upright_xmp(packet(orientation, *sides), orientation) == expected
    assert upright_xmp(packet(orientation, *sides), 1) == packet(orientation, *sides)


def turned_file(kind: str, orientation: int, *, compressed: bool = False) -> bytes:
    """A file whose EXIF and XMP say how it is stored."""
    said = f'tiff:Orientation="{orientation}" exif:PixelXDimension="{WIDTH}" exif:PixelYDimension="{HEIGHT}"'
    xmp = f"<d {NAMESPACES} {said}/>"
    block = exif(orientation, thumbnail=jpeg(scene(20, 25)))
    options: dict[str, Any] = {"exif": b"Exif\0\0" + block, "xmp": xmp.encode()}
    if kind == "JPEG":
        options |= {"quality": 98, "subsampling": 0}
    if kind == "WEBP":
        options["lossless"] = True
    if kind == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", xmp, zip=compressed)
        options = {"exif": block, "pnginfo": info}
    if kind == "TIFF":
        tags = Image.Exif()
        tags[0x112] = orientation
        tags[700] = xmp.encode()
        inner = tags.get_ifd(0x8769)
        inner |= {0xA002: WIDTH, 0xA003: HEIGHT}
        tags[0x8769] = dict(inner)
        options = {"exif": tags}
    out = io.BytesIO()
    Image.fromarray(scene()).save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize("to", [None, "PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "PNG-zip", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_nothing_in_a_written_file_says_how_it_was_stored(
    orientation: int, kind: str, to: str | None
) -> None:
    kind, _, compressed = kind.partition("-")
    data = turned_file(kind, orientation, compressed=bool(compressed))
    image = Image.open(
        io.BytesIO(write_image_file(read_image_file(data, max_pixels=10**6, name="it"), kind=to, name="it"))
    )
    shown = orient(scene(), orientation)
    assert image.size == shown.shape[1::-1]
    assert np.abs(np.asarray(image).astype(int) - shown).mean() < 6
    tags = image.getexif()
    assert tags.get(0x112, 1) == 1
    inner = tags.get_ifd(0x8769)
    assert (inner[0xA002], inner[0xA003]) == image.size
    packet = image.info.get("xmp") or image.tag_v2[700]  # type: ignore[attr-defined]
    across, down = image.size
    said = f'tiff:Orientation="1" exif:PixelXDimension="{across}" exif:PixelYDimension="{down}"'
    assert said.encode() in packet
    if kind == "JPEG" and to is None:
        block = ExifBlock(image.info["exif"])
        small = block.folder(block.read(block.thumbnail_link()))
        at, length = (block.value(small, tag) or 0 for tag in (0x201, 0x202))
        thumbnail = Image.open(io.BytesIO(block.part(at, length)))
        assert (thumbnail.width > thumbnail.height) == (image.width > image.height)


def test_a_damaged_packet_of_png_is_kept_as_it_is() -> None:
    body = b"XML:com.adobe.xmp\0\1\0\0\0" + b"no deflate"
    chunk = struct.pack(">I", len(body)) + b"iTXt" + body + struct.pack(">I", zlib.crc32(b"iTXt" + body))
    data = turned_file("PNG", 6)
    data = data[:33] + chunk + data[33:]
    assert chunk in write_image_file(read_image_file(data, max_pixels=10**6, name="it"), name="it")


def test_a_thumbnail_that_claims_to_be_huge_is_not_decoded() -> None:
    small = jpeg(scene(20, 25))
    huge = small.replace(struct.pack(">HH", 20, 25), struct.pack(">HH", 60000, 60000), 1)
    block = ExifBlock(upright_exif(exif(6, thumbnail=huge)))
    assert block.read(block.thumbnail_link()) == 0


@pytest.mark.parametrize(
    "part",
    [
        b"a" * 1000,
        b" xmlns:a='http://ns.adobe.com/tiff/1.0/'",
        b" tiff:Orientation='",
        b":Orientation = ",
        b"xmlns:",
        b" ",
        b"tiff:Orientation='6' ",
        b"1",
    ],
)
def test_the_time_for_odd_packets_grows_with_their_length(part: bytes) -> None:
    def seconds(length: int) -> float:
        packet = f"<d {NAMESPACES}>".encode() + part * (length // len(part))
        began = time.process_time()
        assert len(upright_xmp(packet, 6)) == len(packet)
        return time.process_time() - began

    short = min(seconds(125_000) for _ in range(3))
    long = min(seconds(1_000_000) for _ in range(2))
    # Eight times the length: 8 times as long where time grows with it, 64 where it grows with its square.
    assert long < 24 * short + 0.1
