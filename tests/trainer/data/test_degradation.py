"""Noise of many kinds on training patches: as strong as the map says, where it says."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter  # type: ignore[import-untyped]

from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.images import NoiseSpec
from lookalike.trainer.data import NoiseMix, noise_mix
from lookalike.trainer.data.degradation import BORDER, degrade

Floats = NDArray[np.float32]
SIDE = 48
KINDS = {
    "white": (0.0, 0.0, 0.0),
    "camera": (1.0, 0.0, 0.0),
    "grain": (0.0, 1.0, 0.0),
    "clean": (0.0, 0.0, 1.0),
}


def mix_of(
    kind: str, *, jpeg: float = 0.0, partial: float = 0.0, low: float = 0.02, high: float = 0.1
) -> NoiseMix:
    """A mix with one kind of noise only."""
    camera, grain, clean = KINDS[kind]
    return NoiseMix(low=low, high=high, camera=camera, grain=grain, clean=clean, partial=partial, jpeg=jpeg)


def gray(side: int = SIDE + BORDER, *, level: int = 128, channels: int = 3) -> NDArray[np.uint8]:
    return np.full((side, side, channels), level, np.uint8)


def textured(side: int = SIDE + BORDER, *, channels: int = 3) -> NDArray[np.uint8]:
    down, across = np.mgrid[:side, :side] / side
    waves = 128 + 60 * np.sin(20 * across) * np.cos(15 * down)
    return np.repeat(waves.astype(np.uint8)[..., None], channels, axis=2)


def found(
    patch: NDArray[np.uint8], mix: NoiseMix, *, seed: int = 0, side: int = SIDE
) -> tuple[Floats, Floats, Floats]:
    return degrade(patch, mix, side, np.random.default_rng(seed))


@pytest.mark.parametrize("kind", [*KINDS, "all"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("side", "given"), [(28, 28), (16, 32), (64, 80), (64, 70), (8, 8)])
def test_patches_have_their_size_and_range_and_are_the_same_again(
    kind: str, channels: int, side: int, given: int
) -> None:
    mix = NoiseMix() if kind == "all" else mix_of(kind, jpeg=0.5, partial=0.5)
    for seed in range(6):
        patch = textured(given, channels=channels)
        noisy, sigma, clean = found(patch, mix, seed=seed, side=side)
        assert noisy.shape == clean.shape == (side, side, channels)
        assert sigma.shape == (side, side)
        for each in (noisy, sigma, clean):
            assert each.dtype == np.float32
            assert each.min() >= 0
            assert each.max() <= 1
        for one, again in zip((noisy, sigma, clean), found(patch, mix, seed=seed, side=side), strict=True):
            np.testing.assert_array_equal(one, again)
        np.testing.assert_array_equal(patch, textured(given, channels=channels))


@pytest.mark.parametrize("kind", ["white", "grain", "camera"])
@pytest.mark.parametrize("jpeg", [0.0, 1.0])
def test_sigma_is_the_deviation_of_the_noise(kind: str, jpeg: float) -> None:
    ratios = []
    for seed in range(25):
        noisy, sigma, clean = found(gray(), mix_of(kind, jpeg=jpeg), seed=seed)
        assert (sigma > 0).all()
        ratios.append(float((noisy - clean).std()) / float(np.sqrt(np.square(sigma).mean())))
    # A map of the level that was drawn, half the time, and of what was measured, after JPEG always.
    assert np.median(ratios) == pytest.approx(1, abs=0.06)
    assert np.percentile(ratios, 10) > 0.7
    assert np.percentile(ratios, 90) < 1.3


def test_sigma_after_saving_is_measured_around_each_pixel() -> None:
    mix = mix_of("white", jpeg=1.0)
    for seed in range(5):
        noisy, sigma, clean = found(gray(), mix, seed=seed)
        # Saving both makes the difference to the clean patch, which is not saved, nearly that of the two.
        around = np.sqrt(uniform_filter(np.square(noisy - clean).mean(2).astype(np.float64), 17))
        inner = np.s_[9:-9, 9:-9]
        np.testing.assert_allclose(sigma[inner], around[inner], rtol=0.2)


@pytest.mark.parametrize("kind", ["white", "grain"])
def test_levels_are_within_their_range_and_all_of_it(kind: str) -> None:
    levels = np.array([found(gray(), mix_of(kind), seed=seed)[1].mean() for seed in range(150)])
    assert 0.9 * 0.02 < levels.min() < 0.035
    assert 0.085 < levels.max() < 1.15 * 0.1


@pytest.mark.parametrize("channels", [1, 3])
def test_clean_patches_have_no_noise_whatever_was_done_to_them(channels: int) -> None:
    changed = 0
    for seed in range(60):
        patch = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, channels), np.uint8)
        noisy, sigma, clean = found(patch, mix_of("clean"), seed=seed)
        np.testing.assert_array_equal(noisy, clean)  # blur, sharpening and JPEG's traces are to be left
        assert (sigma == 0).all()
        changed += not np.array_equal(np.rint(clean * 255), patch)
    assert 36 <= changed <= 54  # of 46 on average


@pytest.mark.parametrize("kind", ["white", "grain"])
def test_noise_in_a_part_leaves_the_other_as_it_is(kind: str) -> None:
    without = 0
    for seed in range(30):
        patch = textured()
        noisy, sigma, clean = found(patch, mix_of(kind, partial=1.0), seed=seed)
        rounding = 0.5 / 255 + 1e-6
        level = sigma.max()
        untouched = sigma == 0
        assert (np.abs(noisy - clean)[untouched] <= rounding).all()
        without += bool(untouched.mean() > 0.05)
        strong = sigma > 0.9 * level
        if strong.mean() > 0.3:
            assert (noisy - clean)[strong].std() == pytest.approx(level, rel=0.35)
    assert without >= 6


def test_jpeg_comes_after_the_noise_and_leaves_the_target_alone() -> None:
    patch = textured(channels=1)
    for seed in range(10):
        noisy, _, clean = found(patch, mix_of("white", jpeg=1.0), seed=seed)
        levels = noisy * 255
        np.testing.assert_allclose(levels, np.rint(levels), atol=1e-3)  # of a file
        assert (np.rint(clean * 255) == patch[:SIDE, :SIDE]).any()
        np.testing.assert_allclose(clean * 255, np.rint(clean * 255), atol=1e-3)
    plain, saved = (
        np.concatenate([found(patch, mix_of("white", jpeg=jpeg), seed=seed)[0] for seed in range(10)])
        for jpeg in (0.0, 1.0)
    )
    assert not np.array_equal(plain, saved)


def test_most_patches_have_the_levels_of_a_file() -> None:
    whole = 0
    for seed in range(120):
        levels = found(gray(32), mix_of("white"), seed=seed, side=32)[0] * 255
        whole += bool(np.abs(levels - np.rint(levels)).max() < 1e-3)
    assert whole / 120 == pytest.approx(0.6, abs=0.13)


def test_all_kinds_occur_in_their_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    from lookalike.trainer.data import degradation

    calls = {"_by_camera": 0, "correlated_noise": 0, "_region": 0}

    def count(name: str) -> None:
        original = getattr(degradation, name)

        def counted(*words: object) -> object:
            calls[name] += 1
            return original(*words)

        monkeypatch.setattr(degradation, name, counted)

    for name in calls:
        count(name)
    mix, total, clean = NoiseMix(), 300, 0
    for seed in range(total):
        noisy, sigma, target = found(textured(24), mix, seed=seed, side=16)
        clean += bool((sigma == 0).all() and np.array_equal(noisy, target))
    white = 1 - mix.camera - mix.grain - mix.clean
    assert calls["_by_camera"] / total == pytest.approx(mix.camera, abs=0.1)
    assert calls["correlated_noise"] / total == pytest.approx(mix.grain, abs=0.06)
    assert calls["_region"] / total == pytest.approx(mix.partial * (white + mix.grain), abs=0.06)
    assert clean / total == pytest.approx(mix.clean, abs=0.06)


def test_noise_of_a_camera_has_colors_and_neighbors() -> None:
    mix = mix_of("camera")
    together = []
    for seed in range(30):
        noisy, _, clean = found(gray(), mix, seed=seed)
        noise = (noisy - clean)[..., 1]
        noise = noise - noise.mean()
        together.append(float((noise[:, 1:] * noise[:, :-1]).mean() / noise.var()))
    assert np.median(together) > 0.1  # white noise: 0
    assert max(together) < 1


def test_grain_differs_between_the_colors() -> None:
    for seed in range(20):
        noisy, sigma, clean = found(gray(), mix_of("grain"), seed=seed)
        noise = noisy - clean
        if sigma.mean() > 3 / 255:
            assert float(np.abs(noise[..., 0] - noise[..., 1]).mean()) > 0.5 * sigma.mean()


def test_the_noise_of_a_training_is_what_its_options_say() -> None:
    digits = noise_mix(NoiseSpec.parse("20:50"), white_only=True)
    assert (digits.low, digits.high) == (20 / 255, 50 / 255)
    assert digits.camera == digits.grain == digits.clean == digits.partial == digits.jpeg == 0
    assert noise_mix(NoiseSpec.parse("0:75"), white_only=False) == NoiseMix()
    assert noise_mix(NoiseSpec.parse("0:50"), white_only=False) == replace(NoiseMix(), high=50 / 255)
    for wrong in ("0", "poisson:25", "jpeg:30", "masking:0.5"):
        with pytest.raises(InvalidArgumentError, match="a denoiser is trained on Gaussian noise"):
            noise_mix(NoiseSpec.parse(wrong), white_only=True)
