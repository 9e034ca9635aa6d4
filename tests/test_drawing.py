"""Pictures by class and by sampler, and what lies between pictures: seeded, from ONNX alone."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from encoder.errors import OptionError
from encoder.images import to_uint8
from encoder.model import Model
from encoder.sampling import Sampling
from encoder.sheets import save_picture
from searcher.generate import (
    MOST_PICTURES,
    Sampler,
    classes_of,
    draw,
    interpolate,
    reconstruct,
    sample,
    sample_classes,
)
from searcher.pictures import classes_sheet, interpolation_sheet, plain_names
from tests.handmade import CLASSES, SIZE, Z, drawn_of_classes, make_digits
from tests.models import save_again
from tests.photos import lookalike, one_line

K = len(CLASSES)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    """One of each kind; `bare`: a vae that knows nothing but N(0, I) and its statistics."""
    home = tmp_path_factory.mktemp("models")
    made = {
        kind: Model(make_digits(home / kind, kind=kind, sampling=drawn_of_classes()))
        for kind in ("ae", "vae", "cvae")
    }
    return made | {"bare": Model(make_digits(home / "bare", kind="vae", classes=()))}


EVERY: list[tuple[str, dict[str, Any]]] = [
    ("cvae", {}),
    ("cvae", {"of_class": "two"}),
    ("cvae", {"sampler": "gaussian"}),
    ("cvae", {"sampler": "gmm", "of_class": "nil"}),
    ("vae", {}),
    ("vae", {"sampler": "gmm"}),
    ("vae", {"of_class": "two"}),
    ("vae", {"of_class": "two", "sampler": "gaussian"}),
    ("ae", {}),
    ("ae", {"of_class": "nil"}),
    ("bare", {}),
    ("bare", {"sampler": "gaussian"}),
]


@pytest.mark.parametrize(("kind", "asked"), EVERY)
def test_a_seed_draws_the_same_and_more_begin_with_the_same(
    models: dict[str, Model], kind: str, asked: dict[str, Any]
) -> None:
    model = models[kind]
    latents = draw(model, 6, seed=3, **asked)
    assert latents.dtype == np.float32
    assert latents.shape == (6, model.bundle.spec.latent)
    np.testing.assert_array_equal(latents, draw(model, 6, seed=3, **asked))
    np.testing.assert_allclose(draw(model, 9, seed=3, **asked)[:6], latents, atol=1e-6)
    assert (latents != draw(model, 6, seed=4, **asked)).any()
    pictures = sample(model, 6, seed=3, **asked)
    np.testing.assert_array_equal(pictures, to_uint8(model.decode(latents)))


@pytest.mark.parametrize(
    ("kind", "sampler", "mean", "variance"),
    [
        ("vae", None, (0, 0, 0), (1, 1, 1)),
        ("cvae", "normal", (0, 0, 0), (1, 1, 1)),
        ("vae", "gaussian", (0.5, -0.5, 1), np.linspace(0.5, 2, Z)),
        ("ae", None, (0.5, -0.5, 1), np.linspace(0.5, 2, Z)),
        ("cvae", "gaussian", (0.5, -0.5, 1), np.linspace(0.5, 2, Z + K)[:Z]),
        ("vae", "gmm", (0, 0, 0), (82, 82, 82)),
    ],
)
def test_samplers_draw_what_they_say(
    models: dict[str, Model], kind: str, sampler: Sampler | None, mean: Any, variance: Any
) -> None:
    drawn = draw(models[kind], 20_000, sampler=sampler)[:, :Z]
    deviation = np.sqrt(variance)
    np.testing.assert_allclose(drawn.mean(axis=0), mean, atol=4 * deviation.max() / np.sqrt(20_000))
    np.testing.assert_allclose(drawn.var(axis=0), variance, rtol=0.05)
    half = draw(models[kind], 20_000, sampler=sampler, temperature=0.5)[:, :Z]
    if sampler != "gmm":
        np.testing.assert_allclose(half - mean, (drawn - mean) / 2, atol=1e-5)


def test_temperature_0_gives_means(models: dict[str, Model]) -> None:
    mean = models["ae"].bundle.statistics.mean
    np.testing.assert_allclose(draw(models["ae"], 3, temperature=0), [mean] * 3)
    assert not draw(models["vae"], 3, temperature=0).any()
    assert not draw(models["cvae"], 3, temperature=0)[:, :Z].any()
    assert set(np.abs(draw(models["vae"], 30, temperature=0, sampler="gmm")).ravel()) == {9}
    for k, name in enumerate(CLASSES):
        np.testing.assert_array_equal(
            draw(models["vae"], 2, temperature=0, of_class=name), np.full((2, Z), k)
        )


def test_a_class_of_a_cvae_is_its_weight_and_the_latent_any(models: dict[str, Model]) -> None:
    for k, name in enumerate(CLASSES):
        latents = draw(models["cvae"], 5, of_class=name, seed=1)
        np.testing.assert_array_equal(latents[:, Z:], [np.eye(K)[k]] * 5)
        np.testing.assert_array_equal(latents[:, :Z], draw(models["cvae"], 5, seed=1)[:, :Z])
        assert classes_of(models["cvae"], latents) == [name] * 5


def test_a_cvae_draws_classes_by_their_shares(models: dict[str, Model], tmp_path: Path) -> None:
    weights = draw(models["cvae"], 10_000)[:, Z:]
    assert set(weights.sum(axis=1)) == {1}
    assert set(weights.ravel()) == {0, 1}
    np.testing.assert_allclose(weights.mean(axis=0), [0.1, 0.2, 0.3, 0.4], atol=0.015)
    even = draw(Model(make_digits(tmp_path / "even")), 10_000)[:, Z:]
    np.testing.assert_allclose(even.mean(axis=0), [0.25] * 4, atol=0.015)


def test_a_class_of_an_autoencoder_is_drawn_from_its_gaussian(models: dict[str, Model]) -> None:
    for kind in ("ae", "vae"):
        for k, name in enumerate(CLASSES):
            drawn = draw(models[kind], 5_000, of_class=name)
            np.testing.assert_allclose(drawn.mean(axis=0), [k] * Z, atol=0.03)
            np.testing.assert_allclose(drawn.std(axis=0), [(k + 1) / 10] * Z, rtol=0.05)
        assert classes_of(models[kind], drawn) is None


@pytest.mark.parametrize("kind", ["ae", "vae", "cvae"])
def test_rows_of_all_classes_share_the_latent(models: dict[str, Model], kind: str) -> None:
    model = models[kind]
    rows = sample_classes(model, 5, seed=2, temperature=0.7)
    assert rows.shape == (5, K, SIZE, SIZE, 1)
    columns = [draw(model, 5, of_class=name, seed=2, temperature=0.7) for name in CLASSES]
    for k, latents in enumerate(columns):
        np.testing.assert_array_equal(rows[:, k], to_uint8(model.decode(latents)))
        if kind == "cvae":
            np.testing.assert_array_equal(latents[:, :Z], columns[0][:, :Z])
        else:  # the same deviate from each class's mean, in that class's deviations: (k + 1) / 10
            np.testing.assert_allclose((latents - k) / (k + 1), columns[0], atol=1e-5)


def test_shorter_mixtures_leave_the_rest_of_a_latent_at_zero(tmp_path: Path) -> None:
    short = make_digits(tmp_path / "short", kind="ae", sampling=drawn_of_classes(Z - 1))
    for asked in ({"sampler": "gmm"}, {"of_class": "two"}):
        latents = draw(Model(short), 4, **asked)  # type: ignore[arg-type]  # a str for either
        assert (latents[:, : Z - 1] != 0).all()
        assert not latents[:, Z - 1 :].any()


@pytest.mark.parametrize(
    ("kind", "asked", "reason"),
    [
        (
            "ae",
            {"sampler": "normal"},
            r"model ae \(ae\) was not trained towards N\(0, I\).*--sampler gaussian",
        ),
        ("bare", {"sampler": "gmm"}, "model bare has no mixture to draw from"),
        ("bare", {"of_class": "two"}, "model bare knows no classes; leave --class out"),
        ("cvae", {"of_class": "x"}, r"has no class 'x'; it has: nil, one, two, 1/2 \.\./\.\."),
        ("vae", {"of_class": "a\nb"}, r"model vae has no class 'a\\nb'; it has: nil"),
        ("vae", {"of_class": "two", "sampler": "normal"}, "draws a class from the Gaussian of that class"),
        ("ae", {"of_class": "two", "sampler": "gmm"}, r"\(ae\) draws a class.*leave out --sampler gmm"),
        ("vae", {"sampler": "uniform"}, "a sampler is normal, gaussian, gmm; 'uniform' is not"),
        ("vae", {"temperature": float("nan")}, "temperature 0 or more, got 1 at nan"),
        ("vae", {"temperature": float("inf")}, "got 1 at inf"),
        ("cvae", {"temperature": -1}, "got 1 at -1"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    models: dict[str, Model], kind: str, asked: dict[str, Any], reason: str
) -> None:
    with pytest.raises(OptionError, match=reason) as caught:
        draw(models[kind], 1, **asked)
    assert "\n" not in str(caught.value)


def test_classes_without_gaussians_of_their_own_are_refused(models: dict[str, Model], tmp_path: Path) -> None:
    spec = replace(models["bare"].bundle.spec, classes=CLASSES)
    for sampling in (None, Sampling(mixture=drawn_of_classes().mixture)):
        model = Model(save_again(models["bare"].bundle, tmp_path / "x", spec=spec, sampling=sampling))
        with pytest.raises(OptionError, match="model x has no Gaussian of each class to draw from"):
            sample(model, 1, of_class="two")


def test_all_classes_have_a_limit_and_are_needed(models: dict[str, Model]) -> None:
    with pytest.raises(OptionError, match="at most 10,000 pictures are drawn at once, 2501 in 4 classes"):
        sample_classes(models["cvae"], MOST_PICTURES // K + 1)
    with pytest.raises(OptionError, match="model bare knows no classes"):
        sample_classes(models["bare"], 1)


def test_a_model_without_decoder_draws_nothing(models: dict[str, Model], tmp_path: Path) -> None:
    bundle = models["ae"].bundle
    blind = save_again(
        bundle,
        tmp_path / "blind",
        spec=replace(bundle.spec, kind="encoder"),
        graphs={"encoder": bundle.graph("encoder")},
        golden=replace(bundle.golden, decoded=None),
    )
    calls: list[Callable[[Model], object]] = [
        lambda model: sample(model, 1, sampler="normal"),
        lambda model: sample(model, 1, of_class="two"),
        lambda model: interpolate(model, bundle.golden.pixels, 3),
    ]
    for call in calls:
        with pytest.raises(OptionError, match="it can search, not draw"):
            call(Model(blind))


# Between pictures


@pytest.mark.parametrize("kind", ["ae", "vae", "cvae"])
def test_between_pictures_lies_a_straight_line_of_latents(models: dict[str, Model], kind: str) -> None:
    model = models[kind]
    pixels = sample(model, 3, seed=5)
    rows = interpolate(model, pixels, 5)
    assert rows.shape == (2, 5, SIZE, SIZE, 1)
    back = reconstruct(model, pixels)
    np.testing.assert_array_equal(rows[:, 0], back[:-1])
    np.testing.assert_array_equal(rows[:, -1], back[1:])
    latents = model.encode(pixels)
    middle = to_uint8(model.decode((latents[:-1] + latents[1:]) * np.float32(0.5)))
    np.testing.assert_allclose(rows[:, 2].astype(int), middle, atol=1)


@pytest.mark.parametrize(("count", "steps"), [(1, 5), (0, 5), (2, 1)])
def test_lines_that_cannot_be_are_refused(models: dict[str, Model], count: int, steps: int) -> None:
    with pytest.raises(OptionError, match=f"2 of them and 2 steps or more, got {count} and {steps}"):
        interpolate(models["vae"], models["vae"].bundle.golden.pixels[:count], steps)


# Sheets and files


def test_sheets_of_grey_pictures(models: dict[str, Model]) -> None:
    rows = sample_classes(models["cvae"], 3)
    sheet = classes_sheet(models["cvae"], rows)
    assert sheet.shape[2] == 3
    assert sheet.shape[0] > 3 * 84
    assert K * 84 < sheet.shape[1] < (K + 2) * 84
    pixels = sample(models["cvae"], 3)
    strip = interpolation_sheet(
        models["cvae"], pixels, interpolate(models["cvae"], pixels, 4), ["a", "b", "c"]
    )
    assert strip.shape[0] > 2 * 112
    assert strip.shape[1] > 6 * 112


def test_classes_make_plain_names_of_files() -> None:
    names = ["7", "../../etc", "a/b", "a b", "A_b", "..", "ß-é", "x" * 300]
    expected = ["7", "etc", "a_b", "a_b-2", "A_b-3", "class", "ß-é", "x" * 40]
    assert plain_names(names) == expected


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
    drawn = classes_of(Model.open(bundle), draw(Model.open(bundle), 11, seed=2))
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
        ([tiny_model, "--class", "all"], "lookalike: model tiny knows no classes"),
        ([tiny_model, "--sampler", "normal"], "lookalike: model tiny (ae) was not trained towards N(0, I)"),
        ([bundle, "--class", "all", "-n", "9999"], "lookalike: at most 10,000 pictures are drawn at once"),
    ):
        done = lookalike(*words, *more, cwd=tmp_path)
        assert done.returncode == 2
        assert one_line(done).startswith(said)
    assert not (tmp_path / "x.png").exists()


def test_interpolate_draws_a_strip_or_the_way_in_order(bundle: str, tmp_path: Path) -> None:
    pixels = sample(Model.open(bundle), 3, seed=5)
    for name, picture in zip("abc", pixels, strict=True):
        save_picture(tmp_path / f"{name}.png", picture)
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
        save_picture(tmp_path / f"{name}.png", picture)
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
    save_picture(tmp_path / "a.png", sample(Model.open(bundle), 1)[0])
    done = lookalike("reconstruct", "a.png", "--model", bundle, "--out", "sheet.png", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "sheet.png\n", "")


def test_models_tells_what_can_be_drawn(models: dict[str, Model], tmp_path: Path) -> None:
    done = lookalike("models", *(str(model.bundle.folder) for model in models.values()), cwd=tmp_path)
    lines = done.stdout.splitlines()
    assert lines.count("  4 classes: nil, one, two, 1/2 ../..") == 3
    assert lines.count("  trained with the classes of its pictures") == 3
    assert lines.count("  draws from normal, gaussian, gmm (2 Gaussians); each class by itself") == 2
    assert lines.count("  draws from gaussian, gmm (2 Gaussians); each class by itself") == 1
    assert lines.count("  draws from normal, gaussian") == 1
    assert any(line.startswith("cvae  cvae, 28x28x1, latent 7, crop full") for line in lines)


def test_many_classes_are_not_all_told(tmp_path: Path) -> None:
    bundle = make_digits(tmp_path / "many", classes=tuple(f"c{number}" for number in range(45)))
    done = lookalike("models", str(bundle.folder), cwd=tmp_path)
    assert "  45 classes: c0, c1, " in done.stdout
    assert ", c19 and 25 more\n" in done.stdout
