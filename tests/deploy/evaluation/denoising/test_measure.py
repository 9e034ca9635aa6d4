"""Metrics of denoising worked out by hand; the same noisy arrays for all methods; clean input."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lookalike.deploy.evaluation import (
    DenoisingModel,
    InputNoise,
    denoising_lines,
    denoising_sheet,
    evaluate_denoisers,
    evaluate_denoising,
)
from lookalike.deploy.evaluation.denoising import CleanRow, DenoiserMethod, DenoisingTestSet, evaluate_clean
from lookalike.deploy.evaluation.denoising.measure import jpeg_copy
from lookalike.encoder.images import encode_png, half_size, read_image_file
from lookalike.encoder.metrics import psnr
from lookalike.encoder.runtime import Denoiser
from lookalike.searcher.denoising import UNetDenoiser
from tests.fixtures.handmade_models import make_denoiser

Pixels = NDArray[np.uint8]
GRAY = np.full((16, 16, 1), 128, np.uint8)
IMAGES = DenoisingTestSet("photographs", ("a", "b", "c"), (GRAY, GRAY, GRAY))
NOISE = InputNoise("white", 0.1)


@dataclass
class Off:
    """Gives back gray images that are off by known numbers of gray levels, and remembers its input."""

    name: str
    by: Sequence[int]
    told: str = "everything"
    needs_sigma: bool = True
    given: list[tuple[list[Pixels], float | None]] = field(default_factory=list)

    def denoise(self, noisy: Sequence[Pixels], sigma: float | None) -> list[Pixels]:
        self.given.append((list(noisy), sigma))
        return [(GRAY + off).astype(np.uint8) for off, _ in zip(self.by, noisy, strict=False)]


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Denoiser:
    return Denoiser.open(make_denoiser(tmp_path_factory.mktemp("denoiser") / "box").folder)


def test_figures_are_medians_and_means_of_the_images_own() -> None:
    # 20 log10(255 / n): of 1 48.13, of 2 42.11, of 25 20.17 dB
    result = evaluate_denoising(IMAGES, NOISE, [Off("off", (1, 25, 2))])
    noisy, off = result.rows
    assert (noisy.name, off.name) == ("noisy", "off")
    assert off.psnr == pytest.approx(42.11, abs=0.01)
    assert off.mean_psnr == pytest.approx((48.13 + 20.17 + 42.11) / 3, abs=0.01)
    assert noisy.psnr == pytest.approx(20, abs=0.5)
    before = psnr(result.input.noisy[1], GRAY)
    assert off.worst_gain == pytest.approx(20.17 - before, abs=0.01)
    assert (noisy.worst_gain, noisy.unchanged, off.unchanged) == (0, 1, 0)
    assert noisy.ssim < 0.1
    assert off.ssim > 0.99
    assert noisy.mean_ssim < off.mean_ssim < off.ssim
    assert noisy.speed is None
    assert off.speed is not None
    values = json.loads(json.dumps(result.to_json()))
    assert (values["data"], values["noise"], values["sigma"], values["photons"]) == (
        "photographs", "white", 25.5, None,
    )  # fmt: skip
    assert values["pictures"] == 3
    assert values["rows"][1]["psnr_db"] == pytest.approx(42.11, abs=0.01)
    assert set(values["rows"][1]) == {
        "name", "told", "psnr_db", "mean_psnr_db", "worst_gain_db", "ssim", "mean_ssim", "unchanged",
        "images_per_second",
    }  # fmt: skip


def test_a_perfect_method_has_no_psnr_in_json() -> None:
    result = evaluate_denoising(IMAGES, NOISE, [Off("perfect", (0, 0, 0))])
    assert result.rows[1].psnr == result.rows[1].worst_gain == np.inf
    assert result.to_json()["rows"][1]["psnr_db"] is None


def test_an_image_that_has_no_noise_and_is_left_gains_nothing() -> None:
    same = DenoisingTestSet("polyu", ("a",), (GRAY,), (GRAY,))
    row = evaluate_denoising(same, InputNoise("real"), [Off("left", (0,), needs_sigma=False)]).rows[1]
    assert (row.worst_gain, row.unchanged) == (0, 1)


def test_all_methods_get_the_same_arrays_and_the_true_sigma() -> None:
    one, other = Off("one", (0, 0, 0)), Off("other", (0, 0, 0))
    result = evaluate_denoising(IMAGES, NOISE, [one, other], seed=3)
    for method in (one, other):
        ((given, sigma),) = method.given
        assert sigma == 0.1
        for got, noisy, drawn in zip(
            given, result.input.noisy, IMAGES.noisy(NOISE, seed=3).noisy, strict=True
        ):
            assert got is noisy
            np.testing.assert_array_equal(got, drawn)


def test_methods_that_need_a_sigma_are_left_out_where_there_is_none() -> None:
    needs, blind = Off("needs", (1, 1, 1)), Off("blind", (1, 1, 1), needs_sigma=False)
    result = evaluate_denoising(IMAGES, InputNoise("camera", 80), [needs, blind])
    assert [row.name for row in result.rows] == ["noisy", "blind"]
    assert blind.given[0][1] is None
    assert not needs.given


@pytest.mark.parametrize("sigma", [None, 25 / 255, 0.0])
@pytest.mark.parametrize(
    "kind", ["colored", "gray stored as RGB", "one channel", "no noise", "two gray values"]
)
def test_a_denoiser_gives_what_the_command_makes_of_a_file(
    box: Denoiser, sigma: float | None, kind: str
) -> None:
    rng = np.random.default_rng(0)
    smooth = np.broadcast_to(np.linspace(40, 200, 50)[:, None, None], (50, 37, 3))
    pixels = (smooth + rng.normal(0, 20, smooth.shape)).clip(0, 255).astype(np.uint8)
    if kind == "gray stored as RGB":
        pixels = np.repeat(pixels[..., :1], 3, axis=2)
    elif kind == "one channel":
        pixels = pixels[..., :1]
    elif kind == "no noise":
        pixels = smooth.astype(np.uint8)
    elif kind == "two gray values":
        pixels = np.where(pixels[..., :1] > 128, 255, 0).astype(np.uint8)
    as_file = UNetDenoiser(denoiser=box, sigma=sigma, max_pixels=10_000)(encode_png(pixels), "a.png")
    expected = read_image_file(as_file.data, max_pixels=10_000, name="a.png").colors.reshape(50, 37, -1)
    method = DenoiserMethod("box", box, blind=sigma is None)
    denoised, left = method.denoise_one(pixels, sigma)
    np.testing.assert_array_equal(denoised, expected)
    assert left == (as_file.status == "clean")
    assert left == np.array_equal(denoised, pixels)
    np.testing.assert_array_equal(method.denoise([pixels], 0.5 if sigma is None else sigma)[0], expected)


def test_clean_images_are_measured_at_three_sizes_each_against_its_own_input(box: Denoiser) -> None:
    rng = np.random.default_rng(0)
    ramp = np.broadcast_to(np.linspace(40, 200, 48)[:, None, None], (48, 48, 3))
    textured = rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)
    images = DenoisingTestSet("photographs", ("ramp", "textured"), (ramp.astype(np.uint8), textured))
    methods = [DenoiserMethod("box, blind", box, blind=True), DenoiserMethod("box, told", box, blind=False)]
    result = evaluate_clean(images, methods)
    assert [(row.name, row.input) for row in result.rows] == [
        ("box, blind", name) for name in ("originals", "half size", "JPEG 95")
    ]
    inputs = (textured, half_size(textured), jpeg_copy(textured))
    for row, given in zip(result.rows, inputs, strict=True):
        assert row.lowest == pytest.approx(psnr(methods[0].denoise_one(given)[0], given))
        assert row.psnr[1] > 45
    assert result.rows[0].left == 0.5
    assert result.rows[0].psnr[1] == np.inf
    values = json.loads(json.dumps(result.to_json()))
    assert (values["data"], values["noise"], values["pictures"]) == ("photographs", "none", 2)
    assert set(values["rows"][0]) == {
        "name", "input", "pictures", "median_psnr_db", "5th_percentile_psnr_db", "lowest_psnr_db",
        "left_as_it_is",
    }  # fmt: skip


def test_images_that_did_not_change_count_as_better_than_any() -> None:
    row = CleanRow("a", "originals", (40.0, 50.0, *[np.inf] * 19), 0.9)
    assert (row.median, row.low, row.lowest) == (np.inf, 50.0, 40.0)
    values = row.to_json()
    assert (values["median_psnr_db"], values["5th_percentile_psnr_db"], values["lowest_psnr_db"]) == (
        None, 50, 40,
    )  # fmt: skip


def test_clean_results_stand_after_those_with_noise_of_each_set(box: Denoiser) -> None:
    real = DenoisingTestSet("polyu", ("a",), (GRAY,), (GRAY + 1,))
    model = DenoisingModel(box, "box")
    report = evaluate_denoisers([model], [IMAGES, real], sigmas=(25,), photons=(80,), keep=2)
    assert [result.to_json()["noise"] for result in report.results] == [
        "white", "camera", "none", "real", "none",
    ]  # fmt: skip
    assert [len(result.rows) for result in report.noisy] == [3, 2, 2]
    assert [len(result.rows[0].output) for result in report.noisy] == [2, 0, 0]
    heads = [block.splitlines()[0] for block in denoising_lines(report.results).split("\n\n")]
    assert heads == [
        "photographs, sigma 25, 3 images: PSNR in dB, to the clean images",
        "photographs, camera noise of 80 photons, 3 images: PSNR in dB, to the clean images",
        "photographs, no noise, 3 images: PSNR in dB, to the input",
        "polyu, real camera noise, 1 image: PSNR in dB, to the clean images",
        "polyu, no noise, 1 image: PSNR in dB, to the input",
    ]


def test_the_tables_and_the_sheet(box: Denoiser, tmp_path: Path) -> None:
    methods = [Off("off", (25, 25, 25)), Off("nearer", (2, 2, 2), "nothing")]
    result = evaluate_denoising(IMAGES, InputNoise("white", 25 / 255), methods, keep=2)
    clean = evaluate_clean(IMAGES, [DenoiserMethod("box, blind", box, blind=True)])
    noisy_table, clean_table = denoising_lines([result, clean]).split("\n\n")
    _, columns, noisy, off, nearer = noisy_table.splitlines()
    assert columns.split() == [
        "row", "median", "mean", "worst", "gain", "SSIM", "unchanged", "images/s", "told",
    ]  # fmt: skip
    assert noisy.split()[0] == "noisy"
    assert off.split()[1:3] == ["20.17", "20.17"]
    assert nearer.split()[1] == "42.11"
    assert nearer.endswith("nothing")
    lines = clean_table.splitlines()
    assert lines[2].split() == ["box,", "blind", "originals", *3 * ["unchanged"], "100%"]
    sheet = denoising_sheet(result)
    assert sheet.dtype == np.uint8
    assert sheet.shape[0] > 4 * 96
    assert sheet.shape[1] > 2 * 96
