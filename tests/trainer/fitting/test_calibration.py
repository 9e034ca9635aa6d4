"""Fits give back what is known: Gaussians by formula, thresholds by counting; too little is said to be so."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lookalike.encoder.bundle import Calibration
from lookalike.encoder.errors import CalibrationError, InvalidArgumentError
from lookalike.trainer.fitting import calibration_of, fit_calibration, fit_score_calibration, pair_scores
from lookalike.trainer.fitting.calibration import MIN_PEOPLE, Pairs


def crowd(
    people: int, each: int, *, spread: float = 0.6, seed: int = 0
) -> tuple[NDArray[np.float32], list[str]]:
    """Unit vectors (N, 16) around one direction for each person, and names."""
    rng = np.random.default_rng(seed)
    rows = np.repeat(rng.standard_normal((people, 16)), each, axis=0)
    rows += spread * rng.standard_normal(rows.shape)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32), [f"person {index // each}" for index in range(len(rows))]


def gaussians(matched: tuple[float, float], mismatched: tuple[float, float], count: int = 40_000) -> Pairs:
    rng = np.random.default_rng(0)
    return Pairs(rng.normal(*matched, count), rng.normal(*mismatched, 5 * count), 100)


def test_evidence_of_two_gaussians_of_one_width_is_the_known_line() -> None:
    # log N(s; 0.4, 0.1) / N(s; 0, 0.1) = (0.4 s - 0.08) / 0.01
    fitted = fit_score_calibration(gaussians((0.4, 0.1), (0.0, 0.1)))
    scores = np.array([0.05, 0.15, 0.2, 0.25, 0.35])
    np.testing.assert_allclose(fitted.evidence(scores), 40 * scores - 8, atol=0.3)


def test_evidence_of_two_gaussians_of_two_widths_is_the_known_parabola() -> None:
    # log N(s; 0.2, 0.2) / N(s; 0, 0.1) = -log 2 - (s - 0.2)^2 / 0.08 + s^2 / 0.02
    fitted = fit_score_calibration(gaussians((0.2, 0.2), (0.0, 0.1)))
    scores = np.array([0.0, 0.1, 0.2, 0.3, 0.4])
    known = -np.log(2) - (scores - 0.2) ** 2 / 0.08 + scores**2 / 0.02
    np.testing.assert_allclose(fitted.evidence(scores), known, atol=0.15)
    assert fitted.curvature == pytest.approx(37.5, rel=0.1)


def test_a_parabola_that_bends_down_becomes_a_line() -> None:
    fitted = fit_score_calibration(gaussians((0.5, 0.05), (0.0, 0.2)))
    assert fitted.curvature == 0
    assert fitted.slope > 0


def test_pairs_without_overlap_give_a_finite_map() -> None:
    fitted = fit_score_calibration(Pairs(np.linspace(0.8, 0.9, 50), np.linspace(-0.1, 0.1, 1000), 10))
    low, high = fitted.probability([0.0, 0.85], 0.5)
    assert low < 0.05 < 0.95 < high


def test_thresholds_are_counted() -> None:
    mismatched = np.arange(10_000) / 10_000 - 0.5  # 0.4999, 0.4998, ...
    fitted = fit_score_calibration(Pairs(np.linspace(0.2, 0.9, 200), mismatched, 10))
    # At a rate of 0.1 a thousand are above, at 0.001 ten are, which is the least.
    assert fitted.thresholds == pytest.approx({0.1: 0.3999, 0.01: 0.4899, 0.001: 0.4989})
    for rate, threshold in fitted.thresholds.items():
        assert (mismatched > threshold).mean() == pytest.approx(rate)


def test_pairs_by_hand() -> None:
    rows = np.array([[1, 0], [0.6, 0.8], [0, 1], [-1, 0], [0, 0], [np.nan, 0]], np.float32)
    pairs = pair_scores(rows, ["a", "a", "b", None, "a", "b"])
    assert sorted(pairs.matched) == pytest.approx([0.6])
    assert sorted(pairs.mismatched) == pytest.approx([0.0, 0.8])
    assert pairs.people == 1


def test_one_person_of_hundreds_of_pictures_does_not_outweigh_the_others() -> None:
    rows, people = crowd(3, 200)
    pairs = pair_scores(rows[:402], ["many"] * 200 + ["some"] * 200 + ["few"] * 2)
    assert len(pairs.matched) == 45 + 45 + 1
    assert len(pairs.mismatched) == 200 * 200 + 2 * 400
    assert pair_scores(rows, people).people == 3


def test_very_many_pairs_are_drawn_by_lot_and_the_same_each_time() -> None:
    rows, people = crowd(1100, 2)
    once, again, other = (pair_scores(rows, people, seed=seed) for seed in (0, 0, 1))
    assert 2_000_000 < len(once.mismatched) <= 1 << 21
    np.testing.assert_array_equal(once.mismatched, again.mismatched)
    assert not np.array_equal(once.mismatched[:9], other.mismatched[:9])
    assert len(once.matched) == 1100


def test_a_crowd_is_calibrated_and_told_apart() -> None:
    rows, people = crowd(40, 5)
    errors = np.random.default_rng(0).uniform(0.1, 0.2, (200, 2))
    fitted = fit_calibration(rows, people, errors)
    assert fitted.scores is not None
    assert fitted.reconstruction_errors is not None
    assert (fitted.scores.people, fitted.scores.matched) == (40, 400)
    assert set(fitted.scores.thresholds) == {0.1, 0.01, 0.001}
    high, low = fitted.scores.probability([0.8, 0.0], 0.5)
    assert high > 0.95 > 0.2 > low
    assert calibration_of(rows, people, errors) == fitted


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), spread=st.floats(0.2, 2.0))
def test_neither_order_nor_names_matter(seed: int, spread: float) -> None:
    rows, people = crowd(12, 4, spread=spread, seed=seed)
    order = np.random.default_rng(seed).permutation(len(rows))
    fitted = fit_calibration(rows, people).scores
    other = fit_calibration(rows[order], [people[index][::-1] for index in order]).scores
    assert fitted is not None
    assert other is not None
    grid = np.linspace(-1, 1, 9)
    np.testing.assert_allclose(fitted.evidence(grid), other.evidence(grid), rtol=1e-3, atol=1e-3)
    assert np.all(np.diff(fitted.evidence(grid)) >= 0)


def test_too_few_people_are_said_and_leave_the_errors() -> None:
    rows, people = crowd(MIN_PEOPLE - 1, 4)
    with pytest.raises(CalibrationError, match=r"needs 10 people with two .* there are 9 and 576; give more"):
        fit_calibration(rows, people)
    errors = np.full((len(rows), 2), 0.5)
    left = calibration_of(rows, people, errors)
    assert left.scores is None
    assert left.reconstruction_errors is not None
    assert calibration_of(rows, [None] * len(rows), None) == Calibration()


def test_people_who_are_not_told_apart_are_refused() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((40, 8))
    # Each person's two pictures are opposite: two people's are more alike.
    both = np.stack([rows, -rows], axis=1).reshape(80, 8)
    both /= np.linalg.norm(both, axis=1, keepdims=True)
    with pytest.raises(CalibrationError, match="does not tell these people apart"):
        fit_calibration(both.astype(np.float32), [str(index // 2) for index in range(80)])


def test_pictures_that_are_all_alike_are_refused() -> None:
    rows = np.tile(np.array([[1, 0]], np.float32), (40, 1))
    with pytest.raises(CalibrationError):
        fit_calibration(rows, [str(index // 2) for index in range(40)])


def test_lists_of_other_lengths_are_refused() -> None:
    rows, people = crowd(12, 4)
    with pytest.raises(InvalidArgumentError, match=r"embeddings \(48\), people \(47\)"):
        fit_calibration(rows, people[1:])
    with pytest.raises(InvalidArgumentError, match="must have the same length"):
        calibration_of(rows, people, np.ones((3, 2)))
