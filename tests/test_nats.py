"""Binary digits by protocol, and nats of models whose likelihood is known."""

import numpy as np
import pytest

from encoder.errors import OptionError
from encoder.mnist import MNIST
from searcher.nats import _corrected, binarised

GREY = np.array([[0, 1, 127, 128, 254, 255]], np.uint8)


def test_the_threshold_is_the_same_for_everybody() -> None:
    np.testing.assert_array_equal(binarised(GREY, "threshold"), GREY >= 128)
    np.testing.assert_array_equal(binarised(GREY, "threshold", seed=5), GREY >= 128)


def test_dynamic_draws_have_the_grey_values_as_chances() -> None:
    many = GREY.repeat(20_000, axis=0)
    on = binarised(many, "dynamic")
    np.testing.assert_allclose(on.mean(axis=0), GREY[0] / 255, atol=0.015)
    assert not on[:, 0].any()
    assert on[:, 5].all()
    assert on[:, 1].any()
    assert not on[:, 4].all()
    np.testing.assert_array_equal(on, binarised(many, "dynamic"))
    assert (on != binarised(many, "dynamic", seed=1)).any()


def test_no_other_protocol() -> None:
    with pytest.raises(OptionError, match="dynamic or threshold, not 'grey'"):
        binarised(GREY, "grey")  # type: ignore[arg-type]


@pytest.mark.mnist
def test_real_digits_by_both_protocols_are_other_digits(mnist: MNIST) -> None:
    images = mnist.images("test")[:500]
    dynamic, threshold = (binarised(images, protocol) for protocol in ("dynamic", "threshold"))  # type: ignore[arg-type]
    assert 0.02 < (dynamic != threshold).mean() < 0.1
    assert dynamic.mean() == pytest.approx(images.mean() / 255, abs=0.002)


def test_a_difference_on_some_corrects_all() -> None:
    rng = np.random.default_rng(0)
    rough = 90 + 20 * rng.normal(size=5000)
    deep = rough - 0.5 + 0.3 * rng.normal(size=5000)
    means = []
    for _ in range(300):
        rows = rng.choice(5000, 400, replace=False)
        mean, error, left = _corrected(rough, deep[rows], rows)
        assert error == pytest.approx(20 / 5000**0.5, rel=0.05)
        assert left == pytest.approx(0.3 / 20 * (1 - 400 / 5000) ** 0.5, rel=0.2)
        means.append(mean)
    assert np.mean(means) == pytest.approx(deep.mean(), abs=0.003)
    assert np.std(means) == pytest.approx(left, rel=0.25)  # as far off as it says
    whole, error, left = _corrected(rough, rough, np.arange(5000))
    assert (whole, left) == (pytest.approx(rough.mean()), 0)
    assert error == pytest.approx(20 / 5000**0.5, rel=0.05)
