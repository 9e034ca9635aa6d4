"""Every kind of integer sample that TIFF and PNG can hold, against values laid down in numpy."""

import io
import itertools
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from lookalike.encoder.errors import ImageError
from lookalike.encoder.images import decode_rgb, read_image_file
from lookalike.encoder.images.decode import decode

Integers = NDArray[np.int64]
SHAPE = (5, 16)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def packed(values: Integers, bits: int) -> bytes:
    """Whole rows of values of 1, 2, 4 or 12 bits, the first in the highest bits."""
    as_bits = (values[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(as_bits.reshape(len(values), -1).astype(np.uint8), axis=1).tobytes()


def tiff(
    values: Integers, bits: int, *, order: str, white: int, signed: bool, deflate: bool, reverse: bool = False
) -> bytes:
    """A gray TIFF file of one strip, written by hand from the specification."""
    sign = "i" if signed else "u"
    raw = (
        packed(values, bits)
        if bits in (1, 2, 4, 12)
        else values.astype(f"{order}{sign}{bits // 8}").tobytes()
    )
    if reverse:
        raw = np.packbits(np.unpackbits(np.frombuffer(raw, np.uint8)), bitorder="little").tobytes()
    raw = zlib.compress(raw) if deflate else raw
    height, width = values.shape
    tags = {
        256: (4, width),
        257: (4, height),
        258: (3, bits),
        259: (3, 8 if deflate else 1),
        262: (3, white),
        266: (3, 2 if reverse else 1),
        273: (4, 0),
        277: (3, 1),
        278: (4, height),
        279: (4, len(raw)),
        339: (3, 2 if signed else 1),
    }
    tags[273] = (4, 8 + 2 + 12 * len(tags) + 4)
    entries = b"".join(
        struct.pack(f"{order}HHI", tag, kind, 1) + struct.pack(f"{order}{'H2x' if kind == 3 else 'I'}", value)
        for tag, (kind, value) in tags.items()
    )
    return (
        {"<": b"II*\0", ">": b"MM\0*"}[order]
        + struct.pack(f"{order}IH", 8, len(tags))
        + entries
        + bytes(4)
        + raw
    )


def png(
    values: Integers, bits: int, color: int, clear: Integers | None = None, palette: bytes = b""
) -> bytes:
    """A PNG file without filters, with a transparent color, written by hand from the specification."""
    height, width = values.shape[:2]
    rows = values.reshape(height, -1)
    raw = rows.astype(f">u{bits // 8}").tobytes() if bits >= 8 else packed(rows, bits)
    body = np.frombuffer(raw, np.uint8).reshape(height, -1)
    body = np.concatenate([np.zeros((height, 1), np.uint8), body], axis=1)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0))
        + (chunk(b"PLTE", palette) if palette else b"")
        + (b"" if clear is None else chunk(b"tRNS", clear.astype(">u2").tobytes()))
        + chunk(b"IDAT", zlib.compress(body.tobytes()))
        + chunk(b"IEND", b"")
    )


def gray_of(data: bytes) -> NDArray[np.uint8]:
    return decode(data, channels=1, shrink=lambda *_: 1, name="it").pixels[..., 0]


def full(data: bytes) -> NDArray[Any]:
    return read_image_file(data, max_pixels=10**6, name="it").pixels


def ramp(bits: int, *, signed: bool) -> Integers:
    """All of the range, with both its ends."""
    least, most = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    return np.linspace(least, most, SHAPE[0] * SHAPE[1]).round().astype(np.int64).reshape(SHAPE)


def shade(values: Integers, bits: int, *, signed: bool) -> NDArray[np.float64]:
    """0..255, as decode.py says: negative is black; 32 bits are read as 0..65535."""
    most = 65535 if bits == 32 else (1 << (bits - 1 if signed else bits)) - 1
    return np.asarray(values.clip(0, most) / most * 255)


UNSIGNED = [(bits, False) for bits in (1, 2, 4, 8, 12, 16, 32)]
SIGNED = [(bits, True) for bits in (8, 16, 32)]


