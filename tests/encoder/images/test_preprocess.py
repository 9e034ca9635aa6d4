"""Crops, specs and the pixels a model gets."""

import io
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from skimage.data import astronaut

from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.images import (
    Crop,
    ImageSpec,
    PixelBudget,
    decode_rgb,
    decoded_rgb,
    encode_png,
    read_pixels,
    to_uint8,
)

PHOTOGRAPH: NDArray[np.uint8] = astronaut()  # type: ignore[no-untyped-call]  # scikit-image is half typed
"""Eileen Collins (NASA, public domain), 512x512."""
LFW_CROP = Crop.parse("center:0.36")


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=95)
    return out.getvalue()


def face_sized() -> NDArray[np.uint8]:
    """The astronaut (NASA, public domain) at the size of an LFW picture, 250x250."""
    return np.array(Image.fromarray(PHOTOGRAPH).resize((250, 250)))


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    error = np.mean((a.astype(float) - b) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


@pytest.mark.parametrize(
    ("text", "size", "box"),
    [
        ("full", (250, 250), (0, 0, 250, 250)),
        ("full", (400, 300), (50, 0, 350, 300)),
        ("center:1", (300, 400), (0, 50, 300, 350)),
        ("center:0.36", (250, 250), (80, 80, 170, 170)),
        ("center:0.5", (100, 101), (25, 25.5, 75, 75.5)),
        ("0,0,1,1", (400, 300), (0, 0, 400, 300)),
        ("0.1,0.2,0.3,0.4", (100, 10), (10, 2, 40, 6)),
        ("0.7,0.7,0.3,0.3", (9, 9), (6.3, 6.3, 9, 9)),
    ],
)
def test_boxes_worked_by_hand(text: str, size: tuple[int, int], box: tuple[float, ...]) -> None:
    assert Crop.parse(text).box(*size) == box


@given(st.floats(0.01, 1), st.integers(1, 9000), st.integers(1, 9000))
def test_a_centred_crop_is_a_square_inside_the_picture(fraction: float, width: int, height: int) -> None:
    left, top, right, bottom = Crop(fraction=fraction).box(width, height)
    assert right - left == pytest.approx(bottom - top, abs=1e-5)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


@given(
    st.floats(0.01, 1)
    | st.tuples(st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0.01, 0.5), st.floats(0.01, 0.5))
)
def test_crops_survive_being_written(value: float | tuple[float, float, float, float]) -> None:
    crop = Crop(window=value) if isinstance(value, tuple) else Crop(fraction=value)
    assert Crop.parse(str(crop)) == crop
    spec = ImageSpec(size=64, channels=1, crop=crop)
    assert ImageSpec.from_json(spec.to_json()) == spec


def test_canonical_text() -> None:
    texts = {"center:1": "full", " CENTER:0.360 ": "center:0.36", "0,0.0,1.0,.5": "0,0,1,0.5"}
    assert {text: str(Crop.parse(text)) for text in texts} == texts


@pytest.mark.parametrize(
    "text",
    [
        *("", "centre", "center:", "center:0", "center:1.1", "center:nan", "center:-1", "center:\n1\x1b"),
        *("middle", "full:1", "1,2", "0,0,0,1", "0.5,0,0.6,1", "-0.1,0,0.5,0.5", "0,0,1,inf", "nan,0,1,1"),
        "0,0,1,1,1",
    ],
)
def test_crops_that_cannot_be(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^crop: ") as caught:
        Crop.parse(text)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("size", [7, 1025, 0, -1])
def test_sizes_that_cannot_be(size: int) -> None:
    with pytest.raises(
        InvalidArgumentError, match=rf"size must be a whole number of pixels from 8 to 1024, not {size}$"
    ):
        ImageSpec(size=size)


@pytest.mark.parametrize(
    "change",
    [
        *({"size": 64.0}, {"size": True}, {"size": "64"}, {"channels": 2}, {"channels": True}),
        *({"crop": None}, {"crop": "all"}, {"colour": 1}, {"quick_jpeg": 1}),
    ],
)
def test_specs_that_cannot_be_read(change: dict[str, object]) -> None:
    with pytest.raises(InvalidArgumentError):
        ImageSpec.from_json(ImageSpec(size=64).to_json() | change)
    with pytest.raises(InvalidArgumentError, match="unknown or missing: size"):
        ImageSpec.from_json({"channels": 3, "crop": "full"})


def test_pixels_belong_to_the_caller() -> None:
    for size in (45, 90, 180):  # reduced, taken as they are, enlarged
        got = read_pixels(jpeg(face_sized()), ImageSpec(size=size, crop=LFW_CROP), name="x")
        assert got.shape == (size, size, 3)
        assert got.flags.c_contiguous
        assert got.flags.owndata
        assert got.flags.writeable


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [16, 32, 45, 64, 100, 200, 300])
@pytest.mark.parametrize("crop", ["full", "center:0.36", "0.1,0.2,0.7,0.5"])
def test_jpeg_agrees_with_the_full_decode(size: int, channels: int, crop: str) -> None:
    data = jpeg(face_sized())
    spec = ImageSpec.from_json({"size": size, "channels": channels, "crop": crop})
    fast = read_pixels(data, spec, name="x")
    slow = read_pixels(encode_png(decode_rgb(data, name="x")), spec, name="x")
    assert fast.shape == slow.shape == spec.shape
    assert psnr(fast, slow) > 44


