"""A denoiser: any size, gray or RGB; its bundle is whole or refused; it is no model to search with."""

import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lookalike.encoder.bundle import Bundle, DenoiserSpec
from lookalike.encoder.errors import (
    BundleCorruptError,
    BundleKindError,
    GoldenMismatchError,
    InvalidArgumentError,
    LookalikeError,
)
from lookalike.encoder.runtime import Denoiser, Model, save_denoiser, sigma_at
from tests.fixtures.command import lookalike, one_line
from tests.fixtures.handmade_models import (
    AROUND,
    box_denoiser,
    laplacian_estimator,
    make_denoiser,
    make_digits,
)
from tests.fixtures.tiny_models import forge

Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_denoiser(tmp_path_factory.mktemp("denoiser") / "box").folder


@pytest.fixture(scope="module")
def denoiser(folder: Path) -> Denoiser:
    return Denoiser.open(folder, threads=1)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def noisy(sigma: float, *shape: int, seed: int = 0) -> Floats:
    rng = np.random.default_rng(seed)
    return np.asarray((0.5 + rng.normal(size=shape) * sigma).clip(0, 1), np.float32)


def sigmas(*values: float) -> Floats:
    return np.array(values, np.float32) / np.float32(255)


# Denoising


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (1, 9), (9, 1), (2, 3), (4, 4), (5, 7), (64, 64), (61, 90), (1, 3000)]
)
def test_any_size_comes_back_as_large(denoiser: Denoiser, height: int, width: int, channels: int) -> None:
    pixels = noisy(0.1, 2, height, width, channels)
    everywhere = np.broadcast_to(sigmas(25, 50)[:, None, None], pixels.shape[:3])
    outputs = [denoiser.denoise(pixels, *given) for given in ((), (sigmas(25, 50),), (everywhere,))]
    for made in outputs:
        assert made.shape == pixels.shape
        assert made.dtype == np.float32
    np.testing.assert_array_equal(outputs[1], outputs[2])
    assert denoiser.estimate(pixels).shape == (2, -(-height // 4), -(-width // 4))


def test_noise_is_estimated_and_goes(denoiser: Denoiser) -> None:
    for sigma in (2.0, 10.0, 25.0, 50.0):
        pixels = noisy(sigma / 255, 1, 200, 200, 3)
        estimated = 255 * denoiser.estimate(pixels)[0]
        assert np.median(estimated) == pytest.approx(sigma, rel=0.03)
        assert estimated[2:-2, 2:-2] == pytest.approx(sigma, rel=0.3)  # at the edges fewer pixels are seen
        inner = np.s_[:, 3:-3, 3:-3]  # a convolution sees zeros beyond the edges
        assert denoiser.denoise(pixels)[inner].std() < 0.95 * pixels[inner].std()


def test_without_noise_nothing_changes(denoiser: Denoiser) -> None:
    flat = np.full((1, 30, 30, 3), 0.25, np.float32)
    assert (denoiser.estimate(flat) == 0).all()
    np.testing.assert_array_equal(denoiser.denoise(flat), flat)
    pixels = noisy(0.2, 1, 30, 30, 3)
    np.testing.assert_array_equal(denoiser.denoise(pixels, sigmas(0)), pixels)


def test_grey_is_three_equal_channels(denoiser: Denoiser) -> None:
    grey = noisy(0.1, 2, 33, 21, 1)
    rgb = np.repeat(grey, 3, axis=3)
    np.testing.assert_array_equal(denoiser.estimate(grey), denoiser.estimate(rgb))
    expected = denoiser.denoise(rgb).mean(axis=3, keepdims=True)
    np.testing.assert_allclose(denoiser.denoise(grey), expected, atol=1e-6)


def test_edges_are_reflected(denoiser: Denoiser) -> None:
    pixels = noisy(0.1, 1, 6, 10, 3)
    whole = np.pad(pixels, ((0, 0), (0, 2), (0, 2), (0, 0)), "reflect")
    told = sigmas(25)
    np.testing.assert_array_equal(denoiser.denoise(pixels, told), denoiser.denoise(whole, told)[:, :6, :10])
    np.testing.assert_array_equal(denoiser.estimate(pixels), denoiser.estimate(whole))
    each = noisy(0.1, 1, 6, 10, 1)[..., 0]  # a sigma for each pixel is reflected too
    padded = np.pad(each, ((0, 0), (0, 2), (0, 2)), "reflect")
    np.testing.assert_array_equal(denoiser.denoise(pixels, each), denoiser.denoise(whole, padded)[:, :6, :10])


def test_each_place_is_denoised_by_its_own_sigma(denoiser: Denoiser) -> None:
    pixels = noisy(0.2, 1, 24, 40, 3)
    sigma = np.zeros((1, 24, 40), np.float32)
    sigma[:, :, 17:] = 25 / 255
    sigma[:, 20:, 17:] = 50 / 255
    weak, strong = (denoiser.denoise(pixels, sigmas(level)) for level in (25, 50))
    made = denoiser.denoise(pixels, sigma)
    np.testing.assert_array_equal(made[:, :, :17], pixels[:, :, :17])
    np.testing.assert_array_equal(made[:, :20, 17:], weak[:, :20, 17:])
    np.testing.assert_array_equal(made[:, 20:, 17:], strong[:, 20:, 17:])


def test_noise_is_estimated_where_it_is(denoiser: Denoiser) -> None:
    pixels = np.full((1, 64, 120, 3), 0.5, np.float32)
    pixels[:, :, 64:] = noisy(0.1, 1, 64, 56, 3)
    found = denoiser.estimate(pixels)[0]
    assert (found[:, : (64 - AROUND - 1) // 4] == 0).all()
    assert found[:, (64 + AROUND) // 4 + 1 :] == pytest.approx(0.1, rel=0.3)


def test_blind_is_given_the_estimate_between_the_centers_of_cells(denoiser: Denoiser) -> None:
    pixels = np.concatenate([noisy(0.02, 2, 30, 20, 3), noisy(0.2, 2, 30, 31, 3)], axis=2)
    cells = denoiser.estimate(pixels)
    sigma = np.stack([sigma_at(each, range(30), range(51), 4) for each in cells])
    np.testing.assert_array_equal(denoiser.denoise(pixels), denoiser.denoise(pixels, sigma))


def test_between_the_centers_of_cells_sigma_is_interpolated() -> None:
    # Cells of 4 pixels: their centers lie at 1.5, 5.5 and 9.5.
    cells = np.array([[0.0, 0.8, 0.8]], np.float32)
    steps = [0, 0, 0.1, 0.3, 0.5, 0.7, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8]
    np.testing.assert_allclose(sigma_at(cells, range(4), range(12), 4), [steps] * 4, atol=1e-6)
    np.testing.assert_allclose(sigma_at(cells.T, range(12), range(4), 4).T, [steps] * 4, atol=1e-6)
    both = np.array([[0.0, 0.4], [0.8, 0.4]], np.float32)  # cells of 2: centers at 0.5 and 2.5
    expected = [
        [0.0, 0.1, 0.3, 0.4],
        [0.2, 0.25, 0.35, 0.4],
        [0.6, 0.55, 0.45, 0.4],
        [0.8, 0.7, 0.5, 0.4],
    ]
    found = sigma_at(both, range(4), range(4), 2)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.dtype == np.float32


@pytest.mark.parametrize("cell", [1, 2, 8])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 9), (17, 40), (64, 3)])
def test_parts_of_an_interpolated_sigma_are_those_of_the_whole(height: int, width: int, cell: int) -> None:
    shape = (-(-height // cell), -(-width // cell))
    cells = np.random.default_rng(0).uniform(size=shape).astype(np.float32)
    whole = sigma_at(cells, range(height), range(width), cell)
    assert whole.shape == (height, width)
    assert cells.min() <= whole.min()
    assert whole.max() <= cells.max()
    for rows, columns in (
        (range(height // 2, height), range(width)),
        (range(height), range(width // 3, width)),
    ):
        part = sigma_at(cells, rows, columns, cell)
        np.testing.assert_array_equal(part, whole[rows.start : rows.stop, columns.start : columns.stop])
    flat = np.full(shape, 0.1, np.float32)
    np.testing.assert_allclose(sigma_at(flat, range(height), range(width), cell), 0.1, rtol=1e-6)
    if cell == 1:
        np.testing.assert_array_equal(whole, cells)


def test_many_at_once_are_each_alone(denoiser: Denoiser) -> None:
    pixels = noisy(0.1, 90, 64, 64, 3)  # more than fit in one run
    told = np.linspace(0, 0.3, 90, dtype=np.float32)
    alone = [denoiser.denoise(one[None], s[None])[0] for one, s in zip(pixels, told, strict=True)]
    np.testing.assert_allclose(denoiser.denoise(pixels, told), np.stack(alone), atol=1e-6)
    assert denoiser.denoise(pixels[:0]).shape == (0, 64, 64, 3)
    assert denoiser.denoise(pixels[:0], told[:0]).shape == (0, 64, 64, 3)
    assert denoiser.estimate(pixels[:0]).shape == (0, 16, 16)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((1, 8, 8, 3), np.uint8),
        np.zeros((1, 8, 8, 3)),
        np.zeros((1, 8, 8, 4), np.float32),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((1, 0, 8, 3), np.float32),
        np.full((1, 8, 8, 3), np.nan, np.float32),
    ],
)
def test_other_pixels_are_refused(denoiser: Denoiser, pixels: Any) -> None:
    for method in (denoiser.denoise, denoiser.estimate):
        with pytest.raises(InvalidArgumentError):
            method(pixels)


@pytest.mark.parametrize(
    "sigma",
    [
        [25.0],
        [-0.1],
        [np.nan],
        [0.1, 0.1],
        0.1,
        np.zeros((1, 8)),
        np.zeros((8, 8)),
        np.zeros((1, 2, 2)),
        np.zeros((1, 8, 8, 1)),
        np.where(np.arange(64).reshape(1, 8, 8) == 9, np.nan, 0.1),
        np.where(np.arange(64).reshape(1, 8, 8) == 9, 1.1, 0.1),
    ],
)
def test_other_sigmas_are_refused(denoiser: Denoiser, sigma: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="25/255"):
        denoiser.denoise(noisy(0.1, 1, 8, 8, 3), np.array(sigma, np.float32))


def test_providers_and_threads_are_those_of_models(folder: Path, denoiser: Denoiser) -> None:
    assert denoiser.provider.endswith("ExecutionProvider")
    with pytest.raises(InvalidArgumentError, match="auto, cpu or cuda"):
        Denoiser.open(folder, provider="tpu")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="threads"):
        Denoiser.open(folder, threads=0)


# The bundle


def test_what_is_saved_opens_equal(folder: Path, denoiser: Denoiser, tmp_path: Path) -> None:
    opened = denoiser.bundle
    assert {path.name for path in folder.iterdir()} == DenoiserSpec.REQUIRED_FILES | {"bundle.json"}
    assert (
        DenoiserSpec.from_json(json.loads(json.dumps(opened.denoiser_spec.to_json()))) == opened.denoiser_spec
    )
    graphs = {name: opened.graph(name) for name in ("denoiser", "estimator")}
    again = Bundle.save(tmp_path / "again", spec=opened.denoiser_spec, graphs=graphs, golden=opened.golden)
    assert (again.model_id, again.denoiser_spec, again.folder) == (
        opened.model_id,
        opened.denoiser_spec,
        tmp_path / "again",
    )
    Denoiser(again).check()


def test_one_kind_is_not_the_other(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleKindError, match=r"digits \(cvae\) is not a denoiser"):
        Denoiser.open(make_digits(tmp_path / "digits").folder)
    with pytest.raises(BundleKindError, match="box is a denoiser: it gives no latents"):
        Model.open(folder)


@pytest.mark.parametrize("name", sorted(DenoiserSpec.REQUIRED_FILES))
def test_damage_is_found(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(BundleCorruptError, match="SHA-256"):
        Bundle.open(copy)
    (copy / name).unlink()
    with pytest.raises(BundleCorruptError, match="cannot be read"):
        Bundle.open(copy)


def test_changed_after_opening_is_found(copy: Path) -> None:
    opened = Denoiser.open(copy)
    (copy / "denoiser.onnx").write_bytes(b"other")
    with pytest.raises(BundleCorruptError, match="has changed since"):
        opened.check()


@pytest.mark.parametrize(
    "changes",
    [
        {"size_multiple": 0},
        {"size_multiple": 2.0},
        {"size_multiple": True},
        {"size_multiple": 1000},
        {"size_multiple": 64},  # golden pictures are no multiples of it
        {"receptive_field": -1},
        {"receptive_field": "far"},
        {"estimator_field": -1},
        {"estimator_field": 1.5},
        {"estimator_field": 10_000},
        {"cell": 0},
        {"cell": 3},  # does not divide 4
        {"cell": 2},  # golden estimates are of cells of 4
        {"cell": "4"},
        {"cell": True},
        {"deviations": [0.3, 0.1]},
        {"deviations": [0.1]},
        {"deviations": "0:75"},
        {"deviations": [0, 75]},
        {"deviations": [True, True]},
        {"clean_below": None},
        {"opset": 0},
        {"training": []},
        {"figures": "good"},
        {"size": 64},
        {"files": {"denoiser.onnx": ""}},
    ],
)
def test_a_description_that_cannot_be_is_damage(copy: Path, changes: dict[str, Any]) -> None:
    files = changes.pop("files", None)
    forge(copy, change=lambda content: content["model"].update(changes))
    if files is not None:
        forge(copy, change=lambda content: content.update(files=files))
    with pytest.raises(BundleCorruptError) as caught:
        Bundle.open(copy)
    assert "\n" not in str(caught.value)


def test_golden_values_are_held_against_this_machine(denoiser: Denoiser, tmp_path: Path) -> None:
    opened, golden = denoiser.bundle, denoiser.bundle.golden
    graphs = {name: opened.graph(name) for name in ("denoiser", "estimator")}
    for name in ("denoised", "estimated"):
        off = {**golden, name: golden[name] * np.float32(1.1)}
        saved = Bundle.save(tmp_path / name, spec=opened.denoiser_spec, graphs=graphs, golden=off)
        with pytest.raises(
            GoldenMismatchError, match="denoiser differs" if name == "denoised" else "estimator differs"
        ):
            Denoiser(saved).check()


@pytest.mark.parametrize(
    ("graphs", "changes", "error"),
    [
        (
            {"denoiser": box_denoiser(9, 4)},
            {},
            "denoiser may depend on pixels beyond its receptive field of 3",
        ),
        ({}, {"estimator_field": 4}, "estimator may depend on pixels beyond its receptive field of 4"),
        ({"estimator": laplacian_estimator(2)}, {"estimator_field": 60}, "golden estimated"),
        ({}, {"size_multiple": 6, "cell": 3}, "multiples of 6"),
        ({"estimator": b"nothing"}, {}, "cannot load estimator"),
        ({"estimator": box_denoiser(3, 4)}, {}, "graphs do not"),
        ({}, {"figures": {"psnr": float("nan")}}, "finite JSON"),
    ],
)
def test_graphs_that_are_not_as_they_are_said_to_be_are_not_written(
    tmp_path: Path, graphs: dict[str, bytes], changes: dict[str, Any], error: str
) -> None:
    spec = DenoiserSpec(
        size_multiple=4,
        receptive_field=3,
        estimator_field=AROUND + 1,
        cell=4,
        deviations=(0, 0.3),
        clean_below=0.01,
        opset=18,
    )
    whole = {"denoiser": box_denoiser(7, 4), "estimator": laplacian_estimator(4)} | graphs
    with pytest.raises(LookalikeError, match=error):
        save_denoiser(tmp_path / "new", spec=replace(spec, **changes), graphs=whole)
    assert not (tmp_path / "new").exists()


def test_it_replaces_a_bundle_of_either_kind_and_nothing_else(tmp_path: Path) -> None:
    make_digits(tmp_path / "it")
    assert make_denoiser(tmp_path / "it").denoiser_spec.kind == "denoiser"
    make_denoiser(tmp_path / "it")
    (tmp_path / "it" / "letter.txt").write_text("dear")
    with pytest.raises(InvalidArgumentError, match=r"letter\.txt"):
        make_denoiser(tmp_path / "it")


# Commands


def test_models_lists_it(folder: Path, tmp_path: Path) -> None:
    done = lookalike("models", folder, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"box  denoiser, any size, gray or RGB, multiples of 4, id {Bundle.open(folder).model_id[:12]}",
        "  removes noise of sigma 0 to 75 (of 255): lookalike denoise",
    ]
    measured = lookalike("models", "denoise", cwd=tmp_path).stdout.splitlines()[2:6]
    assert [line.split(",")[0] for line in measured] == [
        f"  held_out           sigma {sigma}" for sigma in (0.0, 25.0, 50.0, 75.0)
    ]
    (told,) = json.loads(lookalike("models", folder, "--json", cwd=tmp_path).stdout)
    assert (told["name"], told["kind"], told["receptive_field"], told["calibration"]) == (
        "box",
        "denoiser",
        3,
        None,
    )


@pytest.mark.parametrize(
    "words",
    [
        "index . --collection c --store store",
        "reconstruct a.png --out out.png",
        "generate --out out.png",
        "embed . --out out.parquet",
    ],
)
def test_other_verbs_say_what_it_is_in_one_line(folder: Path, tmp_path: Path, words: str) -> None:
    done = lookalike(*words.split(), "--model", folder, cwd=tmp_path)
    assert done.returncode == 1
    assert one_line(done) == (
        "lookalike: model box is a denoiser: it gives no latents to search or generate with; "
        "choose another --model, or use lookalike denoise"
    )
    assert not list(tmp_path.iterdir())


# Speed and memory


def test_its_speed_is_that_of_the_last_runs_of_large_images(folder: Path) -> None:
    denoiser = Denoiser.open(folder, threads=1)
    denoiser.denoise(noisy(0.1, 1, 64, 64, 3), sigmas(25))
    assert denoiser.pixels_per_second is None
    began = time.perf_counter()
    denoiser.denoise(noisy(0.1, 1, 256, 300, 3), sigmas(25))
    first = denoiser.pixels_per_second
    assert first is not None
    assert first >= 256 * 300 / (time.perf_counter() - began)
    for _ in range(10):
        denoiser.denoise(noisy(0.1, 1, 512, 512, 1), sigmas(25))
    assert denoiser.pixels_per_second not in (None, first)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_a_large_image_took_is_given_back(tmp_path: Path) -> None:
    code = """
import numpy as np
from lookalike.encoder.runtime import Denoiser

def anonymous():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))

denoiser = Denoiser.open("denoise", threads=1)
denoiser.check()
pixels = np.random.default_rng(0).random((1, 512, 512, 3), np.float32)
before = anonymous()
denoiser.denoise(pixels, np.full(1, 0.1, np.float32))
held = anonymous() - before
denoiser.release_memory()
print(held, anonymous() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    held, after = map(int, done.stdout.split())
    assert held > 32_000  # kB
    assert after < 0.5 * held
