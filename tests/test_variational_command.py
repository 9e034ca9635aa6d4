"""``lookalike train vae`` and ``cvae``, and ``train ae`` on digits and classes: options in, a bundle out."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from deploy.cli import main
from encoder.bundle import Bundle
from encoder.model import Model
from tests.classes import CLASSES, write_classes
from tests.digits import write_digits
from trainer.convolutional import VAESpec
from trainer.options import DRAWING, BoundSpec
from trainer.variational_commands import cvae, vae

Main = Callable[..., tuple[int, str]]
COMMAND = Path(sys.executable).with_name("lookalike")
ROOT = Path(__file__).parents[1]
SLIM = (
    "--latent",
    "4",
    "--hidden",
    "16",
    "--epochs",
    "1",
    "--batch",
    "16",
    "--device",
    "cpu",
    "--pictures",
    "0",
)
NARROW = (*SLIM, "--down", "4,4", "--up", "4,4", "--size", "16")


def lookalike(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    code = "from deploy.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, "train", *words],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
    )


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What LOOKALIKE_DATA is for a small MNIST."""
    folder = tmp_path_factory.mktemp("data")
    write_digits(folder / "MNIST" / "raw")
    return str(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classes(tmp_path_factory.mktemp("data") / "shapes", each=12)


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Main:
    """Run the command in an empty folder; its exit code and its message, the only thing it says."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["lookalike", "train", *words])
        with pytest.raises(SystemExit) as stopped:
            main()
        out, said = capsys.readouterr()
        assert out == ""
        assert isinstance(stopped.value.code, int)
        return stopped.value.code, said

    return run


def test_digits_become_a_conditional_model(tmp_path: Path, digits: str) -> None:
    out = tmp_path / "digits"
    done = lookalike("cvae", "--data", "mnist", "--out", str(out), *SLIM, LOOKALIKE_DATA=digits)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out}\n"
    lines = done.stderr.splitlines()
    assert lines[0] == (
        "mnist: 20 training, 10 validation and 20 held-out images, 10 classes; training on cpu"
    )
    assert lines[-1].startswith("model ")
    spec = Bundle.open(out).spec
    Model.open(out).check()
    assert (spec.kind, spec.image.size, spec.image.channels) == ("cvae", 28, 1)
    assert spec.classes == tuple("0123456789")
    assert (spec.mirror, spec.training["bound"]["binarise"]) == (False, "dynamic")
    assert spec.training["network"]["down"] == [32, 64, 64]


@pytest.mark.parametrize(
    ("words", "classes", "channels"),
    [
        (("vae", *NARROW), CLASSES, 3),
        (("vae", *NARROW, "--grey", "--classes", "none", "--importance", "3"), (), 1),
        (("cvae", *NARROW, "--grey", "--plain", "--binarise", "dynamic", "--no-mirror"), CLASSES, 1),
    ],
)
def test_folder_becomes_a_bundle(
    tmp_path: Path, data: Path, words: tuple[str, ...], classes: tuple[str, ...], channels: int
) -> None:
    out = tmp_path / "model"
    if "none" in words:  # subfolders are people then: three are enough
        data = write_classes(tmp_path / "shapes", each=12)
    done = lookalike(words[0], "--data", str(data), "--out", str(out), *words[1:])
    assert done.returncode == 0, done.stderr
    spec = Bundle.open(out).spec
    assert (spec.classes, spec.image.channels, spec.image.size) == (classes, channels, 16)
    assert spec.training["network"]["likelihood"] == ("gaussian" if channels == 3 else "bernoulli")
    assert spec.mirror is ("--no-mirror" not in words)


def test_plain_autoencoder_learns_digits_and_draws_by_class(tmp_path: Path, digits: str) -> None:
    out = tmp_path / "digits-ae"
    words = ("--latent", "4", "--hidden", "16", "--epochs", "1", "--device", "cpu", "--pictures", "0")
    done = lookalike("ae", "--data", "mnist", "--out", str(out), *words, LOOKALIKE_DATA=digits)
    assert done.returncode == 0, done.stderr
    bundle = Bundle.open(out)
    assert (bundle.spec.kind, bundle.spec.latent, bundle.spec.mirror) == ("ae", 4, False)
    assert bundle.spec.image.shape == (28, 28, 1)
    assert bundle.spec.classes == tuple("0123456789")
    assert bundle.sampling is not None
    assert bundle.sampling.by_class is not None
    assert bundle.sampling.by_class.components == 10


def test_plain_autoencoder_takes_subfolders_for_classes_when_asked(tmp_path: Path, data: Path) -> None:
    out = tmp_path / "model"
    words = ("--size", "16", "--latent", "4", "--hidden", "16", "--epochs", "1", "--device", "cpu")
    done = lookalike(
        "ae", "--data", str(data), "--out", str(out), *words, "--classes", "subfolder", "--descriptor", "12"
    )
    assert done.returncode == 0, done.stderr
    bundle = Bundle.open(out)
    assert (bundle.spec.classes, bundle.spec.labels, bundle.spec.latent) == (CLASSES, "class", 16)
    assert bundle.sampling is not None
    assert bundle.sampling.by_class is not None
    assert bundle.sampling.by_class.size == 4  # of the appearance: pictures are drawn of it alone


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (("--latent", "0"), "latent must be"),
        (("--hidden", "many"), "not a valid integer"),
        (("--down", "4,x"), "widths are whole numbers with commas between, '4,x' is not"),
        (("--down", "4,4,4", "--up", "4,4"), "halve and double alike"),
        (("--size", "30"), "must be divisible by 4"),
        (("--size", "512"), "at most 160"),
        (("--importance", "0"), "importance must be 1 to 10,000"),
        (("--free-bits", "-1"), "free_bits must be 0 or more"),
        (("--importance", "5", "--free-bits", "1"), "free bits are of the ELBO"),
        (("--beta", "nan"), "beta must be 0 or more"),
        (("--averaging", "1"), "averaging must be 0 to below 1"),
        (("--binarise", "static"), "--binarise"),
        (("--grey", "--deviation", "0"), "deviation of pixels must be above 0"),
        (("--class-attribute", "Smiling"), "reads the table of lfw"),
    ],
)
@pytest.mark.parametrize("kind", ["vae", "cvae"])
def test_options_that_cannot_be_are_usage_errors(
    data: Path, fails: Main, kind: str, words: tuple[str, ...], rule: str
) -> None:
    code, said = fails(kind, "--data", str(data), "--out", "model", *words)
    assert code == 2
    assert rule in said
    assert "Traceback" not in said
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("classes", ["subfolder", "none"])
def test_conditional_model_without_classes_fails_in_one_line(
    tmp_path: Path, fails: Main, classes: str
) -> None:
    root = write_classes(tmp_path / "shapes", each=4)
    where = root / "ring" if classes == "subfolder" else root
    code, said = fails("cvae", "--data", str(where), "--out", "model", "--classes", classes)
    assert code == 1
    assert said.startswith("lookalike: a conditional model needs two classes or more, ")
    assert said.count("\n") == 1


def test_descriptor_of_digits_is_refused(digits: str, fails: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_DATA", digits)
    code, said = fails("ae", "--data", "mnist", "--out", "model", "--descriptor", "8", "--latent", "4")
    assert code == 2
    assert "count mirror images as alike" in said


def test_every_option_is_described_and_has_the_default_of_the_library() -> None:
    specs = (DRAWING, BoundSpec(), VAESpec(size=28, channels=1))
    defaults = {name: value for spec in specs for name, value in spec.to_json().items()}
    chosen = {"size", "down", "up", "likelihood", "binarise", "mirror", "classes"}  # by the data
    for command, count in ((vae, 16), (cvae, 18)):
        options = {option.name: option for option in command.params if isinstance(option, click.Option)}
        assert all(option.help for option in options.values())
        shared = options.keys() & defaults.keys() - chosen
        assert len(shared) == count
        assert {name: options[name].default for name in shared} == {name: defaults[name] for name in shared}
