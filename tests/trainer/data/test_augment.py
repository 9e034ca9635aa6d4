"""Augmented images: seeded, of the same shape, and varied only as the configuration says."""

import torch

from lookalike.trainer.data import AugmentConfig, augment, to_floats
from tests.fixtures.people import SIDE, portraits

IMAGES = portraits(2, 4)


def test_views_are_seeded_differ_and_keep_their_shape() -> None:
    images = to_floats(IMAGES[:8])
    one, same, other = (augment(images, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert one.shape == images.shape
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert (one - images).abs().mean() < 0.3


def test_of_a_picture_with_room_the_middle_is_seen() -> None:
    still = AugmentConfig(shift=0, zoom=0, rotation=0, gamma=0, slope=0, noise=0, blurred=0)
    images = torch.rand(16, 1, 24, 24)
    seen = augment(images, torch.Generator().manual_seed(0), still, size=16)
    middle = images[:, :, 4:20, 4:20].clamp(min=1e-3)
    for one, plain in zip(seen, middle, strict=True):
        assert min((one - plain).abs().max(), (one - plain.flip(2)).abs().max()) < 1e-5


def test_views_are_covered_and_lit_where_asked() -> None:
    grey = torch.full((64, 1, SIDE, SIDE), 0.5)
    plain = AugmentConfig(shift=0, zoom=0, rotation=0, gamma=0, slope=0, noise=0, blurred=0)
    same = augment(grey, torch.Generator().manual_seed(0), plain)
    torch.testing.assert_close(same, grey)
    covering = AugmentConfig(
        shift=0, zoom=0, rotation=0, gamma=0, slope=0, noise=0, blurred=0, random_erasing=0.5
    )
    covered = (augment(grey, torch.Generator().manual_seed(0), covering) != 0.5).flatten(1)
    assert 20 < covered.any(1).sum() < 44
    assert covered.float().mean(1).max() <= (7 / 16 + 1 / SIDE) ** 2
    lit = augment(
        grey, torch.Generator().manual_seed(0), AugmentConfig(random_erasing=0, brightness=1.0, noise=0)
    )
    assert lit.mean((1, 2, 3)).std() > 0.2
