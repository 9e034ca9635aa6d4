"""lookalike calibrate, and what a search makes of it: the model stays, answers say what scores are worth."""

import json
import re
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lookalike.deploy.evaluation import find_people
from lookalike.encoder.bundle import Bundle, SearchCalibration
from lookalike.encoder.bundle.storage import CALIBRATION
from lookalike.encoder.datasets import LFW
from lookalike.encoder.errors import DataError, InvalidArgumentError
from lookalike.encoder.images import encode_png
from lookalike.encoder.runtime import Model
from lookalike.indexer.open import open_store
from lookalike.searcher.figures import results_sheet
from lookalike.searcher.search import Searcher, format_probability
from tests.fixtures.command import lookalike, one_line
from tests.fixtures.people import SIDE, portraits, write_people
from tests.fixtures.tiny_models import save_again

PEOPLE, EACH = 24, 4


def strange_noise(model: Model) -> NDArray[np.uint8]:
    """Of many pictures of noise, uint8 (16, 16, 3), the one that is least like anybody."""
    noise = np.random.default_rng(0).choice(np.array([0, 255], np.uint8), (500, SIDE, SIDE, 3))
    scores = model.embed(noise) @ model.embed(portraits(PEOPLE, EACH)).T
    least: NDArray[np.uint8] = noise[scores.max(axis=1).argmin()]
    return least


