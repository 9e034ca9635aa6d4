"""The noise level that the estimator learns to tell."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from lookalike.trainer.objectives import level_to_tell
from lookalike.trainer.objectives.noise_level import neighbor_correlation

SIGMA = 0.05


def noise(*, correlated: bool) -> Tensor:
    """Noise of SIGMA, float32 (2, 3, 64, 64)."""
    white = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    field = avg_pool2d(white, 3, 1, 1) if correlated else white
    return SIGMA * field / field.std()


def stripes(contrast: float) -> Tensor:
    """A clean image of vertical lines, float32 (2, 3, 64, 64)."""
    columns = torch.arange(64) % 2
    return (0.5 + contrast * (columns - 0.5)).expand(2, 3, 64, 64)


def level(contrast: float, *, correlated: bool) -> Tensor:
    """What is told, as a multiple of the true sigma, (2, 64, 64)."""
    clean = stripes(contrast)
    told = level_to_tell(clean + noise(correlated=correlated), clean, torch.full((2, 64, 64), SIGMA))
    return told / SIGMA


def test_white_noise_is_told_as_it_is() -> None:
    assert neighbor_correlation(noise(correlated=False)).abs().max() < 0.04
    assert level(0.0, correlated=False).min() == pytest.approx(1)
    assert level(0.0, correlated=False).max() == pytest.approx(1, abs=0.01)


def test_correlated_noise_on_smooth_places_is_told_as_more() -> None:
    assert neighbor_correlation(noise(correlated=True)).min() > 0.6
    assert level(0.0, correlated=True).mean() == pytest.approx(1.7, abs=1e-4)


def test_correlated_noise_below_the_texture_is_told_as_it_is() -> None:
    assert level(0.19, correlated=True).mean() == pytest.approx(1, abs=0.05)
    assert 1.1 < level(0.08, correlated=True).mean() < 1.6


def test_correlated_noise_far_below_the_texture_is_told_as_none_and_white_noise_is_told() -> None:
    assert level(0.6, correlated=True).max() == 0
    assert 0.1 < level(0.26, correlated=True).mean() < 0.9
    assert level(0.6, correlated=False).min() > 0.95


def test_no_noise_stays_none() -> None:
    clean = stripes(0.1)
    assert level_to_tell(clean, clean, torch.zeros(2, 64, 64)).max() == 0
