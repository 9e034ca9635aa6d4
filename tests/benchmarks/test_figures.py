"""The program that prints the README's tables: our rows are those of the command, baselines follow."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from lookalike.deploy.evaluation import (
    DenoisingResult,
    GenerationBenchmark,
    GenerationPlan,
    InputNoise,
    MnistData,
)
from lookalike.deploy.evaluation.data import DigitImages
from lookalike.deploy.evaluation.denoising import DenoisingTestSet
from lookalike.deploy.evaluation.generation import ClassAccuracy, Diversity, FidResult, Generation
from lookalike.deploy.evaluation.likelihood import LikelihoodResult
from lookalike.deploy.evaluation.retrieval import KnnResult
from lookalike.encoder.datasets import LFW
from tests.benchmarks.figures import main
from tests.benchmarks.published import generation_markdown, published_denoising, published_lines
from tests.fixtures.command import lookalike
from tests.fixtures.handmade_models import make_denoiser
from tests.fixtures.people import write_people

BASELINES = ["raw gray pixels", "PCA-128 whitened", "LBP+HOG, three crops"]


def run(*words: str | Path) -> Result:
    done = CliRunner().invoke(main, list(map(str, words)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 people with three images each."""
    return write_people(tmp_path_factory.mktemp("home") / "people", people=24, each=3)


def test_our_rows_are_those_of_the_command_and_baselines_follow(people: Path, tiny_model: Path) -> None:
    words = ("--data", people, "--model", tiny_model, "--json")
    tables = json.loads(run("faces", *words).stdout)
    verified, retrieved = tables["verification"], tables["retrieval"]
    assert [row["name"] for row in verified] == ["tiny", *BASELINES]
    assert [row["kind"] for row in verified] == ["model"] + 3 * ["baseline"]
    assert [(row["name"], row["people"]) for row in retrieved] == [
        (name, group) for name in ["tiny", *BASELINES] for group in ("everybody", "held out")
    ]
    assert {row["queries"] for row in retrieved if row["people"] == "everybody"} == {72}
    # 24 people in ten folds: 3 in each of the first four, 2 in the others.
    assert {row["queries"] for row in retrieved if row["people"] == "held out"} == {(4 * 3 + 2) * 3}
    (own,) = json.loads(lookalike("evaluate", "verification", *words, cwd=people).stdout)
    assert own == verified[0] | {"faces": False}
    (own,) = json.loads(lookalike("evaluate", "retrieval", *words, cwd=people).stdout)
    assert own == retrieved[0] | {"faces": False}


def test_people_seen_whole_are_easily_told_apart_by_pca(people: Path, tiny_model: Path) -> None:
    words = ("--data", people, "--model", tiny_model, "--json", "--seed", "5", "--crop", "full")
    pca = json.loads(run("faces", *words).stdout)["verification"][2]
    assert pca["name"] == "PCA-128 whitened"
    assert pca["held"]["auc"] > 0.9


def test_failures_and_curves_are_shown(people: Path, tiny_model: Path, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("wrong.png", "wrong-pairs.png", "roc.png")]
    done = run("faces", "--data", people, "--model", tiny_model, "--failures", files[0], "--roc", files[2])
    assert "held: 5 folds" in done.stdout
    assert "Recall@1" in done.stdout
    for file in files:
        with Image.open(file) as image:
            assert min(image.size) > 300


def test_denoisers_are_compared_with_filters(tmp_path: Path) -> None:
    box = make_denoiser(tmp_path / "box").folder
    words = ("denoising", "--data", "skimage", "--pictures", "1", "--sigma", "25", "--no-bm3d")
    done = run(*words, "--model", box, "--rounds", "1", "--sheet", tmp_path / "sheet.png", "--json")
    (result,) = json.loads(done.stdout)
    rows = {row["name"]: row for row in result["rows"]}
    filters = ["non-local means", "total variation", "wavelet"]
    assert list(rows) == ["noisy", "box, blind", "box, non-blind", *filters]
    for name, row in rows.items():
        assert row["psnr_db"] >= rows["noisy"]["psnr_db"]
        assert (row["images_per_second"] is None) == (name == "noisy")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.height > 6 * 96
    table = run(*words, "--model", box, "--rounds", "0").stdout
    assert table.startswith("skimage, sigma 25, 1 image: PSNR in dB, to the clean images\n")


