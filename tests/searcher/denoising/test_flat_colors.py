"""Dithered, drawn and enlarged images are known, and stay as they are; noise of any kind is never one."""

import io
import itertools
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lookalike import encoder
from lookalike.encoder.images import Values
from lookalike.encoder.runtime import Denoiser
from lookalike.searcher.denoising import UNetDenoiser, estimate_noise, noise_map
from lookalike.searcher.denoising.flat_colors import (
    equal_cells,
    has_few_values,
    most_equal_neighbors,
    repeated_cells,
)
from tests.fixtures.handmade_models import make_denoiser
from tests.fixtures.photos import cuttings

Pixels = NDArray[np.uint8]
CELL = 8
FONT = Path(encoder.__file__).parent / "images" / "fonts" / "DejaVuSans.ttf"
WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "int main(void)",
    "{ return 0; }",
]


@pytest.fixture(scope="module")
def denoise(tmp_path_factory: pytest.TempPathFactory) -> UNetDenoiser:
    """Its estimator takes any edge for noise, so that only what is known for a drawing is left."""
    made = make_denoiser(tmp_path_factory.mktemp("model") / "box", multiple=CELL)
    return UNetDenoiser(denoiser=Denoiser(made, threads=1), max_pixels=10**6)


def image(number: int) -> Image.Image:
    return Image.fromarray(cuttings()[number].astype(np.uint8))


def file_of(image: Image.Image, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


def halftone(gray: Pixels, levels: int = 2) -> Image.Image:
    """An ordered dither with Bayer's matrix of 4 x 4, to so many levels."""
    bayer = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]]) / 16
    thresholds = np.tile(bayer, (gray.shape[0] // 4, gray.shape[1] // 4))
    steps = np.floor(gray / 255 * (levels - 1) + thresholds).clip(0, levels - 1)
    return Image.fromarray(np.rint(steps * 255 / (levels - 1)).astype(np.uint8))


def screenshot() -> Image.Image:
    window = Image.new("RGB", (200, 120), (240, 240, 245))
    draw = ImageDraw.Draw(window)
    draw.rectangle((0, 0, 199, 18), (30, 60, 120))
    for line in range(8):
        draw.text((6, 22 + 12 * line), f"line {line}: The quick brown fox", (20, 20, 30))
    return window


@cache
def drawings() -> dict[str, Image.Image]:
    found = {"screenshot": screenshot(), "cartoon": Image.new("RGB", (40, 30), (255, 200, 0))}
    for number in (4, 5):
        photo = image(number)
        gray = np.asarray(photo.convert("L"))
        found[f"Floyd-Steinberg {number}"] = photo.convert("1").convert("L")
        found[f"web palette {number}"] = photo.convert("P", palette=Image.Palette.WEB)
        found[f"8 colors {number}"] = photo.quantize(8)
        found[f"256 colors {number}"] = photo.quantize(256)
        found[f"256 colors, octree {number}"] = photo.quantize(256, method=Image.Quantize.FASTOCTREE)
        for levels in (2, 3, 4, 8, 16):
            found[f"halftone of {levels} {number}"] = halftone(gray, levels)
            palette = Image.new("P", (1, 1))
            palette.putpalette([round(255 * level / (levels - 1)) for level in range(levels) for _ in "rgb"])
            found[f"dither of {levels} {number}"] = (
                photo.convert("RGB").quantize(palette=palette).convert("L")
            )
    return found


@pytest.mark.parametrize("name", drawings())
def test_drawn_and_dithered_images_stay_as_they_are(denoise: UNetDenoiser, name: str) -> None:
    drawing = drawings()[name]
    for mode in {drawing.mode, "RGB", "RGBA"}:
        data = file_of(drawing.convert(mode))
        done = denoise(data, "it")
        assert (done.status, done.reason) == ("clean", "few colors")
        assert done.data == data
        assert done.noise is not None
        assert done.noise.drawn
        assert done.noise.percentile(100) == 0
        assert done.change is not None
        assert done.change.share == 0


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "PPM"])
@pytest.mark.parametrize("how", ["threshold", "error diffusion", "ordered"])
def test_dithers_of_one_bit_stay_as_they_are(denoise: UNetDenoiser, kind: str, how: str) -> None:
    gray = image(4).convert("L").crop((0, 0, 92, 76))
    if how == "ordered":
        gray = halftone(np.asarray(gray))
    dither = gray.convert(
        "1", dither=Image.Dither.FLOYDSTEINBERG if "diffusion" in how else Image.Dither.NONE
    )
    data = file_of(dither, kind)
    done = denoise(data, "it")
    assert (done.status, done.reason, done.data == data) == ("clean", "few colors", True)
    for changed in (replace(denoise, kind="TIFF" if kind == "PNG" else "PNG"), replace(denoise, sigma=0.0)):
        with Image.open(io.BytesIO(changed(data, "it").data)) as back:
            np.testing.assert_array_equal(np.asarray(back.convert("L")), np.asarray(dither.convert("L")))


