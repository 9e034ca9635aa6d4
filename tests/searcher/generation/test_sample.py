"""What a model keeps of a picture, and pictures that never were."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.images import Crop, read_pixels, to_uint8
from lookalike.encoder.metrics import psnr
from lookalike.encoder.runtime import Model
from lookalike.searcher.figures import caption, is_folder, reconstruction_sheet, save_each, unique_names
from lookalike.searcher.generation import read_all, reconstruct, sample
from tests.fixtures.command import lookalike, one_line
from tests.fixtures.photos import photograph, write_photos


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Model:
    return Model.open(tiny_model)


def test_psnr_of_known_pairs() -> None:
    black = np.zeros((4, 4, 3), np.uint8)
    assert psnr(black, black + 255) == 0  # MSE = 255^2
    assert psnr(black, black + 1) == pytest.approx(48.1308036)  # MSE = 1: 20 log10(255)
    assert psnr(black, black) == float("inf")
    assert psnr(black, black + 255) == psnr(black + 255, black)  # no wrap-around of uint8


def test_a_seed_draws_the_same_pictures_and_another_seed_others(model: Model) -> None:
    first = sample(model, 6, seed=3)
    assert first.shape == (6, *model.bundle.spec.image.shape)
    np.testing.assert_array_equal(first, sample(model, 6, seed=3))
    assert (first != sample(model, 6, seed=4)).any()
    # More of them begin with the same ones, up to rounding.
    np.testing.assert_allclose(sample(model, 9, seed=3)[:6].astype(int), first, atol=1)


def test_samples_are_spread_as_the_training_latents(model: Model) -> None:
    drawn = model.encode(sample(model, 400, seed=1, temperature=0.5)).mean(axis=0)
    deviation = np.sqrt(np.diag(model.bundle.statistics.covariance))
    assert (np.abs(drawn - model.bundle.statistics.mean) < deviation).all()
    mean = to_uint8(model.decode(model.bundle.statistics.mean[None]))
    np.testing.assert_array_equal(sample(model, 3, temperature=0), np.repeat(mean, 3, axis=0))


@pytest.mark.parametrize(("count", "temperature"), [(0, 1.0), (-1, 1.0), (1, -0.1)])
def test_samples_that_cannot_be_are_refused(model: Model, count: int, temperature: float) -> None:
    with pytest.raises(InvalidArgumentError, match=f"got {count} at {temperature}"):
        sample(model, count, temperature=temperature)


def test_a_reconstruction_is_what_comes_back_through_the_latent(model: Model) -> None:
    pixels = read_pixels(photograph(0), model.bundle.spec.image, name="")[None]
    back = reconstruct(model, pixels)
    np.testing.assert_array_equal(back, to_uint8(model.decode(model.encode(pixels))))
    assert psnr(pixels, back) > psnr(pixels, 255 - back)


def test_reading_many_names_those_that_fail(model: Model, tmp_path: Path) -> None:
    files = write_photos(tmp_path, each=1)
    (tmp_path / "bad.jpg").write_bytes(b"no")
    asked = [files[0], tmp_path / "bad.jpg", tmp_path / "nowhere.jpg", files[1]]
    good, pixels, failed = read_all(model, asked)
    assert good == files[:2]
    assert pixels.shape == (2, *model.bundle.spec.image.shape)
    assert len(failed) == 2
    assert "bad.jpg" in failed[0]
    assert failed[1].endswith("nowhere.jpg: cannot be read (No such file or directory)")
    close = read_all(model, files[:1], crop=Crop.parse("center:0.2"))[1]
    assert (close[0] != pixels[0]).any()
    none = read_all(model, [])
    assert none[1].shape == (0, *model.bundle.spec.image.shape)


def test_same_stems_get_numbers_also_where_case_is_ignored() -> None:
    files = [Path(f) for f in ("x/a.jpg", "y/a.png", "A.gif", "a-2.jpg", "b.c.jpg")]
    assert unique_names(files) == ["a", "a-2", "A-3", "a-2-2", "b.c"]


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("lfw/Ada_Lovelace/Ada_Lovelace_0001.jpg", "Ada Lovelace"),
        ("lfw/Ada_Lovelace/Hypatia_0001.jpg", "Hypatia 0001"),
        ("Ada_Lovelace/beach_day.jpg", "beach day"),
        ("me.jpg", "me"),
    ],
)
def test_a_caption_is_the_person_where_the_file_is_called_so(file: str, name: str) -> None:
    assert caption(Path(file)) == name


def test_a_folder_is_a_slash_or_what_is_one(tmp_path: Path) -> None:
    assert is_folder("new/")
    assert is_folder(str(tmp_path))
    assert not is_folder(str(tmp_path / "sheet.png"))


def test_one_png_each_holds_the_very_pixels(model: Model, tmp_path: Path) -> None:
    pictures = sample(model, 2)
    paths = save_each(tmp_path / "new", ["a", "b.c"], list(pictures))
    assert [path.name for path in paths] == ["a.png", "b.c.png"]
    for path, pixels in zip(paths, pictures, strict=True):
        with Image.open(path) as picture:
            np.testing.assert_array_equal(np.asarray(picture), pixels)


def test_a_sheet_of_reconstructions_breaks_after_ten(model: Model) -> None:
    pixels = sample(model, 12)
    names = [str(number) for number in range(12)]
    high, wide, _ = reconstruction_sheet(model, pixels, pixels, names).shape
    short, narrow, _ = reconstruction_sheet(model, pixels[:10], pixels[:10], names[:10]).shape
    assert wide == narrow
    assert high > 1.7 * short


def test_generate_writes_a_sheet_or_a_folder_of_pictures(tiny_model: Path, tmp_path: Path) -> None:
    words = ["generate", "--model", str(tiny_model), "-n", "11", "--seed", "5", "--out"]
    sheet = lookalike(*words, "new/sheet.png", cwd=tmp_path)
    assert (sheet.returncode, sheet.stdout, sheet.stderr) == (0, "new/sheet.png\n", "")
    each = lookalike(*words, "each/", cwd=tmp_path)
    assert each.stdout.splitlines() == [f"each/{number:02d}.png" for number in range(11)]
    again = lookalike(*words, "again.png", cwd=tmp_path)
    assert again.returncode == 0
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "new" / "sheet.png").read_bytes()
    with Image.open(tmp_path / "each" / "10.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), sample(Model.open(tiny_model), 11, seed=5)[10])


def test_reconstruct_writes_a_sheet_or_a_folder_and_names_what_failed(
    tiny_model: Path, tmp_path: Path
) -> None:
    write_photos(tmp_path / "photos", each=1)
    asked = ["photos/Hypatia/0.jpg", "nowhere.jpg", "photos/Ada_Lovelace/0.jpg"]
    words = ["reconstruct", *asked, "--model", str(tiny_model), "--out"]
    sheet = lookalike(*words, "sheet.png", cwd=tmp_path)
    assert (sheet.returncode, sheet.stdout) == (3, "sheet.png\n")
    assert sheet.stderr == "failed: nowhere.jpg: cannot be read (No such file or directory)\n"
    each = lookalike(*words, "each/", cwd=tmp_path)
    assert each.stdout.splitlines() == ["each/0.png", "each/0-2.png"]
    with Image.open(tmp_path / "each" / "0-2.png") as picture:
        assert picture.size == (16, 16)


def test_nothing_to_reconstruct_is_a_failure_without_a_sheet(tiny_model: Path, tmp_path: Path) -> None:
    done = lookalike("reconstruct", "no.jpg", "--model", tiny_model, "--out", "s.png", cwd=tmp_path)
    assert done.returncode == 1
    assert one_line(done).startswith("failed: no.jpg")
    assert not (tmp_path / "s.png").exists()
