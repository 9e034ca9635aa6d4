"""A large image in tiles is the image in one piece, in memory that does not grow with it."""

import io
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lookalike.encoder.images import encode_png
from lookalike.encoder.metrics import psnr_from_mse
from lookalike.encoder.runtime import Denoiser
from lookalike.searcher.denoising import (
    Change,
    NoiseMap,
    UNetDenoiser,
    denoise_in_place,
    denoise_pixels,
    estimate_noise,
    uniform_map,
)
from lookalike.searcher.denoising import tiles as module
from tests.fixtures.handmade_models import make_denoiser

SIGMA = 30 / 255
LIMIT = 2 / 255  # of the denoiser: places with less noise are clean


@pytest.fixture(scope="module", params=[(4, 3, 7), (1, 3, 7), (8, 20, 41), (2, 0, 1)])
def denoiser(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Denoiser:
    multiple, reach, box = request.param
    made = make_denoiser(tmp_path_factory.mktemp("c") / "box", multiple=multiple, reach=reach, box=box)
    return Denoiser(made, threads=1)


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Denoiser:
    """One whose cells are of 4 pixels, in multiples of 8."""
    return Denoiser(make_denoiser(tmp_path_factory.mktemp("b") / "box", multiple=8, cell=4), threads=1)


def noisy(height: int, width: int, channels: int = 3, dtype: Any = np.uint16) -> Any:
    rng = np.random.default_rng(height)
    values = 0.5 + rng.normal(size=(height, width, channels)) * SIGMA
    return (values.clip(0, 1) * np.iinfo(dtype).max).astype(dtype)


def uneven(shape: tuple[int, ...], cell: int, *, clean_below: float = LIMIT) -> NoiseMap:
    """A map with clean places, noisy ones, and some between."""
    height, width = (-(-side // cell) for side in shape[:2])
    cells = np.random.default_rng(width).choice([0, 0.5, 1.2, 1.7, 3, 20], (height, width)) * LIMIT
    return NoiseMap(cells.astype(np.float32), cell, clean_below)


def whole(denoiser: Denoiser, pixels: Any, noise: NoiseMap, *, strength: float = 1.0) -> Any:
    """The image in one piece, as is documented: the map, the network, the blend."""
    most = np.iinfo(pixels.dtype).max
    floats = pixels.astype(np.float32) / np.float32(most)
    sigma = noise.sigma(range(pixels.shape[0]), range(pixels.shape[1]))
    given = (sigma * max(strength, 1)).clip(0, denoiser.spec.deviations[1]).astype(np.float32)
    weight = noise.weight(sigma)[..., None] * min(strength, 1)
    output = denoiser.denoise(floats[None], given[None])[0]
    return np.rint((floats + weight * (output - floats)).clip(0, 1) * most).astype(pixels.dtype)


def steps_between(one: Any, other: Any) -> int:
    """The largest difference, in steps of the image's depth."""
    return int(np.abs(one.astype(int) - other.astype(int)).max())


@pytest.mark.parametrize(("side", "where"), [(60, "in places"), (64, "everywhere"), (100, "in places")])
@pytest.mark.parametrize(
    ("height", "width"),
    [(120, 180), (61, 300), (300, 61), (1, 700), (700, 1), (181, 179), (64, 64), (1, 1), (2, 3)],
)
def test_tiles_are_the_whole(
    denoiser: Denoiser, height: int, width: int, side: int, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MIN_INSIDE", 16)
    pixels, cell = noisy(height, width), denoiser.spec.cell
    noise = uniform_map(SIGMA, pixels.shape, cell) if where == "everywhere" else uneven(pixels.shape, cell)
    expected = whole(denoiser, pixels, noise)
    denoise_in_place(denoiser, pixels, noise, tile_size=side)
    # A step of rounding, of 65,535: a seam would be hundreds.
    assert steps_between(pixels, expected) <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_eight_bits_threads_and_views_give_the_same(
    denoiser: Denoiser, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MIN_INSIDE", 16)
    pixels = noisy(150, 170, channels + 1, np.uint8)
    noise = uneven(pixels.shape, denoiser.spec.cell)
    alpha, expected = pixels[..., -1].copy(), whole(denoiser, pixels[..., :-1], noise)
    with ThreadPoolExecutor(3) as pool:
        denoise_in_place(denoiser, pixels[..., :-1], noise, tile_size=90, map_tiles=pool.map)
    assert steps_between(pixels[..., :-1], expected) <= 1
    np.testing.assert_array_equal(pixels[..., -1], alpha)


def test_strength_is_a_share_of_what_goes(denoiser: Denoiser) -> None:
    before = noisy(64, 64)
    noise = uneven(before.shape, denoiser.spec.cell)
    made = {}
    for strength in (0.0, 0.5, 1.0):
        made[strength] = before.copy()
        denoise_in_place(denoiser, made[strength], noise, strength=strength)
    np.testing.assert_array_equal(made[0.0], before)
    middle = (before.astype(float) + made[1.0]) / 2
    np.testing.assert_allclose(made[0.5], middle, atol=1.01)


@pytest.mark.parametrize("strength", [1.3, 2.0])
def test_above_one_the_noise_counts_as_so_many_times_stronger(denoiser: Denoiser, strength: float) -> None:
    before = noisy(64, 72)
    for noise in (
        uniform_map(SIGMA, before.shape, denoiser.spec.cell),
        uneven(before.shape, denoiser.spec.cell),
    ):
        stronger = before.copy()
        denoise_in_place(denoiser, stronger, noise, strength=strength)
        assert steps_between(stronger, whole(denoiser, before, noise, strength=strength)) <= 1
    high = denoiser.spec.deviations[1]
    most, times = (before.copy() for _ in range(2))
    denoise_in_place(denoiser, most, uniform_map(high, before.shape, denoiser.spec.cell))
    denoise_in_place(denoiser, times, uniform_map(high, before.shape, denoiser.spec.cell), strength=strength)
    np.testing.assert_array_equal(most, times)  # no network is asked for more than it was trained for
    by_hand = before.copy()
    denoise_in_place(denoiser, by_hand, uniform_map(strength * SIGMA, before.shape, denoiser.spec.cell))
    times = before.copy()
    denoise_in_place(denoiser, times, uniform_map(SIGMA, before.shape, denoiser.spec.cell), strength=strength)
    assert steps_between(by_hand, times) <= 1


def test_clean_places_stay_exactly_as_they_are(denoiser: Denoiser) -> None:
    before = noisy(96, 96)
    cells = np.full((-(-96 // denoiser.spec.cell),) * 2, 0.99 * LIMIT, np.float32)
    cells[-1:, -1:] = 5 * LIMIT
    pixels = before.copy()
    change = denoise_in_place(denoiser, pixels, NoiseMap(cells, denoiser.spec.cell, LIMIT))
    away = 96 - 2 * denoiser.spec.cell
    np.testing.assert_array_equal(pixels[:away], before[:away])
    np.testing.assert_array_equal(pixels[:, :away], before[:, :away])
    assert change.of == 96 * 96
    assert change.pixels <= (2 * denoiser.spec.cell) ** 2


def test_tiles_without_noise_cost_nothing(box: Denoiser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MIN_INSIDE", 16)
    pixels, asked, denoise = noisy(160, 160), list[tuple[int, ...]](), box.denoise

    def counted(part: Any, sigma: Any) -> NDArray[np.float32]:
        asked.append(part.shape)
        return denoise(part, sigma)

    monkeypatch.setattr(box, "denoise", counted)
    cells = np.zeros((40, 40), np.float32)
    denoise_in_place(box, pixels, NoiseMap(cells, 4, LIMIT), tile_size=48)
    assert asked == []
    denoise_in_place(box, pixels, uniform_map(SIGMA, pixels.shape, 4), tile_size=48, strength=0)
    assert asked == []
    cells[20, 20] = 0.1  # a place of 12 pixels within one tile of 32
    denoise_in_place(box, pixels, NoiseMap(cells, 4, LIMIT), tile_size=48)
    assert asked == [(1, 48, 48, 3)]
    asked.clear()
    denoise_in_place(box, pixels, uniform_map(SIGMA, pixels.shape, 4), tile_size=48)
    assert len(asked) == 25


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 90), (70, 1), (90, 110)])
def test_what_changed_is_counted(
    box: Denoiser, height: int, width: int, channels: int, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MIN_INSIDE", 16)
    before = noisy(height, width, channels, dtype)
    noise = uneven(before.shape, 4)
    after = before.copy()
    change = denoise_in_place(box, after, noise, tile_size=48)
    difference = (after.astype(np.float64) - before) / np.iinfo(dtype).max
    assert change.of == height * width
    assert change.share == (after != before).any(2).mean()
    assert change.psnr == pytest.approx(psnr_from_mse(float(np.square(difference).mean())))
    still = denoise_in_place(box, after, noise, strength=0)
    assert (still.share, still.psnr, still.of) == (0, np.inf, height * width)


def test_a_change_of_known_parts() -> None:
    change = Change()
    assert (change.share, change.psnr) == (0, np.inf)
    black = np.zeros((2, 3, 3), np.uint8)
    other = black.copy()
    other[0, 0] = (255, 0, 0)
    other[1, 2] = (255, 255, 0)
    change.count(black, other)
    change.count(black, black)
    assert change.share == 2 / 12
    assert change.psnr == pytest.approx(10 * np.log10(36 / 3))  # 3 of 36 values by 1


def test_blind_gives_what_a_file_gets(box: Denoiser) -> None:
    pixels = noisy(70, 90, 3, np.uint8)
    denoised = pixels.copy()
    done = denoise_pixels(box, denoised)
    noise = done.noise
    expected = pixels.copy()
    denoise_in_place(box, expected, estimate_noise(box, pixels))
    np.testing.assert_array_equal(denoised, expected)
    assert (denoised != pixels).any()
    assert 255 * noise.percentile(50) == pytest.approx(30, rel=0.1)
    flat = np.full((20, 20, 3), 9, np.uint8)
    same = flat.copy()
    found = denoise_pixels(box, same)
    np.testing.assert_array_equal(same, flat)
    assert found.noise.is_clean
    assert (done.left, found.left) == (False, True)


@pytest.mark.parametrize("kind", ["colored", "gray stored as RGB", "one channel"])
@pytest.mark.parametrize("how", [{"strength": 0.001}, {"strength": 0}, {"sigma": 0.0}], ids=str)
def test_an_image_in_which_no_pixel_changes_is_left(box: Denoiser, kind: str, how: dict[str, Any]) -> None:
    pixels = noisy(40, 50, 1 if kind == "one channel" else 3, np.uint8)
    if kind == "gray stored as RGB":
        pixels = np.repeat(pixels[..., :1], 3, axis=2)
    same = pixels.copy()
    done = denoise_pixels(box, same, **how)
    assert done.left
    assert (done.change.pixels, done.change.of) == (0, 2000)
    np.testing.assert_array_equal(same, pixels)


@pytest.mark.parametrize("channels", [1, 3])
def test_noise_that_is_given_is_not_estimated(
    box: Denoiser, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = noisy(40, 50, channels, np.uint8)
    data = encode_png(pixels)
    blind = UNetDenoiser(denoiser=box, max_pixels=10_000)
    given = replace(blind, sigma=SIGMA)
    before = given(data, "it").data

    def fail(*_: object) -> None:
        pytest.fail("the noise was estimated")

    monkeypatch.setattr(Denoiser, "estimate", fail)
    done = given(data, "it")
    assert (done.data, done.status) == (before, "cleaned")
    assert done.noise is not None
    assert {done.noise.percentile(percent) for percent in (0, 50, 100)} == {float(np.float32(SIGMA))}
    with pytest.raises(pytest.fail.Exception):
        blind(data, "it")


def peak_of(denoiser: Denoiser, height: int, width: int) -> int:
    pixels = noisy(height, width, 3, np.uint8)
    tracemalloc.start()
    denoise_in_place(denoiser, pixels, estimate_noise(denoiser, pixels), tile_size=256)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize("denoiser", [(4, 3, 7)], indirect=True)
def test_memory_does_not_grow_with_height(denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lookalike.searcher.denoising.noise_map._TILE", 256)
    peak_of(denoiser, 300, 600)  # sessions are opened
    low, high = peak_of(denoiser, 600, 600), peak_of(denoiser, 3000, 600)
    cells = 4 * (2400 // 4) * (600 // 4)  # the map itself grows: one float for 16 pixels
    assert high < 1.1 * low + 100_000 + 3 * cells


@pytest.mark.slow
def test_a_hundred_megapixels_take_no_more_than_their_bytes(tmp_path: Path) -> None:
    denoiser = Denoiser(make_denoiser(tmp_path / "box", multiple=8), threads=1)
    pixels = np.random.default_rng(0).integers(0, 256, (10_000, 10_000, 3), dtype=np.uint8)
    denoise_in_place(denoiser, pixels[:1000, :1000].copy(), uniform_map(SIGMA, (1000, 1000), 8))
    tracemalloc.start()
    noise = estimate_noise(denoiser, pixels)
    assert noise.percentile(50) > 0.1
    denoise_in_place(denoiser, pixels, noise)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 120_000_000  # 300 MB are the image's own; as floats it would be 1,200 MB


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


@pytest.mark.parametrize("sigma", [SIGMA, None])
@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (255, 257), (832, 833), (90, 900), (900, 90), (1100, 1700)]
)
def test_the_workload_is_what_is_done_for_an_image_with_noise_everywhere(
    box: Denoiser, monkeypatch: pytest.MonkeyPatch, height: int, width: int, sigma: float | None
) -> None:
    tiles, seen = [0], [0]
    run = Denoiser.denoise

    def counted(self: Denoiser, pixels: Any, given: Any) -> Any:
        seen[0] += pixels.shape[1] * pixels.shape[2]
        return run(self, pixels, given)

    def map_tiles(function: Callable[..., Any], arguments: Iterable[Any]) -> Iterator[Any]:
        for argument in arguments:
            yield function(argument)
            tiles[0] += 1

    monkeypatch.setattr(Denoiser, "denoise", counted)
    denoiser = UNetDenoiser(denoiser=box, sigma=sigma, max_pixels=10**7)
    data = encode_png(noisy(height, width, dtype=np.uint8))
    result = denoiser(data, "a.png", map_tiles=map_tiles)
    expected = denoiser.workload(height, width)
    if result.status == "cleaned":  # of very few pixels no noise is estimated
        assert (tiles[0], seen[0]) == (expected.tiles, expected.pixels)
    assert (result.status == "cleaned") or height * width == 1
    assert seen[0] <= expected.pixels
