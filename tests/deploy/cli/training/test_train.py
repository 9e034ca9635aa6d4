"""``lookalike train``: the bundle's path on stdout, lines for people on stderr, one line when it fails."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from lookalike.deploy.cli.training.train import ae
from lookalike.encoder.bundle import Bundle
from lookalike.encoder.images import Crop, NoiseSpec
from lookalike.encoder.runtime import Model
from lookalike.trainer.config import AESpec, TrainingSpec, default_epochs
from tests.fixtures.command import COMMAND, lookalike
from tests.fixtures.people import write_people

Main = Callable[..., tuple[int, str]]
TINY = (
    "--size",
    "16",
    "--latent",
    "4",
    "--hidden",
    "16,8",
    "--epochs",
    "3",
    "--batch",
    "16",
    "--device",
    "cpu",
)

WITHOUT = """
import sys
for name in sys.argv.pop(1).split(","):
    sys.modules[name] = None  # as if it were not installed: importing it fails
from lookalike.deploy.cli.main import main
main()
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_people(tmp_path_factory.mktemp("data") / "people")
    (root / "person-3" / "broken.png").write_bytes(b"no picture")
    return root


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Main:
    """Run the command in an empty folder; its exit code and its message, the only thing it says."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str]:
        done = lookalike("train", "ae", *words, cwd=tmp_path)
        assert done.stdout == ""
        return done.returncode, done.stderr

    return run


@pytest.mark.trains
def test_folder_becomes_a_bundle(tmp_path: Path, data: Path) -> None:
    # Other systems take no such name.
    out = tmp_path / os.fsdecode(b"mod\xe8l\ne" if sys.platform == "linux" else b"model")
    words = ("--data", data, "--out", out, *TINY, "--gray", "--crop", "center:0.75")
    done = lookalike("train", "ae", *words, cwd=tmp_path)
    said = done.stderr
    assert done.returncode == 0, said
    assert done.stdout == f"{out}\n"
    lines = said.splitlines()
    assert lines[0].startswith("left out: ")
    assert "broken.png" in lines[0]
    assert "training on cpu" in lines[1]
    assert lines[2].startswith("PCA with 4 components: held-out PSNR ")
    assert [line.split()[:2] for line in lines[3:6]] == [["epoch", f"{number}/3"] for number in (1, 2, 3)]
    assert lines[-1].startswith("model ")
    spec = Bundle.open(out).spec
    Model.open(out).check()
    assert (spec.image.size, spec.image.channels, spec.image.crop) == (16, 1, Crop(fraction=0.75))
    assert spec.training["network"]["hidden"] == [16, 8]
    assert spec.training["training"]["epochs"] == 3
    assert spec.training["data"] == "people"
    assert sum(spec.training["images"].values()) == 64
    assert spec.figures["held_out_images"] == spec.training["images"]["held_out"]
    run = tmp_path / f"{out.name}.run"
    assert {path.name for path in run.iterdir()} == {"log.csv", "reconstructions-0003.png"}
    assert len((run / "log.csv").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (("--latent", "0"), "latent must be at least 1"),
        (("--latent", "many"), "not a valid integer"),
        (("--hidden", "abc"), "whole numbers with commas"),
        (("--hidden", "512,"), "whole numbers with commas"),
        (("--hidden", ""), "whole numbers with commas"),
        (("--hidden", "255"), "even numbers"),
        (("--hidden", "64"), "twice the latent"),
        (("--crop", "nonsense"), "cannot read 'nonsense'"),
        (("--crop", "center:2"), "fraction of a centered square"),
        (("--size", "4"), "from 8 to 1024"),
        (("--epochs", "0"), "epochs must be 1 or more"),
        (("--batch", "-1"), "batch must be 1 or more"),
        (("--learning-rate", "nan"), "learning_rate must be above 0"),
        (("--weight-decay", "-1"), "weight_decay must be 0 or more"),
        (("--denoise", "-25"), "levels of gaussian noise must rise within 0 to 255, got -25 to -25"),
        (("--shift", "-1"), "shift must be 0 or more"),
        (("--seed", "-1"), "seed must be 0"),
        (("--sample-every", "-1"), "--sample-every"),
        (("--precision", "float16"), "--precision"),
        (("--device", "tpu"), "--device"),
    ],
)
def test_options_that_cannot_be_are_usage_errors(
    data: Path, fails: Main, words: tuple[str, ...], rule: str
) -> None:
    code, said = fails("--data", str(data), "--out", "model", *words)
    assert code == 2
    assert rule in said
    assert "Traceback" not in said
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    "words", [("--out", "model"), ("--data", "lfw"), ("--data", "lfw", "--out", "m", "x")]
)
def test_missing_or_unknown_words_are_usage_errors(fails: Main, words: tuple[str, ...]) -> None:
    code, said = fails(*words)
    assert code == 2
    assert said.startswith("Usage: lookalike train ae ")


def test_missing_folder_fails_in_one_line(fails: Main) -> None:
    code, said = fails("--data", "nowhere", "--out", "model")
    assert code == 1
    assert (
        said == "lookalike: --data is lfw, mnist or a folder of images, 'nowhere' is none; check the path\n"
    )


def test_folder_of_too_few_people_fails_in_one_line(fails: Main) -> None:
    write_people(Path("few"), people=2)
    code, said = fails("--data", "few", "--out", "model", *TINY)
    assert code == 1
    assert said.startswith("lookalike: training needs images of three people or more")
    assert said.count("\n") == 1
    assert not Path("model.run").exists()


@pytest.mark.parametrize("out", [".", "full", "file", "file/model"])
def test_place_that_is_taken_fails_in_one_line(data: Path, fails: Main, out: str) -> None:
    Path("full").mkdir()
    Path("full/thesis.txt").touch()
    Path("file").touch()
    code, said = fails("--data", str(data), "--out", out, *TINY)
    assert code in (1, 2)
    assert said.splitlines()[-1].startswith("lookalike: ")
    assert "Traceback" not in said
    assert {path.name for path in Path().iterdir()} == {"full", "file"}


def test_interrupted_run_is_not_overwritten(data: Path, fails: Main) -> None:
    Path("model.run").mkdir()
    Path("model.run/checkpoint.pt").write_bytes(b"half")
    code, said = fails("--data", str(data), "--out", "model", *TINY)
    assert code == 1
    assert "pass --resume to go on" in said
    code, said = fails("--data", str(data), "--out", "model", *TINY, "--resume")
    assert code == 1
    assert "cannot be read" in said.splitlines()[-1]
    assert Path("model.run/checkpoint.pt").read_bytes() == b"half"


@pytest.mark.parametrize("missing", ["torch", "onnx", "torch,onnxscript"])
def test_without_its_extra_one_line_says_what_to_install(tmp_path: Path, missing: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, missing, "train", "ae", "--data", "x", "--out", "y"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        f"lookalike: training needs the extra [train], {missing.replace(',', ', ')} cannot be imported; "
        "pip install 'lookalike[train]'\n"
    )


@pytest.mark.parametrize("words", [("train",), ("train", "ae")])
def test_help_is_there_without_torch(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, "torch,onnx,onnxscript", *words, "--help"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Usage: lookalike {' '.join(words)} ")
    if words == ("train", "ae"):
        assert "Example: lookalike train ae --data lfw" in done.stdout


def test_every_option_is_described_and_has_the_default_of_the_library() -> None:
    options = {option.name: option for option in ae.params if isinstance(option, click.Option)}
    assert all(option.help for option in options.values())
    defaults = TrainingSpec().to_json() | AESpec(size=64, channels=3).to_json()
    shared = options.keys() & defaults.keys() - {"hidden", "size", "noise", "epochs"}
    assert len(shared) == 7
    assert options["epochs"].default is None  # by the number of images, at most that of the library
    assert default_epochs(60_000) == defaults["epochs"]
    assert TrainingSpec().noise is None
    assert NoiseSpec.parse(str(options["noise"].default)).is_zero
    assert {name: options[name].default for name in shared} == {name: defaults[name] for name in shared}
    assert options["hidden"].default == tuple(defaults["hidden"])


@pytest.mark.trains
@pytest.mark.slow
@pytest.mark.lfw
@pytest.mark.usefixtures("lfw_folder")
@pytest.mark.timeout(3 * 3600)
def test_faces_reach_their_quality_with_default_options(tmp_path: Path) -> None:
    done = subprocess.run([COMMAND, "train", "ae", "--data", "lfw", "--out", tmp_path / "faces"], check=False)
    assert done.returncode == 0
    figures = Bundle.open(tmp_path / "faces").spec.figures
    assert figures["held_out_images"] == 5373
    assert figures["held_out_psnr_db"] > figures["pca_psnr_db"]
    assert figures["held_out_recall_at_1"] >= 0.55
