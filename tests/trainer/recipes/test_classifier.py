"""The classifier: trained, cached, found again, and the same each time it is trained."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lookalike.deploy.evaluation.generation import class_accuracy, classify
from lookalike.encoder.datasets import cache_folder
from lookalike.encoder.errors import DataError, InvalidArgumentError
from lookalike.encoder.runtime import Model
from lookalike.trainer.config import TrainingSpec
from lookalike.trainer.models import Classifier, ClassifierSpec
from lookalike.trainer.recipes import cached_classifier
from lookalike.trainer.recipes.classifier import train_classifier
from tests.fixtures import exports

exported_once = exports.exported_once
CLASSES = ("high", "middle", "low")
SPEC = ClassifierSpec(
    widths=(4, 6, 8, 8, 8),
    features=12,
    shift=1,
    training=TrainingSpec(epochs=8, batch=32, learning_rate=5e-3, averaging=0.9, shift=0),
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """So small networks are as fast with one, and leave the other cores alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def bars(count: int, *, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Noise with a bar that is high, in the middle or low, uint8 (N, 12, 12, 1), and which."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    images = rng.integers(0, 80, (count, 12, 12, 1), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[1 + 4 * label : 3 + 4 * label, 2:10] = 230
    return images, labels


@pytest.mark.slow
@pytest.mark.trains
def test_classifier_is_trained_cached_and_found_again() -> None:
    images, labels = bars(192)
    lines: list[str] = []
    bundle = cached_classifier(images, labels, CLASSES, SPEC, log=lines.append)
    assert len(lines) == 8
    assert bundle.folder.is_relative_to(cache_folder() / "classifiers")
    assert [*bundle.folder.parent.glob("*.run/checkpoint.pt")] == []
    assert (bundle.spec.classes, bundle.spec.latent, bundle.spec.embedding) == (CLASSES, 15, 12)
    judge = Model(bundle)
    other, known = bars(90, seed=1)
    seen = classify(judge, other)
    assert seen.features.shape == (90, 12)
    np.testing.assert_allclose(np.linalg.norm(judge.embed(other), axis=1), 1, rtol=1e-4)
    # The worst of 20 seeds has 0.989 and 1.
    assert class_accuracy(known, seen.classes, CLASSES).overall > 0.9
    assert bundle.spec.figures["validation_accuracy"] > 0.9

    again = cached_classifier(images, labels.astype(np.uint8), CLASSES, SPEC, log=lines.append)
    assert again.model_id == bundle.model_id
    assert len(lines) == 8  # nothing was trained
    (bundle.folder / "encoder.onnx").write_bytes(b"broken")
    mended = cached_classifier(images, labels, CLASSES, SPEC, log=lines.append)
    assert len(lines) == 16
    assert mended.model_id == bundle.model_id  # a seeded training comes to the same


@pytest.mark.slow
@pytest.mark.trains
def test_a_killed_training_goes_on(tmp_path: Path) -> None:
    images, labels = bars(120)

    def stop(line: str) -> None:
        if "epoch 8/" in line:
            raise KeyboardInterrupt

    whole = train_classifier(tmp_path / "whole", images, labels, CLASSES, SPEC)
    with pytest.raises(KeyboardInterrupt):
        train_classifier(tmp_path / "cut", images, labels, CLASSES, SPEC, log=stop)
    assert not (tmp_path / "cut").exists()
    lines: list[str] = []
    assert train_classifier(tmp_path / "cut", images, labels, CLASSES, SPEC, log=lines.append).model_id == (
        whole.model_id
    )
    assert len(lines) < 8


def test_the_network_gives_features_and_logits() -> None:
    torch.manual_seed(0)
    network = Classifier(ClassifierSpec(), size=28, channels=1, classes=10).eval()
    made = network(torch.zeros(2, 1, 28, 28))
    assert made.shape == (2, 138)
    assert (made[:, :128] >= 0).all()


def test_what_cannot_be_judged_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = bars(23)
    with pytest.raises(InvalidArgumentError, match="24 images or more, got 3 and 23"):
        train_classifier(tmp_path / "few", images, labels, CLASSES, SPEC)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match="choose one in LOOKALIKE_CACHE"):
        cached_classifier(*bars(30), CLASSES, SPEC)
