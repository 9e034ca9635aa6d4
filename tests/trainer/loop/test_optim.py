"""Muon: its steps are orthogonal, as long as AdamW's, and it goes on where it stopped."""

import copy

import pytest
import torch
from torch import Tensor, nn

from lookalike.trainer.config import TrainingSpec
from lookalike.trainer.loop import muon
from lookalike.trainer.loop.optim import Muon, adamw, orthogonal

pytestmark = pytest.mark.trains
SPEC = TrainingSpec(learning_rate=0.01)


def plain(matrix: Tensor) -> Tensor:
    """Jordan's iteration as he writes it: X becomes aX + b(XX')X + c(XX')^2 X, five times."""
    a, b, c = 3.4445, -4.7750, 2.0315
    found: Tensor = matrix / (matrix.norm() + 1e-7)
    for _ in range(5):
        square = found @ found.T
        found = a * found + (b * square + c * square @ square) @ found
    return found


@pytest.mark.parametrize("shape", [(16, 144), (144, 16), (32, 32), (1, 5)])
def test_orthogonal_is_jordans_iteration_and_keeps_directions(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = orthogonal(matrix)
    wide = matrix if shape[0] <= shape[1] else matrix.T
    expected = plain(wide) if shape[0] <= shape[1] else plain(wide).T
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    cosine = torch.nn.functional.cosine_similarity(found.flatten(), (u @ vh).flatten(), dim=0)
    assert float(cosine) > 0.95
    assert float(torch.linalg.svdvals(found).max()) < 1.3


def test_orthogonal_of_nothing_is_nothing_and_of_a_scaled_matrix_the_same() -> None:
    assert (orthogonal(torch.zeros(4, 9)) == 0).all()
    matrix = torch.randn(4, 9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(orthogonal(matrix * 1e-3), orthogonal(matrix), rtol=1e-3, atol=1e-3)


def test_a_step_of_hidden_convolutions_has_the_length_of_adamws() -> None:
    layer = nn.Conv2d(32, 32, 3)
    before = layer.weight.detach().clone()
    taught = muon(layer, SPEC)
    layer(torch.randn(4, 32, 5, 5, generator=torch.Generator().manual_seed(0))).square().mean().backward()
    taught.step()
    moved = (layer.weight.detach() - before).square().mean().sqrt()
    assert 0.5 < float(moved) / (0.2 * SPEC.learning_rate) < 1.5


def test_what_is_no_hidden_convolution_is_taught_by_adam() -> None:
    """Adam's first step is the learning rate against the sign of the gradient."""
    network = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 12, 1))
    before = [weight.detach().clone() for weight in network.parameters()]
    network(torch.rand(2, 3, 4, 4)).sum().backward()
    muon(network, SPEC).step()
    for weight, old in zip(network.parameters(), before, strict=True):
        assert weight.grad is not None
        strong = weight.grad.abs() > 1e-4
        torch.testing.assert_close(
            (old - weight.detach())[strong],
            (SPEC.learning_rate * weight.grad.sign())[strong],
            rtol=1e-3,
            atol=1e-5,
        )


def test_the_layout_in_memory_does_not_matter() -> None:
    torch.manual_seed(0)
    one = nn.Conv2d(16, 16, 3)
    other = copy.deepcopy(one).to(memory_format=torch.channels_last)
    pixels = torch.randn(2, 16, 6, 6)
    for layer in (one, other):
        taught = muon(layer, SPEC)
        for _ in range(3):
            taught.zero_grad()
            (layer(pixels) - 1).square().mean().backward()
            taught.step()
    torch.testing.assert_close(one.weight, other.weight, rtol=1e-4, atol=1e-5)


def test_it_goes_on_where_it_stopped() -> None:
    torch.manual_seed(0)
    whole = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3))
    taught = muon(whole, SPEC)
    pixels = torch.randn(2, 3, 8, 8)

    def steps(network: nn.Module, by: torch.optim.Optimizer, count: int) -> None:
        for _ in range(count):
            by.zero_grad()
            network(pixels).square().mean().backward()
            by.step()

    steps(whole, taught, 3)
    cut = copy.deepcopy(whole)
    again = muon(cut, SPEC)
    again.load_state_dict(copy.deepcopy(taught.state_dict()))
    steps(whole, taught, 2)
    steps(cut, again, 2)
    for one, other in zip(whole.parameters(), cut.parameters(), strict=True):
        assert torch.equal(one, other)


def test_muon_takes_no_closure_and_adamw_spares_vectors() -> None:
    layer = nn.Linear(3, 2)
    with pytest.raises(NotImplementedError, match="no closure"):
        Muon(layer.parameters(), 0.1).step(lambda: 0.0)
    decays = [group["weight_decay"] for group in adamw(layer, TrainingSpec(weight_decay=0.5)).param_groups]
    assert decays == [0.5, 0]
