"""Recall of noisy queries, as they are and denoised."""

import json
from pathlib import Path

import numpy as np
import pytest

from lookalike.deploy.evaluation import InputNoise, open_labeled
from lookalike.encoder.datasets import LFW
from lookalike.encoder.images import read_pixels
from lookalike.encoder.runtime import Denoiser, Model
from lookalike.searcher.search import QueryDenoiser
from tests.benchmarks.noisy_queries import noisy_recall, recall_lines
from tests.fixtures.handmade_models import make_denoiser
from tests.fixtures.people import write_people

NOISES = (InputNoise("white", 50 / 255), InputNoise("camera", 10), InputNoise("white", 200 / 255))


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> QueryDenoiser:
    """A denoiser that blends with a box of 7 x 7 pixels."""
    return QueryDenoiser(Denoiser.open(make_denoiser(tmp_path_factory.mktemp("denoiser") / "box").folder))


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("data") / "people", people=12, each=4)


def test_recall_is_of_noisy_queries_as_they_are_and_cleaned(
    people: Path, tiny_model: Path, denoiser: QueryDenoiser
) -> None:
    images = open_labeled(str(people))
    held = frozenset(f"person-{number}" for number in range(6))
    rows = noisy_recall(Model.open(tiny_model), images, held, denoiser=denoiser, noises=NOISES, count=20)
    assert [(row.noise, row.denoiser) for row in rows] == [
        (noise, name) for noise in (None, *NOISES) for name in (None, "box")
    ]
    assert {row.queries for row in rows} == {20}
    assert {row.others for row in rows} == {47}
    clean, _, noisy, _, camera, _, noisiest, cleaned = rows
    assert camera.recall_at_1 <= clean.recall_at_1
    assert clean.recall_at_1 > noisiest.recall_at_1
    assert noisy.unchanged is None
    assert cleaned.unchanged == 0
    if cleaned.regained is not None:
        taken = clean.recall_at_1 - noisiest.recall_at_1
        given = cleaned.recall_at_1 - noisiest.recall_at_1
        assert cleaned.regained == pytest.approx(given / taken)
    values = json.loads(json.dumps([row.to_json() for row in rows]))
    assert [(each["noise"], each["sigma"], each["photons"]) for each in values[::2]] == [
        ("none", None, None), ("white", 50, None), ("camera", None, 10), ("white", 200, None),
    ]  # fmt: skip
    lines = recall_lines(rows).splitlines()
    assert [line.split("  ")[0].strip() for line in lines[2::2]] == [
        "none", "sigma 50", "camera noise of 10 photons", "sigma 200",
    ]  # fmt: skip


def test_clean_queries_are_those_of_a_search(people: Path, tiny_model: Path) -> None:
    images = open_labeled(str(people))
    held = frozenset(map(str, images.people))
    (row,) = noisy_recall(Model.open(tiny_model), images, held, denoiser=None, noises=(), count=1000)
    assert row.queries == 48
    rows = Model.open(tiny_model).embed(
        np.stack(
            [
                read_pixels(f.read_bytes(), Model.open(tiny_model).bundle.spec.image, name="a")
                for f in images.files
            ]
        )
    )
    likeness = rows @ rows.T
    np.fill_diagonal(likeness, -2)
    right = [
        images.people[int(best)] == images.people[index] for index, best in enumerate(likeness.argmax(1))
    ]
    assert row.recall_at_1 == pytest.approx(np.mean(right))


@pytest.mark.lfw
@pytest.mark.slow
def test_noise_costs_recall_on_lfw(lfw: LFW, denoiser: QueryDenoiser) -> None:
    images = open_labeled("lfw")
    rows = noisy_recall(
        Model.open("faces"), images, lfw.held_out_people(), denoiser=None, noises=NOISES[:1], count=200
    )
    assert rows[0].recall_at_1 > rows[1].recall_at_1
