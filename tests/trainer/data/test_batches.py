"""What an epoch shows: every image once, mirrored, moved and noisy, the same whenever it is drawn.

Legend: N images, B in a batch, C channels, S side.
"""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from lookalike.encoder.images import NoiseSpec
from lookalike.trainer.data import EVAL_BATCH, batches, chunked, labelled_batches, subsample, to_floats
from lookalike.trainer.data.dataset import shift_images
from tests.fixtures.tiny_models import pictures

PLAIN: dict[str, Any] = {"size": 16, "shift": 0, "noise": None, "seed": 0, "epoch": 0}


def drawn(images: NDArray[np.uint8], **changes: Any) -> list[tuple[Tensor, Tensor]]:
    return list(batches(images, np.arange(len(images)), **(PLAIN | changes)))


def numbered(count: int) -> NDArray[np.uint8]:
    """Images (N, 4, 4, 1) that are their number all over, so that moving and mirroring keep it."""
    return np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((4, 4, 1), np.uint8)


def test_same_seed_and_epoch_give_the_same_batches() -> None:
    images = pictures(40)
    options = {"shift": 2, "noise": NoiseSpec(low=0, high=0.2), "seed": 3, "epoch": 5}
    for (input_, target), (again, target_again) in zip(
        drawn(images, **options), drawn(images, **options), strict=True
    ):
        assert torch.equal(input_, again)
        assert torch.equal(target, target_again)


@pytest.mark.parametrize("other", [{"epoch": 1}, {"seed": 1}])
def test_another_epoch_or_seed_gives_other_batches(other: dict[str, int]) -> None:
    images = pictures(40)
    pairs = zip(drawn(images), drawn(images, **other), strict=True)
    assert not any(torch.equal(one, another) for (_, one), (_, another) in pairs)


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 100), size=st.integers(1, 40), shift=st.integers(0, 5), epoch=st.integers(0, 3))
def test_every_image_is_shown_once_in_batches_of_like_size(
    count: int, size: int, shift: int, epoch: int
) -> None:
    shown = [target for _, target in drawn(numbered(count), size=size, shift=shift, epoch=epoch)]
    numbers = torch.cat(shown)[:, 0, 0, 0] * 255
    assert sorted(round(number) for number in numbers.tolist()) == list(range(count))
    sizes = [len(target) for target in shown]
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1


def test_only_the_chosen_images_are_shown() -> None:
    shown = torch.cat([target for _, target in batches(numbered(50), np.array([3, 7, 49]), **PLAIN)])
    assert sorted(round(number) for number in (shown[:, 0, 0, 0] * 255).tolist()) == [3, 7, 49]


def test_source_images_stay_as_they_are() -> None:
    images = pictures(20)
    before = images.copy()
    drawn(images, shift=2, noise=NoiseSpec(low=0, high=0.1))
    np.testing.assert_array_equal(images, before)


def test_about_half_of_the_images_are_mirrored() -> None:
    images = np.zeros((1000, 4, 4, 1), np.uint8)
    images[:, :, 2:] = 255
    left = torch.cat([target for _, target in drawn(images, size=128)])[:, 0, 0, 0]
    assert 440 < int(left.sum()) < 560  # four deviations
    assert set(left.tolist()) == {0.0, 1.0}


def test_moved_rolls_and_repeats_the_edge() -> None:
    (image,) = np.random.default_rng(0).integers(0, 256, (1, 6, 6, 3), dtype=np.uint8)
    down_left = np.roll(image, (1, -2), axis=(0, 1))
    down_left[0] = down_left[1]
    down_left[:, -2:] = down_left[:, -3:-2]
    up = np.roll(image, -3, axis=0)
    up[-3:] = up[-4]
    out = shift_images(np.stack([image] * 3), np.array([[1, -2], [-3, 0], [0, 0]]))
    for got, expected in zip(out, (down_left, up, image), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_moving_by_more_than_the_side_leaves_the_edge() -> None:
    image = np.arange(9, dtype=np.uint8).reshape(1, 3, 3, 1)
    assert (shift_images(image, np.array([[99, -99]])) == 2).all()  # the corner at the top right


def test_moves_reach_each_way_as_far_as_asked_and_no_further() -> None:
    images = np.zeros((400, 9, 9, 1), np.uint8)
    images[:, 4, 4] = 255
    rows, columns = torch.cat([target for _, target in drawn(images, shift=2)])[:, 0].nonzero().T[1:]
    assert set((rows - 4).tolist()) == set((columns - 4).tolist()) == {-2, -1, 0, 1, 2}


def test_noise_has_a_level_of_its_own_on_each_input_and_none_on_the_target() -> None:
    images = np.full((300, 16, 16, 3), 128, np.uint8)
    for input_, target in drawn(images, size=300, noise=NoiseSpec(low=0, high=0.2)):
        assert (target == 128 / 255).all()
        levels = (input_ - target).flatten(1).std(1)
        assert levels.max() < 0.22
        assert levels.max() > 0.18
        assert levels.min() < 0.02
        assert levels.mean() == pytest.approx(0.1, abs=0.02)
        assert abs((input_ - target).mean().item()) < 2e-3


def test_input_is_the_target_without_noise() -> None:
    for input_, target in drawn(pictures(20), shift=1):
        assert torch.equal(input_, target)


def test_floats_are_channels_first_from_0_to_1() -> None:
    rows = np.zeros((1, 2, 2, 3), np.uint8)
    rows[0, 0, 1] = (255, 0, 51)
    image = to_floats(rows)
    assert image.shape == (1, 3, 2, 2)
    assert image.dtype == torch.float32
    assert image[0, :, 0, 1].tolist() == pytest.approx([1.0, 0.0, 0.2])


def test_pieces_cut_in_order_and_evenly_chooses_in_order() -> None:
    indices = np.arange(3, 1003)
    cut = chunked(indices)
    assert max(map(len, cut)) <= EVAL_BATCH
    np.testing.assert_array_equal(np.concatenate(cut), indices)
    np.testing.assert_array_equal(subsample(indices, 5000), indices)
    some = subsample(indices, 10)
    assert (np.diff(some) == 100).all()
    assert len(some) == 10
    assert len(subsample(indices, 0)) == 1


def test_labelled_batches_put_noise_on_the_picture_and_draw_the_target_alone() -> None:
    images = np.full((64, 12, 12, 1), 102, np.uint8)  # 0.4
    labels = np.arange(64) % 3
    options: dict[str, Any] = {"size": 64, "shift": 0, "mirror": False, "seed": 0, "epoch": 0}
    noise = NoiseSpec(low=0.1, high=0.1)
    ((input_, target, told),) = labelled_batches(
        images, labels, np.arange(64), binarise=True, noise=noise, **options
    )
    assert set(target.flatten().tolist()) == {0, 1}
    assert target.mean().item() == pytest.approx(0.4, abs=0.02)
    assert input_.mean().item() == pytest.approx(0.4, abs=0.01)  # the grey picture, not black and white
    assert input_.std().item() == pytest.approx(0.1, rel=0.05)
    np.testing.assert_array_equal(told.numpy(), labels)
    ((plain, same, _),) = labelled_batches(images, labels, np.arange(64), binarise=True, **options)
    assert plain is same
    ((again, *_),) = labelled_batches(images, labels, np.arange(64), binarise=True, noise=noise, **options)
    assert torch.equal(input_, again)
