"""The Python API as a notebook uses it."""

import io
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, assert_type

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import lookalike
from lookalike.encoder.images import encode_png, to_uint8
from lookalike.encoder.runtime import Denoiser, Model
from lookalike.indexer.store import VectorStore
from lookalike.searcher import generation
from lookalike.searcher.denoising import make_file_denoiser
from tests.fixtures.handmade_models import make_denoiser
from tests.fixtures.pages import ROOT
from tests.fixtures.photos import NAME, cuttings, photograph, write_photos

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def faces() -> Model:
    return lookalike.load_model("faces")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home") / "photos"
    write_photos(folder)
    return folder


@pytest.fixture(scope="module")
def store(photos: Path, tiny_model: Path) -> Iterator[VectorStore]:
    """A store with the photographs in it."""
    with lookalike.open_store(str(photos.parent / ".lookalike")) as opened:
        report = lookalike.index(photos, model=tiny_model, store=opened, collection=NAME)
        assert (report.added, report.failed) == (9, [])
        yield opened


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Denoiser:
    """A denoiser that takes no time."""
    return lookalike.load_denoiser(make_denoiser(tmp_path_factory.mktemp("denoiser") / "box").folder)


def shown(result: Any) -> NDArray[np.uint8]:
    """What a notebook shows of a result."""
    data = result._repr_png_()
    assert data.startswith(PNG)
    return np.asarray(Image.open(io.BytesIO(data)))


def test_import_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, time; began = time.perf_counter()\n"
        "import lookalike; took = time.perf_counter() - began\n"
        "heavy = {'numpy', 'PIL', 'onnxruntime', 'torch', 'click', 'qdrant_client'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert took < 0.1, took\n"
        "lookalike.LookalikeError; lookalike.__version__; assert 'numpy' not in sys.modules\n"
        "lookalike.Searcher, lookalike.generate; assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_name_is_there_and_says_how_it_is_used() -> None:
    assert dir(lookalike) == sorted(lookalike.__all__)
    for name in lookalike.__all__:
        value = getattr(lookalike, name)
        if callable(value) and name not in {"LookalikeError", "open_store"}:
            assert value.__doc__ is not None
            assert "Examples:" in value.__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'search'"):
        lookalike.search  # noqa: B018
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert lookalike.__version__ == project["version"]


def as_array(pixels: NDArray[np.uint8], _: Path) -> Any:
    return pixels


def as_floats(pixels: NDArray[np.uint8], _: Path) -> Any:
    return pixels / 255


def as_view(pixels: NDArray[np.uint8], _: Path) -> Any:
    return np.asfortranarray(pixels)


def as_pil(pixels: NDArray[np.uint8], _: Path) -> Any:
    return Image.fromarray(pixels)


def as_bytes(pixels: NDArray[np.uint8], _: Path) -> Any:
    return encode_png(pixels)


def as_text(pixels: NDArray[np.uint8], folder: Path) -> Any:
    return str(as_file(pixels, folder))


def as_file(pixels: NDArray[np.uint8], folder: Path) -> Path:
    (folder / "a.png").write_bytes(encode_png(pixels))
    return folder / "a.png"


@pytest.mark.parametrize("give", [as_array, as_floats, as_view, as_pil, as_bytes, as_text])
@pytest.mark.parametrize("shape", [(128, 128, 3), (90, 128, 3), (128, 77, 1), (200, 100)])
def test_an_image_gives_one_embedding_whatever_it_comes_as(
    faces: Model, tmp_path: Path, give: Callable[..., Any], shape: tuple[int, ...]
) -> None:
    pixels = np.resize(cuttings()[4][: shape[0], : shape[1]], shape)
    if give is as_pil and shape[2:] == (1,):
        pixels = pixels[:, :, 0]
    want = lookalike.embed(faces, as_file(pixels, tmp_path))
    got = assert_type(lookalike.embed(faces, give(pixels, tmp_path)), NDArray[np.float32])
    assert got.shape == (1, faces.bundle.spec.embedding)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, want)


def test_several_images_of_any_size_are_embedded_in_order(faces: Model, tmp_path: Path) -> None:
    several: list[Any] = [cuttings()[0], photograph(1), Image.fromarray(cuttings()[2][:50])]
    together = lookalike.embed(faces, several)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-5)
    for row, image in zip(together, several, strict=True):
        np.testing.assert_allclose(lookalike.embed("faces", image)[0], row, atol=1e-5)
    stacked = lookalike.embed(faces, np.stack(cuttings()[:3]))
    np.testing.assert_allclose(stacked, lookalike.embed(faces, list(cuttings()[:3])), atol=1e-5)
    assert lookalike.embed(faces, []).shape == (0, faces.bundle.spec.embedding)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "I", "F"])
def test_pil_images_of_every_mode_are_taken(faces: Model, mode: str) -> None:
    image = Image.fromarray(cuttings()[4])
    given = (
        Image.fromarray(np.asarray(image.convert("L"), np.float32) / 255)
        if mode == "F"
        else image.convert(mode)
    )
    assert lookalike.embed(faces, given).shape[0] == 1


