"""Bundles: their figures are true, and nothing in them was fitted to held-out images.

Legend: N images, S side, C channels, P values of an image, D latent size.
"""

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from lookalike.encoder.bundle import AffineMap, Bundle, LatentStatistics
from lookalike.encoder.detect import LFW_FRAME
from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.images import ImageSpec
from lookalike.encoder.metrics import psnr_from_mse
from lookalike.encoder.runtime import Model
from lookalike.trainer.config import AESpec
from lookalike.trainer.data import Split, to_floats
from lookalike.trainer.models import AE, Descriptor, DescriptorSpec, FaceModel
from lookalike.trainer.publish.ae import (
    AEMetrics,
    export_bundle,
    pca_psnr,
    reconstruction_psnr,
    reconstruction_sheet,
    with_mirrored,
)
from tests.fixtures import exports
from tests.fixtures.people import SIDE, portraits

exported_once = exports.exported_once
IMAGES = portraits(12, 10)
PEOPLE = [f"person-{index // 10}" for index in range(120)]
SPLIT = Split(np.arange(80), np.arange(80, 90), np.arange(90, 120))
LATENT = 4


@dataclass(frozen=True)
class Made:
    """One bundle and the network that it was made of."""

    network: AE
    bundle: Bundle
    figures: AEMetrics


def network() -> AE:
    spec = AESpec(size=SIDE, channels=3, latent=LATENT, hidden=(16,))
    return AE.from_pca(spec, with_mirrored(IMAGES, SPLIT.train))


def publish(folder: Path, images: NDArray[np.uint8], **changes: Any) -> Made:
    made = network()
    options: dict[str, Any] = {
        "image": ImageSpec(size=SIDE),
        "images": images,
        "people": PEOPLE,
        "split": SPLIT,
        "training": {"data": "portraits"},
        "pca": pca_psnr(images, SPLIT, LATENT),
    }
    return Made(made, *export_bundle(FaceModel(made), folder, **(options | changes)))


def decibels(images: NDArray[np.uint8], back: NDArray[np.floating[Any]]) -> float:
    """PSNR of the mean squared error in float64, apart from the module under test."""
    apart = images.astype(np.float64) / 255 - np.clip(back.astype(np.float64), 0, 1)
    return float(-10 * np.log10(np.mean(apart**2)))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return publish(tmp_path_factory.mktemp("published") / "model", IMAGES, frame=LFW_FRAME)


def test_recorded_held_out_psnr_is_what_the_bundle_measures(made: Made) -> None:
    held_out = IMAGES[SPLIT.held_out]
    measured = decibels(held_out, Model.open(made.bundle.folder).reconstruct(held_out))
    assert made.bundle.spec.figures["held_out_psnr_db"] == pytest.approx(measured, abs=0.02)
    assert made.figures.held_out_psnr == pytest.approx(measured, abs=0.01)


def test_the_frame_of_faces_is_saved(made: Made) -> None:
    assert Bundle.open(made.bundle.folder).face_frame == LFW_FRAME


def test_recorded_recall_is_that_of_the_bundles_embeddings(made: Made) -> None:
    rows = Model.open(made.bundle.folder).embed(IMAGES)
    likeness = rows @ rows.T
    np.fill_diagonal(likeness, -2)
    right = [PEOPLE[likeness[row].argmax()] == PEOPLE[row] for row in SPLIT.held_out]
    assert made.figures.recall_at_1 == pytest.approx(np.mean(right), abs=0.04)  # one query in thirty


@pytest.mark.slow
@pytest.mark.trains
def test_search_compares_by_the_descriptor_and_pictures_are_drawn_of_the_appearance(tmp_path: Path) -> None:
    spec = DescriptorSpec(size=SIDE, dim=12, filters=4, patch=5)
    plain = network()
    joined = FaceModel(plain, Descriptor.fit(spec, IMAGES, SPLIT.train))
    bundle, figures = export_bundle(
        joined,
        tmp_path / "model",
        image=ImageSpec(size=SIDE),
        images=IMAGES,
        people=PEOPLE,
        split=SPLIT,
        training={},
        pca=pca_psnr(IMAGES, SPLIT, LATENT),
    )
    assert (bundle.spec.latent, bundle.spec.embedding) == (LATENT + 12, 12)
    assert figures.recall_at_1 is not None
    assert figures.recall_at_1 > 0.35  # by chance 9 of 119; the worst of 20 seeds has 0.567
    model = Model.open(bundle.folder)
    latents = model.encode(IMAGES[:6])
    with torch.no_grad():
        expected = joined.encoder(to_floats(IMAGES[:6])).numpy()
    np.testing.assert_allclose(latents, expected, atol=1e-3)
    other = latents.copy()
    other[:, LATENT:] += 1
    np.testing.assert_array_equal(model.decode(other), model.decode(latents))
    mirrored = (latents + model.encode(np.ascontiguousarray(IMAGES[:6, :, ::-1]))) / 2
    unit = mirrored[:, LATENT:] - bundle.statistics.mean[LATENT:]
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    np.testing.assert_allclose(model.embed(IMAGES[:6]), unit, atol=1e-4)


def test_what_is_usual_and_likeness_are_fitted_to_validation_people(made: Made, tmp_path: Path) -> None:
    calibration = made.bundle.calibration
    assert calibration is not None
    assert calibration.reconstruction_errors is not None
    assert calibration.reconstruction_errors.images == len(SPLIT.validation)
    assert calibration.scores is None  # one validation person is too few
    changed = IMAGES.copy()
    changed[SPLIT.held_out] = 255 - changed[SPLIT.held_out]
    again = publish(tmp_path / "model", changed)
    assert again.bundle.calibration is not None
    assert again.bundle.calibration.reconstruction_errors == calibration.reconstruction_errors


