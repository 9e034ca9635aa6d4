"""``edit``, ``reconstruct``, ``interpolate`` of whole photographs; ``edit --paste`` gives them back whole."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lookalike.encoder.detect import ChosenFace, cut_for_model, face_finder
from lookalike.encoder.runtime import Model
from lookalike.searcher.generation import edit, edit_photograph, interpolate, reconstruct
from tests.fixtures.command import Done, lookalike, one_line
from tests.fixtures.face_photos import without_extra
from tests.fixtures.face_pictures import SIDE, face_picture, write_picture

TWO = face_picture(0, 8)
SMILING = ("--add", "Smiling=2")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """two.png, one.jpg, none.png. Leave them as they are."""
    home = tmp_path_factory.mktemp("home")
    write_picture(home / "two.png", (0, 8))
    write_picture(home / "one.jpg", (3,))
    write_picture(home / "none.png", ())
    return home


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.open("faces", threads=1)


@pytest.fixture(scope="module")
def cut(model: Model) -> NDArray[np.uint8]:
    """The faces of two.png as the model sees them."""
    found = face_finder().find(TWO, threshold=0.6)
    return cut_for_model(TWO, found, model.bundle.face_frame, model.bundle.spec.image)


def run(home: Path, verb: str, *words: str | Path) -> Done:
    return lookalike(verb, *words, cwd=home)


def pixels(file: Path) -> NDArray[np.uint8]:
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


def test_a_face_of_each_photograph_is_drawn(
    home: Path, tmp_path: Path, model: Model, cut: NDArray[np.uint8]
) -> None:
    for number in (1, 2):
        out = tmp_path / str(number)
        done = run(home, "edit", "two.png", *SMILING, "--face", str(number), "--out", f"{out}/")
        assert (done.returncode, done.stdout) == (0, f"{out}/two.png\n")
        assert done.stderr == f"two.png: face {number} of 2, from the left\n"
        expected = edit(model, cut[number - 1 : number], {"Smiling": 2.0})[0]
        assert np.abs(pixels(out / "two.png").astype(int) - expected).max() <= 1
    done = run(home, "reconstruct", "two.png", "none.png", "--faces", "--out", f"{tmp_path}/back/")
    assert done.returncode == 3
    assert one_line_of_failure(done) == "failed: none.png: no face was found; pass --crop full"
    main = pixels(tmp_path / "back" / "two.png").astype(int)
    assert min(np.abs(main - each).max() for each in reconstruct(model, cut)) <= 1
    words = ("interpolate", "two.png", "two.png", "--face", "2", "--steps", "3", "--out", f"{tmp_path}/way/")
    assert run(home, *words).returncode == 0
    row = interpolate(model, cut[[1, 1]], 3)[0]
    assert np.abs(pixels(tmp_path / "way" / "1.png").astype(int) - row[1]).max() <= 1


def one_line_of_failure(done: Done) -> str:
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("failed:")]
    return line.partition(" (or")[0]


@pytest.mark.parametrize("name", ["out.jpg", "folder/"])
def test_the_changed_face_is_pasted_into_the_whole_photograph(
    home: Path, tmp_path: Path, model: Model, name: str
) -> None:
    words = ("two.png", *SMILING, "--faces", "--face", "2", "--paste", "--out", f"{tmp_path}/{name}")
    done = run(home, "edit", *words)
    file = tmp_path / (name if name != "folder/" else "folder/two.png")
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        f"{file}\n",
        "two.png: face 2 of 2, from the left\n",
    )
    (expected,) = edit_photograph(model, home / "two.png", {"Smiling": 2.0}, face=ChosenFace(2))
    assert expected.shape == TWO.shape
    assert np.array_equal(expected[:, :SIDE], TWO[:, :SIDE])  # the other face
    assert np.abs(expected.astype(int) - TWO).max() > 10
    close = np.abs(pixels(file).astype(int) - expected)
    assert close.max() <= (1 if name != "out.jpg" else 60)
    assert close.mean() < 3


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("edit", (*SMILING, "--faces")),
        ("edit", (*SMILING, "--paste")),
        ("reconstruct", ("--faces",)),
        ("interpolate", ("--faces", "--steps", "2")),
    ],
)
def test_the_main_face_of_several_is_named(
    home: Path, tmp_path: Path, verb: str, words: tuple[str, ...]
) -> None:
    found = face_finder().find(TWO)
    main = 1 + max(range(2), key=lambda place: found[place].prominence)
    done = run(home, verb, "two.png", "one.jpg", *words, "--out", f"{tmp_path}/")
    assert (done.returncode, done.stderr) == (0, f"two.png: face {main} of 2, from the left\n")
    if verb == "reconstruct":
        assert run(home, verb, "two.png", "one.jpg", *words, "-q", "--out", f"{tmp_path}/").stderr == ""


def test_strength_0_gives_the_photograph_back(home: Path, tmp_path: Path) -> None:
    words = (
        "edit",
        "two.png",
        "one.jpg",
        "none.png",
        "--add",
        "Smiling=0",
        "--paste",
        "--out",
        f"{tmp_path}/",
    )
    done = run(home, *words)
    assert done.returncode == 3
    assert done.stdout.splitlines() == [f"{tmp_path}/two.png", f"{tmp_path}/one.png"]
    assert one_line_of_failure(done) == "failed: none.png: no face was found; pass --crop full"
    for name in ("two.png", "one.jpg"):
        assert np.array_equal(pixels(tmp_path / f"{name[:3]}.png"), pixels(home / name))


def test_each_step_is_a_photograph(home: Path, tmp_path: Path) -> None:
    words = ("edit", "two.png", *SMILING, "--steps", "-1:1:3", "--paste", "--out", f"{tmp_path}/")
    done = run(home, *words)
    assert done.stdout.splitlines() == [f"{tmp_path}/two-{step}.png" for step in range(3)]
    less, same, more = (pixels(tmp_path / f"two-{step}.png").astype(int) for step in range(3))
    assert np.array_equal(same, TWO)
    assert (less - TWO).any()
    assert (more - TWO).any()
    assert ((less - TWO) * (more - TWO)).sum() < 0


@pytest.mark.parametrize(
    ("verb", "words", "message"),
    [
        (
            "edit",
            ("two.png", "one.jpg", *SMILING, "--paste", "--out", "x.png"),
            "name a folder: --out x.png/",
        ),
        (
            "edit",
            ("two.png", *SMILING, "--steps", "0:1:2", "--paste", "--out", "x.png"),
            "makes 2 photographs",
        ),
        ("edit", ("two.png", *SMILING, "--paste", "--out", "two.png"), "would replace two.png itself"),
        ("edit", ("two.png", *SMILING, "--paste", "--out", "./"), "would replace two.png itself"),
        ("edit", ("two.png", *SMILING, "--paste", "--out", "x.bmp"), "an image is saved as .png"),
        (
            "edit",
            ("two.png", *SMILING, "--paste", "--crop", "full", "--out", "x.png"),
            "--crop does not work",
        ),
        ("edit", ("two.png", *SMILING, "--face", "0", "--out", "x.png"), "0 is not in the range"),
        ("reconstruct", ("two.png", "--faces", "--crop", "full", "--out", "x.png"), "--crop does not work"),
        ("interpolate", ("two.png", "two.png", "--face", "1", "--crop", "full", "--out", "x.png"), "--crop"),
        ("reconstruct", ("two.png", "--faces", "--model", "digits", "--out", "x.png"), "where faces lie"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_written(
    home: Path, verb: str, words: tuple[str, ...], message: str
) -> None:
    before = sorted(home.iterdir())
    done = run(home, verb, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr.splitlines()[-1]
    assert sorted(home.iterdir()) == before
    assert np.array_equal(pixels(home / "two.png"), TWO)


def test_without_the_face_or_the_extra_nothing_is_written(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.png"
    far = run(home, "edit", "two.png", *SMILING, "--face", "3", "--paste", "--out", out)
    assert far.returncode == 1
    assert one_line(far) == "failed: two.png: it has 2 faces, not 3; choose 1 to 2"
    with without_extra():
        done = run(home, "edit", "two.png", *SMILING, "--paste", "--out", out)
    assert done.returncode == 1
    assert one_line(done).endswith("pip install 'lookalike[faces]'")
    assert not out.exists()
