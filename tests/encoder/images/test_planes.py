"""Means over squares, resizing and halving, worked out by hand or pixel by pixel."""

import numpy as np
import pytest
from PIL import Image

from lookalike.encoder.images import box_means, half_size, resize_floats


@pytest.mark.parametrize("border", ["reflect", "symmetric"])
@pytest.mark.parametrize("side", [1, 3, 7])
@pytest.mark.parametrize("shape", [(9, 12), (12, 9, 1), (8, 8, 3)])
def test_means_are_those_of_each_square(shape: tuple[int, ...], side: int, border: str) -> None:
    values = np.random.default_rng(0).random(shape, np.float32)
    reach = side // 2
    wide = np.pad(values, [(reach, reach), (reach, reach), (0, 0)][: len(shape)], border)  # type: ignore[call-overload]
    means = box_means(values, side, border=border)  # type: ignore[arg-type]
    assert (means.shape, str(means.dtype)) == (shape, "float64")
    for row in range(shape[0]):
        for column in range(shape[1]):
            square = wide[row : row + side, column : column + side]
            np.testing.assert_allclose(means[row, column], square.mean((0, 1), dtype=np.float64), atol=1e-12)


def test_channels_are_resized_each_for_itself_as_pillow_does() -> None:
    values = np.random.default_rng(0).normal(size=(20, 31, 3)).astype(np.float32)
    small = resize_floats(values, 7, 13)
    assert (small.shape, str(small.dtype)) == ((7, 13, 3), "float32")
    for channel in range(3):
        plane = Image.fromarray(values[..., channel]).resize((13, 7), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(small[..., channel], np.asarray(plane))


def test_half_size_is_the_mean_of_four_pixels() -> None:
    pixels = np.array([[0, 4, 9], [8, 12, 9], [200, 200, 9]], np.uint8)[..., None]
    assert half_size(pixels).tolist() == [[[6]]]
    halves = np.array([[0, 1, 1, 2], [0, 1, 1, 2]], np.uint8)[..., None]
    assert half_size(halves).tolist() == [[[0], [2]]]  # to even: an image becomes no brighter
    assert half_size(np.zeros((1, 5, 3), np.uint8)).shape == (0, 2, 3)