def pixel_art(height: int, width: int, *, outlined: bool, channels: int = 3) -> Pixels:
    """Sprites of random colors, thousands of them, perhaps with black outlines."""
    rng = np.random.default_rng(height)
    art = rng.integers(1, 255, (height, width, channels), np.uint8)
    if outlined:
        art[::9], art[:, ::11] = 0, 0
    return art


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("factor", range(2, 9))
def test_enlarged_pixels_stay_as_they_are(denoise: UNetDenoiser, factor: int, channels: int) -> None:
    art = pixel_art(40, 51, outlined=False, channels=channels)
    large = art.repeat(factor, 0).repeat(factor, 1)
    assert not has_few_values(large)
    assert repeated_cells(large, CELL).all()
    data = file_of(Image.fromarray(large[..., 0] if channels == 1 else large))
    done = denoise(data, "it")
    assert (done.status, done.reason, done.data == data) == ("clean", "no noise", True)
    outlined = pixel_art(36, 44, outlined=True, channels=channels).repeat(factor, 0).repeat(factor, 1)
    # A cell may show only the rim of a sprite: nothing is repeated there.
    assert repeated_cells(outlined, CELL).mean() > 0.94
    assert repeated_cells(outlined.astype(np.uint16) * 257, CELL).mean() > 0.94


def test_only_the_enlarged_part_of_an_image_is_left() -> None:
    large = pixel_art(24, 24, outlined=False).repeat(4, 0).repeat(4, 1)  # (96, 96, 3)
    large[:, 48:] = with_noise(np.full((96, 48, 3), 0.5), 10)
    repeated = repeated_cells(large, CELL)
    assert repeated[:, :6].all()
    assert not repeated[:, 6:].any()


# Noise is no drawing


def with_noise(clean: NDArray[np.float64], sigma: float, dtype: type = np.uint8) -> Values:
    rng = np.random.default_rng(round(sigma))
    most = np.iinfo(dtype).max
    noisy: Values = np.rint((clean + rng.normal(0, sigma / 255, clean.shape)).clip(0, 1) * most).astype(dtype)
    return noisy


