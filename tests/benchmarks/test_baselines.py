"""Baselines: fitted to nobody who is held out, kept in the cache, and as good as they were measured to be."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from lookalike.deploy.evaluation import (
    LabeledImages,
    evaluate_pairs,
    lfw_folds,
    open_labeled,
    rank_all,
    temporary_collection,
)
from lookalike.deploy.evaluation.attributes import feature_pool, hog_features
from lookalike.encoder.errors import DataError
from lookalike.encoder.images import Crop, encode_png
from tests.benchmarks.baselines import BASELINES, Baseline, GrayImages, lbp_features, training_images
from tests.fixtures.people import portraits, write_people

HELD = frozenset({"person-0", "person-1", "person-2"})


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "baselines"


@pytest.fixture
def images(tmp_path: Path, cache: Path) -> LabeledImages:
    return open_labeled(str(write_people(tmp_path / "people", people=8, each=4)))


def gray_images(images: LabeledImages, steps: list[str] | None = None) -> GrayImages:
    @contextmanager
    def progress(what: str, total: int) -> Iterator[Callable[[int], object]]:
        if steps is not None:
            steps.append(what)
        yield lambda _: None

    return GrayImages(images, crop=Crop(), progress=progress)


@pytest.mark.parametrize("baseline", BASELINES, ids=lambda each: each.name)
def test_people_held_out_leave_no_trace(images: LabeledImages, tmp_path: Path, baseline: Baseline) -> None:
    training = training_images(images, HELD)
    assert training.tolist() == [person not in HELD for person in images.people]
    before = baseline.vectors(gray_images(images), training)
    assert before.present.all()
    assert np.linalg.norm(before.rows, axis=1) == pytest.approx(1, abs=1e-5)
    # Other faces in the held-out people's files: nobody else's vector may notice.
    write_people(tmp_path / "people", people=3, each=4, seed=99)
    after = baseline.vectors(gray_images(images), training)
    assert (after.rows[training] == before.rows[training]).all()
    assert not np.allclose(after.rows[~training], before.rows[~training])


def test_who_is_trained_on_makes_a_difference(images: LabeledImages) -> None:
    baseline = BASELINES[1]
    some = baseline.vectors(gray_images(images), training_images(images, HELD))
    others = baseline.vectors(gray_images(images), training_images(images, frozenset({"person-7"})))
    assert some.rows.shape != others.rows.shape or not np.allclose(some.rows, others.rows)


@pytest.mark.parametrize("baseline", BASELINES, ids=lambda each: each.name)
def test_the_second_time_nothing_is_decoded(images: LabeledImages, cache: Path, baseline: Baseline) -> None:
    training, steps, again = training_images(images, HELD), list[str](), list[str]()
    first = baseline.vectors(gray_images(images, steps), training)
    assert baseline.name in steps
    second = baseline.vectors(gray_images(images, again), training)
    assert again == []
    assert (second.rows == first.rows).all()
    (file,) = cache.iterdir()
    # What is damaged is made again, and a file that changed is another question.
    file.write_bytes(file.read_bytes()[:100])
    assert (baseline.vectors(gray_images(images, again), training).rows == first.rows).all()
    assert again == steps
    os.utime(images.files[0], (1, 1))
    baseline.vectors(gray_images(images), training)
    assert len(list(cache.iterdir())) == 2


def test_a_bad_picture_has_no_vector_also_from_the_cache(images: LabeledImages) -> None:
    images.files[5].write_bytes(b"no picture")
    for _ in range(2):
        found = BASELINES[1].vectors(gray_images(images), training_images(images, HELD))
        assert np.flatnonzero(~found.present).tolist() == [5]
        (line,) = found.failures
        assert str(images.files[5]) in line


def test_nobody_to_fit_to_and_nothing_to_read_are_said(images: LabeledImages) -> None:
    with pytest.raises(DataError, match="two or more images of them, people has 0; add people"):
        BASELINES[1].vectors(gray_images(images), np.zeros(len(images), np.bool_))
    gone = LabeledImages(
        "gone", tuple(Path("gone") / path for path in images.paths), images.paths, images.people
    )
    with pytest.raises(DataError, match="baselines need images that can be read, gone has none"):
        BASELINES[0].vectors(gray_images(gone), training_images(gone, HELD))


def test_pictures_all_alike_are_refused(tmp_path: Path, images: LabeledImages) -> None:
    for file in images.files:
        file.write_bytes(encode_png(portraits(1, 1)[0]))
    with pytest.raises(DataError, match="are all equal"):
        BASELINES[1].vectors(gray_images(images), training_images(images, HELD))


def test_local_features_have_unit_length_and_say_nothing_of_flat_pictures() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (3, 64, 64), np.uint8)
    for feature, size in ((lbp_features, 64 * 59), (hog_features, 7 * 7 * 4 * 9)):
        found = feature(pictures).astype(np.float64)
        assert found.shape == (3, size)
        assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-3)
    # A flat picture is one pattern but for its edge, and has no gradient.
    flat = np.full((1, 64, 64), 7, np.uint8)
    shares = lbp_features(flat).reshape(8, 8, 59)[1:-1, 1:-1]
    assert ((shares > 0).sum(axis=-1) == 1).all()
    assert not hog_features(flat).any()


@pytest.mark.slow
def test_processes_give_what_one_gives() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (300, 64, 64), np.uint8)
    with feature_pool(10_000) as extract_in_parts:
        parts = list(extract_in_parts(hog_features, pictures))
    assert (np.concatenate(parts) == hog_features(pictures)).all()


def test_pca_is_that_of_an_independent_decomposition(images: LabeledImages) -> None:
    training, gray = training_images(images, HELD), gray_images(images)
    found = BASELINES[1].vectors(gray, training).rows
    pixels = gray.read(64, 1.0).astype(np.float64) / 255
    straight, mirrored = (each.reshape(len(each), -1) for each in (pixels, pixels[:, :, ::-1]))
    center = straight[training].mean(0)
    _, spread, axes = np.linalg.svd(straight[training] - center, full_matrices=False)
    kept = spread > 1e-3 * spread[0]  # the last is rounding: M images have M - 1 axes
    rows = (straight + mirrored - 2 * center) @ axes[kept].T / spread[kept]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(found @ found.T, rows @ rows.T, atol=0.02)  # of float16


@pytest.mark.slow
@pytest.mark.lfw
def test_pca_is_as_good_as_it_was_measured_to_be(lfw: object) -> None:
    images = open_labeled("lfw")
    folds = lfw_folds(images)
    found = BASELINES[1].vectors(GrayImages(images), training_images(images, folds.held_out_people))
    held, _ = evaluate_pairs(found.rows, folds.held_out)
    assert held.accuracy == pytest.approx(0.719, abs=0.01)
    assert held.auc == pytest.approx(0.787, abs=0.01)
    with temporary_collection(found, images) as (store, name):
        ranking = rank_all(store, name, people=folds.held_out_people)
    assert ranking.metrics().recall_at_1 == pytest.approx(0.335, abs=0.01)
    assert ranking.metrics().queries == 4061
