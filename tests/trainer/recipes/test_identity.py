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

import lookalike.trainer.loop.loop
from lookalike.encoder.errors import DataError, TrainingError
from lookalike.encoder.images import Crop, ImageSpec
from lookalike.encoder.runtime import Model
from lookalike.trainer.config import TrainingSpec
from lookalike.trainer.data import Dataset, Pixels, Split, to_floats
from lookalike.trainer.loop import RunInputs
from lookalike.trainer.models import Identity, IdentitySpec
from lookalike.trainer.recipes.identity import (
    IdentitySampler,
    area_under_roc,
    train_identity,
    with_surroundings,
)
from tests.fixtures.people import SIDE, portraits, write_people
from tests.trainer.loop.test_loop import SPEC, train

CPU = torch.device("cpu")
IMAGES = portraits(40, 4)
NAMES = [f"person-{index // 4}" for index in range(160)]
SPLIT = Split(np.arange(80), np.arange(80, 120), np.arange(120, 160))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks are as fast with one, and leave the other cores alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def spec(**changes: Any) -> IdentitySpec:
    steps = TrainingSpec(epochs=12, batch=16, learning_rate=1e-2, warmup=4, averaging=0.8)
    plain: dict[str, Any] = {"size": SIDE, "dim": 12, "widths": (8, 16), "training": steps}
    return IdentitySpec(**(plain | changes))


def taught(folder: Path, **changes: Any) -> Identity:
    sampler = IdentitySampler(IMAGES, SPLIT.train, NAMES, spec(**changes))
    pixels = Pixels(images=IMAGES, failures={}, fingerprint="")
    inputs = RunInputs(folder, folder, False, CPU, pixels, SPLIT, {}, lambda _: None)
    return train_identity(inputs, sampler, NAMES, spec(**changes), {}).eval()


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
    with (tmp_path / "identity" / "log.csv").open() as log:
        assert log.readline() == "epoch,loss,validation_auc,held_out_auc\n"
        assert len(log.readlines()) == 30


@pytest.mark.trains
def test_same_seed_teaches_the_same(tmp_path: Path) -> None:
    training = replace(spec().training, epochs=2)
    one, again = (taught(tmp_path / name, training=training) for name in ("one", "again"))
    for (name, here), there in zip(one.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(here, there), name


def test_nothing_is_learned_from_other_people(tmp_path: Path) -> None:
    people = IdentitySampler(IMAGES, SPLIT.train, NAMES, spec())
    assert people.count == 20
    changed = IMAGES.copy()
    changed[SPLIT.held_out] = 255 - changed[SPLIT.held_out]
    again = IdentitySampler(changed, SPLIT.train, [*NAMES[:80], *80 * ["somebody"]], spec())
    for (views, who), (others, same) in zip(people.batches(3), again.batches(3), strict=True):
        assert torch.equal(views, others)
        assert torch.equal(who, same)


def test_epoch_shows_each_picture_once_and_of_one_person_no_more_than_asked() -> None:
    rows = np.arange(70)
    names = [*40 * ["much photographed"], *(f"person-{row // 2}" for row in range(40, 160))]
    people = IdentitySampler(IMAGES, rows, names, spec(max_per_class=5))
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
        IdentitySampler(IMAGES, SPLIT.train, names, spec())


def test_margin_grows_over_the_first_third() -> None:
    people = IdentitySampler(IMAGES, SPLIT.train, NAMES, spec(scale=1.0, margin=0.5))
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


@pytest.mark.slow
@pytest.mark.trains
def test_bundle_says_that_names_were_used_and_a_run_stopped_among_them_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookalike.trainer.loop.loop, "_WRITE_EVERY", -1.0)
    data = write_people(tmp_path / "people")
    options: dict[str, Any] = {"identity": spec(), "spec": SPEC}
    expected = train(data, tmp_path / "whole", **options)
    assert (expected.spec.labels, expected.spec.embedding, expected.spec.latent) == ("person", 12, 16)
    assert expected.spec.training["identity"]["widths"] == [8, 16]
    model = Model.open(expected.folder)
    pixels = portraits(2, 1)
    assert model.embed(pixels).shape == (2, 12)
    assert model.reconstruct(pixels).shape == pixels.shape

    def stop(line: str) -> None:
        if line.startswith("epoch 5/12"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "cut", **options, log=stop)
    with pytest.raises(TrainingError, match="pass --resume"):
        train(data, tmp_path / "cut", **options)
    said: list[str] = []
    again = train(data, tmp_path / "cut", **options, resume=True, log=said.append)
    assert any(line.startswith("identity network: ") and "5 of 12 epochs done" in line for line in said)
    assert again.model_id == expected.model_id
    assert {path.name for path in (tmp_path / "cut.run" / "identity").iterdir()} == {"log.csv"}


def test_room_is_what_the_picture_has_around() -> None:
    plain = Dataset("drawn", Path(), (), (), frozenset(), Crop())
    same, wide = with_surroundings(plain, ImageSpec(size=64, crop=Crop(fraction=0.36)))
    assert same is plain
    assert (wide.size, str(wide.crop)) == (90, "center:0.50625")
    for crop in (Crop(), Crop(fraction=0.8), Crop.parse("0.1,0.1,0.5,0.5")):
        assert with_surroundings(plain, ImageSpec(size=64, crop=crop))[1].size == 64
