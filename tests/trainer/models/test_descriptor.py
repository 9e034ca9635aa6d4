"""The descriptor: learned without names, seeded, and indifferent to what a photograph may change."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from lookalike.encoder.errors import InvalidArgumentError
from lookalike.trainer.config import AESpec
from lookalike.trainer.data import augment, to_floats
from lookalike.trainer.models import AE, Descriptor, DescriptorSpec, FaceModel
from tests.fixtures.people import SIDE, portraits

pytestmark = pytest.mark.trains
IMAGES = portraits(30, 4)
TRAIN = np.arange(80)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """So small networks are as fast with one, and leave the other cores alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def spec(**changes: Any) -> DescriptorSpec:
    return DescriptorSpec(**({"size": SIDE, "dim": 24, "filters": 4, "patch": 5} | changes))


@pytest.fixture(scope="module")
def fitted() -> Descriptor:
    return Descriptor.fit(spec(), IMAGES, TRAIN)


@torch.no_grad()
def numbers(descriptor: Descriptor, images: NDArray[np.uint8] | Tensor) -> Tensor:
    floats = images if isinstance(images, Tensor) else to_floats(images)
    found: Tensor = torch.nn.functional.normalize(descriptor(floats))
    return found


@torch.no_grad()
def test_numbers_have_no_mean_and_change_between_views_less_than_between_pictures(
    fitted: Descriptor,
) -> None:
    both = torch.cat([to_floats(IMAGES[TRAIN]), to_floats(IMAGES[TRAIN]).flip(3)])
    plain = fitted(both)
    torch.testing.assert_close(plain.mean(0), torch.zeros(24), atol=1e-3, rtol=0)
    images = to_floats(IMAGES[80:])  # unseen
    seen = fitted(augment(images, torch.Generator().manual_seed(5)))
    here = (seen - fitted(images)).square().mean()
    elsewhere = (fitted(images) - fitted(images).roll(4, 0)).square().mean()
    assert here < elsewhere  # the worst of 20 seeds has 0.47 of it


def test_unseen_people_find_themselves(fitted: Descriptor) -> None:
    people = np.arange(120)[80:] // 4
    rows = numbers(fitted, IMAGES[80:])
    likeness = rows @ rows.T
    likeness.fill_diagonal_(-2)
    found = people[likeness.argmax(1).numpy()] == people
    assert found.mean() > 0.6  # by chance 3 of 39; the worst of 20 seeds has 0.8


def test_light_that_is_brighter_or_stronger_changes_little(fitted: Descriptor) -> None:
    images = to_floats(IMAGES[80:])
    plain, other = numbers(fitted, images), numbers(fitted, 0.2 + 0.5 * images)
    assert (plain * other).sum(1).min() > 0.8  # the worst of 20 seeds has 0.911


def test_same_seed_same_descriptor_another_seed_another(fitted: Descriptor) -> None:
    again, other = Descriptor.fit(spec(), IMAGES, TRAIN), Descriptor.fit(spec(), IMAGES, TRAIN, seed=1)
    for (name, one), two in zip(fitted.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(one, two), name
    assert not torch.equal(fitted.filters.weight, other.filters.weight)


def test_only_the_given_images_are_learned_from(fitted: Descriptor) -> None:
    changed = IMAGES.copy()
    changed[80:] = 255 - changed[80:]
    again = Descriptor.fit(spec(), changed, TRAIN)
    assert torch.equal(fitted.project.weight, again.project.weight)


def test_filters_are_of_unit_length_and_without_mean(fitted: Descriptor) -> None:
    flat = fitted.filters.weight.detach().flatten(1)
    torch.testing.assert_close(flat.norm(dim=1), torch.ones(4))
    assert flat.mean(1).abs().max() < 1e-3


def test_few_images_give_fewer_numbers() -> None:
    few = Descriptor.fit(spec(), IMAGES, np.arange(4))
    assert few.project.out_features < 24
    assert numbers(few, IMAGES[:3]).isfinite().all()


def test_progress_is_told_of_every_picture() -> None:
    told: list[int] = []
    Descriptor.fit(spec(), IMAGES, TRAIN, on_progress=told.append)
    assert sum(told) == len(TRAIN)


@pytest.mark.parametrize("side", [16, 17, 28, 45, 64, 65, 128])
@pytest.mark.parametrize("channels", [1, 3])
@torch.no_grad()
def test_any_side_has_at_most_some_cells(side: int, channels: int) -> None:
    made = Descriptor(spec(size=side))
    out = made(torch.rand(2, channels, side, side))
    assert out.shape == (2, 24)
    assert made.project.in_features <= 2 * 4 * 17**2


@pytest.mark.parametrize(
    "changes", [{"size": 15}, {"dim": 0}, {"filters": 0}, {"patch": 4}, {"views": 0}, {"ridge": 0.0}]
)
def test_rules_of_a_spec(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        spec(**changes)


def test_pictures_that_do_not_vary_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="all the same"):
        Descriptor.fit(spec(), np.full((20, SIDE, SIDE, 3), 90, np.uint8), np.arange(20))


@torch.no_grad()
def test_joined_draws_of_the_appearance_alone(fitted: Descriptor) -> None:
    network = AE.from_pca(AESpec(size=SIDE, channels=3, latent=4, hidden=(16,)), to_floats(IMAGES)).eval()
    joined = FaceModel(network, fitted).eval()
    images = to_floats(IMAGES[:5])
    latent = joined.encoder(images)
    assert joined.latent == latent.shape[1] == 28
    torch.testing.assert_close(latent[:, :4], network.encoder(images))
    torch.testing.assert_close(latent[:, 4:], fitted(images))
    torch.testing.assert_close(joined(images), network(images))
    alone = FaceModel(network)
    assert alone.latent == 4
    torch.testing.assert_close(alone(images), network(images))
