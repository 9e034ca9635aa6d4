"""Files of latents whose rows are faces: what index --faces would store, without opening a picture."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lookalike.encoder.detect import Faces
from lookalike.encoder.errors import DataError, ModelMismatchError
from lookalike.encoder.runtime import Model
from lookalike.indexer.open import open_store
from lookalike.indexer.parquet import export_latents, load_latents
from lookalike.indexer.sources import as_sources
from lookalike.indexer.store import VectorStore
from lookalike.indexer.sync import sync
from tests.fixtures.face_pictures import write_picture

NAME = "faces"
LOOKS = {"a/one.png": (0,), "none.png": (), "three.png": (1, 2, 3)}


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.open("faces", threads=1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[VectorStore]:
    with open_store(str(tmp_path / "store")) as opened:
        yield opened


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name, looks in LOOKS.items():
        write_picture(tmp_path / "photos" / name, looks)
    return tmp_path / "photos"


def export(model: Model, photos: Path, out: Path, **options: Any) -> Any:
    return export_latents(model, as_sources([photos], {}), out, crop=Faces(), **options)


def points(store: VectorStore, name: str = NAME) -> dict[str, Any]:
    return {
        record.id: (record.payload, np.round(record.vector, 5).tolist())
        for record in store.scroll(name, with_vectors=True)
        if record.vector is not None
    }


def test_a_file_of_faces_gives_the_collection_that_indexing_gives(
    store: VectorStore, model: Model, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "faces.parquet"
    report = export(model, photos, out)
    assert (report.rows, report.embedded, report.failed) == (5, 5, [])
    assert load_latents(store, NAME, [out]).added == 5
    sync(store, "indexed", model, [photos], crop=Faces())
    loaded, indexed = points(store), points(store, "indexed")
    assert loaded.keys() == indexed.keys()
    for key, (payload, vector) in indexed.items():
        assert loaded[key][0] == payload
        np.testing.assert_allclose(loaded[key][1], vector, atol=2e-5)
    assert load_latents(store, NAME, [out]).unchanged == 5
    assert sync(store, NAME, model, [photos]).unchanged == 3


def test_a_second_run_reuses_the_faces_of_pictures_that_are_as_they_were(
    store: VectorStore, model: Model, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "faces.parquet"
    export(model, photos, out)
    assert export(model, photos, out).unchanged
    load_latents(store, NAME, [out])
    write_picture(photos / "three.png", (4, 5))
    again = export(model, photos, out, overwrite=True)
    assert (again.rows, again.embedded, again.kept, again.dropped) == (4, 2, 2, 3)
    # The third face is gone, from the collection too.
    report = load_latents(store, NAME, [out])
    assert (report.changed, report.unchanged) == (2, 2)
    counts = sorted(
        (record.payload["path"], record.payload["face"]["number"]) for record in store.scroll(NAME)
    )
    assert counts == [("a/one.png", 1), ("none.png", 0), ("three.png", 1), ("three.png", 2)]


def test_faces_and_whole_pictures_do_not_mix(
    store: VectorStore, model: Model, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "faces.parquet"
    export(model, photos, out)
    sync(store, NAME, model, [photos])
    with pytest.raises(ModelMismatchError, match="another collection"):
        load_latents(store, NAME, [out])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"number": 1', '"number": 7'), ('"number": 1', '"number": -1'), ('"count": 3', '"count": 9999999'),
        ('"box"', '"bax"'), ('"landmarks": [[', '"landmarks": [[0.1, 0.1], ['), ('"number"', '"numbers"'),
    ],
)  # fmt: skip
def test_a_face_that_cannot_be_is_refused_before_anything_is_stored(
    store: VectorStore, model: Model, photos: Path, tmp_path: Path, old: str, new: str
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = tmp_path / "faces.parquet"
    export(model, photos, out)
    table = pq.read_table(out)
    payloads = [text.replace(old, new) for text in table["payload"].to_pylist()]
    changed = table.set_column(table.column_names.index("payload"), "payload", pa.array(payloads))
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), out)
    with pytest.raises(DataError, match=r"row \d has a payload that cannot be stored"):
        load_latents(store, NAME, [out])
    assert not store.list_collections()
