"""``lookalike evaluate attributes``: each figure's arithmetic, and a small sample of real faces."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lookalike.deploy.evaluation import (
    AttributeReport,
    ScoredImages,
    attribute_lines,
    evaluate_attributes,
    plot_trade_off,
    read_scored_images,
)
from lookalike.deploy.evaluation.attributes import (
    AttributeClassifier,
    AttributeResult,
    AttributeSearchResult,
    EditResult,
    Shift,
    pixel_features,
    search_share,
    undo_error,
)
from lookalike.encoder.bundle import Attributes
from lookalike.encoder.datasets import LFW
from lookalike.encoder.errors import DataError, InvalidArgumentError
from lookalike.encoder.runtime import Model
from lookalike.trainer.fitting import Examples
from tests.encoder.bundle.test_attributes import hand_made
from tests.fixtures.command import lookalike

pytest.importorskip("skimage")


def test_hits_count_by_label_where_there_is_one() -> None:
    has = np.array([1.0, -1.0, np.nan, np.nan, 0.0])
    read = np.array([-9, 9, 9, -9, 9], np.float32)
    assert search_share(np.array([[0, 1], [2, 3]]), has, read) == (0.5, 0.5)
    assert search_share(np.array([[0, 2], [4, 3]]), has, read) == (0.75, 1.0)
    assert search_share(np.array([[2, 3]]), has, read) == (0.5, None)


def test_an_edit_is_undone_by_its_opposite() -> None:
    attributes = hand_made(embedding=4)
    size = len(attributes.each[0].edit_direction)
    latents = np.random.default_rng(0).normal(size=(9, size)).astype(np.float32)
    assert undo_error(attributes, latents, 5) < 1e-5
    assert undo_error(attributes, latents, 0) == 0


def test_what_a_judge_sees() -> None:
    half = np.zeros((2, 32, 32, 3), np.uint8)
    half[1, :, 16:] = 255
    seen = pixel_features(half)
    assert seen.shape == (2, 7 * 7 * 4 * 9 + 16 * 16)
    assert not seen[0].any()  # black, and no edge
    assert np.linalg.norm(seen[1, :-256]) == pytest.approx(3, abs=0.01)
    small = seen[1, -256:].reshape(16, 16)
    assert small[:, :8].max() == 0
    assert small[:, 8:] == pytest.approx(254 / 255, abs=0.005)


def test_a_judge_tells_people_it_was_not_fitted_to() -> None:
    rng = np.random.default_rng(0)
    has = rng.random(400) < 0.5
    pixels = rng.integers(0, 90, (400, 16, 16, 1), np.uint8)
    pixels[has, 4:8] += 100
    scores = np.where(has, 1.0, -1.0)
    examples = Examples(
        np.zeros((400, 1), np.float32),
        np.zeros((400, 1), np.float32),
        {"A": scores, "B": np.where(rng.random(400) < 0.5, 1.0, -1.0)},
        [f"p{row // 2}" for row in range(400)],
        np.arange(400) % 4 < 2,
        np.zeros((400, 0)),
    )
    seen = pixel_features(pixels)
    judges = AttributeClassifier.fit_all(["A", "B"], seen, examples)
    assert judges["A"].auc > 0.99
    assert judges["A"].accuracy > 0.95
    assert 0.3 < judges["B"].auc < 0.7  # nothing is there to be told
    assert judges["A"].tested == 200
    told = judges["A"](seen)
    assert judges["A"].deviation == pytest.approx(told[~examples.tested].std())
    assert ((told > 0) == has).mean() > 0.95


def made_up() -> AttributeReport:
    edits = (
        EditResult(-2.0, 10, 0.5, 1.0, {"A": Shift(-0.25, 0.1), "B": Shift(0.125, -0.2)}),
        EditResult(2.0, 1000, 0.25, 0.75, {}),
    )
    searches = (
        AttributeSearchResult(0.0, 10, 0.1, None, 0.5, 0.25),
        AttributeSearchResult(2.0, 10, 0.2, 0.3, 1 / 3, 0.25),
    )
    return AttributeReport("m", 1234, (AttributeResult("Hat", 0.9, 50, 0.8, 0.75, edits, searches),), 2e-7)


def test_lines_and_json() -> None:
    lines = attribute_lines(made_up()).splitlines()
    assert lines[0] == (
        "Hat: read with AUC 0.900 on 50 held-out images; the independent classifier has AUC 0.800 "
        "and is right on 75.0%"
    )
    assert lines[2].split() == ["-2", "10", "50.0%", "100.0%", "A", "-0.25", "sd;", "B", "-0.20", "sd"]
    assert lines[3].split() == ["+2", "1,000", "25.0%", "75.0%", "-"]
    assert lines[5].split() == ["plain", "10", "10.0%", "-", "0.500", "25.0%"]
    assert lines[6].split() == ["+2", "10", "20.0%", "30.0%", "0.333", "25.0%"]
    assert "2.0e-07" in lines[-1]
    told = json.loads(json.dumps(made_up().to_json()))
    assert told["undone"] == 2e-7
    assert told["each"][0]["searches"][1]["likeness"] == 0.3333
    assert told["each"][0]["edits"][0]["others"]["A"] == {"judged": -0.25, "read": 0.1}


def test_the_trade_off_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot_trade_off(tmp_path / "curve.png", [("Hat $", [(1, 0.1, 1), (2, 0.9, 0.8)]), ("off", [(1, 0, 1)])])
    with Image.open(tmp_path / "curve.png") as drawn:
        assert drawn.width > drawn.height > 400


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--curve", "curve.txt"), "an image is written as .png"),
        (("--faces", "0"), "0 is not in the range"),
        (("--strength", "0"), "0 is not in the range"),
    ],
)
def test_options_that_cannot_be_are_refused(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = lookalike("evaluate", "attributes", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())


def part_of(scored: ScoredImages, rows: list[int]) -> ScoredImages:
    images = scored.images
    few = replace(
        images,
        files=tuple(images.files[row] for row in rows),
        paths=tuple(images.paths[row] for row in rows),
        people=tuple(images.people[row] for row in rows),
    )
    return ScoredImages(few, {name: each[rows] for name, each in scored.scores.items()}, scored.tested[rows])


@pytest.mark.slow
@pytest.mark.lfw
def test_a_smile_appears_on_faces_of_lfw(lfw: LFW) -> None:
    assert lfw.images()
    scored = read_scored_images("lfw", None)
    known = np.flatnonzero(np.isfinite(scored.scores["Smiling"]) & np.isfinite(scored.scores["Male"]))
    rng = np.random.default_rng(0)
    rows = [
        row
        for side in (True, False)
        for row in rng.permutation(known[scored.tested[known] == side])[:250].tolist()
    ]
    few = part_of(scored, rows)
    model = Model.open("faces", threads=1)
    found = evaluate_attributes(model, few, strengths=(4, 1), faces=12)
    assert found == evaluate_attributes(model, few, strengths=(4, 1), faces=12)
    smile = next(one for one in found.each if one.name == "Smiling")
    assert (found.pictures, smile.tested, found.failures) == (500, 250, ())
    assert smile.auc > 0.98
    assert smile.judge_auc > 0.95
    weak, strong = (next(one for one in smile.edits if one.strength == by) for by in (1, 4))
    assert strong.faces == 12
    assert strong.success > max(weak.success, 0.7)
    assert strong.kept > 0.9
    assert set(strong.others) == {"Male"}
    assert [one.strength for one in smile.searches] == [0, 1, 4]
    assert smile.searches[2].share > smile.searches[0].share
    assert smile.searches[2].likeness < smile.searches[0].likeness
    assert found.undone < 1e-5
    with pytest.raises(InvalidArgumentError, match="strengths must be finite and over 0"):
        evaluate_attributes(model, few, strengths=(-1,))
    with pytest.raises(DataError, match="for none of Male, Smiling"):
        evaluate_attributes(model, part_of(scored, rows[:250]))
    assert isinstance(model.bundle.attributes, Attributes)
