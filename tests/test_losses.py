"""Mean squared error and PSNR against values worked by hand."""

import math

import pytest
import torch

from encoder.quality import psnr
from trainer.losses import mean_squared_error


def test_mean_squared_error_is_the_mean_over_all_values() -> None:
    image, target = torch.tensor([[0.0, 1.0], [0.5, 0.25]]), torch.tensor([[1.0, 1.0], [0.0, 0.25]])
    assert mean_squared_error(image, target).item() == (1 + 0 + 0.25 + 0) / 4


def test_mean_squared_error_passes_the_gradient_on() -> None:
    image = torch.tensor([0.5, 0.0], requires_grad=True)
    mean_squared_error(image, torch.tensor([0.0, 1.0])).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert image.grad is not None
    assert image.grad.tolist() == [0.5, -1.0]  # 2 (image - target) / 2


@pytest.mark.parametrize(
    ("error", "decibels"),
    [(1.0, 0.0), (0.1, 10.0), (0.01, 20.0), (0.001, 30.0), (1 / 255**2, 20 * math.log10(255))],
)
def test_psnr_of_known_errors(error: float, decibels: float) -> None:
    assert psnr(error) == pytest.approx(decibels)


def test_one_grey_level_everywhere_is_48_decibels() -> None:
    image = torch.full((2, 3, 4, 4), 100 / 255)
    assert psnr(mean_squared_error(image, image + 1 / 255).item()) == pytest.approx(48.1308, abs=1e-3)


def test_psnr_of_equal_images_is_infinite() -> None:
    assert psnr(0.0) == math.inf
