"""All figures of models of digits through the command: hand-made models, some real digits, a real judge."""

import json
from pathlib import Path
from typing import Any

import pytest

from lookalike.deploy.cli.evaluate.generation import _PARTS
from lookalike.deploy.evaluation.generation import PARTS
from lookalike.encoder.datasets import CLASSES, MNIST, SPLITS
from tests.fixtures.command import lookalike, one_line
from tests.fixtures.digit_files import STEMS, idx
from tests.fixtures.handmade_models import drawn_of_classes, make_digits
from tests.fixtures.likelihood_models import variational

pytestmark = pytest.mark.mnist
COUNTS = {"train": 480, "test": 120}
QUICK = ("--images", "20", "--samples", "30", "--drawn", "100")


@pytest.fixture(scope="module")
def home(mnist: MNIST, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with some of MNIST and a model of each kind: digits, digits-vae, digits-ae. Leave it."""
    home = tmp_path_factory.mktemp("home")
    raw = home / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split in SPLITS:
        count = COUNTS[split]
        (raw / f"{STEMS[split]}-images-idx3-ubyte").write_bytes(idx(mnist.images(split)[:count]))
        (raw / f"{STEMS[split]}-labels-idx1-ubyte").write_bytes(idx(mnist.labels(split)[:count]))
    sampling = drawn_of_classes(classes=10)
    variational(home / "digits", classes=CLASSES, kind="cvae", sampling=sampling)
    variational(home / "digits-vae", classes=CLASSES, kind="vae", sampling=sampling)
    make_digits(home / "digits-ae", kind="ae", classes=())
    return home


def run(home: Path, *words: str | Path, cwd: Path | None = None) -> Any:
    env = {"LOOKALIKE_DATA": str(home / "data"), "LOOKALIKE_CACHE": str(home / "cache")}
    return lookalike("evaluate", "generation", *words, cwd=cwd or home, env=env)


@pytest.fixture(scope="module")
def judged(home: Path) -> Path:
    """The same, when the judge has been trained and is in the cache."""
    done = run(home, "--model", "digits", "--only", "accuracy", *QUICK, "--json")
    assert done.returncode == 0
    assert [line.startswith("classifier: epoch") for line in done.stderr.splitlines()] == 14 * [True]
    said = json.loads(done.stdout)
    assert said["judge"]["test"]["overall"] > 0.7  # the worst of 20 seeds has 0.917
    assert said["floor"] is None
    return home


@pytest.mark.trains
def test_all_figures_of_three_kinds(judged: Path) -> None:
    words = ("--model", "digits", "--model", "digits-vae", "--model", "digits-ae", *QUICK)
    done = run(judged, *words, "--json")
    assert done.returncode == 3  # an ae has no likelihood, and this one no classes
    said = json.loads(done.stdout)
    assert done.stderr.splitlines() == [  # and no training
        "digits-ae: no likelihood, the model (ae) is not variational",
        "digits-ae: no metrics by class, its classes are not those of mnist",
    ]
    assert said["floor"]["frechet"] > 0
    cvae, vae, ae = said["models"]
    assert [row["measured"] for row in cvae["likelihood"]] == 2 * ["log p(x|y)", "log p(x)"]
    assert [row["protocol"] for row in vae["likelihood"]] == ["dynamic", "threshold"]
    for row in cvae["likelihood"] + vae["likelihood"]:
        assert (row["images"], row["samples"]) == (20, 30)
        assert row["bound"] <= row["negative_elbo"]
        assert row["bound_error"] > 0
    assert (cvae["conditioned"], vae["conditioned"], ae["conditioned"]) == ("label", "Gaussian", None)
    assert cvae["accuracy"]["count"] == vae["accuracy"]["count"] == 100
    assert [row["space"] for row in cvae["diversity"]] == ["features", "pixels"]
    assert [row["source"] for row in cvae["distance"]] == ["normal", "gaussian", "gmm"]
    assert [row["source"] for row in ae["distance"]] == ["gaussian"]
    for model in said["models"]:
        assert (model["neighbours"]["stored"], model["neighbours"]["queries"]) == (480, 120)
        assert model["neighbours"]["through"] == "store"


@pytest.mark.trains
def test_metrics_as_lines(judged: Path) -> None:
    words = ("--model", "digits", "--model", "digits-vae", *QUICK)
    table = run(judged, *words)
    assert (table.returncode, table.stderr) == (0, "")
    assert "right on" in table.stdout
    assert "5-NN accuracy" in table.stdout


def test_parts_can_be_chosen_and_the_seed_decides(home: Path) -> None:
    words = ("--model", "digits-vae", "--only", "likelihood", *QUICK)
    done = run(home, *words, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert result["judge"] is None
    (model,) = result["models"]
    assert model["accuracy"] is model["neighbours"] is None
    assert [(row["images"], row["samples"]) for row in model["likelihood"]] == 2 * [(20, 30)]
    again = run(home, *words, "--json")
    assert _untimed(json.loads(again.stdout)) == _untimed(result)
    other = run(home, *words, "--json", "--seed", "1")
    assert _untimed(json.loads(other.stdout)) != result


def test_the_parts_of_the_command_are_those_of_the_plan() -> None:
    assert _PARTS == PARTS


@pytest.mark.parametrize(
    ("code", "words", "said"),
    [
        (1, "--model nowhere", "no model 'nowhere'"),
        (2, "--model TINY", "gray and whole; model tiny takes 16x16x3, crop center:0.5"),
        (2, "--model digits-vae --only beauty", "'beauty' is none of likelihood, accuracy"),
        (2, "--model digits-vae --samples 0", "--samples"),
    ],
)
def test_what_cannot_be_is_said(home: Path, tiny_model: Path, code: int, words: str, said: str) -> None:
    done = run(home, *words.replace("TINY", str(tiny_model)).split())
    assert done.returncode == code
    assert said in done.stderr
    assert done.stdout == ""
    if code == 1:
        one_line(done)


def _untimed(said: dict[str, Any]) -> dict[str, Any]:
    for model in said["models"]:
        for row in model["likelihood"]:
            del row["samples_per_second"]
    return said
