"""How to train: what cannot be is refused, and torch is not needed to say so."""

import json
import math
import subprocess
import sys

import pytest

from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.images import NoiseSpec
from lookalike.trainer.config import VAE_DEFAULTS, TrainingSpec, default_schedule


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("batch", 0),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("learning_rate", math.inf),
        ("weight_decay", -0.1),
        ("warmup", -1),
        ("averaging", 1.0),
        ("shift", -1),
        ("noise", -0.1),
        ("noise", math.nan),
        ("precision", "float16"),
        ("seed", -1),
        ("seed", 2**63),
    ],
)
def test_options_that_cannot_be_are_refused(name: str, value: float | str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"{name} must be .*, not {value}"):
        TrainingSpec(**{name: value})  # type: ignore[arg-type]  # wrong on purpose


def test_spec_becomes_json_values() -> None:
    spec = TrainingSpec(epochs=3)
    values = json.loads(json.dumps(spec.to_json()))
    assert values["noise"] == 0.0
    assert TrainingSpec(**values | {"noise": None}) == spec
    noise = NoiseSpec.parse("salt-pepper:0.1:0.2")
    told = json.loads(json.dumps(TrainingSpec(noise=noise).to_json()))
    assert NoiseSpec.from_json(told["noise"]) == noise


def test_options_bring_no_torch() -> None:
    program = (
        "import sys, lookalike.trainer.config, lookalike.deploy.cli.training.train; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(
    ("pictures", "epochs", "batch"),
    [(55_000, 60, 128), (5_000, 60, 128), (4_999, 32, 64), (2_091, 76, 64), (499, 157, 32), (3, 2_500, 32)],
)
def test_few_pictures_are_shown_more_often_in_smaller_batches(pictures: int, epochs: int, batch: int) -> None:
    assert default_schedule(pictures) == (epochs, batch)
    assert pictures < 5_000 or (epochs, batch) == (VAE_DEFAULTS.epochs, VAE_DEFAULTS.batch)
