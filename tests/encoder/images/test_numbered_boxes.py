"""Numbered boxes stand where they belong, whatever the size of the image."""

import numpy as np
import pytest
from numpy.typing import NDArray

from lookalike.encoder.images import numbered_boxes

BLUE = (26, 104, 214)


def drawn(
    shape: tuple[int, int], *boxes: tuple[float, float, float, float], side: int = 224
) -> NDArray[np.bool_]:
    """Which pixels are no longer gray."""
    shown = numbered_boxes(np.full((*shape, 3), 90, np.uint8), boxes, side=side)
    return np.asarray((shown == BLUE).all(2))


@pytest.mark.parametrize("shape", [(100, 200), (448, 224), (1000, 2000)])
def test_edges_are_drawn_where_the_box_is(shape: tuple[int, int]) -> None:
    mask = drawn(shape, (0.25, 0.5, 0.5, 0.25))
    height, width = mask.shape
    assert max(height, width) == min(224, max(shape))
    assert width / height == pytest.approx(shape[1] / shape[0], rel=0.02)
    y, x = np.nonzero(mask)
    edges = x.min() / width, y.max() / height, x.max() / width
    assert edges == pytest.approx((0.25, 0.75, 0.75), abs=0.02)
    assert not mask[round(0.7 * height), round(0.5 * width)]  # a frame, not a surface


def test_numbers_differ_and_stay_inside() -> None:
    first, both = drawn((224, 224), (0.2, 0.2, 0.2, 0.2)), drawn((224, 224), *[(0.2, 0.2, 0.2, 0.2)] * 2)
    assert (first != both).any()  # 2 on 1
    outside = drawn((224, 224), (-0.5, -0.5, 0.6, 0.6), (0.95, 0.98, 0.5, 0.5))
    assert outside[:10, :5].any()
    assert outside[-10:, -5:].any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (3, 2)])
def test_the_smallest_images_take_boxes_too(shape: tuple[int, int]) -> None:
    assert drawn(shape, (0, 0, 1, 1), (-9, -9, 30, 30)).shape == tuple(
        max(1, round(length * min(1, 224 / max(shape)))) for length in shape
    )
