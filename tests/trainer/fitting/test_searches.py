"""Galleries hold what is asked for, and the fit gives back the probabilities that scores were drawn by."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from lookalike.encoder.bundle import presence_odds
from lookalike.encoder.errors import CalibrationError
from lookalike.trainer.fitting import (
    HITS,
    Mates,
    Searches,
    draw_searches,
    fit_calibration,
    fit_search_calibration,
)
from tests.trainer.fitting.test_calibration import crowd


def searches(scores: NDArray[np.float64], right: NDArray[np.bool_], size: float) -> Searches:
    count = len(scores)
    present = np.array(right.any(axis=1), np.bool_)
    sizes, weights = np.full(count, size), np.full(count, 1 / count)
    return Searches(scores, right, sizes, np.full(count, int(size)), present, weights, count)


@pytest.mark.parametrize("size", [50, 3000])
def test_the_fit_gives_back_known_odds(size: int) -> None:
    rng = np.random.default_rng(0)
    scores = np.sort(rng.uniform(0, 0.8, (20_000, HITS)), axis=1)[:, ::-1]
    odds = 20 * scores - 3 - np.log(size)
    right = rng.random(scores.shape) < 1 / (1 + np.exp(-odds))
    fitted = fit_search_calibration(searches(scores, right, size))
    assert fitted.slope == pytest.approx(20, rel=0.05)
    assert fitted.intercept == pytest.approx(-3 - presence_odds(0.5), abs=0.25)
    assert fitted.decline == 1


def test_the_fit_gives_back_how_fast_odds_fall_with_the_size() -> None:
    rng = np.random.default_rng(0)
    scores = np.sort(rng.uniform(0, 0.8, (30_000, HITS)), axis=1)[:, ::-1]
    sizes = rng.choice([50.0, 3000.0], 30_000)
    odds = 20 * scores - 3 - 0.8 * np.log(sizes)[:, None]
    right = rng.random(scores.shape) < 1 / (1 + np.exp(-odds))
    mixed = replace(searches(scores, right, 50), sizes=sizes, wanted=sizes.astype(np.int64))
    fitted = fit_search_calibration(mixed)
    assert fitted.decline == pytest.approx(0.8, abs=0.03)
    assert fitted.slope == pytest.approx(20, rel=0.05)


@pytest.mark.parametrize(("mates", "there"), [("none", 0), ("one", 1), ("all", 4), ("every", 4)])
def test_a_gallery_holds_as_many_images_of_the_person_as_asked(mates: Mates, there: int) -> None:
    rows, people = crowd(30, 5, spread=0.01)
    drawn = draw_searches(rows, people, sizes=[40], mates=[mates])
    assert (drawn.right.sum(axis=1) == there).all()  # so alike that all are among the first ten
    assert drawn.right[:, :there].all()
    assert (drawn.sizes == 40).all()
    assert (drawn.present == (there > 0)).all()
    assert len(drawn.scores) == drawn.queries == 150
    assert (np.diff(drawn.scores, axis=1) <= 0).all()


def test_a_person_of_one_image_is_searched_for_in_vain_only() -> None:
    rows, people = crowd(30, 2)
    names = [f"person {place}" for place in range(60)]
    alone = draw_searches(rows, names, sizes=[30])
    assert not alone.right.any()
    assert alone.queries == 0
    with pytest.raises(CalibrationError, match="searches with right and wrong hits; give more people"):
        fit_search_calibration(alone)
    some = draw_searches(rows, people[:20] + names[20:], sizes=[30])
    assert some.queries == 20
    assert some.weights[some.present].sum() == pytest.approx(some.weights[~some.present].sum())


def test_others_fill_galleries_and_never_ask() -> None:
    rows, people = crowd(12, 3)
    strangers, _ = crowd(40, 3, seed=1)
    drawn = draw_searches(rows, people, strangers, sizes=[100])
    assert (drawn.sizes == 100).all()
    assert drawn.queries == 36
    with pytest.raises(CalibrationError, match="needs 21 images to search, there are 12; give more"):
        draw_searches(rows[:12], people[:12])


def test_many_images_of_one_person_ask_ten_times_and_nothing_asks_without_direction() -> None:
    rows, people = crowd(30, 5)
    rows[0], rows[1] = 0, np.nan
    one = draw_searches(rows, ["x"] * 50 + people[50:], sizes=[60], mates=["none"])
    assert len(one.scores) == 10 + 100
    only = np.zeros(150, np.bool_)
    only[:10] = True
    assert len(draw_searches(rows, people, sizes=[60], mates=["none"], queries=only).scores) == 8
    every = draw_searches(rows, ["x"] * 50 + people[50:], sizes=[60], mates=["every"], most=None)
    assert len(every.scores) == 148


def test_the_same_seed_draws_the_same_and_the_fit_is_of_unseen_use() -> None:
    rows, people = crowd(60, 4)
    first, again, other = (draw_searches(rows, people, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.scores, again.scores)
    assert not np.array_equal(first.scores, other.scores)
    fitted = fit_calibration(rows, people).searches
    assert fitted is not None
    assert fitted == fit_search_calibration(first)
    near, far = fitted.probability([0.95, 0.2], size=200)
    assert near > 0.5 > far


def test_a_model_that_does_not_tell_people_apart_is_refused() -> None:
    rng = np.random.default_rng(0)
    scores = np.sort(rng.uniform(0, 0.5, (500, HITS)), axis=1)[:, ::-1]
    right = np.zeros(scores.shape, np.bool_)
    right[:, -1] = True  # the worst hit is the right one
    with pytest.raises(CalibrationError, match="right hits must score higher than wrong ones"):
        fit_search_calibration(searches(scores, right, 100))
