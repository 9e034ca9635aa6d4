"""The classical ways to take noise off: each does, BM3D is kept in the cache, clipping is undone.

Legend: N pictures, H, W, C.
"""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lookalike.deploy.evaluation import open_test_set
from lookalike.encoder.errors import MissingExtraError
from lookalike.encoder.images import add_noise
from lookalike.encoder.metrics import psnr_from_mse
from tests.benchmarks import classical_denoisers
from tests.benchmarks.classical_denoisers import BM3D, classical_methods, undo_clipping

SIGMA = 25 / 255
bm3d_only = pytest.mark.skipif(
    importlib.util.find_spec("bm3d") is None, reason="bm3d is installed by hand, for its licence"
)


def photograph() -> NDArray[np.float32]:
    """A piece of a photograph, float32 (64, 64, 3)."""
    return open_test_set("photographs", 1).clean[0][80:144, 100:164]


def with_noise(picture: NDArray[np.float32], sigma: float, seed: int = 0) -> NDArray[np.float32]:
    level = np.array([sigma], np.float32)
    noisy: NDArray[np.float32] = add_noise(
        picture[None], level, kind="gaussian", rng=np.random.default_rng(seed)
    )[0]
    return noisy


def psnr_of(one: NDArray[Any], other: NDArray[Any]) -> float:
    return psnr_from_mse(float(np.square(one - other).mean()))


@pytest.mark.parametrize("channels", [1, 3])
def test_each_filter_takes_noise_off(channels: int) -> None:
    clean = photograph()[:, :, :channels]
    noisy = with_noise(clean, SIGMA)
    found = classical_methods(SIGMA, digits=False)
    assert [rival.name for rival in found] == ["non-local means", "total variation", "wavelet"]
    for rival in found:
        made = rival.denoise([noisy, clean], SIGMA)
        assert [each.shape for each in made] == [clean.shape] * 2
        assert made[0].dtype == np.float32
        assert made[0].min() >= 0
        assert made[0].max() <= 1
        assert psnr_of(made[0], clean) > psnr_of(noisy, clean) + 2
        assert rival.told.startswith("true sigma; ")


def test_clipping_is_undone_where_many_pixels_are_averaged() -> None:
    x = np.linspace(0, 1, 11)
    noisy = np.clip(x[:, None] + 0.5 * np.random.default_rng(0).standard_normal((11, 200_000)), 0, 1)
    means = noisy.mean(axis=1)
    assert means[0] > 0.19  # black is no longer black
    assert undo_clipping(means, 0.5) == pytest.approx(x, abs=0.01)
    assert undo_clipping(np.array([0.0, 1.0]), 0.5).tolist() == [0, 1]  # beyond what any x gives
    fine = np.linspace(0.2, 0.8, 50)
    assert undo_clipping(fine, 0.01) == pytest.approx(fine, abs=1e-6)


def test_digits_are_debiased() -> None:
    clean = np.zeros((28, 28, 1), np.float32)
    clean[8:20, 12:16] = 1
    noisy = with_noise(clean, 0.5)
    for plain, debiased in zip(
        classical_methods(0.5, digits=False), classical_methods(0.5, digits=True), strict=True
    ):
        assert "debiased" in debiased.told
        (one,), (other,) = plain.denoise([noisy], 0.5), debiased.denoise([noisy], 0.5)
        assert psnr_of(other, clean) > psnr_of(one, clean) + 1


@bm3d_only
def test_bm3d_is_computed_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clean = photograph()[:24, :24]
    noisy = with_noise(clean, SIGMA)
    rival = BM3D(folder=tmp_path)
    told: list[int] = []
    (made,) = rival.denoise_cached([noisy], SIGMA, on_progress=told.append)
    assert psnr_of(made, clean) > psnr_of(noisy, clean) + 3
    (direct,) = rival.denoise([noisy], SIGMA)
    np.testing.assert_allclose(made, direct, atol=1e-6)
    (kept,) = tmp_path.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(classical_denoisers, "_bm3d", None)  # whoever computes now fails
        (again,) = rival.denoise_cached([noisy], SIGMA, on_progress=told.append)
        np.testing.assert_array_equal(made, again)
        with pytest.raises(TypeError):
            rival.denoise_cached([noisy], SIGMA * 1.01, on_progress=told.append)
        with pytest.raises(TypeError):
            rival.denoise_cached([clean], SIGMA, on_progress=told.append)
    kept.write_bytes(b"damaged")
    (mended,) = rival.denoise_cached([noisy], SIGMA, on_progress=told.append)
    np.testing.assert_allclose(made, mended, atol=1e-6)  # its threads add in any order
    assert [path.name for path in tmp_path.iterdir()] == [kept.name]
    assert told == [1, 1, 1]


@bm3d_only
def test_bm3d_of_grey_has_one_channel(tmp_path: Path) -> None:
    clean = photograph()[:24, :24, :1]
    (made,) = BM3D(folder=tmp_path).denoise([with_noise(clean, SIGMA)], SIGMA)
    assert made.shape == clean.shape
    assert made.dtype == np.float32


def test_without_bm3d_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(MissingExtraError, match=r"pip install bm3d .its licence forbids commercial use"):
        BM3D()
