"""Measures of a calibration, by hand; and cross-validation that finds a good one good."""

import math
import sys
from dataclasses import replace

import numpy as np
import pytest

from lookalike.deploy.evaluation import cross_validate, plot_reliability
from lookalike.deploy.evaluation.reliability import Bin, bin_predictions, calibration_error, cllr
from lookalike.encoder.errors import CalibrationError, InvalidArgumentError
from tests.trainer.fitting.test_calibration import crowd


def test_cllr_by_hand() -> None:
    nothing = np.zeros(3)
    assert cllr(nothing, nothing) == pytest.approx(1)  # knowing nothing costs one bit
    assert cllr(np.full(2, 50.0), np.full(3, -50.0)) == pytest.approx(0, abs=1e-12)
    # odds of 3 for a matched pair: log2(4/3); odds of 1 for a mismatched one: 1
    assert cllr(np.array([math.log(3)]), np.zeros(1)) == pytest.approx((math.log2(4 / 3) + 1) / 2)


def test_bins_by_hand() -> None:
    said = np.array([0.15, 0.19, 0.85, 1.0])
    true = np.array([False, True, True, True])
    bins = bin_predictions(said, true, np.array([1.0, 3.0, 4.0, 2.0]))
    assert len(bins) == 3
    first, second, last = bins
    assert (first.weight, first.said, first.was) == pytest.approx((0.4, 0.18, 0.75))
    assert (second.weight, second.said, second.was) == pytest.approx((0.4, 0.85, 1.0))
    assert (last.weight, last.said, last.was) == pytest.approx((0.2, 1.0, 1.0))
    assert calibration_error(bins) == pytest.approx(0.4 * 0.57 + 0.4 * 0.15)
    assert calibration_error([Bin(1.0, 0.25, 0.25)]) == 0


def test_a_crowd_that_is_well_told_apart_is_calibrated_well() -> None:
    rows, people = crowd(100, 5)
    judged = cross_validate(rows, people)
    assert judged.cllr < 0.3
    assert judged.pair_error < 0.03
    assert judged.hit_error < 0.05
    assert judged.hits == 500 * 2 * 3 * 10  # images, sizes, kinds of galleries, hits
    assert judged.sure > 50
    assert judged.sure_right is not None
    assert judged.sure_right > 0.7
    assert judged == cross_validate(rows, people)
    height, width, channels = plot_reliability(judged).shape
    assert (height > 400, width > 800, channels) == (True, True, 3)
    plot_reliability(replace(judged, sure=0, sure_right=None, hit_bins=()))


def test_too_few_people_cannot_be_left_out_in_turn() -> None:
    with pytest.raises(CalibrationError, match="there are 8 and"):
        cross_validate(*crowd(11, 4))


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    judged = cross_validate(*crowd(20, 4))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InvalidArgumentError, match=r"pip install 'lookalike\[evaluate\]'"):
        plot_reliability(judged)
