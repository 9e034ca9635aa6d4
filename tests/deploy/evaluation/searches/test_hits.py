"""Probabilities that are right are found right, and wrong ones wrong; the plot is drawn."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lookalike.deploy.evaluation import measure_searches, plot_searches, reliability_table
from lookalike.encoder.errors import CalibrationError
from lookalike.trainer.fitting import draw_searches, fit_search_calibration
from tests.trainer.fitting.test_calibration import crowd


def test_a_fit_is_found_right_on_other_people_and_one_that_is_off_is_not(tmp_path: Path) -> None:
    rows, people = crowd(400, 4, spread=0.8)
    asking = np.arange(1600) < 800
    fitted = fit_search_calibration(
        draw_searches(rows[~asking], people[800:], rows[asking], sizes=[100, 1000])
    )
    measured = measure_searches(fitted, rows, people, queries=asking)
    assert [(row.size, row.person) for row in measured] == [
        (size, person) for size in (100, 1000, 1599) for person in ("there", "not there", "even odds")
    ] + [(1599, "as it is")]
    even = [row for row in measured if row.person == "even odds"]
    assert max(row.first_error for row in even) < 0.06
    assert max(row.hit_error for row in even) < 0.03
    wrong = measure_searches(replace(fitted, intercept=fitted.intercept - 4), rows, people, queries=asking)
    for good, bad in zip(even, (row for row in wrong if row.person == "even odds"), strict=True):
        assert bad.first_error > good.first_error + 0.1
        assert bad.recall is not None
        assert good.recall is not None
        assert bad.recall < good.recall
    assert all(row.recall is None for row in measured if row.person == "not there")
    assert measured[-1].searches == 800
    table = reliability_table({"faces": measured, "other": wrong})
    assert len(table.splitlines()) == 1 + 2 * len(measured)
    plot_searches(tmp_path / "plot.png", {"a $ name": measured, "other": wrong})
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.size > (1000, 800)


def test_too_few_images_are_said() -> None:
    rows, people = crowd(4, 4)
    fitted = fit_search_calibration(draw_searches(*crowd(40, 4)))
    with pytest.raises(CalibrationError, match="needs 21 images to search, there are 16"):
        measure_searches(fitted, rows, people, queries=np.ones(16, np.bool_))
