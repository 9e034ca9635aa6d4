"""A large picture in tiles is the picture in one piece, in memory that does not grow with it."""

import io
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lookalike.encoder.runtime import Denoiser
from lookalike.searcher.denoising import UNetDenoiser, denoise_in_place, estimate_sigma
from lookalike.searcher.denoising import denoiser as module
from tests.fixtures.handmade_models import make_cleaner

SIGMA = 30 / 255


@pytest.fixture(scope="module", params=[(4, 3, 7), (1, 3, 7), (8, 20, 41), (2, 0, 1)])
def cleaner(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Denoiser:
    multiple, reach, box = request.param
    made = make_cleaner(tmp_path_factory.mktemp("c") / "box", multiple=multiple, reach=reach, box=box)
    return Denoiser(made, threads=1)


def noisy(height: int, width: int, channels: int = 3, dtype: Any = np.uint16) -> Any:
    rng = np.random.default_rng(height)
    values = 0.5 + rng.normal(size=(height, width, channels)) * SIGMA
    return (values.clip(0, 1) * np.iinfo(dtype).max).astype(dtype)


def whole(cleaner: Denoiser, pixels: Any, sigma: float = SIGMA) -> Any:
    top = np.float32(np.iinfo(pixels.dtype).max)
    made = cleaner.denoise((pixels.astype(np.float32) / top)[None], np.array([sigma], np.float32))[0]
    return np.rint(made.clip(0, 1) * top).astype(pixels.dtype)


@pytest.mark.parametrize("side", [60, 64, 100])
@pytest.mark.parametrize(
    ("height", "width"), [(120, 180), (61, 300), (300, 61), (1, 700), (700, 1), (181, 179), (64, 64)]
)
def test_tiles_are_the_whole(
    cleaner: Denoiser, height: int, width: int, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MIN_INSIDE", 16)
    pixels = noisy(height, width)
    expected = whole(cleaner, pixels)
    denoise_in_place(cleaner, pixels, SIGMA, tile_size=side)
    # A step of rounding, of 65,535: a seam would be hundreds.
    assert np.abs(pixels.astype(int) - expected.astype(int)).max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_eight_bits_threads_and_views_give_the_same(
    cleaner: Denoiser, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MIN_INSIDE", 16)
    pixels = noisy(150, 170, channels + 1, np.uint8)
    alpha, expected = pixels[..., -1].copy(), whole(cleaner, pixels[..., :-1])
    with ThreadPoolExecutor(3) as pool:
        denoise_in_place(cleaner, pixels[..., :-1], SIGMA, tile_size=90, map_tiles=pool.map)
    assert np.abs(pixels[..., :-1].astype(int) - expected.astype(int)).max() <= 1
    np.testing.assert_array_equal(pixels[..., -1], alpha)


def test_strength_is_a_share_of_what_goes(cleaner: Denoiser) -> None:
    before = noisy(64, 64)
    made = {}
    for strength in (0.0, 0.5, 1.0):
        made[strength] = before.copy()
        denoise_in_place(cleaner, made[strength], SIGMA, strength=strength)
    np.testing.assert_array_equal(made[0.0], before)
    middle = (before.astype(float) + made[1.0]) / 2
    np.testing.assert_allclose(made[0.5], middle, atol=1.01)


def test_noise_of_a_large_picture_is_found_in_parts(cleaner: Denoiser) -> None:
    for height, width in ((900, 1100), (5, 90_000), (90_000, 5)):
        pixels = noisy(height, width, 1, np.uint8)
        assert estimate_sigma(cleaner, pixels) == pytest.approx(SIGMA, rel=0.2)  # strips are mostly edge


def peak_of(cleaner: Denoiser, height: int, width: int) -> int:
    pixels = noisy(height, width, 3, np.uint8)
    tracemalloc.start()
    denoise_in_place(cleaner, pixels, SIGMA, tile_size=256)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize("cleaner", [(4, 3, 7)], indirect=True)
def test_memory_does_not_grow_with_height(cleaner: Denoiser) -> None:
    peak_of(cleaner, 300, 600)  # sessions are opened
    low, high = peak_of(cleaner, 600, 600), peak_of(cleaner, 6000, 600)
    assert high < 1.1 * low + 100_000


@pytest.mark.slow
def test_a_hundred_megapixels_take_no_more_than_their_bytes(tmp_path: Path) -> None:
    cleaner = Denoiser(make_cleaner(tmp_path / "box"), threads=1)
    pixels = np.random.default_rng(0).integers(0, 256, (10_000, 10_000, 3), dtype=np.uint8)
    denoise_in_place(cleaner, pixels[:1000, :1000].copy(), SIGMA)
    tracemalloc.start()
    assert estimate_sigma(cleaner, pixels) > 0.1
    denoise_in_place(cleaner, pixels, SIGMA)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 120_000_000  # 300 MB are the picture's own; as floats it would be 1,200 MB


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_gray_stored_as_rgb_stays_gray(kind: str, alpha: bool) -> None:
    if alpha and kind == "JPEG":
        return
    rng = np.random.default_rng(0)
    gray = np.clip(120 + rng.normal(0, 25, (48, 64, 1)), 0, 255).astype(np.uint8)
    pixels = np.concatenate([gray] * 3 + [np.full_like(gray, 200)] * alpha, axis=2)
    out, one = io.BytesIO(), io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    Image.fromarray(gray[..., 0]).save(one, "PNG")
    denoise = UNetDenoiser(denoiser=Denoiser.open("denoise", threads=1), max_pixels=10**6)
    done = denoise(out.getvalue(), "it")
    assert done.status == "cleaned"
    colors = np.asarray(Image.open(io.BytesIO(done.data)))
    assert (colors[..., :3] == colors[..., :1]).all()
    if kind != "JPEG":  # and is what the same scan in one channel becomes
        alone = np.asarray(Image.open(io.BytesIO(denoise(one.getvalue(), "it").data)))
        np.testing.assert_array_equal(colors[..., 0], alone)
        assert not alpha or (colors[..., 3] == 200).all()
