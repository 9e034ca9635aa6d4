"""What a score is worth: by hand, for any calibration, and never from a file that is damaged or another's."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.encoder.bundle import (
    RATES,
    Bundle,
    Calibration,
    ReconstructionErrorStats,
    ScoreCalibration,
    SearchCalibration,
)
from lookalike.encoder.bundle.spec import digest_of
from lookalike.encoder.bundle.storage import CALIBRATION
from lookalike.encoder.errors import BundleCorruptError, InvalidArgumentError
from lookalike.encoder.runtime import Model
from tests.fixtures.tiny_models import FILES, assert_same, nothing_left, save_again

LINE = ScoreCalibration(
    curvature=0.0,
    slope=10.0,
    intercept=-2.0,
    thresholds={0.1: 0.2, 0.01: 0.4},
    matched=99,
    mismatched=9_999,
    people=20,
)
CURVE = replace(LINE, curvature=8.0, slope=4.0)
ERRORS = ReconstructionErrorStats(images=7, squared=(0.001, 0.003, 0.004), share=(0.05, 0.1, 0.2))
BOTH = Calibration(scores=LINE, reconstruction_errors=ERRORS)


def likenesses() -> st.SearchStrategy[ScoreCalibration]:
    real = st.floats(-50, 50)
    curvatures = st.floats(0, 50)
    scores = st.lists(st.floats(-1, 1), min_size=len(RATES), max_size=len(RATES)).map(sorted)
    return st.builds(
        lambda curvature, slope, intercept, known, scores, n, m: ScoreCalibration(
            curvature=curvature,
            slope=max(slope, 0.01 - 2 * curvature),
            intercept=intercept,
            thresholds=dict(list(zip(RATES, scores, strict=True))[:known]),
            matched=n,
            mismatched=m,
            people=2,
        ),
        curvatures, real, real, st.integers(0, len(RATES)), scores, st.integers(1, 10**6),
        st.integers(1, 10**7),
    )  # fmt: skip


def test_evidence_by_hand() -> None:
    np.testing.assert_allclose(LINE.evidence([0.0, 0.2, 0.5]), [-2, 0, 3])
    # 8 s^2 + 4 s - 2 is lowest at s = -1/4: -2.5; below it stays there.
    np.testing.assert_allclose(CURVE.evidence([0.5, 0.0, -0.25, -0.5, -1.0]), [2, -2, -2.5, -2.5, -2.5])


def test_evidence_claims_no_more_than_the_pairs_can_show() -> None:
    steep = replace(LINE, slope=100.0)
    np.testing.assert_allclose(steep.evidence([-1.0, 1.0]), [-math.log(100), math.log(10_000)])


def test_probability_by_hand() -> None:
    # evidence 3 at a prior of 1 in 11: odds e^3 / 10
    odds = math.exp(3) / 10
    assert LINE.probability(0.5, 1 / 11) == pytest.approx(odds / (1 + odds))
    assert LINE.probability(0.2, 0.5) == pytest.approx(0.5)


@pytest.mark.parametrize("prior", [0.0, 1.0, -0.1, 2.0, math.nan, math.inf])
def test_what_is_no_prior_is_refused(prior: float) -> None:
    with pytest.raises(InvalidArgumentError, match="a prior must be over 0 and under 1"):
        LINE.probability(0.5, prior)


SEARCHES = SearchCalibration(slope=20.0, intercept=-2.0, searches=999)


def test_probability_of_a_hit_by_hand() -> None:
    # log-odds 20 * 0.4 - 2 = 6 for one image; there with probability 1/2, of 100: e^6 / 100 * 1/2 / (5/6)
    odds = math.exp(6) / 100 * 0.6
    assert SEARCHES.probability(0.4, size=100) == pytest.approx(odds / (1 + odds))
    odds = math.exp(6) / 100 * 0.9 / 0.7
    assert SEARCHES.probability(0.4, size=100, prior=0.9) == pytest.approx(odds / (1 + odds))
    odds = math.exp(6) / 10 * 0.6
    slow = replace(SEARCHES, decline=0.5)
    assert slow.probability(0.4, size=100) == pytest.approx(odds / (1 + odds))
    # Nobody is more certain than a thousand searches can show.
    np.testing.assert_allclose(SEARCHES.probability([0.9, 1.0, 2.0], size=10), 1000 / 1001)
    assert SEARCHES.probability(0.4, size=0) == SEARCHES.probability(0.4, size=1)


@given(
    scores=st.lists(st.floats(-1, 1), min_size=2, max_size=2).map(sorted),
    sizes=st.lists(st.integers(1, 10**9), min_size=2, max_size=2).map(sorted),
    priors=st.lists(st.floats(1e-9, 1 - 1e-9), min_size=2, max_size=2).map(sorted),
)
def test_a_hit_is_the_more_probable_the_higher_its_score_and_the_fewer_were_searched(
    scores: list[float], sizes: list[int], priors: list[float]
) -> None:
    low, high = SEARCHES.probability(scores, size=sizes[0], prior=priors[0])
    assert 0 <= low <= high < 1
    assert SEARCHES.probability(scores[0], size=sizes[1], prior=priors[0]) <= low
    assert SEARCHES.probability(scores[0], size=sizes[0], prior=priors[1]) >= low


@pytest.mark.parametrize("prior", [0.0, 1.0, -0.1, math.nan])
def test_what_is_no_prior_of_a_search_is_refused(prior: float) -> None:
    with pytest.raises(InvalidArgumentError, match="a prior must be over 0 and under 1"):
        SEARCHES.probability(0.5, size=10, prior=prior)


@pytest.mark.parametrize(
    "wrong",
    [
        {"slope": 0.0},
        {"slope": -1.0},
        {"slope": math.inf},
        {"intercept": math.nan},
        {"searches": 0},
        {"decline": 1.1},
    ],
)
def test_an_invalid_calibration_of_searches_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidArgumentError, match="a calibration of searches needs a slope over 0"):
        replace(SEARCHES, **wrong)  # type: ignore[arg-type]  # of any field


@given(
    likeness=likenesses(),
    scores=st.lists(st.floats(-1, 1), min_size=2, max_size=2).map(sorted),
    prior=st.floats(1e-9, 1 - 1e-9),
)
def test_more_likeness_is_never_less_probable(
    likeness: ScoreCalibration, scores: list[float], prior: float
) -> None:
    low, high = likeness.probability(scores, prior)
    assert 0 <= low <= high <= 1


@given(
    likeness=st.none() | likenesses(),
    searches=st.none() | st.just(SEARCHES),
    errors=st.none() | st.just(ERRORS),
)
def test_what_is_written_is_read_back_equal(
    likeness: ScoreCalibration | None,
    searches: SearchCalibration | None,
    errors: ReconstructionErrorStats | None,
) -> None:
    calibration = Calibration(scores=likeness, searches=searches, reconstruction_errors=errors)
    assert Calibration.from_bytes(calibration.to_bytes("a" * 64), model_id="a" * 64) == calibration


def test_the_threshold_is_that_of_the_rate_or_of_the_smallest() -> None:
    assert (LINE.threshold(0.1), LINE.threshold(0.01), LINE.threshold()) == (0.2, 0.4, 0.4)
    assert replace(LINE, thresholds={}).threshold() is None
    with pytest.raises(
        InvalidArgumentError, match=r"rate of 0\.001, the known rates are 0\.1, 0\.01 \(from 9999"
    ):
        LINE.threshold(0.001)


@pytest.mark.parametrize(
    "change",
    [
        {"slope": 0.0},
        {"slope": -1.0},
        {"curvature": -1.0},
        {"curvature": 1.0, "slope": -2.0},
        {"intercept": math.nan},
        {"slope": math.inf},
        {"thresholds": {0.1: 0.4, 0.01: 0.2}},
        {"thresholds": {0.2: 0.4}},
        {"thresholds": {0.1: math.nan}},
        {"matched": 0},
        {"people": -1},
    ],
)
def test_a_map_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(InvalidArgumentError, match="invalid score calibration"):
        replace(LINE, **change)  # type: ignore[arg-type]


def test_a_bundle_keeps_its_calibration_and_its_model_id(tiny: Bundle, tmp_path: Path) -> None:
    saved = save_again(tiny, tmp_path / "saved", calibration=BOTH)
    assert Bundle.open(saved.folder).calibration == saved.calibration == BOTH
    assert (saved.model_id, tiny.calibration) == (tiny.model_id, None)
    nothing_left(saved.folder, but={*FILES, CALIBRATION})
    again = saved.recalibrated(Calibration(reconstruction_errors=ERRORS), saved.folder)
    assert (again.calibration, again.model_id) == (Calibration(reconstruction_errors=ERRORS), tiny.model_id)
    nothing_left(saved.folder, but={*FILES, CALIBRATION})
    assert_same(again, tiny)
    # Another bundle in its place has none.
    assert save_again(tiny, saved.folder).calibration is None
    nothing_left(saved.folder, but=set(FILES))


def test_a_copy_with_a_calibration_is_the_same_model_byte_for_byte(tiny: Bundle, tmp_path: Path) -> None:
    copied = tiny.recalibrated(BOTH, tmp_path / "copy")
    assert_same(copied, tiny)
    for name in FILES:
        assert (copied.folder / name).read_bytes() == (tiny.folder / name).read_bytes()
    assert not (tiny.folder / CALIBRATION).exists()
    Model(copied).check()


def test_a_shipped_bundle_is_copied_and_stays_as_it_is(tmp_path: Path) -> None:
    shipped = Bundle.open("faces")
    before = (shipped.folder / CALIBRATION).read_bytes()
    with pytest.raises(InvalidArgumentError, match="shipped bundle faces cannot be changed; name another"):
        shipped.recalibrated(BOTH, shipped.folder)
    assert (shipped.folder / CALIBRATION).read_bytes() == before
    assert shipped.recalibrated(BOTH, tmp_path / "copy").model_id == shipped.model_id


def test_a_folder_that_is_no_bundle_is_not_written_to(tiny: Bundle, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(InvalidArgumentError, match="only a bundle is replaced"):
        tiny.recalibrated(BOTH, tmp_path)
    nothing_left(tmp_path, but={"mine"})


def test_any_changed_byte_of_a_calibration_is_found(tiny: Bundle, tmp_path: Path) -> None:
    file = tiny.recalibrated(BOTH, tmp_path / "copy").folder / CALIBRATION
    text = file.read_text()
    for old, new in (("10.0", "11.0"), ('"matched": 99', '"matched": 98'), ("0.004", "0.005"), ("{", "[")):
        assert old in text
        file.write_text(text.replace(old, new, 1))
        with pytest.raises(BundleCorruptError, match=r"calibration\.json: it .*; remove that file") as caught:
            Bundle.open(file.parent)
        assert "\n" not in str(caught.value)
    file.write_text(text)
    assert Bundle.open(file.parent).calibration == BOTH


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"sha256": ""}'])
def test_what_is_no_calibration_is_refused(tiny: Bundle, tmp_path: Path, data: bytes) -> None:
    folder = Path(shutil.copytree(tiny.folder, tmp_path / "copy"))
    (folder / CALIBRATION).write_bytes(data)
    with pytest.raises(BundleCorruptError, match=r"calibration\.json: it "):
        Bundle.open(folder)


def test_a_calibration_that_is_a_folder_or_leads_nowhere_is_refused(tiny: Bundle, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny.folder, tmp_path / "copy"))
    (folder / CALIBRATION).mkdir()
    with pytest.raises(BundleCorruptError, match="cannot be read"):
        Bundle.open(folder)
    (folder / CALIBRATION).rmdir()
    (folder / CALIBRATION).symlink_to("nowhere")
    with pytest.raises(BundleCorruptError, match="cannot be read"):
        Bundle.open(folder)


def test_a_calibration_of_another_model_is_refused(tiny: Bundle, tmp_path: Path) -> None:
    other = save_again(tiny, tmp_path / "other", spec=replace(tiny.spec, mirror=False), calibration=BOTH)
    folder = Path(shutil.copytree(tiny.folder, tmp_path / "copy"))
    shutil.copy(other.folder / CALIBRATION, folder)
    with pytest.raises(BundleCorruptError, match=f"belongs to model {other.model_id[:12]}, this one is"):
        Bundle.open(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", 1),
        ("format", None),
        ("scores", []),
        ("scores", {}),
        ("reconstruction_errors", 3),
        ("reconstruction_errors", {"images": 1, "squared": [1, 2], "share": [1, 2, 3]}),
        ("reconstruction_errors", {"images": 1, "squared": [3, 2, 1], "share": [1, 2, 3]}),
        ("reconstruction_errors", {"images": True, "squared": [1, 2, 3], "share": [1, 2, 3]}),
        ("reconstruction_errors", {"images": 1, "squared": ["1", 2, 3], "share": [1, 2, 3]}),
        ("scores", LINE.to_json() | {"matched": 1.5}),
        ("scores", LINE.to_json() | {"slope": True}),
        ("scores", LINE.to_json() | {"thresholds": {"a": 1}}),
    ],
)
def test_values_that_cannot_be_are_refused_though_the_digest_fits(key: str, value: object) -> None:
    content = json.loads(BOTH.to_bytes("a"))
    del content["sha256"]
    content[key] = value
    forged = json.dumps({"sha256": digest_of(content), **content}).encode()
    with pytest.raises(InvalidArgumentError):
        Calibration.from_bytes(forged, model_id="a")