def test_a_pil_image_is_turned_as_its_file_says(faces: Model) -> None:
    exif, out = Image.Exif(), io.BytesIO()
    exif[274] = 6
    Image.fromarray(cuttings()[4]).save(out, "PNG", exif=exif)
    turned = lookalike.embed(faces, Image.open(io.BytesIO(out.getvalue())))
    np.testing.assert_array_equal(turned, lookalike.embed(faces, out.getvalue()))
    assert not np.allclose(turned, lookalike.embed(faces, cuttings()[4]), atol=1e-2)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("nowhere.jpg", "nowhere.jpg: cannot be read (No such file or directory)"),
        ("a\0.jpg", "cannot be read"),
        (b"no image", "image: not an image in a supported format"),
        (7, "not int"),
        ([photograph(0), None], "image 1: an image is a path, bytes, a PIL image or a NumPy array, not None"),
        (np.zeros((4, 4, 4), np.uint8), "(H, W, 3), not (4, 4, 4)"),
        (np.zeros((0, 4), np.uint8), "not (0, 4)"),
        (np.zeros(4, np.uint8), "not (4,)"),
        (np.zeros((4, 4), np.int64), "uint8, or float in [0, 1], not int64"),
        (np.full((4, 4), 255.0), "this one in [255, 255]; divide it by 255"),
        (np.full((4, 4), np.nan), "this one in [nan, nan]"),
    ],
)  # fmt: skip
def test_a_wrong_image_is_one_clear_error(faces: Model, image: Any, message: str) -> None:
    with pytest.raises(lookalike.LookalikeError) as raised:
        lookalike.embed(faces, image)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model, store: lookalike.load_model("nothing"), "no model 'nothing'"),
        (lambda model, store: lookalike.load_denoiser("faces"), "faces"),
        (lambda model, store: lookalike.embed(None, photograph(0)), "not NoneType"),  # type: ignore[arg-type]
        (lambda model, store: lookalike.embed(model, photograph(0), crop="middle"), "crop"),
        (lambda model, store: lookalike.decode(model, np.zeros((1, 3), np.float32)), "takes latents"),
        (lambda model, store: lookalike.generate(model, 0), "needs 1 image or more"),
        (lambda model, store: lookalike.generate(model, 1 << 20), "at most 10,000"),
        (lambda model, store: lookalike.generate(model, of_class="7"), "class"),
        (lambda model, store: lookalike.generate("digits", of_class=12), "no class '12'"),
        (lambda model, store: lookalike.edit(model, photograph(0), {"Smilling": 1}), "Smilling"),
        (lambda model, store: lookalike.interpolate(model, [photograph(0)]), "2"),
        (lambda model, store: lookalike.denoise(photograph(0), model=model), "denois|clean"),
        (lambda model, store: lookalike.denoise(photograph(0), strength=3), r"\[0, 2\], not 3"),
        (lambda model, store: lookalike.Searcher(store, "none"), "none"),
        (lambda model, store: lookalike.Searcher("photos", NAME), "pass lookalike.open_store"),  # type: ignore[arg-type]
        (lambda model, store: lookalike.Searcher(store, NAME, model=model), "model"),
        (lambda model, store: lookalike.index("nowhere", store=store, collection="x"), "nowhere"),
        (lambda model, store: lookalike.index(".", store=".lookalike", collection="x"), "is an address"),  # type: ignore[arg-type]
        (lambda model, store: lookalike.index(".", store=store, collection="a/b"), "a/b"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_one_clear_error(
    faces: Model, store: VectorStore, call: Callable[[Model, VectorStore], Any], message: str
) -> None:
    with pytest.raises(lookalike.LookalikeError, match=message) as raised:
        call(faces, store)
    assert "\n" not in str(raised.value)


def test_a_collection_is_filled_and_searched(photos: Path, tiny_model: Path, store: VectorStore) -> None:
    model = lookalike.load_model(tiny_model)
    counts: list[int] = []
    again = lookalike.index(
        [str(photos)], model=model, store=store, collection=NAME, on_progress=counts.append
    )
    assert (again.unchanged, again.added, counts) == (9, 0, [])
    results = lookalike.Searcher(store, NAME).search(photos / "Hypatia" / "0.jpg", k=4)
    assert len(results) == 4
    assert [hit.rank for hit in results] == [1, 2, 3, 4]
    best = results[0]
    assert (best.file.resolve(), best.person) == ((photos / "Hypatia" / "0.jpg").resolve(), "Hypatia")
    assert best.score == pytest.approx(1, abs=1e-4)
    assert best.probability is None  # this model is not calibrated
    assert all(hit.file.is_file() for hit in results)
    assert "4 hits, best 1.000 Hypatia/0.jpg" in repr(results)
    assert shown(results).shape[1] > 5 * 128
    assert (shown(results) == results.sheet()).all()


def test_a_query_may_be_anything_that_is_an_image(photos: Path, store: VectorStore, tmp_path: Path) -> None:
    searcher = lookalike.Searcher(store, NAME)
    pixels = cuttings()[4]
    want = [(hit.id, hit.score) for hit in searcher.search(as_file(pixels, tmp_path))]
    for query in (pixels, pixels / 255, Image.fromarray(pixels), encode_png(pixels)):
        results = searcher.search(query)
        assert [(hit.id, hit.score) for hit in results] == want
        results.save(tmp_path / "found.webp")
        assert (tmp_path / "found.webp").read_bytes()[8:12] == b"WEBP"


def test_options_of_a_search(photos: Path, store: VectorStore, box: Denoiser) -> None:
    searcher = lookalike.Searcher(store, NAME)
    query = photos / "Hypatia" / "0.jpg"
    assert "Hypatia/0.jpg" not in [hit.path for hit in searcher.search(query, exclude_self=True)]
    assert {hit.person for hit in searcher.search(query, where="person=Ada_Lovelace")} == {"Ada_Lovelace"}
    assert len({hit.person for hit in searcher.search(query, group_by="person")}) == 3
    assert searcher.search(query, denoise=box, crop="full")[0].score <= 1
    for wrong in ({"k": 0}, {"where": "person"}, {"prior": 0.5}, {"add": {"Smiling": 1}}, {"crop": "middle"}):
        with pytest.raises(lookalike.LookalikeError):
            searcher.search(query, **wrong)


def test_what_models_make_is_what_the_library_makes(faces: Model, tmp_path: Path) -> None:
    new = lookalike.generate(faces, n=5, seed=3, temperature=0.5)
    np.testing.assert_array_equal(np.asarray(new), generation.sample(faces, 5, seed=3, temperature=0.5))
    assert (len(new), new[0].shape) == (5, faces.bundle.spec.image.shape)
    assert new.pixels.dtype == np.uint8
    assert sum(1 for _ in new) == 5
    assert shown(new).ndim == 3
    assert repr(new) == f"<Images uint8 {new.pixels.shape}>"
    sevens = lookalike.generate("digits", 2, of_class="7")
    assert sevens.pixels.shape == (2, 28, 28, 1)
    np.testing.assert_array_equal(lookalike.generate("digits", 2, of_class=7).pixels, sevens.pixels)

    latents = lookalike.encode(faces, [photograph(0), photograph(1)])
    assert latents.shape == (2, faces.bundle.spec.latent)
    decoded = lookalike.decode(faces, latents)
    np.testing.assert_array_equal(decoded.pixels, to_uint8(faces.decode(latents)))
    np.testing.assert_array_equal(lookalike.decode(faces, latents[0]).pixels, decoded[:1])
    kept = lookalike.reconstruct(faces, [photograph(0), photograph(1)])
    np.testing.assert_array_equal(kept.pixels, decoded.pixels)
    assert shown(kept).shape != shown(decoded).shape  # with the originals above
    between = lookalike.interpolate(faces, [photograph(0), photograph(1)], steps=3)
    assert between.pixels.shape == (1, 3, *faces.bundle.spec.image.shape)
    between.save(tmp_path / "between.png")
    assert (tmp_path / "between.png").read_bytes() == encode_png(shown(between))


def test_an_edit_shows_the_face_before_and_after(faces: Model) -> None:
    edited = lookalike.edit(faces, photograph(4), {"Smiling": 2})
    assert edited.pixels.shape == (1, *faces.bundle.spec.image.shape)
    strip = lookalike.edit(faces, photograph(4), {"Smiling": 2}, steps=[-1, 0, 1])
    assert strip.pixels.shape == (1, 3, *faces.bundle.spec.image.shape)
    np.testing.assert_array_equal(strip[:, 2], edited.pixels)
    assert shown(strip).shape[1] > shown(edited).shape[1]
    rows = generation.edit_steps(faces, strip.pixels[:, 0], {}, [1.0])  # nothing added changes nothing
    np.testing.assert_array_equal(rows[:, 0], strip.pixels[:, 0])


def test_a_file_is_denoised_as_a_file_and_pixels_as_pixels(box: Denoiser, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(size=(90, 70, 3)) * 25
    noisy = (cuttings()[4][:90, :70] + noise).clip(0, 255).astype(np.uint8)
    file = as_file(noisy, tmp_path)
    denoised = lookalike.denoise(file, model=box, sigma=0.1)
    want = make_file_denoiser(box, sigma=0.1, strength=1, kind=None, quality=None, max_pixels=10**6)
    assert denoised.data == want(file.read_bytes(), "a").data
    assert denoised.changed
    for pixels in (noisy, noisy / 255, Image.fromarray(noisy)):
        np.testing.assert_array_equal(lookalike.denoise(pixels, model=box, sigma=0.1).pixels, denoised.pixels)
    denoised.save(tmp_path / "out" / "b.png")
    assert (tmp_path / "out" / "b.png").read_bytes() == denoised.data
    assert (shown(denoised) == denoised.pixels).all()
    with pytest.raises(lookalike.LookalikeError, match="cannot write here"):
        denoised.save(tmp_path)
    photo = lookalike.denoise(photograph(4))  # the shipped denoiser finds no noise
    assert not photo.changed
    assert photo.sigma is not None
    assert photo.data == photograph(4)
