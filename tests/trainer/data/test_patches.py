"""Patches: of training images alone, always the same, and the noise on them is as they say."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lookalike.deploy.evaluation import open_test_set
from lookalike.deploy.evaluation.denoising.noisy_images import PHOTOGRAPHS
from lookalike.encoder.errors import DataError, InvalidArgumentError
from lookalike.encoder.images import Crop, ImageSpec, encode_png
from lookalike.trainer.config import PatchSpec
from lookalike.trainer.data import (
    NoiseMix,
    Source,
    noisy_batches,
    open_dataset,
    patches,
    read_photographs,
    sample_photographs,
    sources_of,
    views_of,
)
from lookalike.trainer.recipes import denoiser as recipe

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
    spread: float = 0.0,
    mix: NoiseMix | None = None,
) -> list[torch.Tensor]:
    """Noisy (B, 3, S, S), sigma (B, S, S) and clean (B, 3, S, S) of three batches of 64."""
    white = NoiseMix(low=low, high=high, camera=0, grain=0, clean=0, partial=0, jpeg=0)
    found = noisy_batches(
        sources, spec, mix or white, size=64, steps=3, seed=seed, epoch=epoch, spread=spread
    )
    return [torch.cat(part) for part in zip(*found, strict=True)]


def whole(images: NDArray[np.uint8]) -> Source:
    return Source(images, np.arange(len(images)), 1.0)


def test_people_who_are_held_out_or_validate_are_never_shown(tmp_path: Path) -> None:
    for person in range(12):
        for number in range(2):
            file = tmp_path / f"person-{person}" / f"{number}.png"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(encode_png(np.tile(RED, (40, 40, 1))))
    dataset = open_dataset(str(tmp_path))
    split = dataset.split(range(len(dataset.paths)))
    for row in split.train:
        (tmp_path / dataset.paths[row]).write_bytes(encode_png(np.tile(BLUE, (40, 40, 1))))
    data = recipe.denoiser_data(dataset, split, None, side=8)
    assert len(set(data.fingerprints)) == 3
    for sources, color in ((data.train, BLUE), (data.validation, RED), (data.held_out, RED)):
        assert len(sources) == 3  # whole, a half and a quarter
        for source in sources:
            for row in source.rows:
                assert (source.images[row] == color).all()
    _, _, clean = drawn(*data.train)
    assert (clean[:, 2] == 1).all()
    assert (clean[:, 0] == 0).all()
    sources, prints = sources_of(dataset, views_of(dataset), split.train, side=8)
    assert (len(sources), len(prints)) == (1, 1)
    assert sources[0].rows.tolist() == split.train.tolist()


def test_no_photograph_that_cleaning_is_measured_on_is_learned_from() -> None:
    from sklearn.datasets import load_sample_images

    learned = {Path(name).stem for name in load_sample_images().filenames}
    assert len(learned) == 2
    assert not learned & set(PHOTOGRAPHS)
    samples = sample_photographs()
    sizes = [image.shape for image in samples.images]
    assert sizes == [(427, 640, 3), (213, 320, 3), (106, 160, 3)] * 2
    assert samples.scales == (1, 2, 4) * 2
    shares = {64: [0.45, 0.35, 0.2], 107: [0.45, 0.35], 214: [0.45]}
    for side, expected in shares.items():
        sources = samples.sources(1.0, side=side)
        assert [source.share for source in sources] == expected
        assert [source.rows.tolist() for source in sources] == [[0, 3], [1, 4], [2, 5]][: len(expected)]
    with pytest.raises(
        InvalidArgumentError, match=r"photographs of 427 pixels at most, --patch 428 is larger"
    ):
        samples.sources(1.0, side=428)


# Photographs


def write_photographs(folder: Path, *colors: int, side: int = 24) -> list[Path]:
    """One-colored photographs, the gray value of each."""
    folder.mkdir(exist_ok=True)
    files = [folder / f"photo-{number:02d}.png" for number in range(len(colors))]
    for file, color in zip(files, colors, strict=True):
        file.write_bytes(encode_png(np.full((side, side + 8, 3), color, np.uint8)))
    return files


def colors_of(sources: list[Source]) -> set[int]:
    return {int(source.images[row][0, 0, 0]) for source in sources for row in source.rows}


@pytest.mark.parametrize("count", [5, 9, 10, 23])
def test_every_fifth_photograph_by_name_is_for_validation_and_never_trained_on(
    tmp_path: Path, count: int
) -> None:
    files = write_photographs(tmp_path / "photos", *range(1, count + 1))
    people = tmp_path / "people"
    for person in range(12):
        (people / f"{person}").mkdir(parents=True)
        (people / f"{person}" / "a.png").write_bytes(encode_png(np.full((24, 24, 3), 200, np.uint8)))
    dataset = open_dataset(str(people))
    split = dataset.split(range(len(dataset.paths)))
    fifth = set(range(5, count + 1, 5))
    for given in (files, files[::-1]):  # by name, in whatever order they are given
        data = recipe.denoiser_data(dataset, split, given, side=8)
        assert colors_of(data.validation) == fifth | {200}
        assert colors_of(data.train) == set(range(1, count + 1)) - fifth | {200}
        assert colors_of(data.held_out) == {200}  # what is reported is of the data set alone
        _, _, clean = drawn(*data.train)
        assert not fifth & {int(value) for value in np.unique((clean * 255).round().numpy())}


def test_fewer_than_five_photographs_are_refused(tmp_path: Path) -> None:
    people = tmp_path / "people"
    for person in range(12):
        (people / f"{person}").mkdir(parents=True)
        (people / f"{person}" / "a.png").write_bytes(encode_png(np.full((24, 24, 3), 200, np.uint8)))
    dataset = open_dataset(str(people))
    split = dataset.split(range(len(dataset.paths)))
    for count in (1, 4):
        files = write_photographs(tmp_path / f"{count}", *range(count))
        with pytest.raises(DataError, match=f"5 or more are needed, got {count}; add some"):
            recipe.denoiser_data(dataset, split, files, side=8)


def test_photographs_that_cannot_be_read_are_logged_and_left_out(tmp_path: Path) -> None:
    files = write_photographs(tmp_path, 1, 2, 3)
    files[1].write_bytes(b"no image")
    files.append(tmp_path / "gone.png")
    said: list[str] = []
    found = read_photographs(files, log=said.append)
    assert {int(image[0, 0, 0]) for image in found.images} == {1, 3}
    assert len(said) == 3
    assert said[0].startswith(f"left out: {files[1]}: ")
    assert said[1] == f"left out: {files[3]}: cannot be read (No such file or directory)"
    assert said[2].startswith("2 photographs, 0 megapixels: ")
    with pytest.raises(
        DataError, match="none of the 1 photographs can be read; name a folder of photographs"
    ):
        read_photographs(files[1:2])


def test_of_folders_larger_than_the_memory_a_window_of_each_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, shape, np.uint8) for shape in ((60, 100, 3), (100, 60, 3), (20, 30, 3))]
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for file, image in zip(files, images, strict=True):
        file.write_bytes(encode_png(image))
    whole = read_photographs(files)
    assert [image.shape[:2] for image in whole.images[::3]] == [(60, 100), (100, 60), (20, 30)]
    monkeypatch.setattr(patches, "_MAX_PIXELS", 3 * 1500)
    found = read_photographs(files)
    assert [image.shape[:2] for image in found.images] == [
        (30, 50), (15, 25), (7, 12), (50, 30), (25, 15), (12, 7), (20, 30), (10, 15), (5, 7)
    ]  # fmt: skip
    for image, window in zip(images, found.images[::3], strict=True):
        views = np.lib.stride_tricks.sliding_window_view(image, window.shape)[..., 0, :, :, :]
        assert (views == window).all(axis=(-3, -2, -1)).sum() == 1
        assert window.base is None or window.base.size == window.size  # the rest is not kept in memory
    again, other = read_photographs(files), read_photographs(files, seed=1)
    assert again.fingerprint == found.fingerprint != other.fingerprint
    assert whole.fingerprint != found.fingerprint


def test_smaller_sizes_are_means_of_squares() -> None:
    image = pictures(1, side=9)[0]
    found = patches.in_memory([image])
    assert found.scales == (1, 2, 4)
    np.testing.assert_array_equal(found.images[0], image)
    expected = image[:8, :8].reshape(4, 2, 4, 2, 3).mean((1, 3)).round()
    np.testing.assert_array_equal(found.images[1], expected)
    assert found.images[2].shape == (2, 2, 3)
    assert patches.in_memory([image[:1]]).scales == (1,)  # a half of it would have no pixels


@pytest.mark.parametrize("side", [8, 16, 30])
def test_images_too_small_for_a_patch_are_left_out_wherever_they_are(side: int) -> None:
    images = [np.full((size, 40, 3), size, np.uint8) for size in (40, 12, 20, 9, 40)]
    source = Source(images, np.arange(5), 1.0)
    (kept,) = recipe._at_least([source], side)
    assert {images[row].shape[0] for row in kept.rows} == {size for size in (40, 12, 20, 9) if size >= side}
    small = Source(images, np.array([1, 3]), 1.0)
    assert len(recipe._at_least([small, source], 16)) == 1
    data = recipe.DenoiserData([source], [small], [source], [])
    assert recipe._largest_side(data, 128) == 12
    assert recipe._largest_side(data, 8) == 8
    _, _, clean = drawn(kept, spec=PatchSpec(side=side, rotated=0.5, gray=0.0))
    assert clean.shape[2:] == (side, side)


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
    assert sigma.shape == (192, 8, 8)
    levels = sigma.flatten(1).square().mean(1).sqrt()  # half of them are measured
    assert ((levels >= 0.015) & (levels <= 0.125)).all()
    assert float(levels.std()) > 0.015
    # Gray that is stored as RGB is noisy as RGB is; gray of one channel has the same noise in all three.
    assert (noisy[:, :1] == noisy).all() == (channels == 1)
    deviations = (noisy - clean)[:, 0].flatten(1).std(1)
    assert float((deviations / levels).mean()) == pytest.approx(1, abs=0.05)
    assert ((noisy >= 0) & (noisy <= 1)).all()
    colours, _, plain = drawn(whole(pictures(4)), low=0.05, high=0.1)
    assert ((colours - plain)[:, 0] != (colours - plain)[:, 1]).any(2).any(1).all()


def test_some_of_the_noise_is_in_bytes_and_clean_patches_are_among_them() -> None:
    noisy, sigma, clean = drawn(whole(pictures(4)))
    whole_levels = ((noisy * 255 - (noisy * 255).round()).abs() < 1e-4).flatten(1).all(1)
    assert 0.4 < float(whole_levels.float().mean()) < 0.8
    assert float((sigma < 0.13 * 0.3).float().mean()) > 0.08
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


def test_half_of_the_patches_come_with_a_sigma_that_is_wrong_by_a_factor() -> None:
    source = whole(np.full((4, 16, 16, 3), 128, np.uint8))
    right, wrong = drawn(source, low=0.1, high=0.1), drawn(source, low=0.1, high=0.1, spread=0.2)
    # Each batch is drawn before its factors, so the first one has the same patches.
    assert torch.equal(right[0][:64], wrong[0][:64])
    assert torch.equal(right[2][:64], wrong[2][:64])
    factors = (wrong[1] / right[1])[:64].flatten(1)
    assert torch.allclose(factors, factors[:, :1].expand_as(factors), rtol=1e-4)  # of a patch as a whole
    assert 0.25 < float((factors[:, 0] == 1).float().mean()) < 0.75
    assert 0.1 < float(factors[:, 0].log()[factors[:, 0] != 1].std()) < 0.3


def test_all_kinds_of_noise_come_in_batches_of_their_sizes() -> None:
    noisy, sigma, clean = drawn(whole(pictures(5, side=40)), spec=PatchSpec(side=16), mix=NoiseMix())
    assert noisy.shape == clean.shape == (192, 3, 16, 16)
    assert sigma.shape == (192, 16, 16)
    assert noisy.dtype == sigma.dtype == clean.dtype == torch.float32
    assert 0.02 < float((sigma.flatten(1) == 0).all(1).float().mean()) < 0.2
    assert float((sigma.flatten(1).std(1) > 0).float().mean()) > 0.5
