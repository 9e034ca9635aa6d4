"""Noise as cameras make it: the sensor, the mosaic and the development, each against its formula."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import convolve  # type: ignore[import-untyped]

from lookalike.encoder.images import Camera, add_camera_noise, sample_camera
from lookalike.encoder.images.camera_noise import (
    Demosaic,
    _demosaic,
    _from_srgb,
    _mosaic,
    _to_srgb,
)

Floats = NDArray[np.float32]
KINDS: tuple[Demosaic, ...] = get_args(Demosaic)
PLAIN = Camera(photon=0.0, tone=False)


def scene(height: int = 24, width: int = 32, channels: int = 3) -> Floats:
    return np.random.default_rng(0).uniform(0.05, 0.95, (height, width, channels)).astype(np.float32)


def smooth(height: int = 24, width: int = 32) -> Floats:
    down, across = np.mgrid[:height, :width].astype(np.float32)
    image = np.stack([across / width, down / height, (across + down) / (width + height)], 2) * 0.6 + 0.2
    return image.astype(np.float32)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def cameras() -> list[Camera]:
    """Random ones, and each way of development by itself."""
    each = [sample_camera(0.05, rng(seed)) for seed in range(12)]
    each += [replace(PLAIN, photon=0.05, demosaic=kind) for kind in KINDS]
    return [
        *each,
        Camera(photon=0.1, color_blur=2),
        Camera(photon=0.1, smoothing=0.7),
        Camera(photon=0.1, sharpening=0.8),
        replace(PLAIN, read=0.1),
    ]


# The whole


@pytest.mark.parametrize("camera", cameras())
@pytest.mark.parametrize("channels", [1, 3])
def test_without_photon_and_read_noise_both_are_the_same(camera: Camera, channels: int) -> None:
    noisy, clean = add_camera_noise(scene(channels=channels), replace(camera, photon=0.0, read=0.0), rng())
    np.testing.assert_array_equal(noisy, clean)


@pytest.mark.parametrize("camera", cameras())
@pytest.mark.parametrize("shape", [(24, 32, 3), (17, 9, 1), (13, 15, 3)])
def test_the_same_seed_gives_the_same_noise(camera: Camera, shape: tuple[int, int, int]) -> None:
    pixels = scene(*shape)
    before = pixels.copy()
    one, again, other = (add_camera_noise(pixels, camera, rng(seed)) for seed in (1, 1, 2))
    for each in (*one, *other):
        assert each.shape == shape
        assert each.dtype == np.float32
        assert each.min() >= 0
        assert each.max() <= 1
    np.testing.assert_array_equal(one[0], again[0])
    np.testing.assert_array_equal(one[1], other[1])  # the reference has no noise
    assert (one[0] != other[0]).any()
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize("level", [0.2, 0.5, 0.8])
@pytest.mark.parametrize(("photon", "read"), [(0.05, 0.0), (0.0, 0.04), (0.04, 0.03)])
def test_the_variance_on_gray_is_that_of_photons_and_of_reading(
    level: float, photon: float, read: float
) -> None:
    flat = np.full((400, 400, 1), level, np.float32)
    noisy, clean = add_camera_noise(flat, replace(PLAIN, photon=photon, read=read), rng())
    np.testing.assert_array_equal(clean, flat)
    assert float((noisy - clean).var()) == pytest.approx(photon**2 * level + read**2, rel=0.02)
    assert float((noisy - clean).mean()) == pytest.approx(0, abs=0.001)
    across = (noisy - clean)[:, 1:] * (noisy - clean)[:, :-1]
    assert abs(float(across.mean())) < 0.01 * float((noisy - clean).var())  # no neighbor knows of another


def test_the_tone_curve_makes_noise_stronger_in_the_shadows() -> None:
    def deviation(value: float) -> float:
        noisy, clean = add_camera_noise(np.full((200, 200, 1), value, np.float32), Camera(photon=0.02), rng())
        return float((noisy - clean).std())

    # photon sqrt(x) times the slope of the curve, 1.055 / 2.4 x^(1 / 2.4 - 1), where x is the light.
    for value in (0.3, 0.6, 0.9):
        light = float(_from_srgb(np.array(value, np.float32)))
        expected = 0.02 * light**0.5 * 1.055 / 2.4 * light ** (1 / 2.4 - 1)
        assert deviation(value) == pytest.approx(expected, rel=0.03)
    assert deviation(0.3) > deviation(0.9)


@pytest.mark.parametrize("camera", cameras())
def test_clean_gray_stays_gray(camera: Camera) -> None:
    gray = np.repeat(np.full((20, 24, 1), 0.4, np.float32), 3, axis=2)
    noisy, clean = add_camera_noise(gray, camera, rng())
    np.testing.assert_allclose(clean, gray, atol=2e-6)
    if camera.photon and camera.color_blur == 0:
        assert np.abs(noisy[..., 0] - noisy[..., 1]).max() > 0.001  # the noise has colors
    one, reference = add_camera_noise(gray[..., :1], camera, rng())
    np.testing.assert_allclose(reference, gray[..., :1], atol=2e-6)
    assert one.shape == reference.shape == (20, 24, 1)


def test_white_balance_makes_the_noise_of_red_and_blue_stronger() -> None:
    gray = np.full((200, 200, 3), 0.3, np.float32)
    camera = replace(PLAIN, read=0.01, red=2.0, blue=1.5)
    noisy, clean = add_camera_noise(gray, camera, rng())
    red, green, blue = (
        (noisy - clean)[::2, ::2, 0],
        (noisy - clean)[::2, 1::2, 1],
        (noisy - clean)[1::2, 1::2, 2],
    )
    assert float(green.std()) == pytest.approx(0.01, rel=0.05)
    assert float(red.std()) == pytest.approx(0.02, rel=0.05)
    assert float(blue.std()) == pytest.approx(0.015, rel=0.05)


def test_sharpening_adds_the_difference_to_a_blur() -> None:
    pixels, camera = smooth(), replace(PLAIN, photon=0.05)
    plain = add_camera_noise(pixels, camera, rng())
    sharpened = add_camera_noise(pixels, replace(camera, sharpening=0.5), rng())
    for one, sharp in zip(plain, sharpened, strict=True):
        blurred = np.stack(
            [convolve(one[..., c], np.full((3, 3), 1 / 9), mode="mirror") for c in range(3)], 2
        )
        np.testing.assert_allclose(sharp, (one + 0.5 * (one - blurred)).clip(0, 1), atol=1e-5)
    assert (sharpened[0] - sharpened[1]).std() > (plain[0] - plain[1]).std()


@pytest.mark.parametrize("radius", [1, 3])
def test_color_blur_averages_the_noise_of_colors_alone(radius: int) -> None:
    pixels, camera = smooth(), replace(PLAIN, photon=0.05)
    plain, clean = add_camera_noise(pixels, camera, rng())
    blurred, same = add_camera_noise(pixels, replace(camera, color_blur=radius), rng())
    np.testing.assert_array_equal(clean, same)
    weights = np.array([0.299, 0.587, 0.114])
    luma, luma_after = (plain - clean) @ weights, (blurred - clean) @ weights
    colors = plain - clean - luma[..., None]
    window = np.full((2 * radius + 1,) * 2, 1 / (2 * radius + 1) ** 2)
    means = np.stack([convolve(colors[..., c], window, mode="mirror") for c in range(3)], 2)
    np.testing.assert_allclose(blurred, clean + luma[..., None] + means, atol=1e-5)
    np.testing.assert_allclose(luma_after, luma, atol=1e-5)
    gray, reference = add_camera_noise(scene(channels=1), replace(camera, color_blur=radius), rng())
    expected = add_camera_noise(scene(channels=1), camera, rng())
    np.testing.assert_array_equal(gray, expected[0])
    np.testing.assert_array_equal(reference, expected[1])


@pytest.mark.parametrize("channels", [1, 3])
def test_smoothing_averages_the_noise_of_the_brightness_alone(channels: int) -> None:
    pixels, camera = scene(channels=channels), replace(PLAIN, photon=0.02)
    plain, clean = add_camera_noise(pixels, camera, rng())
    smoothed, same = add_camera_noise(pixels, replace(camera, smoothing=0.5), rng())
    np.testing.assert_array_equal(clean, same)
    weights = np.array([0.299, 0.587, 0.114]) if channels == 3 else np.ones(1)
    luma, luma_after = (plain - clean) @ weights, (smoothed - clean) @ weights
    means = convolve(luma, np.full((3, 3), 1 / 9), mode="mirror")
    np.testing.assert_allclose(luma_after, (luma + means) / 2, atol=1e-5)
    colors, colors_after = plain - clean - luma[..., None], smoothed - clean - luma_after[..., None]
    np.testing.assert_allclose(colors_after, colors, atol=1e-5)


def test_blotches_are_the_average_of_the_averaged_noise() -> None:
    pixels, camera = scene(channels=1), replace(PLAIN, photon=0.02, smoothing=1.0)
    clean = add_camera_noise(pixels, camera, rng())[1]
    once, twice = (
        add_camera_noise(pixels, replace(camera, blotches=radius), rng())[0] - clean for radius in (0, 2)
    )
    means = convolve(once[..., 0], np.full((5, 5), 1 / 25), mode="mirror")
    np.testing.assert_allclose(twice[..., 0], means, atol=1e-5)


def test_cameras_are_within_what_the_sources_say() -> None:
    drawn = [sample_camera(0.05, rng(seed)) for seed in range(300)]
    assert drawn[:9] == [sample_camera(0.05, rng(seed)) for seed in range(9)]
    assert all(each.photon == 0.05 for each in drawn)
    for name, low, high in (
        ("red", 1.4, 2.4), ("blue", 1.3, 2.2), ("saturation", 1.0, 1.6), ("read", 0.03 * 0.05, 0.3 * 0.05)
    ):  # fmt: skip
        values = [getattr(each, name) for each in drawn]
        assert low <= min(values) < low + 0.2 * (high - low)
        assert high - 0.2 * (high - low) < max(values) <= high
    assert {each.demosaic for each in drawn} == set(KINDS)
    assert {each.color_blur for each in drawn} == set(range(7))
    assert np.mean([each.sharpening > 0 for each in drawn]) == pytest.approx(0.3, abs=0.1)


# The curve


def test_the_curve_is_that_of_srgb() -> None:
    # IEC 61966-2-1: linear below 0.04045, then a power of 2.4.
    values = np.array([0, 0.04045, 0.25, 0.5, 0.75, 1.0], np.float32)
    light = [0, 0.0031308, 0.0508761, 0.2140411, 0.5225216, 1.0]
    np.testing.assert_allclose(_from_srgb(values), light, atol=1e-6)
    np.testing.assert_allclose(_to_srgb(np.array(light, np.float32)), values, atol=1e-5)
    every = (np.arange(256) / 255).astype(np.float32)
    np.testing.assert_allclose(_to_srgb(_from_srgb(every)), every, atol=1e-5)
    assert (np.diff(_from_srgb(every)) > 0).all()


# The mosaic


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("height", "width"), [(12, 16), (9, 13), (3, 3)])
def test_demosaicing_keeps_a_color_that_is_everywhere(kind: Demosaic, height: int, width: int) -> None:
    flat = np.broadcast_to(np.array([0.1, 0.5, 0.8], np.float32), (height, width, 3))
    found = _demosaic(_mosaic(flat), kind)
    np.testing.assert_allclose(found, flat, atol=1e-6)


@pytest.mark.parametrize("kind", ["bilinear", "malvar"])
def test_each_pixel_keeps_its_own_color(kind: Demosaic) -> None:
    pixels = scene()
    found = _demosaic(_mosaic(pixels), kind)
    np.testing.assert_allclose(found[::2, ::2, 0], pixels[::2, ::2, 0], atol=1e-6)
    np.testing.assert_allclose(found[::2, 1::2, 1], pixels[::2, 1::2, 1], atol=1e-6)
    np.testing.assert_allclose(found[1::2, ::2, 1], pixels[1::2, ::2, 1], atol=1e-6)
    np.testing.assert_allclose(found[1::2, 1::2, 2], pixels[1::2, 1::2, 2], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_straight_slopes_are_kept_inside(kind: Demosaic) -> None:
    down, across = np.mgrid[:16, :20].astype(np.float32)
    slope = np.repeat((0.1 + 0.02 * across + 0.01 * down)[..., None], 3, axis=2)
    found = _demosaic(_mosaic(slope), kind)
    np.testing.assert_allclose(found[3:-3, 3:-3], slope[3:-3, 3:-3], atol=1e-5)


def test_bilinear_is_the_mean_of_neighbors() -> None:
    raw = scene(8, 8, 1)[..., 0]
    found = _demosaic(raw, "bilinear")
    # At (2, 2) red: green from four sides, blue from four corners. At (2, 3) green: red left and right.
    assert found[2, 2, 1] == pytest.approx((raw[1, 2] + raw[3, 2] + raw[2, 1] + raw[2, 3]) / 4, rel=1e-5)
    assert found[2, 2, 2] == pytest.approx((raw[1, 1] + raw[1, 3] + raw[3, 1] + raw[3, 3]) / 4, rel=1e-5)
    assert found[2, 3, 0] == pytest.approx((raw[2, 2] + raw[2, 4]) / 2, rel=1e-5)
    assert found[2, 3, 2] == pytest.approx((raw[1, 3] + raw[3, 3]) / 2, rel=1e-5)
    assert found[3, 2, 0] == pytest.approx((raw[2, 2] + raw[4, 2]) / 2, rel=1e-5)


@pytest.mark.parametrize(
    ("place", "channel", "weights"),
    # Figure 2 of the paper, in eighths: weights of the pixels around, by row and column.
    [
        ((4, 4), 1, {(0, 0): 4, (0, 1): 2, (1, 0): 2, (0, 2): -1, (2, 0): -1}),  # green at red
        ((5, 5), 1, {(0, 0): 4, (0, 1): 2, (1, 0): 2, (0, 2): -1, (2, 0): -1}),  # green at blue
        ((4, 5), 0, {(0, 0): 5, (0, 1): 4, (0, 2): -1, (1, 1): -1, (2, 0): 0.5}),  # red at green in a red row
        (
            (5, 4),
            0,
            {(0, 0): 5, (1, 0): 4, (2, 0): -1, (1, 1): -1, (0, 2): 0.5},
        ),  # red at green in a blue row
        (
            (5, 4),
            2,
            {(0, 0): 5, (0, 1): 4, (0, 2): -1, (1, 1): -1, (2, 0): 0.5},
        ),  # blue at green in a blue row
        (
            (4, 5),
            2,
            {(0, 0): 5, (1, 0): 4, (2, 0): -1, (1, 1): -1, (0, 2): 0.5},
        ),  # blue at green in a red row
        ((5, 5), 0, {(0, 0): 6, (1, 1): 2, (0, 2): -1.5, (2, 0): -1.5}),  # red at blue
        ((4, 4), 2, {(0, 0): 6, (1, 1): 2, (0, 2): -1.5, (2, 0): -1.5}),  # blue at red
    ],
)
def test_malvars_filters_are_those_of_the_paper(
    place: tuple[int, int], channel: int, weights: dict[tuple[int, int], float]
) -> None:
    found = {}
    for down in range(-2, 3):
        for across in range(-2, 3):
            raw = np.zeros((10, 10), np.float32)
            raw[place[0] + down, place[1] + across] = 8
            found[down, across] = float(_demosaic(raw, "malvar")[(*place, channel)])
    expected = {at: weights.get((abs(at[0]), abs(at[1])), 0.0) for at in found}
    assert found == pytest.approx(expected)
    assert sum(found.values()) == pytest.approx(8)


def test_smooth_is_a_normalized_convolution() -> None:
    pixels = scene(20, 26)
    masks = np.zeros((3, 20, 26))
    masks[0, ::2, ::2] = masks[1, ::2, 1::2] = masks[1, 1::2, ::2] = masks[2, 1::2, 1::2] = 1
    kernel = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4
    raw = (pixels.transpose(2, 0, 1) * masks).sum(0)
    expected = np.stack([convolve(raw * mask, kernel) / convolve(mask, kernel) for mask in masks], 2)
    found = _demosaic(_mosaic(pixels), "smooth")
    np.testing.assert_allclose(found[1:-1, 1:-1], expected[1:-1, 1:-1], atol=1e-5)
