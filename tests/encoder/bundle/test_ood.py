"""How far off a drawing is, by hand; which pictures are called odd."""

import numpy as np
import pytest
from numpy.typing import NDArray

from lookalike.encoder.bundle import ReconstructionErrorStats, reconstruction_errors
from lookalike.encoder.errors import InvalidArgumentError

USUAL = ReconstructionErrorStats(images=7, squared=(0.001, 0.003, 0.004), share=(0.05, 0.1, 0.2))


def test_errors_by_hand() -> None:
    # Half black, half white: variance 1/4. Drawn as even grey it is off by 1/4 everywhere: all is lost.
    originals = np.array([[[[0]], [[255]]]], np.uint8)  # (1, 2, 1, 1)
    grey = np.full((1, 2, 1, 1), 0.5, np.float32)
    np.testing.assert_allclose(reconstruction_errors(originals, grey), [[0.25, 1.0]])
    # Off by 0.1 everywhere: 0.01, and 0.01 / 0.25 of the variance.
    off = np.array([[[[0.1]], [[0.9]]]], np.float32)
    np.testing.assert_allclose(reconstruction_errors(originals, off), [[0.01, 0.04]], rtol=1e-6)


def test_a_blank_picture_counts_as_varying_by_one_step() -> None:
    blank = np.full((1, 4, 4, 3), 51, np.uint8)  # 0.2
    drawn = np.full((1, 4, 4, 3), 0.21, np.float32)
    np.testing.assert_allclose(reconstruction_errors(blank, drawn), [[1e-4, 1e-4 * 255**2]], rtol=1e-4)
    assert reconstruction_errors(blank[:0], drawn[:0]).shape == (0, 2)


def test_only_what_is_far_above_the_usual_is_odd() -> None:
    errors = np.array(
        [[0.001, 0.05], [0.004, 0.2], [0.0049, 0.24], [0.006, 0.05], [0.001, 0.5], [0.01, 0.05]]
    )
    assert USUAL.ood_scores(errors) == [
        None,
        None,
        None,
        pytest.approx(6),
        pytest.approx(10),
        pytest.approx(10),
    ]


def test_quantiles_are_those_of_the_errors() -> None:
    ramp = np.arange(1001) / 1000
    usual = ReconstructionErrorStats.from_errors(np.stack([ramp, 2 * ramp], axis=1))
    assert usual.images == 1001
    assert usual.squared == pytest.approx((0.5, 0.99, 0.999))
    assert usual.share == pytest.approx((1.0, 1.98, 1.998))
    assert ReconstructionErrorStats.from_json(usual.to_json()) == usual


@pytest.mark.parametrize("errors", [np.empty((0, 2)), np.ones(3), np.ones((3, 3)), np.full((1, 2), np.nan)])
def test_errors_that_tell_nothing_are_refused(errors: NDArray[np.float64]) -> None:
    with pytest.raises(InvalidArgumentError, match="error statistics need finite errors"):
        ReconstructionErrorStats.from_errors(errors)
