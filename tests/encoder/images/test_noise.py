"""Noise: what its levels mean, that a seed gives the same, that numpy and torch give the same.

Legend: N images, H, W, C.
"""

import json
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.images import NoiseKind, NoiseSpec, noise
from lookalike.trainer.data import noise as corruption
from tests.fixtures.tiny_models import pictures

KINDS: tuple[NoiseKind, ...] = get_args(NoiseKind)


def flat(value: float, *, count: int = 2, side: int = 128, channels: int = 3) -> NDArray[np.float32]:
    return np.full((count, side, side, channels), value, np.float32)


def levels_of(kind: NoiseKind, count: int, seed: int = 0) -> NDArray[np.float32]:
    """Levels from one end of what there is to the other, float32 (N,)."""
    low, high = (1, 100) if kind == "jpeg" else (0, 1)
    return np.random.default_rng(seed).permutation(np.linspace(low, high, count)).astype(np.float32)


def put_on(pixels: NDArray[np.float32], level: float, kind: NoiseKind, seed: int = 0) -> NDArray[np.float32]:
    levels = np.full(len(pixels), level, np.float32)
    return noise.add_noise(pixels, levels, kind=kind, rng=np.random.default_rng(seed))


def as_torch(pixels: NDArray[np.float32]) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_numpy_and_torch_give_the_same(kind: NoiseKind, channels: int) -> None:
    pixels = pictures(9, size=24, channels=channels).astype(np.float32) / np.float32(255)
    levels = levels_of(kind, 9)
    ours = noise.add_noise(pixels, levels, kind=kind, rng=np.random.default_rng(5))
    theirs = corruption.add_noise(
        as_torch(pixels), torch.from_numpy(levels), kind=kind, rng=np.random.default_rng(5)
    )
    assert ours.dtype == np.float32
    assert theirs.dtype == torch.float32
    np.testing.assert_array_equal(ours, theirs.permute(0, 2, 3, 1).numpy())


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_the_same_and_another_gives_another(kind: NoiseKind) -> None:
    pixels = pictures(2, size=24).astype(np.float32) / np.float32(255)
    level = 30.0 if kind == "jpeg" else 0.2
    np.testing.assert_array_equal(put_on(pixels, level, kind), put_on(pixels, level, kind))
    same = np.array_equal(put_on(pixels, level, kind), put_on(pixels, level, kind, seed=1))
    assert same == (kind == "jpeg")  # which draws nothing


@settings(max_examples=40, deadline=None)
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 99), side=st.integers(1, 20))
def test_values_stay_in_range_and_the_source_as_it_is(kind: NoiseKind, seed: int, side: int) -> None:
    pixels = np.random.default_rng(seed).random((3, side, side + 1, 3), np.float32)
    before = pixels.copy()
    made = noise.add_noise(pixels, levels_of(kind, 3, seed), kind=kind, rng=np.random.default_rng(seed))
    assert made.shape == pixels.shape
    assert made.min() >= 0
    assert made.max() <= 1
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "jpeg"])
def test_level_0_leaves_a_picture_as_it_is(kind: NoiseKind) -> None:
    pixels = np.random.default_rng(0).random((2, 9, 9, 3), np.float32)
    np.testing.assert_array_equal(put_on(pixels, 0, kind), pixels)


def test_gaussian_has_the_deviation_asked_for_and_is_clipped() -> None:
    apart = put_on(flat(0.5), 0.1, "gaussian") - np.float32(0.5)
    assert apart.std() == pytest.approx(0.1, rel=0.01)
    assert abs(apart.mean()) < 1e-3
    black = put_on(flat(0.0), 0.1, "gaussian")
    assert (black == 0).mean() == pytest.approx(0.5, abs=0.01)
    assert black.mean() == pytest.approx(0.1 / np.sqrt(2 * np.pi), rel=0.02)  # of max(0, N(0, 0.1))


@pytest.mark.parametrize("value", [0.25, 0.81])
def test_poisson_deviates_by_the_root_of_the_brightness(value: float) -> None:
    apart = put_on(flat(value), 0.05, "poisson") - np.float32(value)
    assert apart.std() == pytest.approx(0.05 * np.sqrt(value), rel=0.02)
    assert abs(apart.mean()) < 1e-3
    assert (put_on(flat(0.0), 0.05, "poisson") == 0).all()


def test_poisson_too_weak_to_count_is_left_out() -> None:
    pixels = np.random.default_rng(0).random((1, 9, 9, 3), np.float32)
    np.testing.assert_array_equal(put_on(pixels, 1e-6, "poisson"), pixels)
    weakest = put_on(pixels, 1.001 * noise.MIN_POISSON_LEVEL, "poisson")
    np.testing.assert_allclose(weakest, pixels, atol=6 * noise.MIN_POISSON_LEVEL)


def test_masking_blackens_a_share_of_the_pixels_in_all_channels() -> None:
    masked = put_on(flat(0.5), 0.3, "masking")
    assert set(np.unique(masked)) == {0, 0.5}
    assert (masked == 0).mean() == pytest.approx(0.3, abs=0.01)
    assert (masked == masked[..., :1]).all()
    assert (put_on(flat(0.5), 1, "masking") == 0).all()


def test_salt_and_pepper_come_in_equal_shares() -> None:
    peppered = put_on(flat(0.5), 0.3, "salt-pepper")
    assert (peppered == 0).mean() == pytest.approx(0.15, abs=0.01)
    assert (peppered == 1).mean() == pytest.approx(0.15, abs=0.01)
    assert (peppered == peppered[..., :1]).all()


