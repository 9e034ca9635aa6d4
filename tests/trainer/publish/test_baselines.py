"""At the end of a training stands what a search finds without it, and a warning where that is more."""

import numpy as np
import pytest

from lookalike.encoder.bundle import Bundle
from lookalike.trainer.config import default_descriptor, default_epochs, default_texture
from lookalike.trainer.data import Split
from lookalike.trainer.publish.baselines import (
    Baseline,
    comparison_lines,
    measure_baselines,
    names_of,
    recall_at_1,
)

SPLIT = Split(train=np.arange(0, 24), validation=np.arange(24, 32), held_out=np.arange(32, 48))
_RNG = np.random.default_rng(0)
IMAGES = _RNG.integers(40, 200, (12, 16, 16, 3)).repeat(4, axis=0).astype(np.uint8)
IMAGES += _RNG.integers(0, 9, IMAGES.shape, np.uint8)  # a person is a pattern
PEOPLE = [f"person {index // 4}" for index in range(48)]


def test_pixels_local_patterns_and_the_shipped_model_are_measured() -> None:
    found = {each.name: each.recall_at_1 for each in measure_baselines(IMAGES, PEOPLE, SPLIT)}
    patterns, shipped = "LBP and HOG (whitened PCA)", "the shipped model faces, --crop full"
    assert list(found) == ["pixels (whitened PCA)", patterns, shipped]
    assert found["pixels (whitened PCA)"] > 0.5
    assert found[patterns] > 0.5
    assert 0 <= found["the shipped model faces, --crop full"] <= 1
    assert len(measure_baselines(IMAGES, PEOPLE, SPLIT, shipped=False)) == 2


def test_nothing_is_measured_where_nobody_is_there_twice() -> None:
    assert measure_baselines(IMAGES, [str(index) for index in range(48)], SPLIT) == []


def test_a_model_that_is_worse_is_told_of_with_the_way_out() -> None:
    others = [Baseline("pixels", 0.4, "do this"), Baseline("faces", 0.9, "use --model faces")]
    *rows, warning = comparison_lines(0.5, others)
    assert rows == ["  pixels: 40.0%", "  faces: 90.0%"]
    assert warning == "warning: for search this model is worse than faces (50.0% to 90.0%); use --model faces"
    assert len(comparison_lines(0.9, others)) == 2
    assert comparison_lines(0.1, []) == []


def test_recall_by_hand() -> None:
    vectors = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.1, 1], [1, 0.1]], np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    split = Split(train=np.array([0, 2]), validation=np.array([1]), held_out=np.array([3, 4]))
    # 3 lies at 2, of its name; 4 lies at 1, of another one.
    assert recall_at_1(lambda rows: vectors[rows], ["a", "b", "c", "c", "a"], split) == 0.5
    assert recall_at_1(lambda rows: vectors[rows], list("abcde"), split) is None


def test_classes_are_names_where_there_are_some() -> None:
    assert names_of(["a", "b"], (), ()) == ["a", "b"]
    assert names_of(["a", "b", "c"], ("x", "y"), (1, -1, 1)) == ["class 1", "b", "class 1"]


@pytest.mark.parametrize(
    ("images", "size"),
    [(3, (32, 32)), (300, (37, 37)), (1000, (125, 125)), (4000, (256, 500)), (13_233, (256, 1500))],
)
def test_few_images_have_few_dimensions(images: int, size: tuple[int, int]) -> None:
    assert default_descriptor(images) == size


@pytest.mark.parametrize(("images", "epochs"), [(3, 40), (300, 50), (600, 100), (900, 150), (60_000, 150)])
def test_few_images_have_few_epochs(images: int, epochs: int) -> None:
    assert default_epochs(images) == epochs


def test_many_images_have_no_texture_descriptor() -> None:
    assert [default_texture(images) for images in (3, 4000, 4001)] == [128, 128, 0]


def test_local_patterns_need_scikit_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    (pixels,) = measure_baselines(IMAGES, PEOPLE, SPLIT, shipped=False)
    assert pixels.name == "pixels (whitened PCA)"


def test_the_shipped_model_is_there() -> None:
    assert Bundle.open("faces").spec.image.channels == 3
