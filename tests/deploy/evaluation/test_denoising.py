"""The contest: hand-worked figures, the same noisy arrays for everybody, turns on the same cores."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from lookalike.deploy.evaluation.denoising import evaluate_denoising, time_methods
from lookalike.deploy.evaluation.denoising_tables import denoising_lines, denoising_sheet
from lookalike.deploy.evaluation.exhibits import DenoisingTestSet

Floats = NDArray[np.float32]
GREY = np.full((16, 16, 1), 0.5, np.float32)
EXHIBIT = DenoisingTestSet("photographs", ("a", "b", "c"), (GREY, GREY, GREY))


@dataclass
class Off:
    """Gives back grey pictures that are off by a known amount, and remembers what it was given."""

    name: str
    by: Sequence[float]
    told: str = "everything"
    given: list[tuple[list[Floats], float]] = field(default_factory=list)

    def clean(self, noisy: Sequence[Floats], sigma: float) -> list[Floats]:
        self.given.append((list(noisy), sigma))
        return [GREY + np.float32(off) for off, _ in zip(self.by, noisy, strict=False)]


def test_figures_are_medians_of_pictures_own() -> None:
    # 10 log10(1 / 0.1^2) = 20, of 0.01: 40, of 0.001: 60 dB
    bout = evaluate_denoising(EXHIBIT, 0.1, [Off("off", (0.1, 0.001, 0.01))], rounds=0)
    noisy, off = bout.rows
    assert (noisy.name, off.name) == ("noisy", "off")
    assert off.psnr == pytest.approx(40, abs=1e-3)
    assert off.mean_psnr == pytest.approx(40, abs=1e-3)
    assert noisy.psnr == pytest.approx(20, abs=0.5)
    assert noisy.ssim < 0.1
    assert off.ssim > 0.9
    assert (off.speed, off.times_bm3d) == (None, None)
    told = json.loads(json.dumps(bout.to_json()))
    assert told["sigma"] == 25.5
    assert told["pictures"] == 3
    assert told["rows"][1]["psnr_db"] == pytest.approx(40, abs=1e-3)


def test_a_perfect_rival_has_no_figure_in_json() -> None:
    bout = evaluate_denoising(EXHIBIT, 0.1, [Off("perfect", (0, 0, 0))], rounds=0)
    assert bout.rows[1].psnr == np.inf
    assert bout.to_json()["rows"][1]["psnr_db"] is None


def test_everybody_gets_the_same_arrays_and_the_true_sigma() -> None:
    one, other = Off("one", (0, 0, 0)), Off("other", (0, 0, 0))
    bout = evaluate_denoising(EXHIBIT, 0.1, [one, other], rounds=0, seed=3)
    for rival in (one, other):
        ((given, sigma),) = rival.given
        assert sigma == 0.1
        for got, noisy, drawn in zip(given, bout.noisy, EXHIBIT.noisy(0.1, seed=3), strict=True):
            assert got is noisy
            np.testing.assert_array_equal(got, drawn)


def test_rivals_take_turns_and_the_median_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    order: list[str] = []

    @dataclass
    class Slow:
        name: str
        seconds: list[float]
        told: str = ""

        def clean(self, noisy: Sequence[Floats], sigma: float) -> list[Floats]:
            order.append(self.name)
            clock[0] += self.seconds.pop(0) * len(noisy)
            return list(noisy)

    monkeypatch.setattr("lookalike.deploy.evaluation.denoising.time.perf_counter", lambda: clock[0])
    # A warm-up, one that tells how many pictures a turn takes (1: a turn is 0.25 s), then three turns.
    slow, quick = Slow("slow", [9, 1, 1, 4, 2]), Slow("quick", [9, 0.25, 0.25, 0.5, 0.25])
    speeds = time_methods([slow, quick], EXHIBIT.noisy(0.1), 0.1, rounds=3)
    assert order == ["slow", "slow", "quick", "quick"] + ["slow", "quick"] * 3
    assert speeds == {"slow": 0.5, "quick": 4.0}  # the medians of 1, 1/4, 1/2 and of 4, 2, 4


def test_the_table_and_the_sheet() -> None:
    rivals = [Off("off", (0.1, 0.1, 0.1)), Off("nearer", (0.01, 0.01, 0.01), "nothing")]
    bout = evaluate_denoising(EXHIBIT, 25 / 255, rivals, rounds=1, shown=2)
    head, columns, noisy, off, nearer = denoising_lines([bout]).splitlines()
    assert head == "photographs, sigma 25, 3 pictures"
    assert columns.split() == ["row", "PSNR", "dB", "SSIM", "images/s", "of", "BM3D", "told"]
    assert noisy.split()[0] == "noisy"
    assert off.split()[1] == "20.00"
    assert nearer.split()[1] == "40.00"
    assert nearer.endswith("nothing")
    assert len(denoising_lines([bout, bout]).split("\n\n")) == 2
    assert len(bout.rows[1].made) == 2
    sheet = denoising_sheet(bout)
    assert sheet.dtype == np.uint8
    assert sheet.shape[0] > 4 * 96
    assert sheet.shape[1] > 2 * 96