def test_jpeg_of_lower_quality_is_further_off_and_of_whole_grey_levels() -> None:
    pixels = np.random.default_rng(0).random((1, 32, 32, 3), np.float32)
    apart = [np.square(put_on(pixels, quality, "jpeg") - pixels).mean() for quality in (95, 50, 10, 1)]
    assert apart == sorted(apart)
    assert len(set(apart)) == 4
    levels = put_on(pixels, 50, "jpeg") * 255
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-4)


def test_each_image_has_its_own_level() -> None:
    levels = np.array([0, 0.1, 0.4], np.float32)
    made = noise.add_noise(flat(0.5, count=3), levels, kind="gaussian", rng=np.random.default_rng(0))
    assert made[0].std() == 0
    assert made[1].std() == pytest.approx(0.1, rel=0.02)
    assert made[2].std() > 0.3


@pytest.mark.parametrize(
    ("text", "kind", "low", "high"),
    [
        ("25", "gaussian", 25 / 255, 25 / 255),
        ("0:50", "gaussian", 0, 50 / 255),
        ("gaussian:12.5", "gaussian", 12.5 / 255, 12.5 / 255),
        ("poisson:25", "poisson", 25 / 255, 25 / 255),
        ("salt-pepper:0.1", "salt-pepper", 0.1, 0.1),
        ("masking:0.25:0.5", "masking", 0.25, 0.5),
        ("JPEG:10:60", "jpeg", 10, 60),
        ("0", "gaussian", 0, 0),
    ],
)
def test_text_is_read_and_written(text: str, kind: str, low: float, high: float) -> None:
    spec = NoiseSpec.parse(text)
    assert (spec.kind, spec.low, spec.high) == (kind, low, high)
    again = NoiseSpec.parse(str(spec))
    assert str(again) == str(spec)
    assert (again.low, again.high) == pytest.approx((low, high))
    assert NoiseSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert spec.is_zero == (text == "0")


@pytest.mark.parametrize(
    "text", ["", ":", "loud", "25:", "1:2:3", "poisson", "jpeg:", "salt:0.1", "poisson:a"]
)
def test_text_that_says_nothing_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"cannot read .*write SIGMA or LO:HI"):
        NoiseSpec.parse(text)


@pytest.mark.parametrize(
    "text", ["-1", "256", "50:25", "nan", "inf", "salt-pepper:1.1", "masking:-0.1", "jpeg:0", "jpeg:101"]
)
def test_levels_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"levels of .* noise must rise within"):
        NoiseSpec.parse(text)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"kind": "gaussian", "low": 0},
        {"kind": "gaussian", "low": 0, "high": 1, "more": 1},
        {"kind": "gaussian", "low": "0", "high": 1},
        {"kind": "gaussian", "low": True, "high": True},
        {"kind": "snow", "low": 0, "high": 1},
        {"kind": 3, "low": 0, "high": 1},
        {"kind": "gaussian", "low": 0, "high": 2},
    ],
)
def test_json_that_describes_no_noise_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match="noise"):
        NoiseSpec.from_json(values)


def test_levels_are_drawn_evenly_between_the_two() -> None:
    levels = NoiseSpec(low=0.1, high=0.3).levels(10_000, np.random.default_rng(0))
    assert levels.dtype == np.float32
    assert levels.min() >= np.float32(0.1)
    assert levels.max() <= np.float32(0.3)
    assert levels.mean() == pytest.approx(0.2, abs=0.002)
    assert set(NoiseSpec(low=0.1, high=0.1).levels(3, np.random.default_rng(0))) == {np.float32(0.1)}


def test_noise_of_cameras_grows_with_the_brightness_and_is_correlated() -> None:
    dark, bright = (put_on(flat(value, count=8), 0.05, "camera") - np.float32(value) for value in (0.05, 0.6))
    inner = np.s_[:, 8:-8, 8:-8]
    linear = [((value + 0.055) / 1.055) ** 2.4 for value in (0.05, 0.6)]
    assert linear[1] > 10 * linear[0]
    assert bright[inner].std() != pytest.approx(dark[inner].std(), rel=0.05)
    centered = bright[inner] - bright[inner].mean((1, 2), keepdims=True)
    neighbors = (centered[:, :, 1:] * centered[:, :, :-1]).mean() / np.square(centered).mean()
    assert neighbors > 0.15  # of white noise it is 0


def test_resized_noise_has_the_deviation_asked_for_and_is_smoother_than_white_noise() -> None:
    apart = put_on(flat(0.5, count=8), 0.05, "resized") - np.float32(0.5)
    assert apart.std() == pytest.approx(0.05, rel=0.02)
    neighbors = (apart[:, :, 1:] * apart[:, :, :-1]).mean() / np.square(apart).mean()
    assert neighbors > 0.3
    assert (apart[..., 0] != apart[..., 1]).any()


def test_noise_in_the_shadows_fades_towards_gray() -> None:
    deviations = [
        (put_on(flat(value), 0.04, "shadows") - np.float32(value)).std() for value in (0.2, 0.4, 0.5, 0.9)
    ]
    assert deviations[0] == pytest.approx(0.04 * 0.6, rel=0.03)
    assert deviations[1] == pytest.approx(0.04 * 0.2, rel=0.03)
    assert deviations[2:] == [0, 0]
