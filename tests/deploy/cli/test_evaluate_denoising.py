"""``lookalike evaluate denoising`` as people call it: a table, a sheet, JSON, and who does not take part."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from tests.fixtures.command import lookalike, lookalike_process, one_line
from tests.fixtures.handmade_models import make_cleaner

WORDS = ("evaluate", "denoising", "--data", "photographs", "--pictures", "1", "--sigma", "25")


@pytest.fixture(scope="module")
def cleaner(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_cleaner(tmp_path_factory.mktemp("cleaner") / "box").folder)


def test_rows_are_the_noise_and_the_models(cleaner: str, tmp_path: Path) -> None:
    done = lookalike(*WORDS, "--model", cleaner, "--sheet", "sheet.png", "--json", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr == "written: sheet.png\n"
    (bout,) = json.loads(done.stdout)
    assert (bout["data"], bout["sigma"], bout["pictures"]) == ("photographs", 25, 1)
    rows = {row["name"]: row for row in bout["rows"]}
    assert list(rows) == ["noisy", "box, blind", "box, non-blind"]
    for name, row in rows.items():
        assert row["psnr_db"] >= rows["noisy"]["psnr_db"]
        assert (row["images_per_second"] is None) == (name == "noisy")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.height > 4 * 96


def test_a_model_that_does_not_fit_is_left_out_and_said(tiny_model: Path, tmp_path: Path) -> None:
    done = lookalike(*WORDS, "--model", tiny_model, cwd=tmp_path)
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert line == "model tiny takes images of 16x16x3, those of photographs differ: left out there"
    title, _, noisy = done.stdout.splitlines()
    assert title == "photographs, sigma 25, 1 image"
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
        (("--sheet", "sheet.txt"), "an image is written as .png"),
        (("--threads", "0"), "0 is not in the range"),
    ],
)
def test_options_that_cannot_be_are_refused(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = lookalike("evaluate", "denoising", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())
