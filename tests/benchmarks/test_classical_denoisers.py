"""The classical ways to take noise off: each does, BM3D is kept in the cache, clipping is undone.

Legend: N pictures, H, W, C.
"""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lookalike.deploy.evaluation import InputNoise, evaluate_denoising, open_test_set
from lookalike.deploy.evaluation.denoising import DenoisingTestSet
from lookalike.encoder.errors import MissingExtraError
from lookalike.encoder.metrics import psnr
from tests.benchmarks import classical_denoisers
from tests.benchmarks.classical_denoisers import (
    BM3D,
    bm3d_methods,
    classical_methods,
    estimated_sigma,
    keep_best_fixed,
    undo_clipping,
)

Pixels = NDArray[np.uint8]
SIGMA = 25 / 255
bm3d_only = pytest.mark.skipif(
    importlib.util.find_spec("bm3d") is None, reason="bm3d is installed by hand, for its licence"
)


def photograph() -> Pixels:
    """A piece of a photograph, uint8 (64, 64, 3)."""
    return open_test_set("skimage", 1).clean[0][80:144, 100:164]


def with_noise(picture: Pixels, sigma: float, seed: int = 0) -> Pixels:
    return InputNoise("white", sigma).add(picture, np.random.default_rng(seed))[0]


@pytest.mark.parametrize("channels", [1, 3])
def test_each_filter_takes_noise_off(channels: int) -> None:
    clean = photograph()[:, :, :channels]
    noisy = with_noise(clean, SIGMA)
    found = classical_methods(SIGMA, digits=False)
    assert [rival.name for rival in found] == ["non-local means", "total variation", "wavelet"]
    for rival in found:
        made = rival.denoise([noisy, clean], SIGMA)
        assert [each.shape for each in made] == [clean.shape] * 2
        assert made[0].dtype == np.uint8
        assert psnr(made[0], clean) > psnr(noisy, clean) + 2
        assert rival.told.startswith("true sigma; ")
    for rival in classical_methods(None, digits=False):
        assert psnr(rival.denoise([noisy], None)[0], clean) > psnr(noisy, clean) + 2
        assert rival.told.startswith("estimated sigma; ")
        assert not rival.needs_sigma


@pytest.mark.parametrize("sigma", [10, 25, 50])
@pytest.mark.parametrize("channels", [1, 3])
def test_sigma_of_white_noise_is_estimated(sigma: int, channels: int) -> None:
    gray = np.full((64, 64, channels), 127, np.uint8)
    noisy = with_noise(gray, sigma / 255).astype(np.float32) / np.float32(255)
    assert 255 * estimated_sigma(noisy) == pytest.approx(sigma, rel=0.1)
    assert estimated_sigma(np.zeros((64, 64, channels), np.float32)) > 0  # BM3D divides by it


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
    clean = np.zeros((28, 28, 1), np.uint8)
    clean[8:20, 12:16] = 255
    noisy = with_noise(clean, 0.5)
    for plain, debiased in zip(
        classical_methods(0.5, digits=False), classical_methods(0.5, digits=True), strict=True
    ):
        assert "debiased" in debiased.told
        (one,), (other,) = plain.denoise([noisy], 0.5), debiased.denoise([noisy], 0.5)
        assert psnr(other, clean) > psnr(one, clean) + 1


@bm3d_only
def test_bm3d_is_computed_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clean = photograph()[:24, :24]
    noisy = with_noise(clean, SIGMA)
    rival = BM3D(folder=tmp_path)
    told: list[int] = []
    (made,) = rival.denoise_cached([noisy], SIGMA, on_progress=told.append)
    assert psnr(made, clean) > psnr(noisy, clean) + 3
    (direct,) = rival.denoise([noisy], SIGMA)
    np.testing.assert_array_equal(made, direct)
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
    np.testing.assert_array_equal(made, mended)
    assert [path.name for path in tmp_path.iterdir()] == [kept.name]
    assert told == [1, 1, 1]


@bm3d_only
def test_bm3d_of_grey_has_one_channel(tmp_path: Path) -> None:
    clean = photograph()[:24, :24, :1]
    (made,) = BM3D(folder=tmp_path).denoise([with_noise(clean, SIGMA)], SIGMA)
    assert made.shape == clean.shape
    assert made.dtype == np.uint8


@bm3d_only
def test_bm3d_is_told_the_true_sigma_an_estimated_or_a_fixed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    clean = photograph()[:32, :32]
    noisy = with_noise(clean, SIGMA)
    used: list[float] = []

    def unchanged(image: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
        used.append(255 * sigma)
        return image

    monkeypatch.setattr(classical_denoisers, "_bm3d", unchanged)
    for rival in bm3d_methods(real=True, known=True):
        rival.denoise([noisy], SIGMA)
    estimate = 255 * estimated_sigma(noisy.astype(np.float32) / np.float32(255))
    assert used == pytest.approx([25, 25, estimate, 2.5, 5, 7.5, 10], abs=0.01)
    names = [rival.name for rival in bm3d_methods(real=True, known=False)]
    assert names == [
        "BM3D, estimated sigma",
        *(f"BM3D, sigma {sigma}" for sigma in ("2.5", "5", "7.5", "10")),
    ]
    assert [rival.name for rival in bm3d_methods(real=False, known=False)] == names[:1]
    assert not any(rival.needs_sigma for rival in bm3d_methods(real=True, known=False))
    assert BM3D().needs_sigma


def test_of_fixed_sigmas_the_best_for_all_images_is_kept_and_said() -> None:
    gray = np.full((16, 16, 1), 128, np.uint8)
    images = DenoisingTestSet("polyu", ("a",), (gray,), (gray + np.uint8(9),))
    rows = evaluate_denoising(images, InputNoise("real"), []).rows
    names = ("BM3D, estimated sigma", "BM3D, sigma 2.5", "BM3D, sigma 5", "wavelet")
    more = [
        replace(rows[0], name=name, mean_psnr=mean)
        for name, mean in zip(names, (40, 30, 31, 39), strict=True)
    ]
    kept = keep_best_fixed((*rows, *more))
    assert [row.name for row in kept] == ["noisy", "BM3D, estimated sigma", "BM3D, sigma 5", "wavelet"]
    assert kept[2].told == "the best sigma of 2.5, 5, 7.5, 10 for these images, by mean PSNR"
    assert keep_best_fixed(rows) == rows


def test_without_bm3d_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(MissingExtraError, match=r"pip install bm3d .its licence forbids commercial use"):
        BM3D()