@pytest.mark.parametrize(("bits", "signed"), UNSIGNED + SIGNED)
def test_gray_tiff_of_every_depth_sign_order_and_white(bits: int, signed: bool) -> None:
    values = ramp(bits, signed=signed)
    if bits == 32:  # some of it lies in the range that is shown
        values[1::2] = np.linspace(0, 65535, values[1::2].size).astype(np.int64).reshape(-1, SHAPE[1])
    expected = shade(values, bits, signed=signed)
    for order, white, deflate, reverse in itertools.product("<>", (0, 1), (False, True), (False, True)):
        data = tiff(values, bits, order=order, white=white, signed=signed, deflate=deflate, reverse=reverse)
        what = f"{order} {bits} bits, signed {signed}, photometric {white}, {deflate=}, {reverse=}"
        try:
            pixels = gray_of(data)
        except ImageError as error:  # some have no reader: then no pixels at all
            assert reverse or bits == 12, what
            assert "unsupported variant" in str(error), what  # noqa: PT017
            continue
        shown = expected if white else 255 - expected
        assert np.abs(pixels - shown).max() <= 0.5 + 1e-9, what
        np.testing.assert_array_equal(decode_rgb(data, name="it"), np.repeat(pixels[..., None], 3, axis=2))
        if bits >= 8 and bits != 12 and not reverse:  # somebody else reads the same values from the file
            np.testing.assert_array_equal(tifffile.imread(io.BytesIO(data)), values)