def test_quick_jpeg_is_as_large_as_needed_and_no_larger() -> None:
    data, spec = jpeg(face_sized()), ImageSpec(size=45, crop=LFW_CROP)
    quick = replace(spec, quick_jpeg=True)
    assert "quick_jpeg" not in spec.to_json()  # what older versions wrote and read
    assert ImageSpec.from_json(quick.to_json()) == quick
    exact, near = (read_pixels(data, each, name="x") for each in (spec, quick))
    assert 30 < psnr(near, exact) < 60
    png = encode_png(decode_rgb(data, name="x"))
    np.testing.assert_array_equal(read_pixels(png, quick, name="x"), read_pixels(png, spec, name="x"))
    whole = ImageSpec(size=250, quick_jpeg=True)  # nothing to gain: the same pixels
    np.testing.assert_array_equal(
        read_pixels(data, whole, name="x"), read_pixels(data, replace(whole, quick_jpeg=False), name="x")
    )


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 3), (17, 9), (8, 8), (9, 8)])
@pytest.mark.parametrize("crop", ["full", "center:0.01", "0.99,0,0.01,1", "0,0,1,1"])
def test_pictures_of_any_shape(size: tuple[int, int], crop: str) -> None:
    image = np.full((size[1], size[0], 3), (200, 100, 50), np.uint8)
    spec = ImageSpec(size=8, crop=Crop.parse(crop))
    for data in (jpeg(image), encode_png(image)):
        assert np.abs(read_pixels(data, spec, name="x").astype(int) - (200, 100, 50)).max() <= 3


def test_halving_weighs_four_neighbours_as_a_triangle_does() -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:, 6] = 128  # a line of one pixel, in columns 3 (weight 3/8) and 2 (1/8) of the half
    got = read_pixels(encode_png(pixels), ImageSpec(size=8), name="x")
    np.testing.assert_array_equal(got[0, :, 0], [0, 0, 16, 48, 0, 0, 0, 0])


def test_pixels_outside_the_crop_have_no_influence() -> None:
    pixels = face_sized()
    changed = 255 - pixels
    changed[80:170, 80:170] = pixels[80:170, 80:170]
    for size in (16, 45, 64, 90, 128):
        spec = ImageSpec(size=size, crop=LFW_CROP)
        np.testing.assert_array_equal(
            read_pixels(encode_png(pixels), spec, name="x"), read_pixels(encode_png(changed), spec, name="x")
        )


def test_a_query_may_be_framed_otherwise() -> None:
    data = encode_png(face_sized())
    spec = ImageSpec(size=45, crop=LFW_CROP)
    np.testing.assert_array_equal(
        read_pixels(data, spec, crop=Crop(), name="x"), read_pixels(data, ImageSpec(size=45), name="x")
    )


def test_floats_are_rounded_and_clipped() -> None:
    values = np.array([[-1, 0, 0.4 / 255, 0.6 / 255, 0.5, 1, 2, np.nan, np.inf]], np.float32)
    np.testing.assert_array_equal(to_uint8(values), [[0, 0, 0, 1, 128, 255, 255, 0, 255]])
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_uint8(every.astype(np.float32) / np.float32(255)), every)


def test_png_keeps_every_pixel() -> None:
    pixels = face_sized()
    np.testing.assert_array_equal(decode_rgb(encode_png(pixels), name="x"), pixels)
    np.testing.assert_array_equal(decode_rgb(encode_png(pixels[:, :, :1]), name="x")[..., 2], pixels[..., 0])


def test_importing_brings_nothing_heavy() -> None:
    heavy = "{'torch', 'onnxruntime', 'qdrant_client', 'skimage', 'scipy'}"
    code = (
        "import sys, lookalike.encoder.images.preprocess, lookalike.encoder.images.contact_sheet; "
        f"sys.exit(bool({heavy} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


@pytest.mark.lfw
def test_real_faces_agree_with_pillow(lfw_folder: Path) -> None:
    spec = ImageSpec(size=45, crop=LFW_CROP)
    paths = sorted((lfw_folder / "lfw-deepfunneled").glob("A*/*.jpg"))[:100]
    assert len(paths) == 100
    for path in paths:
        data = path.read_bytes()
        pixels = read_pixels(data, spec, name=path.name)
        image = Image.open(io.BytesIO(data)).convert("RGB")
        reference = image.resize((45, 45), Image.Resampling.BILINEAR, box=(80, 80, 170, 170))
        assert psnr(pixels, np.asarray(reference)) > 40


def test_a_whole_image_counts_as_in_progress_until_the_block_ends() -> None:
    budget, entered = PixelBudget(100), threading.Event()
    data = encode_png(np.zeros((8, 10, 3), np.uint8))

    def other() -> None:
        with decoded_rgb(data, budget=budget, name="other"):
            entered.set()

    thread = threading.Thread(target=other)
    with decoded_rgb(data, budget=budget, name="x") as pixels:
        assert pixels.shape == (8, 10, 3)
        thread.start()
        assert not entered.wait(0.1)
    assert entered.wait(10)
    thread.join()
