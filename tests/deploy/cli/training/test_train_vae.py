"""``lookalike train vae`` and ``cvae``, and ``train ae`` on digits and classes: options in, a bundle out."""

from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import click
import pytest
import torch

from lookalike.deploy.cli.training.train import cvae, vae
from lookalike.encoder.bundle import Bundle
from lookalike.encoder.images import NoiseSpec
from lookalike.encoder.runtime import Model
from lookalike.trainer.config import VAE_DEFAULTS, ElboConfig, VAESpec
from tests.fixtures.class_images import CLASSES, write_classes
from tests.fixtures.command import lookalike
from tests.fixtures.digit_files import write_digits

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
    "--sample-every",
    "0",
)
NARROW = (*SLIM, "--down", "4,4", "--up", "4,4", "--size", "16")


Train = Callable[..., CompletedProcess[str]]


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Train:
    """Run ``lookalike train`` in an empty folder of this process: torch is loaded once."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return lambda *words: lookalike("train", *words, cwd=tmp_path / "here")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """So small networks are as fast with one, and leave the other cores alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def small_mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_digits(folder / "MNIST" / "raw")
    return folder


@pytest.fixture
def digits(small_mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small MNIST is where the data sets are."""
    monkeypatch.setenv("LOOKALIKE_DATA", str(small_mnist))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classes(tmp_path_factory.mktemp("data") / "shapes", each=12)


@pytest.mark.slow
@pytest.mark.trains
@pytest.mark.usefixtures("digits")
def test_digits_become_a_conditional_model(tmp_path: Path, train: Train) -> None:
    out = tmp_path / "digits"
    done = train("cvae", "--data", "mnist", "--out", str(out), *SLIM)
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
    bound = spec.training["bound"]
    assert (spec.mirror, bound["binarise"], bound["align"]) == (False, "dynamic", False)
    assert (bound["adversarial_weight"], bound["consistency"]) == (10.0, 1.0)
    assert spec.training["network"]["likelihood"] == "bernoulli"
    assert spec.training["network"]["down"] == [32, 64]


@pytest.mark.trains
@pytest.mark.parametrize(
    ("words", "classes", "channels"),
    [
        (("vae", *NARROW), CLASSES, 3),
        pytest.param(
            ("vae", *NARROW, "--gray", "--subfolders", "none", "--importance", "3"),
            (),
            1,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            (
                "cvae",
                *NARROW,
                "--gray",
                "--unmodulated",
                "--binarise",
                "dynamic",
                "--no-mirror",
                "--no-align",
            ),
            CLASSES,
            1,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_folder_becomes_a_bundle(
    tmp_path: Path,
    data: Path,
    train: Train,
    words: tuple[str, ...],
    classes: tuple[str, ...],
    channels: int,
) -> None:
    out = tmp_path / "model"
    done = train(words[0], "--data", str(data), "--out", str(out), *words[1:])
    assert done.returncode == 0, done.stderr
    spec = Bundle.open(out).spec
    assert (spec.classes, spec.image.channels, spec.image.size) == (classes, channels, 16)
    binary = "dynamic" in words
    assert spec.training["network"]["likelihood"] == ("bernoulli" if binary else "gaussian")
    assert spec.training["bound"]["align"] is ("--no-align" not in words)
    assert spec.training["bound"]["consistency"] == 0
    assert spec.mirror is ("--no-mirror" not in words)


@pytest.mark.slow
@pytest.mark.trains
def test_epochs_and_batch_are_those_that_suit_the_number_of_pictures(
    tmp_path: Path, data: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lookalike.trainer.config._STEPS", 6)
    words = ("--latent", "4", "--hidden", "16", "--down", "4,4", "--up", "4,4", "--size", "16")
    for chosen, epochs, batch in (((), 6, 32), (("--epochs", "1"), 1, 32), (("--batch", "8"), 6, 8)):
        out = tmp_path / f"model-{epochs}-{batch}"
        done = train("vae", "--data", str(data), "--out", str(out), *words, *chosen)
        assert done.returncode == 0, done.stderr
        training = Bundle.open(out).spec.training["training"]
        assert (training["epochs"], training["batch"]) == (epochs, batch)


@pytest.mark.slow
@pytest.mark.trains
@pytest.mark.usefixtures("digits")
def test_plain_autoencoder_learns_digits_and_draws_by_class(tmp_path: Path, train: Train) -> None:
    out = tmp_path / "digits-ae"
    words = ("--latent", "4", "--hidden", "16", "--epochs", "1", "--device", "cpu", "--sample-every", "0")
    done = train("ae", "--data", "mnist", "--out", str(out), *words)
    assert done.returncode == 0, done.stderr
    bundle = Bundle.open(out)
    assert (bundle.spec.kind, bundle.spec.latent, bundle.spec.mirror) == ("ae", 4, False)
    assert bundle.spec.image.shape == (28, 28, 1)
    assert bundle.spec.classes == tuple("0123456789")
    assert bundle.sampling is not None
    assert bundle.sampling.by_class is not None
    assert bundle.sampling.by_class.components == 10


@pytest.mark.slow
@pytest.mark.trains
def test_plain_autoencoder_takes_subfolders_for_classes_when_asked(
    tmp_path: Path, data: Path, train: Train
) -> None:
    out = tmp_path / "model"
    words = ("--size", "16", "--latent", "4", "--hidden", "16", "--epochs", "1", "--device", "cpu")
    done = train(
        "ae", "--data", str(data), "--out", str(out), *words, "--subfolders", "class", "--descriptor", "12"
    )
    assert done.returncode == 0, done.stderr
    bundle = Bundle.open(out)
    assert (bundle.spec.classes, bundle.spec.labels) == (CLASSES, "class")
    assert bundle.spec.latent == 4 + 12 + bundle.spec.training["texture"]["dim"]
    assert bundle.sampling is not None
    assert bundle.sampling.by_class is not None
    assert bundle.sampling.by_class.size == 4  # of the appearance: pictures are drawn of it alone


@pytest.mark.trains
def test_plain_autoencoder_takes_few_full_subfolders_for_classes_and_says_so(
    tmp_path: Path, data: Path, train: Train
) -> None:
    out = tmp_path / "model"
    words = ("--size", "16", "--latent", "4", "--hidden", "16", "--epochs", "1", "--device", "cpu")
    done = train("ae", "--data", str(data), "--out", str(out), *words)
    assert done.returncode == 0, done.stderr
    first, second = done.stderr.splitlines()[:2]
    assert "its 3 subfolders are taken as classes; if each is a person, pass --subfolders person" in first
    assert "split by image" in second
    assert "images of the same class are found first in" in done.stderr
    spec = Bundle.open(out).spec
    assert (spec.classes, spec.labels) == (CLASSES, "class")
    assert spec.training["texture"]["kind"] == "texture"


@pytest.mark.parametrize(("old", "kind"), [("--classes", "vae"), ("--classes", "ae"), ("--labels", "ae")])
def test_the_options_that_subfolders_replaces_are_gone(train: Train, data: Path, old: str, kind: str) -> None:
    done = train(kind, "--data", str(data), "--out", "model", old, "none")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{old} is now --subfolders" in done.stderr


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (("--latent", "0"), "got latent 0"),
        (("--hidden", "many"), "not a valid integer"),
        (("--down", "4,x"), "'4,x' must be whole numbers with commas between them"),
        (("--down", "4,4,4", "--up", "4,4"), "must have the same number of stages"),
        (("--size", "30"), "must be divisible by 4"),
        (("--size", "512"), "at most 160"),
        (("--importance", "0"), "importance must be 1 to 10,000"),
        (("--free-bits", "-1"), "free_bits must be 0 or more"),
        (("--importance", "5", "--free-bits", "1"), "free_bits needs the ELBO"),
        (("--batch", "2"), "must be 3 or more"),
        (("--beta", "nan"), "beta must be 0 or more"),
        (("--averaging", "1"), "averaging must be 0 to below 1"),
        (("--binarise", "static"), "--binarise"),
        (("--gray", "--deviation", "0"), "deviation of pixels must be above 0"),
        (("--class-attribute", "Smiling"), "reads the table of lfw"),
    ],
)
@pytest.mark.parametrize("kind", ["vae", "cvae"])
def test_options_that_cannot_be_are_usage_errors(
    data: Path, train: Train, kind: str, words: tuple[str, ...], rule: str
) -> None:
    done = train(kind, "--data", str(data), "--out", "model", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert rule in done.stderr
    assert "Traceback" not in done.stderr
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("subfolders", ["class", "none"])
def test_conditional_model_without_classes_fails_in_one_line(
    tmp_path: Path, train: Train, subfolders: str
) -> None:
    root = write_classes(tmp_path / "shapes", each=4)
    where = root / "ring" if subfolders == "class" else root
    done = train("cvae", "--data", str(where), "--out", "model", "--subfolders", subfolders)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("lookalike: a conditional model needs two classes or more, ")
    assert done.stderr.count("\n") == 1


@pytest.mark.usefixtures("digits")
def test_descriptor_of_digits_is_refused(train: Train) -> None:
    done = train("ae", "--data", "mnist", "--out", "model", "--descriptor", "8", "--latent", "4")
    assert done.returncode == 2
    assert "need mirror images, mnist cannot be mirrored" in done.stderr


def test_every_option_is_described_and_has_the_default_of_the_library() -> None:
    specs = (VAE_DEFAULTS, ElboConfig(), VAESpec(size=28, channels=1))
    defaults = {name: value for spec in specs for name, value in spec.to_json().items()}
    chosen = {
        "size",
        "down",
        "up",
        "likelihood",
        "binarise",
        "mirror",
        "align",
        "classes",
        "consistency",
    }  # by the data
    chosen |= {"epochs", "batch"}  # by their number
    chosen |= {"noise"}  # written as text
    for command, count in ((vae, 14), (cvae, 16)):
        options = {option.name: option for option in command.params if isinstance(option, click.Option)}
        assert all(option.help for option in options.values())
        assert VAE_DEFAULTS.noise is None
        assert NoiseSpec.parse(str(options["noise"].default)).is_zero
        shared = options.keys() & defaults.keys() - chosen
        assert len(shared) == count
        assert {name: options[name].default for name in shared} == {name: defaults[name] for name in shared}