@pytest.mark.parametrize(("bits", "signed"), UNSIGNED + SIGNED)
def test_a_gray_tiff_is_denoised_in_its_own_values_or_refused(bits: int, signed: bool) -> None:
    values = ramp(bits, signed=signed)
    for order, white, deflate in itertools.product("<>", (0, 1), (False, True)):
        data = tiff(values, bits, order=order, white=white, signed=signed, deflate=deflate)
        if signed or bits in (12, 32):
            with pytest.raises(ImageError, match=r"bits?|unsupported variant"):
                full(data)
            continue
        pixels = full(data)
        largest = np.iinfo(pixels.dtype).max
        assert largest == (65535 if bits == 16 else 255)
        shown = values if white else (1 << bits) - 1 - values
        np.testing.assert_array_equal(pixels[..., 0], shown * (largest // ((1 << bits) - 1)))


@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize("extra", [None, "unspecified", "assocalpha", "unassalpha"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_color_tiff_of_every_layout_is_right_or_refused(planar: str, extra: Any, dtype: str) -> None:
    rng, top = np.random.default_rng(0), np.iinfo(dtype).max
    values = rng.integers(0, top + 1, (*SHAPE, 3 if extra is None else 4))
    if extra == "assocalpha":
        values[..., :3] = values[..., :3] * values[..., 3:] // top
    share = values / top
    alpha = share[..., 3:] if extra in ("assocalpha", "unassalpha") else np.ones((*SHAPE, 1))
    over_white = share[..., :3] * (1 if extra == "assocalpha" else alpha) + 1 - alpha
    stored = values if planar == "contig" else np.moveaxis(values, -1, 0)
    read = 0
    for order, compression, rows in itertools.product("<>", (None, "zlib"), (None, 3)):
        out = io.BytesIO()
        options: dict[str, Any] = {"photometric": "rgb", "planarconfig": planar, "rowsperstrip": rows}
        options |= {"byteorder": order, "compression": compression}
        tifffile.imwrite(
            out, stored.astype(f"{order}{dtype}"), extrasamples=[extra] if extra else None, **options
        )
        try:
            pixels = decode_rgb(out.getvalue(), name="it")
        except ImageError:
            assert (planar, compression) == ("separate", None)
        else:
            # Upper bytes alone: up to one step off, three where they are divided by alpha.
            assert np.abs(pixels - over_white * 255).max() <= (3 if dtype == "u2" else 1.01), options
        try:
            whole = full(out.getvalue())
        except ImageError as error:
            assert planar == "separate" or dtype == "u2" or extra == "unspecified", (options, error)  # noqa: PT017
            continue
        read += 1
        if extra == "assocalpha":
            opaque = whole[..., :3] * (whole[..., 3:] / top)
            assert np.abs(opaque - values[..., :3]).max() <= 1
        else:
            np.testing.assert_array_equal(whole, values)
    assert read or planar == "separate" or extra in ("unspecified", "assocalpha")


@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_tiff_of_four_inks_is_right_or_refused(planar: str, dtype: str) -> None:
    rng, top = np.random.default_rng(0), np.iinfo(dtype).max
    values = rng.integers(0, top + 1, (*SHAPE, 4))
    ink = values / top
    expected = (1 - ink[..., :3]) * (1 - ink[..., 3:]) * 255
    stored = values if planar == "contig" else np.moveaxis(values, -1, 0)
    for order, compression in itertools.product("<>", (None, "zlib")):
        out, options = io.BytesIO(), {"byteorder": order, "compression": compression}
        data = stored.astype(f"{order}{dtype}")
        tifffile.imwrite(out, data, photometric="separated", planarconfig=planar, **options)  # type: ignore[arg-type]
        if (planar, dtype, compression) == ("separate", "u2", None):
            with pytest.raises(ImageError, match="unsupported variant"):
                decode_rgb(out.getvalue(), name="it")
            continue
        error = np.abs(decode_rgb(out.getvalue(), name="it") - expected).max()
        assert error <= (2 if dtype == "u2" else 0.51), options


def test_tiff_with_a_palette_is_right_in_every_order() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, SHAPE).astype(np.uint8)
    colors = rng.integers(0, 65536, (3, 256)).astype(np.uint16)
    for order, compression in itertools.product("<>", (None, "zlib")):
        out, options = io.BytesIO(), {"byteorder": order, "compression": compression}
        tifffile.imwrite(out, values, photometric="palette", colormap=colors, **options)  # type: ignore[arg-type]
        np.testing.assert_array_equal(decode_rgb(out.getvalue(), name="it"), colors.T[values] >> 8)


PNG_KINDS = [(bits, 0) for bits in (1, 2, 4, 8, 16)] + [(8, 2), (16, 2), (8, 4), (16, 4), (8, 6), (16, 6)]


@pytest.mark.parametrize("clear", [False, True])
@pytest.mark.parametrize(("bits", "color"), PNG_KINDS)
def test_png_of_every_depth_color_and_transparent_color(bits: int, color: int, clear: bool) -> None:
    if clear and color > 2:
        pytest.skip("alpha and a transparent color exclude each other")
    rng, top = np.random.default_rng(bits), (1 << bits) - 1
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[color]
    values = rng.integers(0, top + 1, (*SHAPE, channels))
    if bits == 16 and clear:  # neighbors of the transparent color, equal in the upper byte
        values[1] = values[3, 5] ^ 1
    colors, alpha = (values, None) if color < 4 else (values[..., :-1], values[..., -1:])
    if clear:
        alpha = np.where((values == values[3, 5]).all(axis=2, keepdims=True), 0, top)
    opacity = np.ones((*SHAPE, 1)) if alpha is None else alpha / top
    # Only the lower bits of the transparent color count.
    data = png(values, bits, color, values[3, 5] + ((1 << bits) * (1 < bits < 16)) if clear else None)
    expected = np.broadcast_to((colors / top) * opacity + 1 - opacity, (*SHAPE, 3)) * 255
    worst = np.abs(decode_rgb(data, name="it") - expected).max()
    assert worst <= (0.5 + 1e-9 if bits < 16 or color == 0 else 2)
    whole = full(data)
    largest = np.iinfo(whole.dtype).max
    assert largest == (65535 if bits == 16 else 255)
    both = colors if alpha is None else np.concatenate([colors, alpha], axis=2)
    np.testing.assert_array_equal(whole, both * (largest // top))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_png_with_a_palette_of_every_depth(bits: int) -> None:
    rng = np.random.default_rng(bits)
    values = rng.integers(0, 1 << bits, (*SHAPE, 1))
    colors = rng.integers(0, 256, (1 << bits, 3)).astype(np.uint8)
    data = png(values, bits, 3, palette=colors.tobytes())
    np.testing.assert_array_equal(decode_rgb(data, name="it"), colors[values[..., 0]])
    if bits > 1:
        np.testing.assert_array_equal(full(data), colors[values[..., 0]])


def test_strips_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    files = [
        png(rng.integers(0, 1 << bits, (37, 16, {0: 1, 2: 3, 4: 2, 6: 4}[color])), bits, color)
        for bits, color in PNG_KINDS
    ]
    deep = ramp(16, signed=False)
    files.append(png(deep[..., None], 16, 0, deep[2, 2, None]))
    files += [
        tiff(ramp(bits, signed=signed), bits, order=">", white=0, signed=signed, deflate=True)
        for bits, signed in UNSIGNED + SIGNED
        if bits != 12
    ]
    whole = [(gray_of(data), decode_rgb(data, name="it")) for data in files]
    monkeypatch.setattr("lookalike.encoder.images.samples._STRIP", 40)
    for data, (gray, rgb) in zip(files, whole, strict=True):
        np.testing.assert_array_equal(gray_of(data), gray)
        np.testing.assert_array_equal(decode_rgb(data, name="it"), rgb)
