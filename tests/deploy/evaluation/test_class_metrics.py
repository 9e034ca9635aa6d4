"""What a judge sees, on tables worked out by hand."""

import numpy as np
import pytest

from lookalike.deploy.evaluation.generation import class_accuracy, classify, diversity
from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.runtime import Model

CLASSES = ("4", "7", "9")


def test_agreement_worked_out_by_hand() -> None:
    asked = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2, 2])
    seen = np.array([0, 2, 2, 0, 1, 1, 2, 0, 2, 2])
    found = class_accuracy(asked, seen, CLASSES)
    assert (found.count, found.overall) == (10, 0.7)
    assert found.by_class == {"4": 0.5, "7": 1.0, "9": 0.75}
    assert found.worst == "4"
    assert found.mistakes_line() == "4 seen as 9: 2, 9 seen as 4: 1"
    assert found.to_json()["mistakes"] == [["4", "9", 2], ["9", "4", 1]]
    assert class_accuracy(asked, asked, CLASSES).mistakes_line() == "no mistakes"
    assert class_accuracy(asked[:4], seen[:4], CLASSES).by_class == {"4": 0.5}
    with pytest.raises(InvalidArgumentError, match="at least one image"):
        class_accuracy(asked[:0], seen[:0], CLASSES)


def test_diversity_is_a_ratio_of_mean_distances() -> None:
    real = np.array([[0.0], [2], [10], [16]], np.float32)  # 2 apart, and 6
    drawn = np.array([[5.0], [6], [7], [9]], np.float32)  # 1 apart, and 2
    labels = np.array([0, 0, 1, 1])
    found = diversity("features", (drawn, labels), (real, labels), CLASSES)
    assert found.by_class == pytest.approx({"4": 1 / 2, "7": 1 / 3})
    assert found.mean == pytest.approx(5 / 12)
    assert found.lowest_class == "7"
    assert found.lowest == pytest.approx(1 / 3)
    same = diversity("pixels", (np.ones((4, 1), np.float32), labels), (real, labels), CLASSES)
    assert same.mean == 0
    with pytest.raises(InvalidArgumentError, match="two images or more"):
        diversity("pixels", (drawn[:1], labels[:1]), (real, labels), CLASSES)


def test_a_model_that_is_no_judge_is_refused(tiny_model: str) -> None:
    with pytest.raises(InvalidArgumentError, match="tiny does not"):
        classify(Model.open(tiny_model), np.zeros((1, 16, 16, 3), np.uint8))
