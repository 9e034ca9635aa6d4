"""Patches: of training pictures alone, always the same, and the noise on them is as they say."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lookalike.deploy.evaluation import open_test_set
from lookalike.deploy.evaluation.denoising.noisy_images import PHOTOGRAPHS
from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.images import Crop, ImageSpec, encode_png
from lookalike.trainer.config import PatchSpec
from lookalike.trainer.data import Source, noisy_batches, open_dataset, photographs, sources_of, views_of

BLUE = np.array([0, 0, 255], np.uint8)
RED = np.array([255, 0, 0], np.uint8)
PLAIN = PatchSpec(side=8, rotated=0.0, gray=0.0)


def pictures(count: int, *, side: int = 16, channels: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, channels), np.uint8)


def drawn(
    *sources: Source,
    spec: PatchSpec = PLAIN,
    low: float = 0.0,
    high: float = 0.3,
    seed: int = 0,
    epoch: int = 0,
) -> list[torch.Tensor]:
    """Noisy (B, 3, S, S), sigma (B,) and clean (B, 3, S, S) of three batches of 64."""
    found = noisy_batches(sources, spec, low=low, high=high, size=64, steps=3, seed=seed, epoch=epoch)
    return [torch.cat(part) for part in zip(*found, strict=True)]


def whole(images: NDArray[np.uint8]) -> Source:
    return Source(images, np.arange(len(images)), 1.0)


def test_people_who_are_held_out_or_validate_are_never_shown(tmp_path: Path) -> None:
    for person in range(12):
        for number in range(2):
            file = tmp_path / f"person-{person}" / f"{number}.png"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(encode_png(np.tile(RED, (20, 20, 1))))
    dataset = open_dataset(str(tmp_path))
    split = dataset.split(range(len(dataset.paths)))
    others = [*split.validation, *split.held_out]
    for row in split.train:
        (tmp_path / dataset.paths[row]).write_bytes(encode_png(np.tile(BLUE, (20, 20, 1))))
    sources, prints = sources_of(dataset, views_of(dataset), split.train, side=8)
    assert len(sources) == len(set(prints)) == 3
    for source in sources:
        assert source.rows.tolist() == split.train.tolist()
        assert all((source.images[row] == RED).all() for row in others)
    _, _, clean = drawn(*sources)
    assert (clean[:, 2] == 1).all()
    assert (clean[:, 0] == 0).all()


def test_no_photograph_that_cleaning_is_measured_on_is_learned_from() -> None:
    from sklearn.datasets import load_sample_images

    learned = {Path(name).stem for name in load_sample_images().filenames}
    assert len(learned) == 2
    assert not learned & set(PHOTOGRAPHS)
    sizes = [image.shape for image in photographs(side=64)]
    assert sizes == [(427, 640, 3), (427, 640, 3), (213, 320, 3), (213, 320, 3)]
    assert [image.shape for image in photographs(side=214)] == sizes[:2]


@pytest.mark.lfw
@pytest.mark.usefixtures("lfw_folder")
def test_faces_that_cleaning_is_measured_on_are_of_people_held_out() -> None:
    dataset = open_dataset("lfw")
    measured = {name.rsplit("_", 1)[0] for name in open_test_set("lfw-64", 20).titles}
    assert len(measured) == 20
    assert measured <= dataset.held_out
    split = dataset.split(range(len(dataset.paths)))
    assert not measured & {dataset.people[row] for row in (*split.train, *split.validation)}


def test_pictures_that_cannot_be_read_and_sizes_below_a_patch_are_left_out(tmp_path: Path) -> None:
    for person in range(6):
        (tmp_path / f"{person}.png").write_bytes(encode_png(pictures(6)[person]))
    (tmp_path / "3.png").write_bytes(b"no picture")
    dataset = open_dataset(str(tmp_path))
    views = {ImageSpec(size=size, channels=3, crop=Crop()): 0.5 for size in (16, 32)}
    sources, prints = sources_of(dataset, views, np.arange(6), side=20)
    assert len(prints) == 2
    (source,) = sources
    assert source.rows.tolist() == [0, 1, 2, 4, 5]
    with pytest.raises(
        InvalidArgumentError, match=r"32x32 pixels at most, --patch 33 is larger; take a smaller"
    ):
        sources_of(dataset, views, np.arange(6), side=33)


def test_an_epoch_is_the_same_whenever_it_is_drawn() -> None:
    source = whole(pictures(5))
    for one, again in zip(drawn(source), drawn(source), strict=True):
        assert torch.equal(one, again)
    assert not torch.equal(drawn(source)[2], drawn(source, seed=1)[2])
    assert not torch.equal(drawn(source)[2], drawn(source, epoch=1)[2])


def test_patches_are_cut_from_anywhere_and_sources_have_their_shares() -> None:
    ramp = np.arange(16 * 20, dtype=np.uint16).reshape(16, 20)
    image = np.stack([ramp % 256, ramp // 256, ramp * 0], -1).astype(np.uint8)
    _, _, clean = drawn(
        Source([image], np.array([0]), 1.0), spec=PatchSpec(side=8, mirror=False, rotated=0, gray=0)
    )
    corners = {int(c[0] * 255 + 0.5) + 256 * int(c[1] * 255 + 0.5) for c in clean[:, :, 0, 0]}
    places = {(corner // 20, corner % 20) for corner in corners}
    assert {top for top, _ in places} == set(range(16 - 8 + 1))
    assert {left for _, left in places} == set(range(20 - 8 + 1))
    dark, light = (np.full((2, 8, 8, 3), value, np.uint8) for value in (0, 255))
    _, _, mixed = drawn(Source(dark, np.arange(2), 3.0), Source(light, np.arange(2), 1.0))
    assert float(mixed.mean()) == pytest.approx(0.25, abs=0.1)


@pytest.mark.parametrize("channels", [1, 3])
def test_noise_is_as_strong_as_told_and_the_same_in_all_channels_of_grey(channels: int) -> None:
    grey = np.full((4, 16, 16, channels), 128, np.uint8)
    noisy, sigma, clean = drawn(whole(grey), low=0.02, high=0.1)
    assert noisy.shape == clean.shape == (192, 3, 8, 8)
    assert ((sigma >= 0.02) & (sigma <= 0.1)).all()
    assert float(sigma.std()) > 0.015
    assert (noisy[:, :1] == noisy).all()
    deviations = (noisy - clean)[:, 0].flatten(1).std(1)
    assert float((deviations / sigma).mean()) == pytest.approx(1, abs=0.03)
    assert ((noisy >= 0) & (noisy <= 1)).all()
    colours, _, plain = drawn(whole(pictures(4)), low=0.05, high=0.1)
    assert ((colours - plain)[:, 0] != (colours - plain)[:, 1]).any(2).any(1).all()


def test_some_of_the_noise_is_in_bytes_and_clean_patches_are_among_them() -> None:
    noisy, sigma, clean = drawn(whole(pictures(4)))
    whole_levels = ((noisy * 255 - (noisy * 255).round()).abs() < 1e-4).flatten(1).all(1)
    assert 0.4 < float(whole_levels.float().mean()) < 0.8
    assert float((sigma < 0.13 * 0.3).float().mean()) > 0.08
    for level in drawn(whole(pictures(4)), low=0.0, high=0.0)[1]:
        assert level == 0
    assert ((clean * 255 - (clean * 255).round()).abs() < 1e-4).all()


def test_mirrored_turned_and_grey_patches_are_shown_as_often_as_told() -> None:
    image = np.zeros((1, 8, 8, 3), np.uint8)
    image[0, 0, 0, 0] = 255  # one red corner tells how it was turned
    source = whole(image)
    _, _, mirrored = drawn(source, spec=PatchSpec(side=8, mirror=True, rotated=0, gray=0))
    assert float(mirrored[:, 0, 0, 7].mean()) == pytest.approx(0.5, abs=0.12)
    _, _, turned = drawn(source, spec=PatchSpec(side=8, mirror=False, rotated=0.5, gray=0))
    assert float(turned[:, 0, 0, 0].mean()) == pytest.approx(0.5, abs=0.12)
    _, _, grey = drawn(source, spec=PatchSpec(side=8, mirror=False, rotated=0, gray=0.3))
    assert float((grey[:, 0, 0, 0] == grey[:, 1, 0, 0]).float().mean()) == pytest.approx(0.3, abs=0.12)
    assert float(grey[:, 1].max()) == pytest.approx(76 / 255)  # 0.299 of 255
