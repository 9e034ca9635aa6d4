"""Names: learned of the training people alone, seeded, resumable, and of use for strangers."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from lookalike.encoder.errors import InvalidArgumentError
from lookalike.trainer.config import AESpec, TrainingSpec
from lookalike.trainer.data import Split, to_floats
from lookalike.trainer.models import (
    AE,
    CosineClassifier,
    Descriptor,
    DescriptorSpec,
    FaceModel,
    Identity,
    IdentitySpec,
)
from tests.fixtures.people import SIDE, portraits

CPU = torch.device("cpu")
IMAGES = portraits(40, 4)
NAMES = [f"person-{index // 4}" for index in range(160)]
SPLIT = Split(np.arange(80), np.arange(80, 120), np.arange(120, 160))


def spec(**changes: Any) -> IdentitySpec:
    steps = TrainingSpec(epochs=12, batch=16, learning_rate=1e-2, warmup=4, averaging=0.8)
    plain: dict[str, Any] = {"size": SIDE, "dim": 12, "widths": (8, 16), "training": steps}
    return IdentitySpec(**(plain | changes))


@pytest.mark.parametrize(
    "changes",
    [{"size": 15}, {"dim": 0}, {"widths": ()}, {"dropout": 1.0}, {"margin": -0.1}, {"max_per_class": 0}],
)
def test_rules_of_a_spec(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
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
    named = CosineClassifier(Identity(spec()), 5).eval()
    images = to_floats(IMAGES[:3])
    cosines = named(images)
    assert cosines.shape == (3, 5)
    one = normalize(named.identity(images))[1] @ normalize(named.directions)[4]
    assert cosines[1, 4].item() == pytest.approx(one.item(), abs=1e-6)


@torch.no_grad()
def test_joined_parts_have_a_length_of_their_own_in_what_is_compared() -> None:
    network = AE.from_pca(AESpec(size=SIDE, channels=3, latent=4, hidden=(16,)), to_floats(IMAGES)).eval()
    descriptor = Descriptor.fit(DescriptorSpec(size=SIDE, dim=10, filters=4, patch=5), IMAGES, SPLIT.train)
    identity = Identity(spec()).eval()
    joined = FaceModel(network, descriptor, identity).eval()
    images = to_floats(IMAGES[:5])
    latent = joined.encoder(images)
    assert (joined.appearance, joined.latent, joined.supervised) == (4, 4 + 10 + 12, True)
    torch.testing.assert_close(latent[:, :4], network.encoder(images))
    torch.testing.assert_close(latent[:, 4:14], 0.6 * normalize(descriptor(images)))
    torch.testing.assert_close(latent[:, 14:], normalize(identity(images)))
    torch.testing.assert_close(joined(images), network(images))
