"""Accuracy, thresholds and ROC: worked out by hand, and against scikit-learn."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from lookalike.deploy.evaluation import evaluate_pairs
from lookalike.deploy.evaluation.pairs import Fold
from lookalike.deploy.evaluation.verification import (
    best_threshold,
    fold_thresholds,
    pair_similarity,
    roc,
    verify,
)
from lookalike.encoder.errors import InvalidArgumentError


def floats(*values: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array(values, np.float64)


def bools(text: str) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.array([letter == "+" for letter in text])


def test_likeness_is_the_cosine_of_unit_vectors() -> None:
    vectors = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
    fold = Fold.from_pairs([(0, 1, False), (0, 2, True), (2, 1, True)])
    assert pair_similarity(vectors, fold) == pytest.approx([0.0, 0.6, 0.8])


@pytest.mark.parametrize(
    ("scores", "same", "threshold"),
    [
        (floats(0.1, 0.2, 0.8, 0.9), "--++", 0.5),
        (floats(0.1, 0.6, 0.4, 0.9), "--++", 0.25),  # three right at 0.25 and at 0.75: the lowest
        (floats(0.1, 0.2), "++", -math.inf),
        (floats(0.1, 0.2), "--", math.inf),
        (floats(0.5, 0.5, 0.5), "++-", -math.inf),
        (floats(0.5, 0.5, 0.5), "--+", math.inf),
    ],
)
def test_the_best_threshold_by_hand(scores: np.ndarray, same: str, threshold: float) -> None:
    assert best_threshold(scores, bools(same)) == pytest.approx(threshold)


@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=40))
def test_no_other_threshold_is_better(pairs: list[tuple[int, bool]]) -> None:
    scores, same = floats(*(score for score, _ in pairs)), np.array([truth for _, truth in pairs])
    right = int(((scores >= best_threshold(scores, same)) == same).sum())
    others = (np.arange(-1, 14) + 0.5)[:, None]
    assert right == ((scores >= others) == same).sum(axis=1).max()


def test_a_threshold_never_comes_from_the_fold_it_is_used_on() -> None:
    # The third fold is shifted by one: with a threshold of its own it would be told apart without a mistake.
    same = [bools("--++")] * 3
    scores = [floats(0.1, 0.2, 0.8, 0.9), floats(0.0, 0.3, 0.7, 1.0), floats(1.1, 1.2, 1.8, 1.9)]
    thresholds = fold_thresholds(scores, same)
    assert thresholds[2] == pytest.approx(0.5)
    found, _ = verify(scores, same)
    assert found.accuracy <= (1 + 1 + 0.5) / 3
    # A fold's own scores change the others' thresholds only.
    moved = [scores[0] + 100, scores[1], scores[2]]
    assert fold_thresholds(moved, same)[0] == thresholds[0]
    assert verify([moved[0], *scores[1:]], same)[0].accuracy < 1


def test_figures_by_hand() -> None:
    # Each fold is told by the threshold of the other, 0.5 and 0.35: all four right, and three of four.
    scores = [floats(0.1, 0.2, 0.5, 0.9), floats(0.1, 0.4, 0.6, 0.9)]
    same = [bools("--++")] * 2
    found, _ = verify(scores, same)
    assert fold_thresholds(scores, same) == pytest.approx([0.5, 0.35])
    assert (found.folds, found.pairs) == (2, 8)
    assert found.accuracy == pytest.approx(7 / 8)
    # Deviation of (1, 0.75) with F - 1: 0.25 / sqrt(2); over sqrt(2) folds.
    assert found.standard_error == pytest.approx(0.125)
    assert found.auc == 1.0
    assert found.tar_at_far_1_percent == 1.0


def test_roc_by_hand() -> None:
    curve = roc(floats(0.9, 0.7, 0.5, 0.5, 0.1), bools("+-+-+"))
    assert curve.far.tolist() == [0, 0, 0.5, 1, 1]
    assert curve.tar == pytest.approx([0, 1 / 3, 1 / 3, 2 / 3, 1])
    # Of 6 comparisons of a matched with a mismatched pair 2 are won and one is even.
    assert curve.auc == pytest.approx((2 + 0.5) / 6)
    assert curve.tar_at(0.0) == pytest.approx(1 / 3)
    assert curve.tar_at(0.99) == pytest.approx(1 / 3)


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=2, max_size=60))
def test_roc_is_scikit_learns(pairs: list[tuple[int, bool]]) -> None:
    scores, same = floats(*(score for score, _ in pairs)), np.array([truth for _, truth in pairs])
    if same.all() or not same.any():
        with pytest.raises(InvalidArgumentError, match="a ROC needs matched and mismatched pairs"):
            roc(scores, same)
        return
    curve = roc(scores, same)
    far, tar, _ = roc_curve(same, scores, drop_intermediate=False)
    assert curve.auc == pytest.approx(roc_auc_score(same, scores))
    assert curve.far == pytest.approx(far)
    assert curve.tar == pytest.approx(tar)


def test_one_fold_is_not_enough() -> None:
    with pytest.raises(InvalidArgumentError, match="two folds or more, got 1"):
        verify([floats(0.1, 0.9)], [bools("-+")])


def test_measure_is_all_of_it() -> None:
    angles = np.deg2rad([0, 1, 90, 91])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    fold = Fold.from_pairs([(0, 1, True), (2, 3, True), (0, 2, False), (1, 3, False)])
    found, curve = evaluate_pairs(vectors, [fold, fold])
    assert (found.accuracy, found.standard_error, found.auc, curve.auc) == (1.0, 0.0, 1.0, 1.0)
