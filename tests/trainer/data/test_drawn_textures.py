"""Textures that are drawn for the estimator: in the colors of a patch, and without noise."""

import numpy as np
import pytest

from lookalike.trainer.data.drawn_textures import draw_texture


def patch(side: int, channels: int = 3) -> np.ndarray:
    """Slopes of three colors, uint8 (side, side, channels)."""
    down, across = np.mgrid[:side, :side] * 150 / side + 50
    return np.stack([across, down, (across + down) / 2], 2)[..., :channels].astype(np.uint8)


@pytest.mark.parametrize("side", [8, 65, 128])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_texture_has_the_size_of_its_patch_and_follows_the_seed(side: int, channels: int) -> None:
    given = patch(side, channels)
    drawn = [draw_texture(given, np.random.default_rng(seed)) for seed in (3, 3, 4)]
    assert drawn[0].shape == given.shape
    assert drawn[0].dtype == np.uint8
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any()


def test_textures_keep_the_colors_and_change_the_light_alone() -> None:
    given, contrasts, colors = patch(128), [], []
    for seed in range(12):
        drawn = draw_texture(given, np.random.default_rng(seed)).astype(np.float32)
        assert np.abs(drawn.mean((0, 1)) - given.mean((0, 1))).max() < 25
        fine = drawn[::2, ::2] - drawn[1::2, ::2] - drawn[::2, 1::2] + drawn[1::2, 1::2]
        contrasts.append(fine.mean(2).std())
        colors.append((fine[..., 0] - fine[..., 2]).std())
    assert np.median(contrasts) > 2
    assert np.median(colors) < 0.5 * np.median(contrasts)
