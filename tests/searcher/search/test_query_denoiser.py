"""Queries that are cleaned first: noisy ones find again what clean ones find, clean ones stay as they are."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lookalike.encoder.errors import ImageError
from lookalike.encoder.images import Crop, ImageSpec, add_noise, encode_png, read_pixels, to_uint8
from lookalike.encoder.metrics import psnr
from lookalike.encoder.runtime import Denoiser
from lookalike.indexer.open import open_store
from lookalike.searcher.search import QueryDenoiser, Searcher
from tests.fixtures.command import lookalike, one_line
from tests.fixtures.handmade_models import make_denoiser
from tests.fixtures.photos import NAME, make_home

SPEC = ImageSpec(size=32, crop=Crop(fraction=0.5))
SIDE = 96


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a denoiser that blends with a box of 7 x 7 pixels; it takes a sigma under 2 of 255 for clean."""
    return make_denoiser(tmp_path_factory.mktemp("denoiser") / "box").folder


@pytest.fixture(scope="module")
def denoiser(folder: Path) -> QueryDenoiser:
    return QueryDenoiser(Denoiser.open(folder))


@pytest.fixture(scope="module")
def home(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nine indexed photographs. Leave it as it is."""
    return make_home(tmp_path_factory.mktemp("home"), tiny_model)


def smooth(side: int = SIDE) -> NDArray[np.uint8]:
    """A slope from black to white, uint8 (side, side, 3): the estimator finds nothing in it."""
    return np.linspace(0, 255, side).astype(np.uint8)[None, :, None].repeat(side, 0).repeat(3, 2)


def with_noise(pixels: NDArray[np.uint8], sigma: float) -> NDArray[np.uint8]:
    level = np.array([sigma / 255], np.float32)
    floats = pixels.astype(np.float32)[None] / np.float32(255)
    return to_uint8(add_noise(floats, level, kind="gaussian", rng=np.random.default_rng(0))[0])


def test_a_clean_picture_gives_the_very_pixels_of_a_search_without(denoiser: QueryDenoiser) -> None:
    out = io.BytesIO()
    Image.fromarray(smooth()).save(out, "JPEG", quality=95)
    for data in (encode_png(smooth()), out.getvalue()):
        pixels, done = denoiser.read(data, SPEC, crop=SPEC.crop, name="a")
        np.testing.assert_array_equal(pixels, read_pixels(data, SPEC, name="a"))
        assert not done.denoised
        assert 0 <= done.sigma < 2 / 255
        assert done.summary().startswith("not denoised, clean enough (noise sigma about ")


def test_a_noisy_picture_is_cleaned(denoiser: QueryDenoiser) -> None:
    data = encode_png(with_noise(smooth(), 30))
    pixels, done = denoiser.read(data, SPEC, crop=SPEC.crop, name="a")
    clean, noisy = (read_pixels(each, SPEC, name="a") for each in (encode_png(smooth()), data))
    assert done.denoised
    assert 255 * done.sigma == pytest.approx(30, abs=5)
    assert psnr(pixels, clean) > psnr(noisy, clean) + 2
    assert done.to_json() == {"denoiser": "box", "sigma": round(255 * done.sigma, 2), "cleaned": True}
    assert done.summary() == f"denoised first (noise sigma about {255 * done.sigma:.0f} of 255)"


def test_only_what_is_compared_counts(denoiser: QueryDenoiser) -> None:
    framed = smooth(120)
    framed[:, 50:] = with_noise(framed, 60)[:, 50:]  # beyond the left window and its margin
    data = encode_png(framed)
    assert not denoiser.read(data, SPEC, crop=Crop(window=(0, 0, 0.25, 1)), name="a")[1].denoised
    assert denoiser.read(data, SPEC, crop=Crop(), name="a")[1].denoised


def test_a_big_picture_is_reduced_first(denoiser: QueryDenoiser) -> None:
    big = smooth(32 * 4 * 8)  # full: eight times what is cleaned; noise of 12 averages to 1.5
    data = encode_png(with_noise(big, 12))
    pixels, done = denoiser.read(data, SPEC, crop=Crop(), name="a")
    assert not done.denoised
    np.testing.assert_array_equal(pixels, read_pixels(data, SPEC, crop=Crop(), name="a"))
    pixels, done = denoiser.read(encode_png(with_noise(big, 100)), SPEC, crop=Crop(), name="a")
    assert done.denoised
    assert pixels.shape == SPEC.shape


def test_a_long_window_is_reduced_along_its_length(
    denoiser: QueryDenoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    cleaned: list[tuple[int, ...]] = []
    clean = denoiser.denoiser.denoise

    def noted(pixels: Any, sigma: Any) -> Any:
        cleaned.append(pixels.shape)
        return clean(pixels, sigma)

    monkeypatch.setattr(denoiser.denoiser, "denoise", noted)
    long = np.tile(smooth(200), (20, 1, 1))  # 4000 x 200: the model sees it as a square
    data = encode_png(with_noise(long, 40))
    pixels, done = denoiser.read(data, SPEC, crop=Crop(window=(0, 0, 1, 1)), name="a")
    assert (pixels.shape, done.denoised) == (SPEC.shape, True)
    assert sum(height * width for _, height, width, _ in cleaned) <= (2 * 4 * SPEC.size) ** 2
    want = read_pixels(encode_png(long), SPEC, crop=Crop(window=(0, 0, 1, 1)), name="a")
    assert psnr(pixels, want) > 25


@pytest.mark.parametrize("shape", [(1, 1), (2, 70), (70, 2), (5, 9)])
def test_pictures_smaller_than_the_margin(denoiser: QueryDenoiser, shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    pixels, _ = denoiser.read(encode_png(picture), SPEC, crop=Crop(), name="a")
    assert pixels.shape == SPEC.shape


def test_what_is_no_picture_is_refused_by_name(denoiser: QueryDenoiser) -> None:
    with pytest.raises(ImageError, match=r"bad\.jpg"):
        denoiser.read(b"no picture", SPEC, crop=Crop(), name="bad.jpg")


def test_the_answer_says_what_was_done(home: Path, denoiser: QueryDenoiser, tmp_path: Path) -> None:
    (tmp_path / "noisy.png").write_bytes(
        encode_png(with_noise(np.array(Image.open(home / "me.jpg").convert("RGB")), 40))
    )
    with open_store(str(home / ".lookalike")) as store:
        searcher = Searcher.open(store, NAME)
        queries = [tmp_path / "noisy.png", home / "bad.jpg"]
        done, failed = searcher.similar(queries, k=1, denoiser=denoiser)
        (plain,) = searcher.similar(queries[:1], k=1)
    assert done.denoise_info is not None
    assert done.denoise_info.denoised
    assert done.to_json()["treatment"]["denoiser"] == "box"
    assert done.results[0].score != plain.results[0].score
    assert plain.denoise_info is None
    assert "treatment" not in plain.to_json()
    assert failed.denoise_info is None
    assert failed.error is not None


def test_the_command_cleans_queries(home: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "noisy.png").write_bytes(
        encode_png(with_noise(np.array(Image.open(home / "me.jpg").convert("RGB")), 40))
    )
    words = [
        "search",
        str(tmp_path / "noisy.png"),
        "--collection",
        NAME,
        "--denoise",
        "--denoise-model",
        str(folder),
    ]
    done = lookalike(*words, cwd=home)
    assert done.returncode == 0
    assert "noisy.png: denoised first (noise sigma about " in done.stderr
    (told,) = json.loads(lookalike(*words, "--json", cwd=home).stdout)
    assert told["treatment"]["cleaned"] is True


def test_a_model_that_is_no_denoiser_is_one_line(home: Path, tiny_model: Path) -> None:
    words = ["search", "me.jpg", "--collection", NAME, "--denoise", "--denoise-model", str(tiny_model)]
    done = lookalike(*words, cwd=home)
    assert done.returncode == 1
    assert "denoiser" in one_line(done)