@pytest.fixture(scope="module")
def home(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """people/ indexed with model/, which is calibrated on other people as calibrated/. Leave it as it is."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(tiny_model, home / "model")
    write_people(home / "people", people=PEOPLE, each=EACH)
    write_people(home / "others", people=PEOPLE, each=EACH, seed=1)
    (home / "noise.png").write_bytes(encode_png(strange_noise(Model.open(tiny_model))))
    words = "index people --collection people --model model --crop full"
    assert lookalike(*words.split(), cwd=home).returncode == 0
    words = "calibrate others --model model --out calibrated --crop full --reliability drawn.png"
    done = lookalike(*words.split(), cwd=home)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "image written: drawn.png\n"
    assert done.stdout.endswith("\ncalibrated\n")
    (home / "said.txt").write_text(done.stdout)
    # The tiny model is sure of nothing; this one is.
    fitted = Bundle.open(home / "calibrated")
    assert fitted.calibration is not None
    sure = SearchCalibration(slope=60.0, intercept=-50.0, searches=10_000)
    fitted.recalibrated(replace(fitted.calibration, searches=sure), home / "sure")
    return home


def test_it_says_what_was_fitted_and_how_far_to_believe_it(home: Path) -> None:
    said = (home / "said.txt").read_text()
    pairs, people = EACH * (EACH - 1) // 2, PEOPLE * EACH
    mismatched = people * (people - 1) // 2 - PEOPLE * pairs
    assert said.startswith(f"{PEOPLE} people, {PEOPLE * pairs} matched and {mismatched} mismatched pairs\n")
    assert re.findall(r"rate (\S+)", said) == ["0.1", "0.01"]
    for line in ("Cllr of pairs", "calibration error", "log loss of hits", "hits with p over 0.5"):
        assert line in said
    with Image.open(home / "drawn.png") as picture:
        assert picture.size > (800, 400)


def test_the_copy_is_the_same_model_and_opens_the_same_collection(home: Path) -> None:
    plain, calibrated = Bundle.open(home / "model"), Bundle.open(home / "sure")
    assert calibrated.model_id == plain.model_id
    assert plain.calibration is None
    assert calibrated.calibration is not None
    words = "search people/person-0/0.png --collection people --exclude-self -n 3 --json"
    (before,) = json.loads(lookalike(*words.split(), cwd=home).stdout)
    more = ("--model", "sure", "--prior", "0.5")
    (after,) = json.loads(lookalike(*words.split(), *more, cwd=home).stdout)
    assert [r["path"] for r in before["results"]] == [r["path"] for r in after["results"]]
    assert (before["match"], before["warning"]) == (None, None)
    assert all(r["probability"] is None and r["match"] is None for r in before["results"])
    assert after["match"] is True
    searches = calibrated.calibration.searches
    assert searches is not None
    for result in after["results"]:
        expected = float(searches.probability(result["score"], size=PEOPLE * EACH, prior=0.5))
        assert result["probability"] == pytest.approx(expected, rel=1e-2)
        assert result["match"] == (expected > 0.5)


def test_a_prior_and_a_rate_may_be_given(home: Path) -> None:
    words = "search people/person-0/0.png --collection people --model sure -n 50 --exclude-self --json"
    usual, sure, strict, doubtful = (
        json.loads(lookalike(*words.split(), *more, cwd=home).stdout)[0]["results"]
        for more in ((), ("--prior", "0.99"), ("--fmr", "0.01"), ("--prior", "0.001"))
    )
    calibration = Bundle.open(home / "sure").calibration
    assert calibration is not None
    assert calibration.searches is not None
    for result in usual:
        expected = float(calibration.searches.probability(result["score"], size=PEOPLE * EACH))
        assert result["probability"] == pytest.approx(expected, rel=1e-2)
    assert usual[0]["probability"] > doubtful[0]["probability"]
    assert all(a["probability"] <= b["probability"] for a, b in zip(usual, sure, strict=True))
    matches = [sum(result["match"] for result in results) for results in (doubtful, usual, sure)]
    assert matches[0] < matches[1] <= matches[2] < 50
    assert sum(result["match"] for result in strict) <= matches[1]


def test_a_match_is_more_probable_than_not_whatever_the_threshold(home: Path) -> None:
    calibration = Bundle.open(home / "sure").calibration
    assert calibration is not None
    assert calibration.scores is not None
    threshold_of = {None: -1.0} | dict(calibration.scores.thresholds)
    seen = set()
    with open_store(str(home / ".lookalike")) as store:
        searcher = Searcher.open(store, "people", model=str(home / "sure"))
        for prior, fmr in product((0.01, 0.1, 0.5, 0.9, 0.999), (None, 0.1, 0.01)):
            (answer,) = searcher.similar([home / "people/person-0/0.png"], k=96, prior=prior, fmr=fmr)
            threshold = threshold_of[fmr]
            for result in answer.results:
                assert result.probability is not None
                above, likely = result.score > threshold, result.probability > 0.5
                assert result.match == (above and likely)
                assert result.same_file == (result.path == "person-0/0.png")
                verdict = "same file" if result.same_file else "match" if result.match else "possible"
                assert result.verdict == verdict
                seen.add((above, likely))
            assert answer.match == any(result.match for result in answer.results)
    assert len(seen) == 4  # each of the two rules decides somewhere


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("--model calibrated --prior 1", "a prior must be over 0 and under 1, not 1.0"),
        ("--model calibrated --fmr 0.02", "rate of 0.02, the known rates are 0.1, 0.01 "),
        ("--prior 0.1", "--prior and --fmr need a calibrated model, model is not calibrated"),
        ("--fmr 0.1", "--prior and --fmr need a calibrated model, model is not calibrated"),
    ],
)
def test_what_cannot_be_judged_is_said(home: Path, more: str, said: str) -> None:
    done = lookalike("search", "noise.png", "--collection", "people", *more.split(), cwd=home)
    assert done.returncode == 2
    assert said in one_line(done)


def test_noise_is_warned_of_and_has_no_good_match(home: Path) -> None:
    words = "search noise.png people/person-1/0.png --collection people --model sure --prior 0.5"
    done = lookalike(*words.split(), "--sheet", str(home / "hits.png"), cwd=home)
    assert done.returncode == 0
    warning, none, drawn = done.stderr.splitlines()
    assert re.fullmatch(
        r"noise\.png: this image is unlike what the model was trained on "
        r"\(reconstruction error \d+\.\d times the usual\); results mean little",
        warning,
    )
    assert none == "noise.png: no good match"
    assert drawn.startswith("image written: ")
    rows = [line for line in done.stdout.splitlines() if re.match(r" +\d", line)]
    verdict = r"(same file|match    |possible )"
    # Of an image that the model knows nothing like, nothing is probable.
    for probability, some in (("", rows[:10]), (r"probability +[<>]?\d+ %  ", rows[10:])):
        labelled = re.compile(rf" +\d+  score +-?\d\.\d{{3}}  {probability}{verdict}  person-")
        assert all(labelled.match(row) for row in some)
    answers = json.loads(lookalike(*words.split(), "--json", cwd=home).stdout)
    assert [answer["match"] for answer in answers] == [False, True]
    assert answers[0]["warning"] in warning
    assert answers[1]["warning"] is None
    assert len(answers[0]["results"]) == 10  # they are listed all the same
    odd, known = rows[:10], rows[10:]
    assert {found[1] for row in odd if (found := re.search(verdict, row))} == {"possible "}
    assert "%  same file  person-1" in known[0]


def test_whatever_the_warning_nothing_is_a_match(home: Path) -> None:
    words = "search noise.png --collection people --model calibrated --prior 0.999 --json"
    (answer,) = json.loads(lookalike(*words.split(), cwd=home).stdout)
    assert answer["warning"]
    assert all(result["probability"] is None for result in answer["results"])
    assert not any(result["match"] for result in answer["results"])
    combined = words.replace("noise.png", "--like noise.png").replace("--prior 0.999 ", "")
    (answer,) = json.loads(lookalike(*combined.split(), cwd=home).stdout)
    assert answer["warning"].startswith("noise.png: this image is unlike")
    assert answer["match"] is False


def test_a_sheet_greys_what_is_no_match_and_says_it_at_the_row(home: Path) -> None:
    with open_store(str(home / ".lookalike")) as store:
        searcher = Searcher.open(store, "people", model=str(home / "sure"))
        odd, good = searcher.similar(
            [home / "noise.png", home / "people" / "person-1" / "0.png"], k=3, prior=0.5
        )
        with_label, without = (results_sheet(searcher, [answer]) for answer in (odd, good))
        bare = results_sheet(Searcher.open(store, "people"), [good])
    assert with_label.shape[1] > without.shape[1] == bare.shape[1]
    below = without[-88:].max(axis=2)  # of the pictures: there names of matches are dark
    assert (below < 60).any()
    assert format_probability(0.001) == "<1 %"
    assert (format_probability(0.995), format_probability(0.5)) == (">99 %", "50 %")


def test_a_model_may_be_calibrated_again_in_its_own_folder(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "model", tmp_path / "model")
    words = ["calibrate", str(home / "others"), "--model", "model", "--out", "model", "--json"]
    done = lookalike(*words, "--crop", "full", cwd=tmp_path)
    said = json.loads(done.stdout)
    assert said["model_id"] == Bundle.open(home / "model").model_id
    assert said["likeness"]["people"] == said["errors"]["images"] / EACH == PEOPLE
    assert 0 < said["reliability"]["cllr"] < 1
    calibration = Bundle.open(tmp_path / "model").calibration
    assert calibration == Bundle.open(home / "calibrated").calibration
    listed = lookalike("models", "show", "model", cwd=tmp_path).stdout
    assert f"calibrated on {PEOPLE} people: " in listed
    (tmp_path / "model" / CALIBRATION).write_text("{}")
    done = lookalike("models", "model", cwd=tmp_path)
    assert done.returncode == 1
    assert "remove that file, and fit it again with lookalike calibrate" in one_line(done)


@pytest.mark.parametrize(
    ("code", "words", "said"),
    [
        (1, "calibrate nowhere --model model --out new", "calibration needs lfw or a folder of person"),
        (1, "calibrate model --model model --out new", "has none; put each person's in a folder"),
        (1, "calibrate few --model model --out new", "needs 10 people with two or more images"),
        (1, "calibrate bad --model model --out new", "none of 1 could be read"),
        (2, "calibrate others --model faces --out SHIPPED", "shipped bundle faces cannot be changed"),
        (2, "calibrate others --model model --out others", "only a bundle is replaced"),
        (1, "calibrate some --model model --out new --reliability new.png", "needs 10 people"),
    ],
)
def test_errors_are_one_line_with_a_code(home: Path, code: int, words: str, said: str) -> None:
    shipped = str(Bundle.open("faces").folder)
    if not (home / "few").exists():
        write_people(home / "few", people=3)
        write_people(home / "some", people=11)
        (home / "bad" / "x").mkdir(parents=True)
        (home / "bad" / "x" / "1.png").write_bytes(b"")
    done = lookalike(*words.replace("SHIPPED", shipped).split(), cwd=home)
    assert done.returncode == code
    assert said in done.stderr.splitlines()[-1]
    assert done.stdout == ""
    assert not (home / "new").exists()


def test_few_people_are_calibrated_and_it_is_said_that_nobody_could_be_left_out(
    home: Path, tmp_path: Path
) -> None:
    write_people(tmp_path / "some", people=11)
    (tmp_path / "some" / "person-0" / "bad.png").write_bytes(b"")
    words = ["calibrate", "some", "--model", str(home / "model"), "--out", "new", "--crop", "full", "--json"]
    done = lookalike(*words, cwd=tmp_path)
    assert done.returncode == 3
    failed, left_out = done.stderr.splitlines()
    assert failed.startswith("failed: some/person-0/bad.png: ")
    assert left_out.startswith("not cross-validated: calibration needs 10 people")
    assert json.loads(done.stdout)["reliability"] is None
    assert Bundle.open(tmp_path / "new").calibration is not None


@pytest.mark.lfw
def test_nobody_is_taken_of_lfw_on_whom_figures_are_reported(lfw: LFW, tiny: Bundle) -> None:
    named = find_people("lfw", Model(tiny))
    people = {person for _, person in named}
    assert len(people) > 500
    assert not people & lfw.held_out_people()
    assert people <= {path.parent.name for pair in lfw.view1("test") for path in (pair.first, pair.second)}


def test_a_model_that_learned_lfws_names_is_not_calibrated_on_them(tiny: Bundle, tmp_path: Path) -> None:
    from dataclasses import replace

    spec = replace(tiny.spec, labels="person", training={"data": "lfw"})
    knowing = Model(save_again(tiny, tmp_path / "knowing", spec=spec))
    with pytest.raises(InvalidArgumentError, match="was trained on the names of LFW's people"):
        find_people("lfw", knowing)
    with pytest.raises(DataError, match="is neither"):
        find_people(str(tmp_path / "nowhere"), knowing)
