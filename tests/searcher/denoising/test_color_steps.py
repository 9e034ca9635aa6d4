"""Noise of a sensor has its share of color, at any place of the picture; leather has none."""

import numpy as np
import pytest

from lookalike.encoder.images import Camera, add_camera_noise
from lookalike.encoder.runtime import Denoiser
from lookalike.searcher.denoising import estimate_noise
from lookalike.searcher.denoising.color_steps import color_steps, has_colors_of_noise
from tests.fixtures.handmade_models import make_denoiser

CELL = 8


def slopes(height: int, width: int) -> np.ndarray:
    """Slopes of three colors, float32 (height, width, 3)."""
    down, across = np.mgrid[:height, :width] / max(height, width) / 2 + 0.25
    return np.stack([across, down, (across + down) / 2], 2).astype(np.float32)


def test_steps_are_the_differences_in_color_of_quarters_side_by_side() -> None:
    pixels = np.zeros((8, 16, 3), np.float32)
    pixels[:4, :4] = [0.5, 0.5, 0.5]  # brightness alone
    pixels[:4, 8:12, 0] = 1.0  # red less its brightness: 0.701; blue: -0.299
    steps = color_steps(pixels, CELL)
    assert steps.shape == (1, 2)
    assert steps.dtype == np.float32
    # of each cell two of four pairs of quarters differ
    np.testing.assert_allclose(steps, [[0, (0.701 + 0.299) / 2 / 2]], atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 17), (30, 21), (1, 40), (5, 3)])
def test_cells_that_the_border_cuts_have_steps_too(height: int, width: int) -> None:
    steps = color_steps(slopes(height, width), CELL)
    assert steps.shape == (-(-height // CELL), -(-width // CELL))
    assert np.isfinite(steps).all()


@pytest.mark.parametrize("sigma", [5, 15, 50])
def test_white_noise_and_that_of_cameras_have_the_colors_of_noise(sigma: int) -> None:
    rng, clean = np.random.default_rng(sigma), slopes(160, 160)
    white = (clean + rng.normal(0, sigma / 255, clean.shape)).clip(0, 1).astype(np.float32)
    assert has_colors_of_noise(color_steps(white, CELL).ravel(), np.full(400, sigma / 255, np.float32))
    camera = Camera(photon=0.004 * sigma, red=1.9, blue=1.6, demosaic="malvar")
    taken, reference = add_camera_noise(clean, camera, rng)
    level = np.sqrt(np.mean((taken - reference) ** 2))
    assert has_colors_of_noise(color_steps(taken, CELL).ravel(), np.full(400, level, np.float32))


def test_a_texture_of_one_color_and_bright_paint_have_not() -> None:
    height = np.random.default_rng(1).normal(0, 0.08, (160, 160, 1)).astype(np.float32)
    leather = (0.5 * (1 + height * np.ones(3, np.float32))).clip(0, 1)
    assert not has_colors_of_noise(color_steps(leather, CELL).ravel(), np.full(400, 15 / 255, np.float32))
    paint = np.random.default_rng(0).random((40, 40, 3)).repeat(4, 0).repeat(4, 1).astype(np.float32)
    assert not has_colors_of_noise(color_steps(paint, CELL).ravel(), np.full(400, 5 / 255, np.float32))


def test_weak_noise_may_have_lost_its_color() -> None:
    colorless = np.zeros(100, np.float32)
    assert has_colors_of_noise(colorless, np.full(100, 5 / 255, np.float32))
    assert not has_colors_of_noise(colorless, np.full(100, 7 / 255, np.float32))


def test_a_few_cells_say_nothing() -> None:
    assert has_colors_of_noise(np.zeros(15, np.float32), np.full(15, 0.1, np.float32))
    assert not has_colors_of_noise(np.zeros(16, np.float32), np.full(16, 0.1, np.float32))


def test_gray_grain_is_left_in_a_color_image_and_found_in_a_gray_one(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    denoiser = Denoiser(make_denoiser(tmp_path_factory.mktemp("c") / "box", multiple=8), threads=1)
    grain = np.random.default_rng(0).normal(0, 20, (128, 128, 1))
    pixels = (255 * slopes(128, 128) + grain).clip(0, 255).astype(np.uint8)
    assert estimate_noise(denoiser, pixels).is_clean
    assert not estimate_noise(denoiser, pixels[..., :1].copy()).is_clean
