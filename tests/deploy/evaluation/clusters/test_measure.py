"""B-cubed precision and recall."""

import json
from pathlib import Path

import numpy as np
import pytest

from lookalike.deploy.evaluation import measure_clusters
from lookalike.deploy.evaluation.clusters.measure import b_cubed
from lookalike.encoder.errors import InvalidArgumentError
from tests.fixtures.command import lookalike
from tests.fixtures.people import write_people

AXES = np.eye(8, dtype=np.float32)


def test_a_worked_example() -> None:
    # Groups {a, a, b} and {b}. Precision: 2/3, 2/3, 1/3, 1. Recall: 1, 1, 1/2, 1/2.
    precision, recall = b_cubed(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]))
    assert precision == pytest.approx((2 / 3 + 2 / 3 + 1 / 3 + 1) / 4)
    assert recall == pytest.approx(0.75)


def test_swapped_precision_is_recall() -> None:
    rng = np.random.default_rng(0)
    found, truth = rng.integers(0, 9, (2, 200))
    assert b_cubed(found, truth) == pytest.approx(b_cubed(truth, found)[::-1])
    assert b_cubed(found, found) == (1, 1)


def test_images_in_no_group_are_alone() -> None:
    found = measure_clusters(AXES[[0, 0, 1, 2]], ["a", "a", "b", "b"], 0.5)
    assert (found.images, found.people, found.clusters) == (4, 2, 1)
    assert (found.precision, found.recall) == (1, 0.75)
    assert found.f1 == pytest.approx(2 * 0.75 / 1.75)
    with pytest.raises(InvalidArgumentError, match="got none"):
        measure_clusters(AXES[:0], [], 0.5)


def test_the_command(tmp_path: Path, tiny_model: Path) -> None:
    write_people(tmp_path / "people", people=24, each=3)
    words = ("evaluate", "clustering", "--data", "people", "--model", str(tiny_model))
    done = lookalike(*words, "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    everybody, held_out = json.loads(done.stdout)
    assert (everybody["of"], held_out["of"]) == ("everybody", "held out")
    assert (everybody["images"], everybody["people"], everybody["threshold"]) == (72, 24, 0.7)
    assert held_out["people"] < 24
    table = lookalike(*words, "--threshold", "0.999", cwd=tmp_path).stdout.splitlines()
    assert len(table) == 3
    assert len({len(line) for line in table}) == 1
    assert table[1].split()[5] == "0.999"