def digit(side: int) -> NDArray[np.float64]:
    """A stroke on black as MNIST has them, (side, side, 1)."""
    canvas = Image.new("L", (4 * side, 4 * side))
    ImageDraw.Draw(canvas).arc((side, side, 3 * side, 3 * side), 30, 300, 255, width=max(1, side // 3))
    return np.asarray(canvas.resize((side, side), Image.Resampling.BICUBIC), np.float64)[..., None] / 255


def scenes(side: int) -> dict[str, NDArray[np.float64]]:
    """Clean images in [0, 1], (side, side, 1 or 3), that noise is put on."""
    rows, columns = np.mgrid[:side, :side] / side
    board = ((rows * side // 4 + columns * side // 4) % 2)[..., None]
    disk = (np.hypot(rows - 0.5, columns - 0.5) < 0.25).astype(float)[..., None]
    found = {
        "digit": digit(side),
        "gradient": (rows + columns)[..., None] / 2,
        "board": board,
        "disk": disk,
        "red": np.broadcast_to([1.0, 0, 0], (side, side, 3)),
        "colored board": board * [1.0, 0.3, 0] + (1 - board) * [0, 0.2, 1.0],
        "colored disk": disk * [1.0, 1, 0] + (1 - disk) * [0.1, 0, 0],
    }
    for level in (0, 3 / 255, 0.1, 0.5, 1.0):
        for channels in (1, 3):
            found[f"flat {level:.2f} {channels}"] = np.full((side, side, channels), level)
    return found


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("sigma", [2, 3, 5, 10, 25, 50, 75])
@pytest.mark.parametrize("side", [8, 16, 28, 64, 200])
def test_noise_is_never_taken_for_a_drawing(side: int, sigma: float, dtype: type) -> None:
    wrong = []
    for name, clean in scenes(side).items():
        noisy = with_noise(clean, sigma, dtype)
        if has_few_values(noisy) or repeated_cells(noisy, CELL).any():
            wrong.append(name)
    assert wrong == []


@pytest.mark.parametrize("sigma", [2, 10, 75])
@pytest.mark.parametrize("number", range(0, 16, 5))
def test_noisy_photographs_are_never_taken_for_drawings(number: int, sigma: float) -> None:
    color = cuttings()[number] / 255
    for clean in (color, color.mean(2, keepdims=True), color[:31, :17]):
        for noisy in (with_noise(clean, sigma), with_noise(clean, sigma, np.uint16)):
            assert not has_few_values(noisy)
            assert not repeated_cells(noisy, CELL).any()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sigma", [2, 5, 40])
def test_a_clean_gradient_with_noise_in_a_quarter_is_no_drawing(sigma: float, channels: int) -> None:
    clean = np.repeat(np.tile(np.linspace(0, 1, 256), (256, 1))[..., None], channels, axis=2)
    quarter = np.rint(clean * 255).astype(np.uint8)
    quarter[:, 64:128] = with_noise(clean, sigma)[:, 64:128]
    assert not has_few_values(quarter)
    assert not repeated_cells(quarter, CELL)[:, 8:16].any()


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 3), (1, 7, 3), (9, 1, 1), (3, 3, 3), (8, 9, 1)])
def test_images_of_any_size_have_cells(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    height, width = (-(-side // CELL) for side in shape[:2])
    assert repeated_cells(pixels, CELL).shape == (height, width)
    assert isinstance(has_few_values(pixels), bool)


# Screenshots with smooth edges


def smooth_screenshot(
    *, page: str = "flat", dark: bool = False, scale: float = 1.0, size: tuple[int, int] = (256, 192)
) -> Image.Image:
    """Text, disks and a title bar, all antialiased; the title bar or the page may be a gradient."""
    rng = np.random.default_rng(len(page) + dark)
    width, height = size
    back, ink = ((30, 31, 36), (215, 216, 220)) if dark else ((248, 248, 252), (35, 35, 40))
    slope = np.linspace((70, 110, 190), (20, 50, 110), height if page == "gradient" else 30)
    window = np.full((height, width, 3), back, np.uint8)
    if page != "flat":
        window[: len(slope)] = np.rint(slope)[:, None]
    drawn = Image.fromarray(window)
    for _ in range(5):
        mask = Image.new("L", (4 * width, 4 * height))
        left, top, side = (int(rng.integers(most)) for most in (4 * width, 4 * height, 200))
        ImageDraw.Draw(mask).ellipse((left, top, left + side + 40, top + side + 40), 255)
        drawn.paste(tuple(rng.integers(0, 256, 3).tolist()), mask=mask.resize(size, Image.Resampling.BOX))
    draw, font = ImageDraw.Draw(drawn), ImageFont.truetype(str(FONT), 11)
    for row in range(36, height - 14, 13):
        color = ink if rng.random() < 0.7 else tuple(rng.integers(0, 256, 3).tolist())
        draw.text((6, row), " ".join(rng.choice(WORDS, 9)), color, font=font)
    draw.text((8, 8), "Window title", (240, 240, 255), font=font)
    return drawn.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("scale", [0.8, 1.0, 1.25])
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("page", ["flat", "title bar", "gradient"])
def test_smooth_screenshots_stay_as_they_are(
    denoise: UNetDenoiser, page: str, dark: bool, scale: float
) -> None:
    window = smooth_screenshot(page=page, dark=dark, scale=scale)
    assert not has_few_values(np.asarray(window))
    for each in (window, window.convert("L")):
        data = file_of(each)
        done = denoise(data, "it")
        assert (done.status, done.reason, done.data == data) == ("clean", "no noise", True)
        assert done.sigma == 0


@pytest.mark.parametrize(
    ("page", "dark", "scale"),
    [("flat", True, 0.8), ("flat", False, 1.25), ("title bar", False, 1.25), ("gradient", False, 1.25)],
)
def test_the_denoiser_of_this_package_leaves_smooth_screenshots(page: str, dark: bool, scale: float) -> None:
    data = file_of(smooth_screenshot(page=page, dark=dark, scale=scale))
    done = UNetDenoiser(denoiser=Denoiser.open("denoise", threads=1), max_pixels=10**6)(data, "it")
    assert (done.status, done.data == data) == ("clean", True)


@pytest.mark.parametrize("sigma", [10, 25, 50])
@pytest.mark.parametrize("page", ["flat", "gradient"])
def test_a_screenshot_with_noise_is_denoised(denoise: UNetDenoiser, page: str, sigma: float) -> None:
    clean = np.asarray(smooth_screenshot(page=page)) / 255
    for part in (clean, clean[..., :1]):
        for dtype in (np.uint8, np.uint16):
            noisy = with_noise(part, sigma, dtype)
            assert not estimate_noise(denoise.denoiser, noisy).is_clean


@pytest.mark.parametrize("quality", [None, 70])
@pytest.mark.parametrize("rim", [None, 0, 255])
@pytest.mark.parametrize("number", [0, 10])
def test_noisy_photographs_are_no_screenshots(
    denoise: UNetDenoiser,
    number: int,
    rim: int | None,
    quality: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    color = cuttings()[number] / 255
    found, alone = [], []
    for sigma, clean in itertools.product((15, 40), (color, color.mean(2, keepdims=True))):
        noisy = with_noise(clean, sigma)
        if rim is not None:  # black and white say nothing, as noise ends there
            wide = np.pad(noisy, ((32, 32), (32, 32), (0, 0)), constant_values=rim)
            noisy = wide.astype(np.uint8)
        if quality is not None:
            out = io.BytesIO()
            Image.fromarray(noisy[..., 0] if noisy.shape[2] == 1 else noisy).save(
                out, "JPEG", quality=quality
            )
            noisy = np.asarray(Image.open(out)).reshape(noisy.shape)
        found.append(estimate_noise(denoise.denoiser, noisy).cells)
        with monkeypatch.context() as patch:
            patch.setattr(noise_map, "most_equal_neighbors", lambda *_: 1)  # nothing counts as a screenshot
            alone.append(estimate_noise(denoise.denoiser, noisy).cells)
    for cells, expected in zip(found, alone, strict=True):
        np.testing.assert_array_equal(cells, expected)
        assert quality is not None or np.percentile(cells, 90) > 4 / 255


def test_a_noisy_photograph_in_a_screenshot_is_denoised(denoise: UNetDenoiser) -> None:
    window = np.array(smooth_screenshot(size=(400, 300)))
    noisy = with_noise(cuttings()[5] / 255, 30)
    window[60:188, 40:168] = noisy
    assert estimate_noise(denoise.denoiser, window[60:188, 40:168]).percentile(50) > 15 / 255


def test_pixels_like_a_neighbor_are_counted_by_hand() -> None:
    rows = np.array([[9, 9, 9, 9], [9, 5, 5, 0], [9, 6, 5, 0], [7, 8, 255, 255]], np.uint8)
    equal, counted = equal_cells(rows[..., None], 4)
    # The first row and column do not count, and neither do black and white: 5 5 / 6 5 / 8 are left.
    assert (equal.tolist(), counted.tolist()) == ([[2 / 16]], [[5 / 16]])
    assert most_equal_neighbors(10 / 255, 3) == most_equal_neighbors(50 / 255, 1) == 0.25
    assert most_equal_neighbors(3.4 / 255, 1) == pytest.approx(0.5)


def test_cells_are_counted_by_hand() -> None:
    # One row, cells of 4: three pairs of neighbors in the first cell, four in each other.
    row = np.array([[5, 5, 5, 9, 9, 7, 7, 8, 0, 0, 0, 0, 3, 2, 1, 1]], np.uint8)[..., None]
    # Equal: 2 of 3; 2 of 4; black alone; 1 of 4.
    assert repeated_cells(row, 4).tolist() == [[True, True, True, False]]
    assert repeated_cells(row.transpose(1, 0, 2), 4).tolist() == [[True], [True], [True], [False]]


def test_few_values_are_counted_by_hand() -> None:
    def few(*values: int, channels: int = 1, pixels: int = 1024) -> bool:
        flat = np.resize(np.array(values, np.uint8), pixels)
        return has_few_values(np.repeat(flat.reshape(-1, 32)[..., None], channels, axis=2))

    assert few(7)
    assert few(0, 255)
    assert few(*range(0, 256, 17))  # 16 levels
    assert not few(*range(0, 255, 15))  # 17 levels
    assert not few(*range(100, 116))  # that follow one another
    assert not few(0, 1, 254, 255)
    assert few(*range(0, 256, 2), channels=3)  # 128 colors are one in eight pixels
    assert not few(*range(0, 256, 2), 1, channels=3)
    assert few(*range(0, 256, 16), channels=3, pixels=128)
    assert not few(*range(0, 256, 16), channels=3, pixels=96)
