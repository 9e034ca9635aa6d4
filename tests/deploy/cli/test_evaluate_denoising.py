"""``lookalike evaluate denoising`` as people call it: a table, a sheet, JSON, and who does not take part."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lookalike.encoder.errors import DataError
from tests.fixtures.command import lookalike, lookalike_process, one_line
from tests.fixtures.handmade_models import make_denoiser

WORDS = ("evaluate", "denoising", "--data", "skimage", "--pictures", "1", "--sigma", "25")


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_denoiser(tmp_path_factory.mktemp("denoiser") / "box").folder)


def test_rows_are_the_noise_and_the_models(denoiser: str, tmp_path: Path) -> None:
    done = lookalike(*WORDS, "--model", denoiser, "--sheet", "sheet.png", "--json", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr == "written: sheet.png\n"
    noisy, clean = json.loads(done.stdout)
    assert (noisy["data"], noisy["noise"], noisy["sigma"], noisy["pictures"]) == ("skimage", "white", 25, 1)
    rows = {row["name"]: row for row in noisy["rows"]}
    assert list(rows) == ["noisy", "box, blind", "box, non-blind"]
    for name, row in rows.items():
        assert row["psnr_db"] >= rows["noisy"]["psnr_db"]
        assert (row["images_per_second"] is None) == (name == "noisy")
    assert (clean["data"], clean["noise"], clean["sigma"]) == ("skimage", "none", None)
    assert [(row["name"], row["input"]) for row in clean["rows"]] == [
        ("box, blind", name) for name in ("originals", "half size", "JPEG 95")
    ]
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.height > 4 * 96


def test_camera_noise_and_white_noise_stand_in_tables_of_their_own(denoiser: str, tmp_path: Path) -> None:
    done = lookalike(*WORDS, "--photons", "80", "--model", denoiser, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    white, camera, clean = done.stdout.split("\n\n")
    assert white.startswith("skimage, sigma 25, 1 image: PSNR in dB, to the clean images\n")
    assert camera.startswith("skimage, camera noise of 80 photons, 1 image: ")
    assert clean.startswith("skimage, no noise, 1 image: PSNR in dB, to the input\n")
    assert [line.split()[:2] for line in camera.splitlines()[2:]][1:] == [["box,", "blind"]]
    assert max(map(len, done.stdout.splitlines())) <= 110


def write_pairs(folder: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(count):
        clean = np.broadcast_to(np.linspace(40, 200, 128)[:, None, None], (128, 128, 3))
        noisy = clean + rng.normal(0, 40, clean.shape)
        for pixels, end in ((clean, "mean"), (noisy, "real")):
            Image.fromarray(pixels.round().astype(np.uint8)).save(folder / f"{number}_{end}.JPG", quality=98)


def test_real_noise_is_measured_as_it_is(denoiser: str, tmp_path: Path) -> None:
    write_pairs(tmp_path / "polyu", 3)
    words = ("evaluate", "denoising", "--data", "polyu", "--sigma", "25", "--model", denoiser, "--json")
    done = lookalike(*words, cwd=tmp_path, env={"LOOKALIKE_DATA": str(tmp_path)})
    assert (done.returncode, done.stderr) == (0, "")
    noisy, clean = json.loads(done.stdout)
    assert (noisy["noise"], noisy["sigma"], noisy["photons"], noisy["pictures"]) == ("real", None, None, 3)
    before, blind = noisy["rows"]
    assert blind["name"] == "box, blind"
    assert before["mean_psnr_db"] + 1 < blind["mean_psnr_db"]
    assert blind["worst_gain_db"] > 0
    assert clean["rows"][0]["left_as_it_is"] == 1
    assert clean["rows"][0]["lowest_psnr_db"] is None


@pytest.mark.parametrize("name", ["cbsd68", "polyu", "photographs"])
def test_data_that_are_missing_are_said_before_anything_is_measured(
    name: str, denoiser: str, tmp_path: Path
) -> None:
    words = ("--data", name, "--model", denoiser)
    done = lookalike(*WORDS, *words, cwd=tmp_path, env={"LOOKALIKE_DATA": str(tmp_path)})
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{name} needs " in one_line(done)
    assert "set LOOKALIKE_DATA to the folder that holds it" in done.stderr


def test_of_all_sets_the_missing_ones_are_named(
    denoiser: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(**_: object) -> None:
        raise DataError("not found; get it")

    for name in ("find_lfw", "find_mnist"):
        monkeypatch.setattr(f"lookalike.deploy.evaluation.denoising.noisy_images.{name}", missing)
    done = lookalike(*WORDS, "--data", "all", "--model", denoiser, cwd=tmp_path, env={"LOOKALIKE_DATA": ""})
    assert done.returncode == 3
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == [
        f"{name} is left out" for name in ("cbsd68", "polyu", "photographs", "lfw-64", "lfw-250", "mnist")
    ]
    assert done.stdout.startswith("skimage, sigma 25, 1 image")


def test_a_model_that_does_not_fit_is_left_out_and_said(tiny_model: Path, tmp_path: Path) -> None:
    done = lookalike(*WORDS, "--model", tiny_model, cwd=tmp_path)
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert line == "model tiny takes images of 16x16x3, those of skimage differ: left out there"
    title, _, noisy = done.stdout.splitlines()
    assert title.startswith("skimage, sigma 25, 1 image: ")
    assert noisy.split()[0] == "noisy"


def test_without_scikit_image_it_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "without" / "skimage").mkdir(parents=True)
    (tmp_path / "without" / "skimage" / "__init__.py").write_text("raise ImportError('not here')\n")
    path = os.pathsep.join(filter(None, (str(tmp_path / "without"), os.environ.get("PYTHONPATH"))))
    done = lookalike_process(*WORDS, cwd=tmp_path, env={"PYTHONPATH": path})
    assert done.returncode == 1
    assert "pip install 'lookalike[evaluate]'" in one_line(done)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--data", "cats"), "'cats' is not one of"),
        (("--sigma", "0"), "0 is not in the range"),
        (("--photons", "0"), "0 is not in the range"),
        (("--sheet", "sheet.txt"), "an image is written as .png"),
        (("--threads", "0"), "0 is not in the range"),
    ],
)
def test_options_that_cannot_be_are_refused(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = lookalike("evaluate", "denoising", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())
