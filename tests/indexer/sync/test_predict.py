"""index --predict: read off vectors, marked, never in the place of what is known, and done once."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from lookalike.encoder.bundle import Attribute, Bundle
from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.runtime import Model
from lookalike.indexer.open import open_store
from lookalike.indexer.store import VectorStore, parse_where
from lookalike.indexer.sync.predict import attributes_to_predict, predict_attributes
from tests.encoder.bundle.test_attributes import hand_made
from tests.fixtures import stores
from tests.fixtures.command import lookalike
from tests.fixtures.photos import NAME, stored, write_photos
from tests.fixtures.stores import D, point_ids, random_vectors, unit

store, name = stores.store, stores.name


def reader(title: str, place: int) -> Attribute:
    return Attribute(
        name=title,
        edit_direction=np.zeros(2, np.float32),
        probe=np.eye(D, dtype=np.float32)[place] * 10,
        offset=1,
        deviation=1,
        positive=1,
        negative=1,
    )


@pytest.mark.slow
def test_memory_does_not_grow_with_the_collection(tmp_path: Path) -> None:
    count = 6000
    with open_store(str(tmp_path / "store")) as store:
        store.create("a", stores.SPEC)
        payloads = [{"path": f"{number:05d}.jpg", "note": "x" * 200} for number in range(count)]
        store.upsert("a", point_ids(count), random_vectors(count), payloads)
        tracemalloc.start()
        try:
            assert predict_attributes(store, "a", [reader("A", 0), reader("B", 1)]) == count
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 1000 * count  # 2,900 bytes a point when all that changes is kept
        assert predict_attributes(store, "a", [reader("A", 0), reader("B", 1)]) == 0


def test_what_is_known_stays(store: VectorStore, name: str) -> None:
    ids, vectors = point_ids(4), random_vectors(4)
    store.upsert(name, ids, vectors, [{"A": -5.0}, {"A": 5.0, "b": 1}, {"b": 2}, {}])
    assert predict_attributes(store, name, [reader("A", 0)]) == 2
    assert predict_attributes(store, name, [reader("A", 0)]) == 0  # again changes nothing
    there = store.get(name, ids)
    expected = (10 * unit(vectors)[:, 0] + 1).tolist()
    assert dict(there[ids[0]].payload) == {"A": -5.0}
    assert dict(there[ids[1]].payload) == {"A": 5.0, "b": 1}
    for row in (2, 3):
        payload = there[ids[row]].payload
        assert payload["A"] == pytest.approx(expected[row], abs=1e-3)
        assert payload["predicted"] == ["A"]
    assert predict_attributes(store, name, [reader("B", 1)]) == 4
    assert store.get(name, ids)[ids[3]].payload["predicted"] == ["A", "B"]
    above = store.count(name, where=parse_where("A>0"))
    assert above == 1 + sum(value > 0 for value in expected[2:])


def test_indexing_predicts_and_leaves_it_so(tmp_path: Path, tiny_model: Path) -> None:
    opened = Bundle.open(tiny_model)
    opened.with_attributes(hand_made(embedding=opened.spec.embedding), tmp_path / "model")
    write_photos(tmp_path / "photos")
    (tmp_path / "table.csv").write_text("path,Smiling\nHypatia/0.jpg,1\n")
    index = ("index", "photos", "--collection", NAME, "--model", "model", "--payload", "table.csv")
    done = lookalike(*index, "--predict", "Smiling", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Smiling: predicted for 8 images" in done.stderr
    with open_store(str(tmp_path / ".lookalike")) as store:
        first = stored(store)
    for words in ((*index, "--predict", "Smiling"), index):
        done = lookalike(*words, cwd=tmp_path)
        assert "9 unchanged" in done.stderr
        with open_store(str(tmp_path / ".lookalike")) as store:
            assert stored(store) == first
    done = lookalike(*index, "--predict", "Frowning", cwd=tmp_path)
    assert done.returncode == 2
    with pytest.raises(InvalidArgumentError, match="has none"):
        attributes_to_predict(Model.open(tiny_model), "Smiling")
