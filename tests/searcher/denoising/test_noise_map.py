"""Where the noise is: estimated tile by tile as in one piece, and only there an image changes."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lookalike.encoder.metrics import psnr
from lookalike.encoder.runtime import Denoiser
from lookalike.searcher.denoising import NoiseMap, denoise_pixels, estimate_noise, noise_map, uniform_map
from lookalike.searcher.denoising.noise_map import as_floats, confirmed_noise
from tests.fixtures.handmade_models import AROUND, make_denoiser

LIMIT = 2 / 255


@pytest.fixture(scope="module", params=[(4, 4), (8, 4), (8, 8), (16, 4)])
def denoiser(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Denoiser:
    multiple, cell = request.param
    made = make_denoiser(tmp_path_factory.mktemp("c") / "box", multiple=multiple, cell=cell)
    return Denoiser(made, threads=1)


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Denoiser:
    return Denoiser(make_denoiser(tmp_path_factory.mktemp("b") / "box", multiple=8), threads=1)


def uneven(height: int, width: int, channels: int = 3, dtype: Any = np.uint8) -> Any:
    """Noise that grows from left to right."""
    rng = np.random.default_rng(height)
    sigma = np.linspace(0.03, 0.2, width)[:, None]
    values = 0.5 + rng.normal(size=(height, width, channels)) * sigma
    return np.rint(values.clip(0, 1) * np.iinfo(dtype).max).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(200, 150), (61, 300), (300, 61), (1, 400), (400, 1), (9, 9)])
def test_tiles_are_the_whole(
    denoiser: Denoiser, height: int, width: int, channels: int, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = uneven(height, width, channels, dtype)
    whole = denoiser.estimate(as_floats(pixels)[None])[0].clip(0, denoiser.spec.deviations[1])
    monkeypatch.setattr(noise_map, "_TILE", 64)
    monkeypatch.setattr(noise_map, "confirmed_noise", lambda cells, _, clean_below: cells)
    with ThreadPoolExecutor(3) as pool:
        for found in (
            estimate_noise(denoiser, pixels),
            estimate_noise(denoiser, pixels, map_tiles=pool.map),
        ):
            assert found.cell == denoiser.spec.cell
            assert found.clean_below == denoiser.spec.clean_below
            assert found.cells.shape == (-(-height // found.cell), -(-width // found.cell))
            if min(height, width) > 1:  # a line that happens to repeat itself is no noise
                np.testing.assert_allclose(found.cells, whole, atol=1e-6)
            assert found.cells.dtype == np.float32


def test_no_estimate_is_above_what_the_denoiser_was_trained_for(box: Denoiser) -> None:
    stripes = np.random.default_rng(0).integers(0, 2, (64, 64, 3)) * np.array([255, 254, 253])
    stripes[::7, ::5] = np.arange(3)[None, None] + np.random.default_rng(1).integers(0, 90, (10, 13, 1))
    pixels = stripes.astype(np.uint8)
    assert box.estimate(as_floats(pixels)[None]).max() > box.spec.deviations[1]
    assert float(estimate_noise(box, pixels).cells.max()) <= np.float32(box.spec.deviations[1])


def test_sigma_at_pixels_is_that_of_the_map_and_has_no_steps() -> None:
    cells = np.random.default_rng(0).uniform(size=(5, 7)).astype(np.float32)
    found = NoiseMap(cells, 4, LIMIT)
    whole = found.sigma(range(18), range(27))  # the last cells are cut
    np.testing.assert_array_equal(whole[3:11, 5:22], found.sigma(range(3, 11), range(5, 22)))
    largest = max(np.abs(np.diff(cells, axis=axis)).max() for axis in (0, 1))
    for axis in (0, 1):
        assert np.abs(np.diff(whole, axis=axis)).max() <= largest / 4 + 1e-6
    np.testing.assert_allclose(whole[1:3, 1:3].mean(), 0.25 * whole[1:3, 1:3].sum())
    flat = uniform_map(0.3, (18, 27, 3), 4)
    assert flat.cells.shape == (5, 7)
    np.testing.assert_allclose(flat.sigma(range(18), range(27)), np.float32(0.3), rtol=1e-6)


def test_weights_rise_from_the_limit_to_twice_of_it() -> None:
    found = NoiseMap(np.zeros((1, 1), np.float32), 8, LIMIT)
    sigma = np.array([0, 0.5, 1, 1.25, 1.5, 2, 3, 100], np.float32) * np.float32(LIMIT)
    np.testing.assert_allclose(found.weight(sigma), [0, 0, 0, 0.25, 0.5, 1, 1, 1], atol=1e-6)
    everywhere = uniform_map(0.0, (8, 8), 8)
    np.testing.assert_array_equal(everywhere.weight(sigma), np.ones(8))


def test_percentiles_and_shares_are_of_the_places() -> None:
    cells = (np.arange(101).reshape(1, 101) / 255).astype(np.float32)
    found = NoiseMap(cells, 8, LIMIT)
    for percent in (0, 10, 50, 90, 100):
        assert 255 * found.percentile(percent) == pytest.approx(percent)
    assert found.share == 99 / 101  # all but 0 and 1
    assert not found.is_clean


@pytest.mark.parametrize(
    ("noisy", "sigma", "clean"),
    [
        (0, 40, True),
        (1, 40, True),
        (2, 40, False),
        (200, 40, False),
        (2, 9.9, True),
        (69, 9.9, True),
        (70, 9.9, False),
        (200, 3, False),
    ],
)
def test_strong_noise_counts_in_one_place_in_a_hundred_and_weak_noise_in_a_third_of_them(
    noisy: int, sigma: float, clean: bool
) -> None:
    cells = np.full(200, 0.99 * LIMIT, np.float32)
    cells[:noisy] = sigma / 255
    assert NoiseMap(cells.reshape(10, 20), 8, LIMIT).is_clean == clean
    assert NoiseMap(cells.reshape(10, 20), 8, LIMIT, drawn=True).is_clean
    assert not NoiseMap(cells.reshape(10, 20), 8, 0.0).is_clean


def test_the_map_as_an_image_is_white_from_50_on() -> None:
    found = NoiseMap((np.array([[0, 25, 50, 75]]) / 255).astype(np.float32), 1, LIMIT)
    image = found.image(range(1), range(4))
    assert image.shape == (1, 4, 1)
    assert image.dtype == np.uint8
    assert image[0, :, 0].tolist() == [0, 128, 255, 255]


def partly_noisy(side: int, columns: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Slopes of three colors, (side, side, 3), and the same with noise of sigma 40 in the first columns."""
    down, across = np.mgrid[:side, :side] * 256 / side
    clean = np.stack([across, down, (across + down) / 2], 2)
    noisy = clean.copy()
    noisy[:, :columns] += np.random.default_rng(0).normal(0, 40, (side, columns, 3))
    return clean.astype(np.uint8), noisy.clip(0, 255).astype(np.uint8)


