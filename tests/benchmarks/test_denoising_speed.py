"""Denoisers are timed in turns, and compared with BM3D where it is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from lookalike.deploy.evaluation import InputNoise, evaluate_denoising
from lookalike.deploy.evaluation.denoising import DenoisingTestSet
from tests.benchmarks.classical_denoisers import classical_methods
from tests.benchmarks.denoising_speed import compare_denoisers, speed_lines, time_methods

Pixels = NDArray[np.uint8]
GRAY = np.full((16, 16, 1), 128, np.uint8)
IMAGES = DenoisingTestSet("photographs", ("a", "b", "c"), (GRAY, GRAY, GRAY))
NOISE = InputNoise("white", 0.1)


def test_methods_take_turns_and_the_median_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    order: list[str] = []

    @dataclass
    class Slow:
        name: str
        seconds: list[float]
        told: str = ""
        needs_sigma: bool = True

        def denoise(self, noisy: Sequence[Pixels], sigma: float | None) -> list[Pixels]:
            order.append(self.name)
            clock[0] += self.seconds.pop(0) * len(noisy)
            return list(noisy)

    monkeypatch.setattr("tests.benchmarks.denoising_speed.time.perf_counter", lambda: clock[0])
    # A warm-up, one that tells how many pictures a turn takes (1: a turn is 0.25 s), then three turns.
    slow, quick = Slow("slow", [9, 1, 1, 4, 2]), Slow("quick", [9, 0.25, 0.25, 0.5, 0.25])
    speeds = time_methods([slow, quick], IMAGES.noisy(NOISE).noisy, 0.1, rounds=3)
    assert order == ["slow", "slow", "quick", "quick"] + ["slow", "quick"] * 3
    assert speeds == {"slow": 0.5, "quick": 4.0}  # the medians of 1, 1/4, 1/2 and of 4, 2, 4


def test_more_methods_are_rows_after_ours() -> None:
    ours = evaluate_denoising(IMAGES, NOISE, [])
    result = compare_denoisers(ours, classical_methods(0.1, digits=False), rounds=1)
    assert [row.name for row in result.rows] == ["noisy", "non-local means", "total variation", "wavelet"]
    assert result.rows[0] == ours.rows[0]
    assert all(row.psnr > result.rows[0].psnr for row in result.rows[1:])
    assert [row.speed is None for row in result.rows] == [True, False, False, False]
    assert speed_lines(result) == "speeds are not compared: BM3D was not timed"


def test_methods_without_a_sigma_are_compared_on_camera_noise() -> None:
    ours = evaluate_denoising(IMAGES, InputNoise("camera", 20), [])
    result = compare_denoisers(ours, classical_methods(None, digits=False), rounds=1)
    assert [row.name for row in result.rows] == ["noisy", "non-local means", "total variation", "wavelet"]
    assert all(row.mean_psnr > result.rows[0].mean_psnr for row in result.rows[1:])
    assert [row.speed is None for row in result.rows] == [True, False, False, False]
