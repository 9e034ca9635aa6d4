"""The cleaner's networks: what they begin as, how far they see, and sizes of any kind."""

from typing import TypeVar

import pytest
import torch

from lookalike.encoder.errors import InvalidArgumentError
from lookalike.trainer.config import DenoiserShape
from lookalike.trainer.models import SIZE_MULTIPLE, BlindDenoiser
from lookalike.trainer.models.denoiser import DenoiserNet, Estimator, reflect_pad

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
    assert torch.equal(DenoiserNet(NARROW)(pixels, torch.tensor([0.1, 0.2])), pixels)


def test_each_picture_is_cleaned_by_itself_and_by_its_own_sigma() -> None:
    network = awake(DenoiserNet(NARROW)).double()
    pixels, sigma = torch.rand(3, 3, 16, 16).double(), torch.tensor([0.0, 0.1, 0.3]).double()
    together = network(pixels, sigma)
    for row in range(3):
        alone = network(pixels[row : row + 1], sigma[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone)
    assert not torch.allclose(network(pixels, sigma + 0.1), together)


@pytest.mark.parametrize("blocks", [(1, 1, 1), (2, 1, 1), (1, 2, 3)])
def test_it_sees_as_far_as_its_shape_says_and_no_farther(blocks: tuple[int, int, int]) -> None:
    shape = DenoiserShape(widths=(4, 6, 8), blocks=blocks, estimator=4)
    network = awake(DenoiserNet(shape)).double()
    side = SIZE_MULTIPLE * (2 * shape.receptive_field // SIZE_MULTIPLE + 3)
    pixels = torch.rand(1, 3, SIZE_MULTIPLE, side, dtype=torch.float64).requires_grad_()
    farthest = 0
    for place in range(
        side // 2, side // 2 + SIZE_MULTIPLE
    ):  # cells hold several pixels: each may see otherwise
        pixels.grad = None
        network(pixels, torch.tensor([0.1]).double())[0, :, :, place].sum().backward()
        assert pixels.grad is not None
        seen = pixels.grad.abs().amax((0, 1, 2)).nonzero().flatten()
        farthest = max(farthest, int((seen - place).abs().max()))
    assert shape.receptive_field - SIZE_MULTIPLE < farthest <= shape.receptive_field


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 15), (31, 8), (28, 28)])
def test_sides_are_reflected_to_multiples_and_cut_again(height: int, width: int) -> None:
    pixels = torch.rand(2, 3, height, width)
    padded = reflect_pad(pixels)
    assert [side % SIZE_MULTIPLE for side in padded.shape[2:]] == [0, 0]
    assert torch.equal(padded[:, :, :height, :width], pixels)
    if width % SIZE_MULTIPLE:
        assert torch.equal(padded[:, :, :height, width], pixels[:, :, :, width - 2])
    made = awake(BlindDenoiser(NARROW))(pixels)
    assert made.denoised.shape == pixels.shape
    assert made.estimated.shape == (2,)


def test_blind_is_told_its_own_estimate_and_told_is_told() -> None:
    network = awake(BlindDenoiser(NARROW))
    pixels = torch.rand(3, 3, 16, 16)
    blind = network(pixels)
    assert torch.equal(blind.sigma, blind.estimated)
    sigma = torch.full((3,), 0.2)
    told = network(pixels, sigma)
    assert torch.equal(told.sigma, sigma)
    assert torch.equal(told.estimated, blind.estimated)
    torch.testing.assert_close(network(pixels, blind.estimated).denoised, blind.denoised)


def test_neither_network_teaches_the_other() -> None:
    network = awake(BlindDenoiser(NARROW))
    network(torch.rand(2, 3, 16, 16), torch.tensor([0.1, 0.2])).denoised.sum().backward()
    assert all(weight.grad is None for weight in network.estimator.parameters())
    assert all(weight.grad is not None for weight in network.denoiser.parameters())


def test_estimates_are_never_negative_but_in_training() -> None:
    network = Estimator(4)
    assert network.estimate.bias is not None
    with torch.no_grad():
        for weight in network.parameters():
            weight.zero_()
        network.estimate.bias.copy_(torch.tensor([-0.5, 0.0]))
    pixels = torch.rand(2, 3, 16, 16)
    assert network.eval()(pixels).tolist() == [0, 0]
    assert network.train()(pixels).tolist() == pytest.approx([-0.5, -0.5])


def test_bfloat16_reaches_the_cleaner_and_not_the_estimator() -> None:
    network = awake(BlindDenoiser(NARROW))
    pixels = torch.rand(2, 3, 16, 16)
    whole = network(pixels)
    with torch.autocast("cpu", torch.bfloat16):
        half = network(pixels)
    assert torch.equal(half.estimated, whole.estimated)
    assert not torch.equal(half.denoised.float(), whole.denoised)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"widths": (0, 4, 4)}, r"widths must be three numbers of 1 to 1024, not \(0, 4, 4\)"),
        ({"blocks": (1, 1, 2000)}, "blocks must be three numbers of 1 to 1024"),
        ({"estimator": 0}, "estimator must be 1 to 1024 features, not 0"),
    ],
)
def test_shapes_that_cannot_be_are_refused(changes: dict[str, tuple[int, int, int]], rule: str) -> None:
    with pytest.raises(InvalidArgumentError, match=rule):
        DenoiserShape(**changes)  # type: ignore[arg-type]  # wrong on purpose