def test_of_an_image_with_noise_in_a_quarter_only_that_changes(box: Denoiser) -> None:
    clean, noisy = partly_noisy(768, 192)
    denoised = noisy.copy()
    found = denoise_pixels(box, denoised).noise
    assert not found.is_clean
    assert found.share == pytest.approx(0.25, abs=0.02)
    assert 255 * found.percentile(10) < 2
    assert 255 * found.percentile(90) > 25
    beyond = 192 + AROUND + 8  # the estimator sees the noise from there, and the map is interpolated
    np.testing.assert_array_equal(denoised[:, beyond:], noisy[:, beyond:])
    assert psnr(denoised[:, :180], clean[:, :180]) > psnr(noisy[:, :180], clean[:, :180]) + 6
    assert psnr(denoised[:, 192:], clean[:, 192:]) > 42


def test_the_denoiser_of_this_package_finds_the_noisy_part_too() -> None:
    clean, noisy = partly_noisy(320, 160)
    denoised = noisy.copy()
    found = denoise_pixels(Denoiser.open("denoise", threads=1), denoised).noise
    assert not found.is_clean
    assert psnr(denoised[:, :150], clean[:, :150]) > psnr(noisy[:, :150], clean[:, :150]) + 6
    assert psnr(denoised[:, 160:], clean[:, 160:]) > 42


def test_noise_is_confirmed_by_the_smooth_places_of_a_square() -> None:
    rng = np.random.default_rng(0)
    none = np.zeros((60, 80), bool)
    leaves = rng.random(none.shape) < 0.6
    cells = np.where(leaves, np.float32(8 / 255), np.float32(0))
    assert (
        confirmed_noise(cells, none, clean_below=LIMIT) == 0
    ).all()  # two in five are smooth, and have none
    everywhere = np.where(rng.random(none.shape) < 0.7, np.float32(6 / 255), np.float32(9 / 255))
    expected = np.full(none.shape, 6 / 255, np.float32)
    np.testing.assert_array_equal(confirmed_noise(everywhere, none, clean_below=LIMIT), expected)
    saturated = rng.random(none.shape) < 0.5
    hidden = np.where(saturated, np.float32(0), everywhere)
    np.testing.assert_array_equal(confirmed_noise(hidden, saturated, clean_below=LIMIT), expected)
    assert (confirmed_noise(everywhere, ~none, clean_below=LIMIT) == 0).all()  # a black image says nothing


@pytest.mark.parametrize("wide", [24, 30, 56, 80])
def test_a_part_with_noise_keeps_it_up_to_its_edge(wide: int) -> None:
    cells = np.zeros((60, 80), np.float32)
    cells[:, :wide] = 0.1
    confirmed = confirmed_noise(cells, np.zeros(cells.shape, bool), clean_below=LIMIT)
    assert (confirmed[:, :wide] == np.float32(0.1)).all()
    assert (confirmed[:, wide + 5 :] == 0).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (3, 5), (7, 30), (40, 17)])
def test_small_images_confirm_noise_too(shape: tuple[int, int]) -> None:
    cells = np.full(shape, 0.05, np.float32)
    np.testing.assert_array_equal(confirmed_noise(cells, np.zeros(shape, bool), clean_below=LIMIT), cells)
