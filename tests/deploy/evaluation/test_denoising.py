"""Metrics of denoising worked out by hand; the same noisy arrays for all methods."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from lookalike.deploy.evaluation import denoising_lines, denoising_sheet, evaluate_denoising
from lookalike.deploy.evaluation.data import DenoisingTestSet

Floats = NDArray[np.float32]
GRAY = np.full((16, 16, 1), 0.5, np.float32)
IMAGES = DenoisingTestSet("photographs", ("a", "b", "c"), (GRAY, GRAY, GRAY))


@dataclass
class Off:
    """Gives back grey pictures that are off by a known amount, and remembers what it was given."""

    name: str
    by: Sequence[float]
    told: str = "everything"
    given: list[tuple[list[Floats], float]] = field(default_factory=list)

    def denoise(self, noisy: Sequence[Floats], sigma: float) -> list[Floats]:
        self.given.append((list(noisy), sigma))
        return [GRAY + np.float32(off) for off, _ in zip(self.by, noisy, strict=False)]


def test_figures_are_medians_of_pictures_own() -> None:
    # 10 log10(1 / 0.1^2) = 20, of 0.01: 40, of 0.001: 60 dB
    result = evaluate_denoising(IMAGES, 0.1, [Off("off", (0.1, 0.001, 0.01))])
    noisy, off = result.rows
    assert (noisy.name, off.name) == ("noisy", "off")
    assert off.psnr == pytest.approx(40, abs=1e-3)
    assert off.mean_psnr == pytest.approx(40, abs=1e-3)
    assert noisy.psnr == pytest.approx(20, abs=0.5)
    assert noisy.ssim < 0.1
    assert off.ssim > 0.9
    assert noisy.speed is None
    assert off.speed is not None
    told = json.loads(json.dumps(result.to_json()))
    assert told["sigma"] == 25.5
    assert told["pictures"] == 3
    assert told["rows"][1]["psnr_db"] == pytest.approx(40, abs=1e-3)


def test_a_perfect_method_has_no_psnr_in_json() -> None:
    result = evaluate_denoising(IMAGES, 0.1, [Off("perfect", (0, 0, 0))])
    assert result.rows[1].psnr == np.inf
    assert result.to_json()["rows"][1]["psnr_db"] is None


def test_everybody_gets_the_same_arrays_and_the_true_sigma() -> None:
    one, other = Off("one", (0, 0, 0)), Off("other", (0, 0, 0))
    result = evaluate_denoising(IMAGES, 0.1, [one, other], seed=3)
    for method in (one, other):
        ((given, sigma),) = method.given
        assert sigma == 0.1
        for got, noisy, drawn in zip(given, result.noisy, IMAGES.noisy(0.1, seed=3), strict=True):
            assert got is noisy
            np.testing.assert_array_equal(got, drawn)


def test_the_table_and_the_sheet() -> None:
    methods = [Off("off", (0.1, 0.1, 0.1)), Off("nearer", (0.01, 0.01, 0.01), "nothing")]
    result = evaluate_denoising(IMAGES, 25 / 255, methods, keep=2)
    head, columns, noisy, off, nearer = denoising_lines([result]).splitlines()
    assert head == "photographs, sigma 25, 3 images"
    assert columns.split() == ["row", "PSNR", "dB", "SSIM", "images/s", "told"]
    assert noisy.split()[0] == "noisy"
    assert off.split()[1] == "20.00"
    assert nearer.split()[1] == "40.00"
    assert nearer.endswith("nothing")
    assert len(denoising_lines([result, result]).split("\n\n")) == 2
    assert len(result.rows[1].output) == 2
    sheet = denoising_sheet(result)
    assert sheet.dtype == np.uint8
    assert sheet.shape[0] > 4 * 96
    assert sheet.shape[1] > 2 * 96
