"""Pictures by class and by sampler, and what lies between pictures: what is drawn for a seed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lookalike.encoder.bundle import LatentPrior
from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.images import to_uint8
from lookalike.encoder.runtime import Model
from lookalike.searcher.generation import (
    Sampler,
    most_likely_classes,
    reconstruct,
    sample,
    sample_classes,
    sample_latents,
)
from lookalike.searcher.generation.sample import MAX_IMAGES, interpolate
from tests.fixtures.handmade_models import CLASSES, SIZE, Z, drawn_of_classes, every_kind, make_digits
from tests.fixtures.tiny_models import save_again

K = len(CLASSES)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    return every_kind(tmp_path_factory.mktemp("models"))


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
    latents = sample_latents(model, 6, seed=3, **asked)
    assert latents.dtype == np.float32
    assert latents.shape == (6, model.bundle.spec.latent)
    np.testing.assert_array_equal(latents, sample_latents(model, 6, seed=3, **asked))
    np.testing.assert_allclose(sample_latents(model, 9, seed=3, **asked)[:6], latents, atol=1e-6)
    assert (latents != sample_latents(model, 6, seed=4, **asked)).any()
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
    drawn = sample_latents(models[kind], 20_000, sampler=sampler)[:, :Z]
    deviation = np.sqrt(variance)
    np.testing.assert_allclose(drawn.mean(axis=0), mean, atol=4 * deviation.max() / np.sqrt(20_000))
    np.testing.assert_allclose(drawn.var(axis=0), variance, rtol=0.05)
    half = sample_latents(models[kind], 20_000, sampler=sampler, temperature=0.5)[:, :Z]
    if sampler != "gmm":
        np.testing.assert_allclose(half - mean, (drawn - mean) / 2, atol=1e-5)


def test_temperature_0_gives_means(models: dict[str, Model]) -> None:
    mean = models["ae"].bundle.statistics.mean
    np.testing.assert_allclose(sample_latents(models["ae"], 3, temperature=0), [mean] * 3)
    assert not sample_latents(models["vae"], 3, temperature=0).any()
    assert not sample_latents(models["cvae"], 3, temperature=0)[:, :Z].any()
    assert set(np.abs(sample_latents(models["vae"], 30, temperature=0, sampler="gmm")).ravel()) == {9}
    for k, name in enumerate(CLASSES):
        np.testing.assert_array_equal(
            sample_latents(models["vae"], 2, temperature=0, of_class=name), np.full((2, Z), k)
        )


def test_a_class_of_a_cvae_is_its_weight_and_the_latent_any(models: dict[str, Model]) -> None:
    for k, name in enumerate(CLASSES):
        latents = sample_latents(models["cvae"], 5, of_class=name, seed=1)
        np.testing.assert_array_equal(latents[:, Z:], [np.eye(K)[k]] * 5)
        np.testing.assert_array_equal(latents[:, :Z], sample_latents(models["cvae"], 5, seed=1)[:, :Z])
        assert most_likely_classes(models["cvae"], latents) == [name] * 5


def test_a_cvae_draws_classes_by_their_shares(models: dict[str, Model], tmp_path: Path) -> None:
    weights = sample_latents(models["cvae"], 10_000)[:, Z:]
    assert set(weights.sum(axis=1)) == {1}
    assert set(weights.ravel()) == {0, 1}
    np.testing.assert_allclose(weights.mean(axis=0), [0.1, 0.2, 0.3, 0.4], atol=0.015)
    even = sample_latents(Model(make_digits(tmp_path / "even")), 10_000)[:, Z:]
    np.testing.assert_allclose(even.mean(axis=0), [0.25] * 4, atol=0.015)


def test_a_class_of_an_autoencoder_is_drawn_from_its_gaussian(models: dict[str, Model]) -> None:
    for kind in ("ae", "vae"):
        for k, name in enumerate(CLASSES):
            drawn = sample_latents(models[kind], 5_000, of_class=name)
            np.testing.assert_allclose(drawn.mean(axis=0), [k] * Z, atol=0.03)
            np.testing.assert_allclose(drawn.std(axis=0), [(k + 1) / 10] * Z, rtol=0.05)
        assert most_likely_classes(models[kind], drawn) is None


@pytest.mark.parametrize("kind", ["ae", "vae", "cvae"])
def test_rows_of_all_classes_share_the_latent(models: dict[str, Model], kind: str) -> None:
    model = models[kind]
    rows = sample_classes(model, 5, seed=2, temperature=0.7)
    assert rows.shape == (5, K, SIZE, SIZE, 1)
    columns = [sample_latents(model, 5, of_class=name, seed=2, temperature=0.7) for name in CLASSES]
    for k, latents in enumerate(columns):
        np.testing.assert_array_equal(rows[:, k], to_uint8(model.decode(latents)))
        if kind == "cvae":
            np.testing.assert_array_equal(latents[:, :Z], columns[0][:, :Z])
        else:  # the same deviate from each class's mean, in that class's deviations: (k + 1) / 10
            np.testing.assert_allclose((latents - k) / (k + 1), columns[0], atol=1e-5)


def test_shorter_mixtures_leave_the_rest_of_a_latent_at_zero(tmp_path: Path) -> None:
    short = make_digits(tmp_path / "short", kind="ae", sampling=drawn_of_classes(Z - 1))
    for asked in ({"sampler": "gmm"}, {"of_class": "two"}):
        latents = sample_latents(Model(short), 4, **asked)  # type: ignore[arg-type]  # a str for either
        assert (latents[:, : Z - 1] != 0).all()
        assert not latents[:, Z - 1 :].any()


@pytest.mark.parametrize(
    ("kind", "asked", "reason"),
    [
        (
            "ae",
            {"sampler": "normal"},
            r"model ae \(ae\) has no N\(0, I\) prior.*--sampler gaussian",
        ),
        ("bare", {"sampler": "gmm"}, "model bare has no mixture to sample from"),
        ("bare", {"of_class": "two"}, "model bare has no classes; leave --class out"),
        ("cvae", {"of_class": "x"}, r"has no class 'x'; it has: nil, one, two, 1/2 \.\./\.\."),
        ("vae", {"of_class": "a\nb"}, r"model vae has no class 'a\\nb'; it has: nil"),
        ("vae", {"of_class": "two", "sampler": "normal"}, "samples a class from its Gaussian"),
        ("ae", {"of_class": "two", "sampler": "gmm"}, r"\(ae\) samples a class.*leave out --sampler gmm"),
        ("vae", {"sampler": "uniform"}, "a sampler is normal, gaussian, gmm; 'uniform' is not"),
        ("vae", {"temperature": float("nan")}, "temperature 0 or more, got 1 at nan"),
        ("vae", {"temperature": float("inf")}, "got 1 at inf"),
        ("cvae", {"temperature": -1}, "got 1 at -1"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    models: dict[str, Model], kind: str, asked: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=reason) as caught:
        sample_latents(models[kind], 1, **asked)
    assert "\n" not in str(caught.value)


def test_classes_without_gaussians_of_their_own_are_refused(models: dict[str, Model], tmp_path: Path) -> None:
    spec = replace(models["bare"].bundle.spec, classes=CLASSES)
    for sampling in (None, LatentPrior(mixture=drawn_of_classes().mixture)):
        model = Model(save_again(models["bare"].bundle, tmp_path / "x", spec=spec, sampling=sampling))
        with pytest.raises(InvalidArgumentError, match="model x has no Gaussian for each class"):
            sample(model, 1, of_class="two")


def test_all_classes_have_a_limit_and_are_needed(models: dict[str, Model]) -> None:
    with pytest.raises(
        InvalidArgumentError, match="at most 10,000 images are generated at once, 2501 in 4 classes"
    ):
        sample_classes(models["cvae"], MAX_IMAGES // K + 1)
    with pytest.raises(InvalidArgumentError, match="model bare has no classes"):
        sample_classes(models["bare"], 1)


def test_a_model_without_decoder_draws_nothing(models: dict[str, Model], tmp_path: Path) -> None:
    bundle = models["ae"].bundle
    blind = save_again(
        bundle,
        tmp_path / "blind",
        spec=replace(bundle.spec, kind="encoder"),
        graphs={"encoder": bundle.graph("encoder")},
        golden={name: bundle.golden[name] for name in ("pixels", "latents")},
    )
    calls: list[Callable[[Model], object]] = [
        lambda model: sample(model, 1, sampler="normal"),
        lambda model: sample(model, 1, of_class="two"),
        lambda model: interpolate(model, bundle.golden["pixels"], 3),
    ]
    for call in calls:
        with pytest.raises(InvalidArgumentError, match="it can search, not generate"):
            call(Model(blind))


# Between pictures


@pytest.mark.parametrize("kind", ["ae", "vae", "cvae"])
def test_between_pictures_lies_a_straight_line_of_latents(models: dict[str, Model], kind: str) -> None:
    model = models[kind]
    pixels = sample(model, 3, seed=5)
    rows = interpolate(model, pixels, 5, interpolation="linear")
    assert rows.shape == (2, 5, SIZE, SIZE, 1)
    back = reconstruct(model, pixels)
    np.testing.assert_array_equal(rows[:, 0], back[:-1])
    np.testing.assert_array_equal(rows[:, -1], back[1:])
    latents = model.encode(pixels)
    middle = to_uint8(model.decode((latents[:-1] + latents[1:]) * np.float32(0.5)))
    np.testing.assert_allclose(rows[:, 2].astype(int), middle, atol=1)


@pytest.mark.parametrize("kind", ["ae", "vae", "cvae"])
def test_a_round_way_keeps_the_length_of_latents(models: dict[str, Model], kind: str) -> None:
    model = models[kind]
    pixels = sample(model, 3, seed=5)
    rows = interpolate(model, pixels, 5, interpolation="spherical")
    back = reconstruct(model, pixels)
    np.testing.assert_allclose(rows[:, 0].astype(int), back[:-1], atol=1)
    np.testing.assert_allclose(rows[:, -1].astype(int), back[1:], atol=1)
    latents, drawn = model.encode(pixels), model.bundle.spec.prior_dim
    lengths = np.linalg.norm(latents[:, :drawn], axis=1, keepdims=True)
    unit = latents[:, :drawn] / lengths
    middle = (latents[:-1] + latents[1:]) / 2
    middle[:, :drawn] = unit[:-1] + unit[1:]
    middle[:, :drawn] *= (
        (lengths[:-1] + lengths[1:]) / 2 / np.linalg.norm(middle[:, :drawn], axis=1, keepdims=True)
    )
    np.testing.assert_allclose(
        rows[:, 2].astype(int), to_uint8(model.decode(middle.astype(np.float32))), atol=1
    )
    usual = interpolate(model, pixels, 5)
    np.testing.assert_array_equal(
        usual, rows if kind == "vae" else interpolate(model, pixels, 5, interpolation="linear")
    )


def test_a_round_way_to_itself_or_from_nothing_stays_finite(models: dict[str, Model]) -> None:
    model = models["vae"]
    pixels = sample(model, 1, seed=5)
    rows = interpolate(model, np.concatenate([pixels, pixels]), 4, interpolation="spherical")
    for row in rows[0]:
        np.testing.assert_allclose(row.astype(int), reconstruct(model, pixels)[0], atol=1)


@pytest.mark.parametrize(("count", "steps"), [(1, 5), (0, 5), (2, 1)])
def test_lines_that_cannot_be_are_refused(models: dict[str, Model], count: int, steps: int) -> None:
    with pytest.raises(InvalidArgumentError, match=f"2 images and 2 steps or more, got {count} and {steps}"):
        interpolate(models["vae"], models["vae"].bundle.golden["pixels"][:count], steps)
