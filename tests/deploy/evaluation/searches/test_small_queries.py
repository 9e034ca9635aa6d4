"""Small queries: all pixels find what a search finds, few find less; what cannot be is refused."""

from pathlib import Path

import numpy as np
import pytest

from lookalike.deploy.evaluation import embed_images, measure_small_queries, open_labeled
from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.runtime import Model
from tests.fixtures.people import write_people


def test_few_pixels_find_less(tiny_model: Path, tmp_path: Path) -> None:
    images = open_labeled(str(write_people(tmp_path / "people", people=20, each=4)))
    model = Model.open(tiny_model)
    rows = embed_images(model, images).rows
    everyone = np.ones(len(images), np.bool_)
    full, half, least = measure_small_queries(model, images, rows, (16, 8, 1), queries=everyone)
    scores = rows @ rows.T
    np.fill_diagonal(scores, -1)
    people = np.array(images.people)
    assert full.recall_at_1 == pytest.approx((people[scores.argmax(axis=1)] == people).mean(), abs=0.03)
    assert full.queries == half.queries == 80
    assert full.recall_at_1 >= half.recall_at_1 > least.recall_at_1
    with pytest.raises(InvalidArgumentError, match="queries are reduced to 1 to 16 pixels, not to 17"):
        measure_small_queries(model, images, rows, (17,), queries=everyone)
    with pytest.raises(InvalidArgumentError, match="need people with two images or more, there are none"):
        measure_small_queries(model, images, rows, (8,), queries=~everyone)
