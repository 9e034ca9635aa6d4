"""Names: learned of the training people alone, seeded, resumable, and of use for strangers."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

import trainer.training
from encoder.errors import DataError, OptionError, TrainingError
from encoder.images import Crop, ImageSpec
from encoder.model import Model
from tests.people import SIDE, portraits, write_people
from tests.test_training import SPEC, train
from trainer.batches import to_floats
from trainer.datasets import Split
from trainer.descriptor import Descriptor, DescriptorSpec
from trainer.identity import Identity, IdentitySpec, Named, People, area_under_roc, with_room
from trainer.joined import Joined
from trainer.naming import teach_names
from trainer.networks import AE, AESpec
from trainer.options import TrainingSpec
from trainer.views import ViewSpec, another_view

CPU = torch.device("cpu")
IMAGES = portraits(40, 4)
NAMES = [f"person-{index // 4}" for index in range(160)]
SPLIT = Split(np.arange(80), np.arange(80, 120), np.arange(120, 160))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """So small networks are as fast with one, and leave the other cores alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def spec(**changes: Any) -> IdentitySpec:
    steps = TrainingSpec(epochs=12, batch=16, learning_rate=1e-2, warmup=4, averaging=0.8)
    plain: dict[str, Any] = {"size": SIDE, "numbers": 12, "widths": (8, 16), "training": steps}
    return IdentitySpec(**(plain | changes))


def taught(folder: Path, **changes: Any) -> Identity:
    people = People(IMAGES, SPLIT.train, NAMES, spec(**changes))
    return teach_names(
        folder, people, IMAGES, NAMES, SPLIT, spec(**changes), {}, device=CPU, say=lambda _: None
    ).eval()


def area(network: Identity) -> float:
    return area_under_roc(network, IMAGES, SPLIT.held_out, NAMES, device=CPU)


@pytest.mark.trains
def test_names_teach_to_tell_strangers_apart(tmp_path: Path) -> None:
    training = replace(spec().training, epochs=30)
    torch.manual_seed(0)
    fresh = Identity(spec()).eval()
    network = taught(tmp_path, training=training)
    # The worst of 20 seeds reaches 0.906, and 0.104 more than at its start.
    assert area(network) > 0.8
    assert area(network) > area(fresh) + 0.04
    with (tmp_path / "log.csv").open() as log:
        assert log.readline() == "epoch,loss,validation_auc,held_out_auc\n"
        assert len(log.readlines()) == 30