def test_without_a_sigma_the_filters_estimate_one(tmp_path: Path) -> None:
    box = make_denoiser(tmp_path / "box").folder
    words = ("denoising", "--data", "skimage", "--pictures", "1", "--photons", "80", "--no-bm3d")
    (result,) = json.loads(run(*words, "--model", box, "--rounds", "0", "--json").stdout)
    assert (result["noise"], result["photons"], result["published"]) == ("camera", 80, [])
    rows = {row["name"]: row for row in result["rows"]}
    assert list(rows) == ["noisy", "box, blind", "non-local means", "total variation", "wavelet"]
    for name in list(rows)[2:]:
        assert rows[name]["told"].startswith("estimated sigma; ")
        assert rows[name]["mean_psnr_db"] > rows["noisy"]["mean_psnr_db"] - 0.1


@pytest.mark.parametrize(
    ("sigma", "expected"), [(15, (33.52, 33.87)), (25, (30.71, 31.21)), (50, (27.38, 27.96))]
)
def test_published_denoisers_stand_beside_the_same_images_alone(
    sigma: int, expected: tuple[float, float]
) -> None:
    gray = np.zeros((8, 8, 3), np.uint8)
    white = InputNoise("white", sigma / 255)
    images = DenoisingTestSet("cbsd68", 68 * ("a",), 68 * (gray,))
    result = DenoisingResult(images, images.first(1).noisy(white), ())
    rows = published_denoising(result)
    assert tuple(row["mean_psnr_db"] for row in rows) == expected
    assert "CBM3D (Dabov et al. 2007)" in published_lines(result)
    assert "noise not clipped" in published_lines(result)
    for other, noise in (
        (images.first(67), white),
        (replace(images, name="skimage"), white),
        (images, InputNoise("white", 20 / 255)),
        (images, InputNoise("camera", 80)),
    ):
        result = DenoisingResult(other, other.first(1).noisy(noise), ())
        assert published_denoising(result) == []
        assert published_lines(result) == ""


def likelihood(protocol: str, measured: str) -> LikelihoodResult:
    values: dict[str, Any] = {"protocol": protocol, "measured": measured}
    return LikelihoodResult(
        **values, images=100, samples=50, seed=0, negative_elbo=90.0, negative_elbo_error=1.0,
        divergence=25.0, bound=86.0, bound_error=0.5, samples_per_second=1.0,
    )  # fmt: skip


def test_published_values_stand_only_where_they_are_comparable() -> None:
    none = DigitImages(np.zeros((0, 28, 28, 1), np.uint8), np.zeros(0, np.int64))
    benchmark = GenerationBenchmark(GenerationPlan(), MnistData("mnist", tuple("01"), none, none))
    rows = tuple(likelihood(p, m) for p in ("dynamic", "threshold") for m in ("log p(x|y)", "log p(x)"))
    knn = KnnResult("a", 12, "cosine", "store", 5, 60_000, 100, 0.99, 0.01)
    cvae = Generation("digits", "0", "cvae", rows, neighbours=knn)
    vae = Generation(
        "digits-vae", "1", "vae", rows[1::2],
        accuracy=ClassAccuracy(10, 0.9, {"0": 0.8, "1": 1.0}, "0", ()),
        diversity=(Diversity("features", 0.9, 0.8, "1", {}),),
        distance=(FidResult("normal", 10, 1.0, 0.5, 0.25),),
    )  # fmt: skip
    pixels = KnnResult("raw pixels", 784, "Euclid", "numpy", 5, 60_000, 100, 0.97, 0.01)
    lines = generation_markdown(benchmark, [cvae, vae], [pixels]).splitlines()
    assert lines[0] == "| MNIST test digits | `digits` | `digits-vae` | compare |"
    assert len({line.count("|") for line in lines}) == 1
    (published,) = [line for line in lines if "Burda" in line]
    assert "-log p(x) at most" in published
    assert "dynamic" in published
    assert "86.00 ± 0.50" in published
    assert any("1.00; 0.500, 0.250" in line for line in lines)
    assert lines[-1].endswith("| 99.00% (12 dims) | - | raw pixels 97.00% (Euclid) |")


@pytest.mark.lfw
@pytest.mark.slow
def test_search_under_noise_on_lfw(lfw: LFW, tmp_path: Path) -> None:
    box = make_denoiser(tmp_path / "box").folder
    done = run("queries", "--queries", "50", "--sigma", "50", "--denoiser", box)
    assert done.stdout.startswith("search, 50 queries among 13,232 others")
    assert len(done.stdout.splitlines()) == 8
