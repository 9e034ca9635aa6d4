"""The denoiser's networks: what they begin as, how far they see, and sizes of any kind."""

import math
from typing import TypeVar

import pytest
import torch

from lookalike.encoder.errors import InvalidArgumentError
from lookalike.trainer.config import DenoiserShape
from lookalike.trainer.models import CELL, SIZE_MULTIPLE, UNIT, DenoiserNet, NoiseEstimator, reflect_pad

NARROW = DenoiserShape(widths=(4, 6, 8), blocks=(1, 1, 1), estimator=4)


Network = TypeVar("Network", bound=torch.nn.Module)


def awake(network: Network) -> Network:
    """Weights that change something: the last layer begins at zero."""
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in network.parameters():
            weight.normal_(std=0.3)
    return network.eval()


def test_it_begins_as_what_changes_nothing() -> None:
    pixels = torch.rand(2, 3, 16, 24)
    assert torch.equal(DenoiserNet(NARROW)(pixels, torch.rand(2, 16, 24)), pixels)


def test_each_image_is_denoised_by_itself_and_by_its_own_sigma() -> None:
    network = awake(DenoiserNet(NARROW)).double()
    pixels, sigma = torch.rand(3, 3, 16, 16).double(), torch.rand(3, 16, 16).double()
    together = network(pixels, sigma)
    for row in range(3):
        alone = network(pixels[row : row + 1], sigma[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone)
    assert not torch.allclose(network(pixels, sigma + 0.1), together)


def test_sigma_counts_where_it_is() -> None:
    network = awake(DenoiserNet(NARROW)).double()
    side = SIZE_MULTIPLE * (2 * NARROW.receptive_field // SIZE_MULTIPLE + 3)
    pixels, sigma = torch.rand(1, 3, 16, side).double(), torch.full((1, 16, side), 0.1).double()
    other = sigma.clone()
    other[:, :, 0] = 0.3
    change = (network(pixels, sigma) - network(pixels, other)).abs().amax((0, 1, 2))
    assert change[0] > 1e-6
    assert change[NARROW.receptive_field + 1 :].max() == 0


def farthest_seen(network: torch.nn.Module, side: int, cell: int) -> int:
    """The largest distance from an output, of so many pixels, to an input pixel that changes it."""
    pixels = torch.rand(1, 3, SIZE_MULTIPLE, side, dtype=torch.float64).requires_grad_()
    sigma = [] if cell > 1 else [torch.full((1, SIZE_MULTIPLE, side), 0.1).double()]
    farthest = 0
    for place in range(side // 2, side // 2 + SIZE_MULTIPLE):  # each pixel of a fold may see otherwise
        pixels.grad = None
        network(pixels, *sigma)[..., place // cell].sum().backward()
        assert pixels.grad is not None
        seen = pixels.grad.abs().amax((0, 1, 2)).nonzero().flatten()
        farthest = max(farthest, int((seen - place).abs().max()))
    return farthest


@pytest.mark.parametrize("blocks", [(1, 1, 1), (2, 1, 1), (1, 2, 3), (1, 1, 3)])
def test_it_sees_as_far_as_its_shape_says_and_no_farther(blocks: tuple[int, int, int]) -> None:
    shape = DenoiserShape(widths=(4, 6, 8), blocks=blocks, estimator=4)
    side = SIZE_MULTIPLE * (2 * shape.receptive_field // SIZE_MULTIPLE + 3)
    farthest = farthest_seen(awake(DenoiserNet(shape)).double(), side, 1)
    assert shape.receptive_field - SIZE_MULTIPLE < farthest <= shape.receptive_field


@pytest.mark.parametrize("dilations", [(1,), (1, 2), (1, 2, 4)])
def test_the_estimator_sees_as_far_as_its_shape_says_and_no_farther(dilations: tuple[int, ...]) -> None:
    field = DenoiserShape(
        widths=(4, 6, 8), blocks=(1, 1, 1), estimator=4, dilations=dilations
    ).estimator_field
    side = SIZE_MULTIPLE * (2 * field // SIZE_MULTIPLE + 3)
    network = awake(NoiseEstimator(4, dilations)).double().train()  # its logarithm, which has no end at 0
    farthest = farthest_seen(network, side, CELL)
    assert field - 2 * SIZE_MULTIPLE < farthest <= field


@pytest.mark.parametrize(("height", "width"), [(16, 16), (9, 17), (31, 16), (28, 28), (8, 8), (1, 5), (2, 1)])
def test_sides_are_reflected_to_multiples(height: int, width: int) -> None:
    pixels = torch.rand(2, 3, height, width)
    padded = reflect_pad(pixels)
    assert [side % SIZE_MULTIPLE for side in padded.shape[2:]] == [0, 0]
    assert torch.equal(padded[:, :, :height, :width], pixels)
    if width % SIZE_MULTIPLE and width > 1:
        assert torch.equal(padded[:, :, :height, width], pixels[:, :, :, width - 2])
    assert awake(NoiseEstimator(4))(padded).shape == (2, padded.shape[2] // CELL, padded.shape[3] // CELL)


def test_estimates_are_of_cells_and_never_negative_but_in_training() -> None:
    network = awake(NoiseEstimator(4))
    last = network.estimate[-1]
    assert isinstance(last, torch.nn.Conv2d)
    assert last.bias is not None
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(-0.5)
    pixels = torch.rand(2, 3, 32, 48)
    assert network(pixels).shape == (2, 4, 6)
    assert (network(pixels) == 0).all()
    assert network.train()(pixels).flatten().tolist() == pytest.approx([-0.5] * 48)
    with torch.no_grad():
        last.bias.fill_(math.log(1 + 25 / 2))
    assert (255 * network.eval()(pixels)).flatten().tolist() == pytest.approx([25] * 48, rel=1e-5)
    assert pytest.approx(2 / 255) == UNIT


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"widths": (0, 4, 4)}, r"widths must be three numbers of 1 to 1024, not \(0, 4, 4\)"),
        ({"blocks": (1, 1, 2000)}, "blocks must be three numbers of 1 to 1024"),
        ({"estimator": 0}, "estimator must be 1 to 1024 features, not 0"),
        ({"dilations": (1, 2, 17)}, r"dilations must be numbers of 1 to 16, not \(1, 2, 17\)"),
    ],
)
def test_shapes_that_cannot_be_are_refused(changes: dict[str, tuple[int, int, int]], rule: str) -> None:
    with pytest.raises(InvalidArgumentError, match=rule):
        DenoiserShape(**changes)  # type: ignore[arg-type]  # wrong on purpose