@pytest.mark.trains
def test_same_seed_teaches_the_same(tmp_path: Path) -> None:
    training = replace(spec().training, epochs=2)
    one, again = (taught(tmp_path / name, training=training) for name in ("one", "again"))
    for (name, here), there in zip(one.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(here, there), name


def test_nothing_is_learned_from_other_people(tmp_path: Path) -> None:
    people = People(IMAGES, SPLIT.train, NAMES, spec())
    assert people.count == 20
    changed = IMAGES.copy()
    changed[SPLIT.held_out] = 255 - changed[SPLIT.held_out]
    again = People(changed, SPLIT.train, [*NAMES[:80], *80 * ["somebody"]], spec())
    for (views, who), (others, same) in zip(people.batches(3), again.batches(3), strict=True):
        assert torch.equal(views, others)
        assert torch.equal(who, same)


def test_epoch_shows_each_picture_once_and_of_one_person_no_more_than_asked() -> None:
    rows = np.arange(70)
    names = [*40 * ["much photographed"], *(f"person-{row // 2}" for row in range(40, 160))]
    people = People(IMAGES, rows, names, spec(most=5))
    shown = [list(people.batches(epoch)) for epoch in (0, 0, 1)]
    assert len(shown[0]) == people.steps == 3  # 5 and 15 times 2 in batches of at most 16
    counts = torch.cat([who for _, who in shown[0]]).bincount()
    assert sorted(counts.tolist()) == [*15 * [2], 5]
    first, same, other = (torch.cat([views for views, _ in batches]) for batches in shown)
    assert first.shape == (35, 1, SIDE, SIDE)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("names", [160 * ["one"], [str(row) for row in range(160)]])
def test_names_that_teach_nothing_are_refused(names: list[str]) -> None:
    with pytest.raises(DataError, match=r"needs a subfolder each .* sort them into subfolders, or take"):
        People(IMAGES, SPLIT.train, names, spec())


@pytest.mark.parametrize(
    "changes", [{"size": 15}, {"numbers": 0}, {"widths": ()}, {"dropout": 1.0}, {"margin": -0.1}, {"most": 0}]
)
def test_rules_of_a_spec(changes: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        spec(**changes)


@pytest.mark.parametrize("side", [16, 17, 28, 45, 64, 65])
@pytest.mark.parametrize("channels", [1, 3])
@torch.no_grad()
def test_any_side_and_colour(side: int, channels: int) -> None:
    network = Identity(IdentitySpec(size=side)).eval()
    assert network(torch.rand(2, channels, side, side)).shape == (2, 256)


@torch.no_grad()
def test_cosines_are_those_with_each_person() -> None:
    torch.manual_seed(0)
    named = Named(Identity(spec()), 5).eval()
    images = to_floats(IMAGES[:3])
    cosines = named(images)
    assert cosines.shape == (3, 5)
    one = normalize(named.identity(images))[1] @ normalize(named.directions)[4]
    assert cosines[1, 4].item() == pytest.approx(one.item(), abs=1e-6)


def test_margin_grows_over_the_first_third() -> None:
    people = People(IMAGES, SPLIT.train, NAMES, spec(scale=1.0, margin=0.5))
    cosines, who = torch.tensor([[0.5, 0.0]]), torch.tensor([0])
    losses = [people.loss(cosines, who, progress).item() for progress in (0.0, 1 / 6, 1 / 3, 1.0)]
    assert losses == pytest.approx([math.log1p(math.exp(m - 0.5)) for m in (0.0, 0.25, 0.5, 0.5)])


def test_people_with_one_picture_each_have_no_area() -> None:
    network = Identity(spec())
    assert math.isnan(area_under_roc(network, IMAGES, np.arange(0, 80, 4), NAMES, device=CPU))


@torch.no_grad()
def test_area_is_how_often_one_persons_are_more_alike() -> None:
    torch.manual_seed(1)
    network = Identity(spec()).eval()
    rows = np.arange(12)
    images = to_floats(IMAGES[rows])
    vectors = normalize(network(images) + network(images.flip(3))).numpy()
    likeness, same = vectors @ vectors.T, (rows[:, None] // 4) == (rows // 4)
    upper = np.triu(np.ones_like(same), 1)
    matched, others = likeness[same & upper], likeness[~same & upper]
    expected = (matched[:, None] > others).mean()
    assert area_under_roc(network, IMAGES, rows, NAMES, device=CPU) == pytest.approx(expected, abs=1e-3)


@torch.no_grad()
def test_joined_parts_have_a_length_of_their_own_in_what_is_compared() -> None:
    network = AE.from_pca(AESpec(size=SIDE, channels=3, latent=4, hidden=(16,)), to_floats(IMAGES)).eval()
    descriptor = Descriptor.fit(
        DescriptorSpec(size=SIDE, numbers=10, filters=4, patch=5), IMAGES, SPLIT.train
    )
    identity = Identity(spec()).eval()
    joined = Joined(network, descriptor, identity).eval()
    images = to_floats(IMAGES[:5])
    latent = joined.encoder(images)
    assert (joined.appearance, joined.latent, joined.named) == (4, 4 + 10 + 12, True)
    torch.testing.assert_close(latent[:, :4], network.encoder(images))
    torch.testing.assert_close(latent[:, 4:14], 0.6 * normalize(descriptor(images)))
    torch.testing.assert_close(latent[:, 14:], normalize(identity(images)))
    torch.testing.assert_close(joined(images), network(images))


@pytest.mark.trains
def test_bundle_says_that_names_were_used_and_a_run_stopped_among_them_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer.training, "_WRITE_EVERY", -1.0)
    data = write_people(tmp_path / "people")
    options: dict[str, Any] = {"names": spec(), "spec": SPEC}
    expected = train(data, tmp_path / "whole", **options)
    assert (expected.spec.labels, expected.spec.embedding, expected.spec.latent) == ("person", 12, 16)
    assert expected.spec.training["names"]["widths"] == [8, 16]
    model = Model.open(expected.folder)
    pixels = portraits(2, 1)
    assert model.embed(pixels).shape == (2, 12)
    assert model.reconstruct(pixels).shape == pixels.shape

    def stop(line: str) -> None:
        if line.startswith("epoch 5/12"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "cut", **options, say=stop)
    with pytest.raises(TrainingError, match="pass --resume"):
        train(data, tmp_path / "cut", **options)
    said: list[str] = []
    again = train(data, tmp_path / "cut", **options, resume=True, say=said.append)
    assert any(line.startswith("names of ") and "5 of 12 epochs done" in line for line in said)
    assert again.model_id == expected.model_id
    assert {path.name for path in (tmp_path / "cut.run" / "names").iterdir()} == {"log.csv"}


def test_room_is_what_the_picture_has_around() -> None:
    wide = with_room(ImageSpec(size=64, crop=Crop(fraction=0.36)))
    assert (wide.size, str(wide.crop)) == (90, "centre:0.50625")
    for crop in (Crop(), Crop(fraction=0.8), Crop.parse("0.1,0.1,0.5,0.5")):
        assert with_room(ImageSpec(size=64, crop=crop)).size == 64


def test_of_a_picture_with_room_the_middle_is_seen() -> None:
    still = ViewSpec(shift=0, zoom=0, turn=0, gamma=0, slope=0, noise=0, blurred=0)
    images = torch.rand(16, 1, 24, 24)
    seen = another_view(images, torch.Generator().manual_seed(0), still, size=16)
    middle = images[:, :, 4:20, 4:20].clamp(min=1e-3)
    for one, plain in zip(seen, middle, strict=True):
        assert min((one - plain).abs().max(), (one - plain.flip(2)).abs().max()) < 1e-5


def test_views_are_covered_and_lit_where_asked() -> None:
    grey = torch.full((64, 1, SIDE, SIDE), 0.5)
    plain = ViewSpec(shift=0, zoom=0, turn=0, gamma=0, slope=0, noise=0, blurred=0)
    same = another_view(grey, torch.Generator().manual_seed(0), plain)
    torch.testing.assert_close(same, grey)
    covering = ViewSpec(shift=0, zoom=0, turn=0, gamma=0, slope=0, noise=0, blurred=0, covered=0.5)
    covered = (another_view(grey, torch.Generator().manual_seed(0), covering) != 0.5).flatten(1)
    assert 20 < covered.any(1).sum() < 44
    assert covered.float().mean(1).max() <= (7 / 16 + 1 / SIDE) ** 2
    lit = another_view(grey, torch.Generator().manual_seed(0), ViewSpec(covered=0, brightness=1.0, noise=0))
    assert lit.mean((1, 2, 3)).std() > 0.2
