"""Binary digits by protocol, and nats of models whose likelihood is known."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lookalike.deploy.evaluation.data import DigitImages
from lookalike.deploy.evaluation.likelihood import binarize, measure_likelihood
from lookalike.encoder.bundle import BundleSpec
from lookalike.encoder.datasets import MNIST
from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.runtime import Model
from tests.fixtures.handmade_models import CLASSES, SIZE, Z
from tests.fixtures.likelihood_models import variational

GRAY = np.array([[0, 1, 127, 128, 254, 255]], np.uint8)


def test_the_threshold_is_the_same_for_everybody() -> None:
    np.testing.assert_array_equal(binarize(GRAY, "threshold"), GRAY >= 128)
    np.testing.assert_array_equal(binarize(GRAY, "threshold", seed=5), GRAY >= 128)


def test_dynamic_draws_have_the_gray_values_as_chances() -> None:
    many = GRAY.repeat(20_000, axis=0)
    on = binarize(many, "dynamic")
    np.testing.assert_allclose(on.mean(axis=0), GRAY[0] / 255, atol=0.015)
    assert not on[:, 0].any()
    assert on[:, 5].all()
    assert on[:, 1].any()
    assert not on[:, 4].all()
    np.testing.assert_array_equal(on, binarize(many, "dynamic"))
    assert (on != binarize(many, "dynamic", seed=1)).any()


def test_no_other_protocol() -> None:
    with pytest.raises(InvalidArgumentError, match="dynamic or threshold, not 'gray'"):
        binarize(GRAY, "gray")  # type: ignore[arg-type]


@pytest.mark.mnist
def test_real_digits_by_both_protocols_are_other_digits(mnist: MNIST) -> None:
    images = mnist.images("test")[:500]
    dynamic, threshold = (binarize(images, protocol) for protocol in ("dynamic", "threshold"))
    assert 0.02 < (dynamic != threshold).mean() < 0.1
    assert dynamic.mean() == pytest.approx(images.mean() / 255, abs=0.002)


def exact(binary: NDArray[np.bool_], spec: BundleSpec, label: int | None) -> float:
    """-log p(x), or -log p(x|y), by adding up each number's own integral."""
    owner = np.arange(784) * spec.latent // 784
    grid = np.linspace(-8, 8, 20_001)
    prior = np.exp(-0.5 * grid**2) / math.sqrt(2 * math.pi) * (grid[1] - grid[0])
    flat = binary.reshape(-1)
    total = 0.0
    for number in range(spec.latent):
        on = int(flat[owner == number].sum())
        off = int((owner == number).sum()) - on
        values = grid if number < Z else np.array([float(number - Z == label)])
        logs = -on * np.logaddexp(0, -2 * values) - off * np.logaddexp(0, 2 * values)
        weights = prior if number < Z else np.ones(1)
        total += logs.max() + math.log((np.exp(logs - logs.max()) * weights).sum())
    return -total


def half_on(count: int) -> DigitImages:
    images = np.random.default_rng(1).integers(0, 256, (count, SIZE, SIZE, 1), dtype=np.uint8)
    return DigitImages(images, np.arange(count) % len(CLASSES))


def test_the_bound_of_a_model_is_its_known_likelihood(tmp_path: Path) -> None:
    model, digits = Model(variational(tmp_path / "known", kind="vae"), threads=1), half_on(12)
    (found,) = measure_likelihood(model, digits, "threshold", samples=4000, count=12)
    known = [exact(each, model.bundle.spec, None) for each in binarize(digits.images, "threshold")]
    assert found.measured == "log p(x)"
    assert found.bound == pytest.approx(np.mean(known), abs=0.05)
    assert found.negative_elbo > found.bound + 0.5
    assert found.bound_error == pytest.approx(np.std(known, ddof=1) / 12**0.5, abs=0.1)
    assert (found.images, found.samples) == (12, 4000)
    (dynamic,) = measure_likelihood(model, digits, "dynamic", samples=100, count=12)
    assert dynamic.bound != found.bound
    (again,) = measure_likelihood(model, digits, "dynamic", samples=100, count=12)
    assert again.bound == dynamic.bound
    (other,) = measure_likelihood(model, digits, "dynamic", samples=100, count=12, seed=1)
    assert other.bound != dynamic.bound


def test_a_model_with_classes_is_measured_given_the_label_and_without(tmp_path: Path) -> None:
    model, digits = Model(variational(tmp_path / "known", kind="cvae"), threads=1), half_on(8)
    given, both = measure_likelihood(model, digits, "threshold", samples=4000, count=8)
    assert (given.measured, both.measured) == ("log p(x|y)", "log p(x)")
    spec, binary = model.bundle.spec, binarize(digits.images, "threshold")
    known = [exact(each, spec, int(label)) for each, label in zip(binary, digits.labels, strict=True)]
    assert given.bound == pytest.approx(np.mean(known), abs=0.1)
    by_class = -np.array([[exact(each, spec, k) for k in range(len(CLASSES))] for each in binary])
    marginal = -np.logaddexp.reduce(by_class - math.log(len(CLASSES)), axis=1)
    assert both.bound == pytest.approx(marginal.mean(), abs=0.1)


def test_some_digits_are_the_same_digits_of_all(tmp_path: Path) -> None:
    model, digits = Model(variational(tmp_path / "known", kind="vae"), threads=1), half_on(60)
    steps: list[int] = []

    @contextmanager
    def progress(_task: str, total: int) -> Iterator[Callable[[int], object]]:
        yield steps.append
        assert sum(steps) == total

    (some,) = measure_likelihood(model, digits, "dynamic", samples=1000, count=20, progress=progress)
    assert sum(steps) == 20 * 1000
    rows = digits.sample_rows(20, seed=0)
    chosen = DigitImages(binarize(digits.images, "dynamic")[rows] * np.uint8(255), digits.labels[rows])
    (alone,) = measure_likelihood(model, chosen, "threshold", samples=1000, count=20)
    assert some.images == 20
    assert some.bound == alone.bound


def test_a_model_without_deviations_is_refused(tmp_path: Path) -> None:
    model = Model(variational(tmp_path / "known", kind="vae", deviations=False))
    with pytest.raises(InvalidArgumentError, match="gives no deviations"):
        measure_likelihood(model, half_on(2), "dynamic", samples=1, count=2)
