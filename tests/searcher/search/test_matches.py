"""What decides on a match: searches have a calibration, pairs have one, old bundles have that of pairs."""

from pathlib import Path

import pytest

from lookalike.encoder.bundle import Bundle, Calibration, ScoreCalibration, SearchCalibration
from lookalike.encoder.errors import InvalidArgumentError
from lookalike.searcher.search.matches import MatchScorer

PAIRS = ScoreCalibration(
    curvature=0.0,
    slope=10.0,
    intercept=-2.0,
    thresholds={0.1: 0.5},
    matched=10_000,
    mismatched=10_000,
    people=9,
)
SEARCHES = SearchCalibration(slope=20.0, intercept=-2.0, searches=999)


@pytest.fixture
def bundle(tiny_model: Path, tmp_path: Path) -> Bundle:
    return Bundle.open(tiny_model).recalibrated(
        Calibration(scores=PAIRS, searches=SEARCHES), tmp_path / "calibrated"
    )


def test_a_search_and_a_pair_have_a_calibration_each(bundle: Bundle) -> None:
    search = MatchScorer.of_search(bundle, size=50, prior=None, fmr=None)
    pair = MatchScorer.of_pair(bundle, prior=None, fmr=None)
    assert search.probabilities([0.4]) == [pytest.approx(SEARCHES.probability(0.4, size=50))]
    assert pair.probabilities([0.4]) == [pytest.approx(PAIRS.probability(0.4, 0.5))]
    for scorer in (search, pair):  # more probable than not is a match, unless a threshold is asked for
        assert scorer.threshold is None
        assert scorer.is_match(0.4, 0.51) is True
        assert scorer.is_match(0.4, 0.49) is False
        assert scorer.is_match(0.9, 0.99, warned=True) is False
    for strict in (
        MatchScorer.of_search(bundle, size=50, prior=None, fmr=0.1),
        MatchScorer.of_pair(bundle, prior=None, fmr=0.1),
    ):
        assert (strict.is_match(0.49, 0.9), strict.is_match(0.51, 0.9)) == (False, True)


def test_a_bundle_of_an_earlier_version_is_judged_by_its_pairs(tiny_model: Path, tmp_path: Path) -> None:
    old = Bundle.open(tiny_model).recalibrated(Calibration(scores=PAIRS), tmp_path / "old")
    scorer = MatchScorer.of_search(old, size=50, prior=0.8, fmr=None)
    assert scorer.probabilities([0.4]) == [pytest.approx(PAIRS.probability(0.4, 0.8 / 50))]


def test_without_calibration_nothing_is_said(tiny_model: Path) -> None:
    plain = Bundle.open(tiny_model)
    scorer = MatchScorer.of_search(plain, size=50, prior=None, fmr=None)
    assert not scorer.is_calibrated
    assert scorer.probabilities([0.4, 0.5]) == [None, None]
    assert scorer.is_match(0.9, None) is None
    for prior, fmr in ((0.5, None), (None, 0.1)):
        with pytest.raises(InvalidArgumentError, match="need a calibrated model"):
            MatchScorer.of_pair(plain, prior=prior, fmr=fmr)
        with pytest.raises(InvalidArgumentError, match="need a calibrated model"):
            MatchScorer.of_search(plain, size=5, prior=prior, fmr=fmr)