def test_recorded_pca_psnr_is_that_of_an_independent_pca(made: Made) -> None:
    train = IMAGES[SPLIT.train] / 255
    flat = np.concatenate([train, train[:, :, ::-1]]).reshape(160, -1)
    axes = np.linalg.svd(flat - flat.mean(0), full_matrices=False)[2][:LATENT]
    held_out = IMAGES[SPLIT.held_out].reshape(30, -1) / 255
    back = (held_out - flat.mean(0)) @ axes.T @ axes + flat.mean(0)
    expected = decibels(IMAGES[SPLIT.held_out].reshape(30, -1), back)
    assert made.bundle.spec.figures["pca_psnr_db"] == pytest.approx(expected, abs=0.006)
    assert pca_psnr(IMAGES, SPLIT, LATENT) == pytest.approx(expected, abs=1e-3)


def test_statistics_and_map_are_those_of_the_training_images(made: Made) -> None:
    latents = Model.open(made.bundle.folder).encode(IMAGES[SPLIT.train])
    statistics = LatentStatistics.from_latents(latents)
    np.testing.assert_allclose(made.bundle.statistics.mean, statistics.mean, atol=1e-4)
    np.testing.assert_allclose(made.bundle.statistics.covariance, statistics.covariance, atol=1e-3)
    mapped = made.bundle.affine.matrix @ statistics.covariance @ made.bundle.affine.matrix.T
    np.testing.assert_allclose(mapped, np.eye(LATENT), atol=1e-3)
    expected = AffineMap.whitening(made.bundle.statistics)
    np.testing.assert_array_equal(made.bundle.affine.matrix, expected.matrix)


@pytest.mark.parametrize("part", ["held_out", "validation"])
def test_images_not_trained_on_change_nothing_but_figures(tmp_path: Path, made: Made, part: str) -> None:
    images = IMAGES.copy()
    rows = getattr(SPLIT, part)
    images[rows] = np.random.default_rng(0).integers(0, 256, images[rows].shape, dtype=np.uint8)
    other = publish(tmp_path / "model", images)
    assert other.bundle.manifest.digests == made.bundle.manifest.digests  # of graphs, statistics, map, golden
    before, after = made.bundle.spec.figures, other.bundle.spec.figures
    changed = {key for key in before if before[key] != after[key]}
    searched = {"held_out_recall_at_1"}  # among all images, these too
    assert changed <= searched | ({"held_out_psnr_db", "pca_psnr_db"} if part == "held_out" else set())


def test_stored_weights_are_those_that_were_measured(made: Made) -> None:
    # The network was rounded to what is stored before anything was measured on it.
    with torch.no_grad():
        back = made.network(to_floats(IMAGES[:8])).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(Model.open(made.bundle.folder).reconstruct(IMAGES[:8]), back, atol=1e-4)


def test_bundle_says_what_it_was_made_of(made: Made) -> None:
    spec = made.bundle.spec
    assert (spec.kind, spec.latent, spec.embedding, spec.mirror) == ("ae", LATENT, LATENT, True)
    assert spec.image == ImageSpec(size=SIDE)
    assert spec.training["data"] == "portraits"
    assert spec.training["torch"] == torch.__version__
    assert spec.figures["held_out_images"] == 30
    assert spec.figures["training_images"] == 80
    assert set(spec.figures["parity"]) == {"encoder", "decoder"}
    assert max(made.figures.parity.values()) < 1e-4


def test_latents_that_do_not_vary_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    images = np.full_like(IMAGES, 100)
    with pytest.raises(InvalidArgumentError, match="latents that vary"):
        publish(tmp_path / "model", images, pca=1.0)
    assert not (tmp_path / "model").exists()


def test_mirrored_too_has_every_image_and_its_mirror_image() -> None:
    both = with_mirrored(IMAGES, np.arange(3, 9))
    assert both.shape == (12, 3, SIDE, SIDE)
    assert torch.equal(both[:6], to_floats(IMAGES[3:9]))
    assert torch.equal(both[6:], to_floats(IMAGES[3:9, :, ::-1].copy()))


@pytest.mark.parametrize("most", [1, 5, 50, 119, 120, 1000])
def test_mirrored_too_is_bounded_and_evenly_chosen(most: int) -> None:
    values = IMAGES[0].size
    images = np.arange(60, dtype=np.uint8)[:, None, None, None] * np.ones((16, 16, 3), np.uint8)
    both = with_mirrored(images, np.arange(60), max_values=most * values)
    assert len(both) == min(120, max(2, most // 2 * 2))
    steps = (both[: len(both) // 2, 0, 0, 0] * 255).round().diff().tolist()
    assert not steps or max(steps) - min(steps) <= 1


def test_sheet_shows_originals_above_reconstructions() -> None:
    made = network()
    before = copy.deepcopy(made.state_dict())
    sheet = reconstruction_sheet(made, IMAGES, np.arange(4))
    assert sheet.dtype == np.uint8
    height, width, channels = sheet.shape
    assert channels == 3
    assert height > 2 * 96
    assert width > 4 * 96
    assert all(torch.equal(before[name], value) for name, value in made.state_dict().items())


def test_psnr_of_reconstructions_is_that_of_the_mean_error_clipped_to_the_range() -> None:
    class Brighter(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images + 0.1

    images = np.zeros((600, 2, 2, 3), np.uint8)
    images[::2] = 255  # brighter than white is white
    got = reconstruction_psnr(Brighter(), images, np.arange(600), device=torch.device("cpu"))
    assert got == pytest.approx(psnr_from_mse(0.1**2 / 2))
    assert (
        reconstruction_psnr(Brighter(), images, np.arange(0, 600, 2), device=torch.device("cpu")) == math.inf
    )
