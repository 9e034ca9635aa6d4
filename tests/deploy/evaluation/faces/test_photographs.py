"""Photographs that are made: known places, the same for a seed, nothing outside the face changed."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lookalike.deploy.evaluation import LabeledImages, open_labeled
from lookalike.deploy.evaluation.faces import background_files, plan_photographs
from lookalike.deploy.evaluation.faces.photographs import MAX_TURN, SCALES, MadePhotograph
from lookalike.encoder.datasets import LFW
from lookalike.encoder.errors import DataError, InvalidArgumentError
from lookalike.encoder.images import encode_png


@pytest.fixture
def backgrounds(tmp_path: Path) -> list[Path]:
    """Three photographs without people: wide, tall, and one that EXIF turns."""
    rng = np.random.default_rng(0)
    for name, shape in (("a", (60, 90)), ("b", (90, 60))):
        (tmp_path / f"{name}.png").write_bytes(encode_png(rng.integers(0, 256, (*shape, 3), np.uint8)))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (90, 60), (9, 99, 199)).save(tmp_path / "c.jpg", exif=exif)
    return background_files(tmp_path)


@pytest.mark.lfw
def test_the_first_are_the_same_for_any_count(lfw: LFW, backgrounds: list[Path]) -> None:
    images = open_labeled("lfw")
    plan = plan_photographs(images, backgrounds, 40, seed=3)
    assert plan_photographs(images, backgrounds, 7, seed=3) == plan[:7]
    assert plan_photographs(images, backgrounds, 7, seed=4) != plan[:7]
    held_out = lfw.held_out_people()
    assert len({made.face for made in plan}) == 40
    for made in plan:
        person = images.people[made.face]
        assert person in held_out
        assert sum(person == other for other in images.people) > 1
        assert abs(made.degrees) <= MAX_TURN
        assert SCALES[0] <= made.scale <= SCALES[1]
        assert 1000 <= max(made.size) <= 1600
        left, top, across, down = made.window
        assert min(left, top) >= 0
        assert max(left + across, top + down) <= 1 + 1e-9
        # The window has the shape of the photograph: nothing is stretched.
        height, width = (90, 60) if made.background.stem in "bc" else (60, 90)
        assert across * width / (down * height) == pytest.approx(made.size[0] / made.size[1], rel=0.01)


@pytest.mark.parametrize(("degrees", "scale"), [(0.0, 1.0), (25.0, 0.4), (-30.0, 1.8)])
def test_the_face_lies_where_the_similarity_says(degrees: float, scale: float) -> None:
    made = MadePhotograph(0, 0, Path("a"), (0, 0, 1, 1), (900, 700), degrees, scale, (450.0, 350.0))
    face = np.full((250, 250, 3), 90, np.uint8)
    face[60:80, 150:170] = 250
    background = np.full((700, 900, 3), 10, np.uint8)
    drawn = made.draw(background, face)
    (place,) = made.similarity.apply(np.array([[160, 70]], np.float32))
    assert drawn[int(place[1]), int(place[0])] == pytest.approx(250, abs=8)
    y, x = np.mgrid[:700, :900] + 0.5
    distance = np.hypot(x - 450, y - 350)
    assert (drawn[distance > 120 * scale + 2] == 10).all()
    inside = drawn[distance < 85 * scale]
    assert inside.min() >= 80
    assert background.max() == 10  # the given one is left alone


def test_a_face_at_the_edge_is_cut_off() -> None:
    made = MadePhotograph(0, 0, Path("a"), (0, 0, 1, 1), (300, 200), 10.0, 1.0, (5.0, 195.0))
    drawn = made.draw(np.zeros((200, 300, 3), np.uint8), np.full((250, 250, 3), 200, np.uint8))
    assert drawn.shape == (200, 300, 3)
    assert drawn[190, 5].min() > 190


def test_only_lfw_has_known_faces(backgrounds: list[Path]) -> None:
    images = LabeledImages("mine", (), (), ())
    with pytest.raises(InvalidArgumentError, match="mine is another data set"):
        plan_photographs(images, backgrounds, 3, seed=0)


@pytest.mark.parametrize("data", [None, "there"])
def test_backgrounds_must_be_there(data: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOOKALIKE_DATA", raising=False)
    if data is not None:
        monkeypatch.setenv("LOOKALIKE_DATA", str(tmp_path))
    for folder in (None, tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match="--photographs"):
            background_files(folder)


@pytest.mark.lfw
@pytest.mark.usefixtures("lfw")
def test_an_unreadable_background_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken\.jpg cannot be read"):
        plan_photographs(open_labeled("lfw"), background_files(tmp_path), 1, seed=0)
