"""Evaluating as people do it: their own folders of people, with a real model, through the command."""

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lookalike.deploy.evaluation import open_labeled
from tests.fixtures.command import lookalike, lookalike_process, one_line
from tests.fixtures.people import write_people

VERIFY = ("evaluate", "verification", "--data", "people")
RETRIEVE = ("evaluate", "retrieval", "--data", "people")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with people/, 24 of them with three pictures each. Leave it as it is."""
    home = tmp_path_factory.mktemp("home")
    write_people(home / "people", people=24, each=3)
    return home


def parquet(home: Path, file: Path, *, leave_out: int = 0, seed: int | None = 0) -> Path:
    """Vectors of the people: random ones, or (without a seed) those of an oracle."""
    images = open_labeled(str(home / "people"))
    people = sorted(set(map(str, images.people)))
    vectors = (
        np.eye(len(people))[[people.index(str(person)) for person in images.people]]
        if seed is None
        else np.random.default_rng(seed).normal(size=(len(images), 8))
    )
    rows = len(images) - leave_out
    table = {
        "path": list(images.paths)[:rows],
        "vector": vectors[:rows].tolist(),
        "person": images.people[:rows],
    }
    pq.write_table(pa.table(table), file)
    return file


def without_extras(folder: Path) -> dict[str, str]:
    """The environment of an install without the extra."""
    for name in ("sklearn", "skimage", "pyarrow", "matplotlib"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("raise ImportError('not here')\n")
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    return {"PYTHONPATH": path, "LOOKALIKE_CACHE": str(folder / "cache")}


def test_verification_of_a_folder(home: Path, tiny_model: Path) -> None:
    done = lookalike(*VERIFY, "--model", tiny_model, "--json", cwd=home)
    assert (done.returncode, done.stderr) == (0, "")
    rows = json.loads(done.stdout)
    (row,) = rows
    assert (row["name"], row["kind"]) == ("tiny", "model")
    assert row["held"].keys() == row["all"].keys()
    assert (row["held"]["folds"], row["all"]["folds"]) == (5, 10)
    assert row["all"]["pairs"] == 2 * row["held"]["pairs"]
    assert 0 <= row["held"]["accuracy"] <= 1
    assert json.loads(lookalike(*VERIFY, "--model", tiny_model, "--json", cwd=home).stdout) == rows
    other = lookalike(*VERIFY, "--model", tiny_model, "--json", "--seed", "5", "--crop", "full", cwd=home)
    assert json.loads(other.stdout) != rows


def test_the_table_of_verification(home: Path, tiny_model: Path) -> None:
    done = lookalike(*VERIFY, "--model", tiny_model, cwd=home)
    assert done.returncode == 0
    over, head, row = done.stdout.splitlines()
    assert over.split() == ["held:", "5", "folds", "all:", "10", "folds"]
    assert head.split() == ["row", *["accuracy", "AUC", "TAR@1%"] * 2]
    assert row.split()[0] == "tiny"
    assert row.count("±") == 2
    assert len(over) == len(head) == len(row)
    (line,) = done.stderr.splitlines()
    assert line.startswith("trust the held columns: ")


def test_several_of_each_are_rows_of_one_table(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    words = ["index", str(home / "people"), "--collection", "mine", "--model", str(tiny_model)]
    assert lookalike(*words, cwd=tmp_path).returncode == 0
    oracle, noise = (
        parquet(home, tmp_path / "oracle.parquet", seed=None),
        parquet(home, tmp_path / "noise.parquet"),
    )
    named = [
        "--model",
        str(tiny_model),
        "--collection",
        "mine",
        "--vectors",
        str(noise),
        "--vectors",
        str(oracle),
    ]
    data = ["--data", str(home / "people"), "--json"]
    done = lookalike("evaluate", "verification", *named, *data, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    model, collection, random, perfect = json.loads(done.stdout)
    assert [row["kind"] for row in (model, collection, random)] == ["model", "collection", "vectors"]
    assert collection["held"] == pytest.approx(model["held"], abs=1e-4)
    assert perfect["held"]["auc"] == perfect["held"]["accuracy"] == perfect["all"]["auc"] == 1.0
    assert random["all"]["auc"] < model["all"]["auc"]
    done = lookalike("evaluate", "retrieval", *named, *data, cwd=tmp_path)
    model, collection, random, perfect = json.loads(done.stdout)
    assert {**collection, "name": "tiny", "kind": "model"} == pytest.approx(model, abs=1e-4)
    assert perfect["mean_average_precision"] == perfect["recall_at_1"] == 1.0
    assert (perfect["queries"], perfect["others"], perfect["people"]) == (72, 71, "everybody")


def test_a_collection_alone_is_measured_on_what_it_holds(
    home: Path, tiny_model: Path, tmp_path: Path
) -> None:
    words = ["index", str(home / "people"), "--collection", "mine", "--model", str(tiny_model)]
    assert lookalike(*words, cwd=tmp_path).returncode == 0
    for verb in ("verification", "retrieval"):
        done = lookalike("evaluate", verb, "--collection", "mine", "--json", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert [row["name"] for row in json.loads(done.stdout)] == ["mine"]


def test_retrieval_of_a_folder(home: Path, tiny_model: Path) -> None:
    done = lookalike(*RETRIEVE, "--model", tiny_model, "--json", cwd=home)
    assert (done.returncode, done.stderr) == (0, "")
    (row,) = json.loads(done.stdout)  # no row of held-out people: no model was trained on the others
    assert (row["name"], row["people"], row["queries"]) == ("tiny", "everybody", 72)
    table = lookalike(*RETRIEVE, "--model", tiny_model, cwd=home)
    assert len({len(line) for line in table.stdout.splitlines()}) == 1


def test_the_roc_is_plotted(home: Path, tmp_path: Path) -> None:
    noise = parquet(home, tmp_path / "noise_$1.parquet")
    done = lookalike(*VERIFY, "--vectors", noise, "--roc", tmp_path / "roc.png", "--json", cwd=home)
    assert (done.returncode, done.stderr) == (0, f"written: {tmp_path / 'roc.png'}\n")
    with Image.open(tmp_path / "roc.png") as plot:
        assert min(plot.size) > 300
        assert np.asarray(plot).std() > 5


def test_own_pairs_are_taken(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    lines = [f"person-{i}\t0\t1\nperson-{i}\t0\tperson-{i + 4}\t2.png" for i in range(4)]
    (tmp_path / "pairs.txt").write_text("\n".join(["4\t1", *lines]))
    done = lookalike(*VERIFY, "--model", tiny_model, "--pairs", tmp_path / "pairs.txt", "--json", cwd=home)
    assert (done.returncode, done.stderr) == (0, "")
    rows = json.loads(done.stdout)
    assert [row["name"] for row in rows] == ["tiny"]
    assert (rows[0]["held"]["pairs"], rows[0]["all"]["pairs"]) == (4, 8)


def test_without_the_extra_the_rest_runs_and_says_what_is_missing(
    home: Path, tiny_model: Path, tmp_path: Path
) -> None:
    env = without_extras(tmp_path / "stubs")
    vectors = parquet(home, tmp_path / "v.parquet")
    words = [*VERIFY, "--model", str(tiny_model), "--json"]
    done = lookalike_process(*words, cwd=home, env=env)
    assert done.returncode == 0
    assert done.stderr == ""
    assert [row["name"] for row in json.loads(done.stdout)] == ["tiny"]
    asked = ["--vectors", str(vectors), "--roc", str(tmp_path / "roc.png")]
    done = lookalike_process(*words, *asked, cwd=home, env=env)
    assert done.returncode == 3
    assert [row["name"] for row in json.loads(done.stdout)] == ["tiny"]
    assert done.stderr.splitlines() == [
        "v.parquet: reading Parquet needs pyarrow; pip install 'lookalike[parquet]'",
        "a ROC plot needs matplotlib; pip install 'lookalike[evaluate]'",
    ]
    done = lookalike_process(*VERIFY, "--vectors", vectors, cwd=home, env=env)
    assert done.returncode == 1
    assert "needs pyarrow" in one_line(done)


def test_a_picture_that_cannot_be_read_is_left_out_of_every_row(tiny_model: Path, tmp_path: Path) -> None:
    write_people(tmp_path / "people", people=24, each=3)
    (tmp_path / "people" / "person-3" / "1.png").write_bytes(b"no picture")
    done = lookalike(*RETRIEVE, "--model", tiny_model, "--json", cwd=tmp_path)
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert line.startswith("failed: ")
    assert "1.png" in line
    assert {row["others"] for row in json.loads(done.stdout)} == {70}


@pytest.mark.parametrize(
    ("code", "words", "said"),
    [
        (1, "evaluate verification --data nowhere", "--data is lfw or a folder of person folders"),
        (1, "evaluate verification --data few --model MODEL", "add people or give --pairs"),
        (1, "evaluate verification --data people --model nowhere", "no model 'nowhere'"),
        (1, "evaluate verification --data people --pairs gone --model MODEL", "must be a readable text file"),
        (1, "evaluate verification --data people --vectors gone.parquet", "must be a readable Parquet file"),
        (1, "evaluate retrieval --data people --vectors short.parquet", "2 have none"),
        (1, "evaluate verification --collection nothing", "no collection 'nothing'"),
        (2, "evaluate retrieval --data people --model MODEL --crop middle", "write full, center:FRACTION"),
        (2, "evaluate retrieval --data alone --model MODEL", "people with two or more images"),
    ],
)
def test_what_cannot_be_is_one_line(
    home: Path, tiny_model: Path, tmp_path: Path, code: int, words: str, said: str
) -> None:
    (tmp_path / "people").symlink_to(home / "people")
    write_people(tmp_path / "few", people=3, each=2)
    write_people(tmp_path / "alone", people=3, each=1)
    parquet(home, tmp_path / "short.parquet", leave_out=2)
    done = lookalike(*words.replace("MODEL", str(tiny_model)).split(), cwd=tmp_path)
    assert done.returncode == code
    assert said in one_line(done)


def test_an_image_of_an_unknown_kind_is_refused_before_anything_is_measured(home: Path) -> None:
    done = lookalike(*VERIFY, "--roc", "out.txt", cwd=home)
    assert done.returncode == 2
    assert "an image is written as .png" in done.stderr
