"""Recall and false matches of groups, by hand and against a slow count; groups by attribute and light."""

from pathlib import Path

import numpy as np
import pytest

from lookalike.deploy.evaluation import attribute_groups, brightness_groups, measure_groups, open_labeled
from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.images import encode_png
from lookalike.encoder.runtime import Model
from tests.trainer.fitting.test_calibration import crowd


def test_groups_by_hand() -> None:
    rows = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1], [-1, 0]], np.float32)
    people = ["a", "a", "b", "b", "c"]
    some, rest = np.array([1, 1, 1, 0, 0], np.bool_), np.array([0, 0, 0, 1, 1], np.bool_)
    first, second = measure_groups(
        rows, people, {"some": some, "rest": rest}, queries=np.ones(5, np.bool_), threshold=0.7
    )
    # Most similar: 0 to 1, 1 to 2 (0.96), 2 to 1, 3 to 2, 4 to 3.
    assert (first.images, first.queries) == (3, 3)
    assert first.recall_at_1 == pytest.approx(1 / 3)
    assert (second.images, second.queries, second.recall_at_1) == (2, 1, 1)
    # Of two people within "some": 0-2 (0.6), 1-2 (0.96), each seen from both ends.
    assert first.within == pytest.approx(2 / 4)
    assert second.within == 0
    # With all: those of a have three others each, that of b three: 1-2 and 2-1 of nine.
    assert first.with_all == pytest.approx(2 / 9)


def test_groups_as_a_slow_count_has_them() -> None:
    rows, people = crowd(60, 5)
    rng = np.random.default_rng(0)
    inside, queries = rng.random(300) < 0.5, rng.random(300) < 0.7
    (found,) = measure_groups(rows, people, {"x": inside}, queries=queries, threshold=0.4)
    scores = rows @ rows.T
    right, pairs, above = [], 0, 0
    for own in np.flatnonzero(inside & queries):
        others = [place for place in range(300) if place != own]
        right.append(people[max(others, key=lambda place: scores[own, place])] == people[own])
        strangers = [place for place in others if people[place] != people[own] and inside[place]]
        pairs += len(strangers)
        above += sum(scores[own, place] > 0.4 for place in strangers)
    assert found.recall_at_1 == pytest.approx(np.mean(right))
    assert found.within == pytest.approx(above / pairs)


def test_an_empty_group_and_an_unknown_attribute() -> None:
    rows, people = crowd(4, 2)
    (none,) = measure_groups(
        rows, people, {"x": np.zeros(8, np.bool_)}, queries=np.ones(8, np.bool_), threshold=0.5
    )
    assert (none.images, none.queries, none.recall_at_1, none.within) == (0, 0, None, 0)
    scores = {"Male": np.array([1.5, -0.2, np.nan])}
    groups = attribute_groups(scores, "Male")
    assert {name: chosen.tolist() for name, chosen in groups.items()} == {
        "Male": [True, False, False],
        "not Male": [False, True, False],
    }
    with pytest.raises(InvalidArgumentError, match="no attribute 'Hat' to compare groups by; there"):
        attribute_groups(scores, "Hat")


def test_light_makes_three_groups_and_leaves_out_what_cannot_be_read(
    tiny_model: Path, tmp_path: Path
) -> None:
    for number in range(9):
        (tmp_path / f"person {number}").mkdir()
        pixels = np.full((16, 16, 3), 20 * number + 20, np.uint8)
        (tmp_path / f"person {number}" / "1.png").write_bytes(encode_png(pixels))
    (tmp_path / "person 0" / "2.png").write_bytes(b"no image")
    images = open_labeled(str(tmp_path))
    groups = brightness_groups(Model.open(tiny_model), images)
    named = {
        name: [images.people[place] for place in np.flatnonzero(chosen)] for name, chosen in groups.items()
    }
    assert named == {
        "dark": [f"person {number}" for number in (0, 1, 2)],
        "middling": [f"person {number}" for number in (3, 4, 5)],
        "bright": [f"person {number}" for number in (6, 7, 8)],
    }
