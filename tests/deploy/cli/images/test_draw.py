"""``generate``, ``interpolate``, ``reconstruct``, ``models`` of models with classes: sheets and files."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lookalike.encoder.images import save_image
from lookalike.encoder.runtime import Model
from lookalike.searcher.figures import classes_sheet, interpolation_sheet, safe_names
from lookalike.searcher.generation import most_likely_classes, sample, sample_classes, sample_latents
from lookalike.searcher.generation.sample import interpolate
from tests.fixtures.command import lookalike, one_line
from tests.fixtures.handmade_models import CLASSES, every_kind, make_digits

K = len(CLASSES)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    return every_kind(tmp_path_factory.mktemp("models"))


def test_sheets_of_grey_pictures(models: dict[str, Model]) -> None:
    rows = sample_classes(models["cvae"], 3)
    sheet = classes_sheet(models["cvae"], rows)
    assert sheet.shape[2] == 3
    assert sheet.shape[0] > 3 * 168  # few classes: twice as large
    assert K * 168 < sheet.shape[1] < (K + 1) * 168
    pixels = sample(models["cvae"], 3)
    strip = interpolation_sheet(
        models["cvae"], pixels, interpolate(models["cvae"], pixels, 4), ["a", "b", "c"]
    )
    assert strip.shape[0] > 2 * 112
    assert strip.shape[1] > 6 * 112


def test_classes_make_plain_names_of_files() -> None:
    names = ["7", "../../etc", "a/b", "a b", "A_b", "..", "ß-é", "x" * 300]
    expected = ["7", "etc", "a_b", "a_b-2", "A_b-3", "class", "ß-é", "x" * 40]
    assert safe_names(names) == expected


@pytest.fixture
def bundle(models: dict[str, Model]) -> str:
    return str(models["cvae"].bundle.folder)


def test_generate_names_files_by_class(bundle: str, tmp_path: Path) -> None:
    words = ["generate", "--model", bundle, "-n", "11", "--seed", "2", "--out"]
    one = lookalike(*words, "one/", "--class", "two", cwd=tmp_path)
    assert one.stdout.splitlines() == [f"one/{number:02d}-two.png" for number in range(11)]
    every = lookalike(*words, "all/", "--class", "all", cwd=tmp_path)
    expected = [
        f"all/{number:02d}-{name}.png" for number in range(11) for name in ("nil", "one", "two", "1_2")
    ]
    assert every.stdout.splitlines() == expected
    for number in (0, 10):
        name = f"{number:02d}-two.png"
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "all" / name).read_bytes()
    some = lookalike(*words, "some/", cwd=tmp_path)
    drawn = most_likely_classes(Model.open(bundle), sample_latents(Model.open(bundle), 11, seed=2))
    assert drawn is not None
    plain = [name if name != CLASSES[-1] else "1_2" for name in drawn]
    assert some.stdout.splitlines() == [f"some/{number:02d}-{name}.png" for number, name in enumerate(plain)]


def test_generate_draws_a_sheet_of_all_classes_and_the_same_again(bundle: str, tmp_path: Path) -> None:
    words = ["generate", "--model", bundle, "-n", "3", "--class", "all", "--out"]
    for name in ("one.png", "two.png"):
        done = lookalike(*words, name, cwd=tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{name}\n", "")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    other = lookalike(*words, "other.png", "--sampler", "gmm", "--temperature", "0.5", cwd=tmp_path)
    assert other.returncode == 0
    assert (tmp_path / "one.png").read_bytes() != (tmp_path / "other.png").read_bytes()


def test_what_generate_cannot_draw_is_one_line(bundle: str, tiny_model: Path, tmp_path: Path) -> None:
    words = ["generate", "--out", "x.png", "--model"]
    for more, said in (
        ([bundle, "--class", "8"], "lookalike: model cvae has no class '8'; it has: nil, one, two"),
        ([tiny_model, "--class", "all"], "lookalike: model tiny has no classes"),
        ([tiny_model, "--sampler", "normal"], "lookalike: model tiny (ae) has no N(0, I) prior"),
        ([bundle, "--class", "all", "-n", "9999"], "lookalike: at most 10,000 images are generated at once"),
    ):
        done = lookalike(*words, *more, cwd=tmp_path)
        assert done.returncode == 2
        assert one_line(done).startswith(said)
    assert not (tmp_path / "x.png").exists()


def test_interpolate_draws_a_strip_or_the_way_in_order(bundle: str, tmp_path: Path) -> None:
    pixels = sample(Model.open(bundle), 3, seed=5)
    for name, picture in zip("abc", pixels, strict=True):
        save_image(tmp_path / f"{name}.png", picture)
    words = ["interpolate", "a.png", "b.png", "c.png", "--model", bundle, "--steps", "6", "--out"]
    strip = lookalike(*words, "strip.png", cwd=tmp_path)
    assert (strip.returncode, strip.stdout, strip.stderr) == (0, "strip.png\n", "")
    each = lookalike(*words, "way/", cwd=tmp_path)
    assert each.stdout.splitlines() == [f"way/{number:02d}.png" for number in range(11)]
    rows = interpolate(Model.open(bundle), pixels, 6)
    for number, picture in ((0, rows[0, 0]), (5, rows[0, 5]), (6, rows[1, 1]), (10, rows[1, 5])):
        with Image.open(tmp_path / "way" / f"{number:02d}.png") as image:
            np.testing.assert_array_equal(np.asarray(image), picture[:, :, 0])


def test_interpolate_goes_on_without_what_it_cannot_read(bundle: str, tmp_path: Path) -> None:
    for name, picture in zip("ab", sample(Model.open(bundle), 2), strict=True):
        save_image(tmp_path / f"{name}.png", picture)
    words = ["--model", bundle, "--out", "strip.png"]
    failed = "failed: no.png: cannot be read (No such file or directory)"
    two = lookalike("interpolate", "a.png", "no.png", *words, cwd=tmp_path)
    assert two.returncode == 1
    assert one_line(two) == failed
    assert not (tmp_path / "strip.png").exists()
    three = lookalike("interpolate", "a.png", "no.png", "b.png", *words, cwd=tmp_path)
    assert (three.returncode, three.stdout, three.stderr) == (3, "strip.png\n", f"{failed}\n")
    alone = lookalike("interpolate", "a.png", *words, cwd=tmp_path)
    assert alone.returncode == 2
    assert "two or more IMAGEs" in alone.stderr


def test_reconstruct_draws_grey_pictures(bundle: str, tmp_path: Path) -> None:
    save_image(tmp_path / "a.png", sample(Model.open(bundle), 1)[0])
    done = lookalike("reconstruct", "a.png", "--model", bundle, "--out", "sheet.png", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "sheet.png\n", "")


def test_models_tells_what_can_be_drawn(models: dict[str, Model], tmp_path: Path) -> None:
    done = lookalike("models", *(str(model.bundle.folder) for model in models.values()), cwd=tmp_path)
    lines = done.stdout.splitlines()
    assert lines.count("  4 classes: nil, one, two, 1/2 ../..") == 3
    assert lines.count("  trained with class labels") == 3
    assert lines.count("  samplers: normal, gaussian, gmm (2 Gaussians); each class on request") == 2
    assert lines.count("  samplers: gaussian, gmm (2 Gaussians); each class on request") == 1
    assert lines.count("  samplers: normal, gaussian") == 1
    assert any(line.startswith("cvae  cvae, 28x28x1, latent 7, crop full") for line in lines)


def test_many_classes_are_not_all_told(tmp_path: Path) -> None:
    bundle = make_digits(tmp_path / "many", classes=tuple(f"c{number}" for number in range(45)))
    done = lookalike("models", str(bundle.folder), cwd=tmp_path)
    assert "  45 classes: c0, c1, " in done.stdout
    assert ", c19 and 25 more\n" in done.stdout
