"""Anybody's vectors: which picture a path names, and what a Parquet file must be."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lookalike.deploy.evaluation import (
    LabeledImages,
    collection_images,
    embed_images,
    open_labeled,
    read_parquet_vectors,
    stored_vectors,
)
from lookalike.deploy.evaluation.vectors import assign_vectors, match_paths
from lookalike.encoder.errors import DataError, LookalikeError, VectorError
from lookalike.encoder.runtime import Model
from lookalike.indexer.open import open_store
from tests.fixtures.people import write_people
from tests.fixtures.photos import NAME, make_home

PATHS = ("Ada/Ada_0001.jpg", "Ada/Ada_0002.jpg", "Eva/Eva_0001.jpg", "Eva/portrait.jpg", "Ada/portrait.jpg")
IMAGES = LabeledImages("faces", tuple(map(Path, PATHS)), PATHS, tuple(path[:3] for path in PATHS))
GOOD = [[1.0, 0.0], [0.0, 2.0], [3.0, 4.0], [1.0, 1.0], [-1.0, 0.0]]


@pytest.mark.parametrize(
    ("path", "index"),
    [
        ("Ada/Ada_0002.jpg", 1),
        ("/data/lfw/Ada/Ada_0002.jpg", 1),
        ("C:\\lfw\\Ada\\Ada_0002.jpg", 1),
        ("Ada_0002.jpg", 1),
        ("elsewhere/Ada_0002.jpg", 1),
        ("Eva/portrait.jpg", 3),
        ("portrait.jpg", -1),  # there are two
        ("Eva/Eva_0002.jpg", -1),
        ("", -1),
    ],
)
def test_a_path_names_a_picture(path: str, index: int) -> None:
    assert match_paths([path], IMAGES).tolist() == [index]


def write(file: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), file)
    return file


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32()), pa.list_(pa.float64(), 2), pa.large_list(pa.float16())]
)
def test_vectors_are_read_and_scaled(tmp_path: Path, kind: pa.DataType) -> None:
    file = write(tmp_path / "v.parquet", path=[*PATHS, "extra.jpg"], vector=pa.array([*GOOD, [5, 5]], kind))
    found = read_parquet_vectors(file, IMAGES)
    assert (found.name, found.kind) == ("v.parquet", "vectors")
    assert found.present.all()
    assert found.rows == pytest.approx(
        np.array([[1, 0], [0, 1], [0.6, 0.8], [0.5**0.5] * 2, [-1, 0]]), abs=1e-6
    )


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"name": PATHS, "vector": GOOD}, "must have one column path of text; it has: name, vector"),
        ({"path": PATHS}, "must have one column vector of lists of numbers"),
        ({"path": [1, 2, 3, 4, 5], "vector": GOOD}, "the column path must hold text, not int64"),
        ({"path": PATHS, "vector": [1.0, 2.0, 3.0, 4.0, 5.0]}, "must hold lists of numbers, not double"),
        ({"path": PATHS, "vector": [["a"]] * 5}, "must hold lists of numbers, not list<"),
        ({"path": [None, *PATHS[1:]], "vector": GOOD}, "every row must have a path, row 0 has none"),
        ({"path": PATHS, "vector": [*GOOD[:4], [1.0]]}, "that of Ada/portrait.jpg has 1; leave"),
        ({"path": PATHS, "vector": [*GOOD[:4], None]}, "that of Ada/portrait.jpg has none; leave"),
        ({"path": PATHS, "vector": [*GOOD[:4], [1.0, None]]}, "that of Ada/portrait.jpg (1 in all)"),
        ({"path": PATHS, "vector": [*GOOD[:4], [1.0, np.nan]]}, "must be finite and not zero"),
        ({"path": PATHS, "vector": [*GOOD[:4], [1e300, 0.0]]}, "must be finite and not zero"),
        ({"path": PATHS, "vector": [*GOOD[:4], [0.0, 0.0]]}, "must be finite and not zero"),
        ({"path": [*PATHS[:4], "x/Ada_0001.jpg"], "vector": GOOD}, "it has 2 for Ada/Ada_0001.jpg"),
        ({"path": ["a", "b", "c", "d", "e"], "vector": GOOD}, "none of its 5 do, the first is 'a'"),
        ({"path": PATHS, "vector": GOOD, "person": ["Ada", "Eva", None, "Eva", "Ada"]}, "has 'Eva' for Ada/"),
    ],
)  # fmt: skip
def test_what_a_file_may_not_be(tmp_path: Path, columns: dict[str, Any], said: str) -> None:
    file = write(tmp_path / "v.parquet", **columns)
    with pytest.raises(LookalikeError, match=r"v\.parquet") as caught:
        read_parquet_vectors(file, IMAGES)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_parquet_is_said(tmp_path: Path) -> None:
    (tmp_path / "v.parquet").write_bytes(b"no")
    for file in ("v.parquet", "gone.parquet"):
        with pytest.raises(DataError, match="must be a readable Parquet file") as caught:
            read_parquet_vectors(tmp_path / file, IMAGES)
        assert "\n" not in str(caught.value)
    empty = write(
        tmp_path / "e.parquet", path=pa.array([], pa.string()), vector=pa.array([], pa.list_(pa.float32()))
    )
    with pytest.raises(DataError, match="a row for each image, it has none"):
        read_parquet_vectors(empty, IMAGES)


def test_a_picture_that_is_needed_and_has_no_vector_is_named() -> None:
    found = assign_vectors("mine", PATHS[:3], np.eye(3, dtype=np.float32), IMAGES, kind="vectors")
    found.require(np.array([True, True, True, False, False]), IMAGES)
    with pytest.raises(
        DataError, match=r"each of the 5 images of faces .* 2 have none, the first is Eva/por"
    ):
        found.require(np.ones(5, np.bool_), IMAGES)


def test_nothing_is_divided_by_a_vector_that_cannot_be() -> None:
    with pytest.raises(VectorError, match=r"that of Eva/Eva_0001\.jpg"):
        assign_vectors("mine", PATHS[:3], np.diag([1, 1, 0]).astype(np.float32), IMAGES, kind="vectors")


def test_a_collection_gives_what_its_model_gives(tiny_model: Path, tmp_path: Path) -> None:
    home = make_home(tmp_path, tiny_model)
    with open_store(str(home / ".lookalike")) as store:
        own = collection_images(store, NAME)
        stored = stored_vectors(store, NAME, own)
        by_folder = stored_vectors(store, NAME, open_labeled(str(home / "photos")))
    assert stored.present.all()
    embedded = embed_images(Model.open(tiny_model), own)
    assert stored.rows == pytest.approx(embedded.rows, abs=1e-5)
    assert sorted(map(tuple, by_folder.rows)) == sorted(map(tuple, stored.rows))
    assert own.people.count("Hypatia") == 3


def test_a_bad_picture_has_no_vector_and_is_named(tiny_model: Path, tmp_path: Path) -> None:
    write_people(tmp_path, people=2, each=2)
    (tmp_path / "person-0" / "0.png").write_bytes(b"no picture")
    found = embed_images(Model.open(tiny_model), open_labeled(str(tmp_path)))
    assert found.present.tolist() == [False, True, True, True]
    (line,) = found.failures
    assert "0.png" in line


@pytest.mark.parametrize("source", ["nowhere", "empty"])
def test_data_that_are_not_there_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=f"--data .*'{source}'"):
        open_labeled(source)
