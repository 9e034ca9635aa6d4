"""Collections whose items are faces: every face a point, and a picture's points come and go together."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lookalike.encoder.detect import Faces
from lookalike.encoder.errors import InvalidArgumentError, ModelMismatchError, StoreError
from lookalike.encoder.images import Crop
from lookalike.encoder.runtime import Model
from lookalike.indexer.open import open_store
from lookalike.indexer.sources import SourceFilter, SourceList, item_id
from lookalike.indexer.store import VectorStore
from lookalike.indexer.sync import SyncReport, sync
from lookalike.indexer.sync.faces import face_id
from tests.fixtures.face_pictures import write_picture

NAME = "faces"


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.open("faces", threads=1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[VectorStore]:
    with open_store(str(tmp_path / "store")) as opened:
        yield opened


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for name, looks in {
        "none.png": (),
        "Ada/one.png": (0,),
        "Ada/two.png": (1, 2),
        "three.png": (3, 4, 5),
    }.items():
        write_picture(folder / name, looks)
    return folder


def index(store: VectorStore, model: Model, *sources: Path, **options: Any) -> SyncReport:
    return sync(store, NAME, model, sources, **{"crop": Faces(), **options})


def points(store: VectorStore) -> dict[str, list[tuple[int, int]]]:
    """Number and count of each point, by path."""
    found: dict[str, list[tuple[int, int]]] = {}
    for record in store.scroll(NAME):
        face = record.payload["face"]
        found.setdefault(record.payload["path"], []).append((face["number"], face["count"]))
    return {path: sorted(faces) for path, faces in sorted(found.items())}


def vectors(store: VectorStore) -> dict[str, Sequence[float]]:
    return {
        record.id: np.round(record.vector, 5).tolist()
        for record in store.scroll(NAME, with_vectors=True)
        if record.vector is not None
    }


EXPECTED = {
    "Ada/one.png": [(1, 1)],
    "Ada/two.png": [(1, 2), (2, 2)],
    "none.png": [(0, 0)],
    "three.png": [(1, 3), (2, 3), (3, 3)],
}


def test_every_face_is_a_point_and_a_picture_without_one_is_remembered(
    store: VectorStore, model: Model, photos: Path
) -> None:
    report = index(store, model, photos)
    assert (report.added, report.faces, report.without_face, report.failed) == (4, 6, 1, [])
    assert report.summary().endswith("; 6 faces found, 1 pictures without a face")
    assert points(store) == EXPECTED
    for record in store.scroll(NAME):
        face, path = record.payload["face"], record.payload["path"]
        assert record.id == face_id("photos", path, face["number"])
        if face["number"] <= 1:
            assert record.id == item_id("photos", path)
        if face["number"]:
            assert 28 <= face["width"] <= 160
            assert len(face["box"]) == 4
            assert len(face["landmarks"]) == 5
            left = face["box"][0] * face["count"]  # the faces stand in a row
            assert face["number"] - 1 < left < face["number"]
    # Of several faces nobody knows whose the folder's name is.
    people = {record.payload["path"]: record.payload.get("person") for record in store.scroll(NAME)}
    assert people == {"Ada/one.png": "Ada", "Ada/two.png": None, "none.png": None, "three.png": None}


def test_a_second_run_opens_no_picture(
    store: VectorStore, model: Model, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index(store, model, photos)
    before = vectors(store)
    monkeypatch.setattr("lookalike.encoder.embed.workers.read_file", None)
    again = index(store, model, photos, crop=None)  # it is remembered
    assert (again.unchanged, again.stored, again.missing, again.failed) == (4, 0, 0, [])
    assert vectors(store) == before


@pytest.mark.parametrize(
    ("before", "after"), [((0, 1, 2), (3,)), ((0,), ()), ((), (1, 2)), ((0, 1), (2, 3)), ((1,), (2, 4, 6))]
)
def test_a_picture_that_changes_has_the_faces_that_it_has_now(
    store: VectorStore, model: Model, tmp_path: Path, before: tuple[int, ...], after: tuple[int, ...]
) -> None:
    file = write_picture(tmp_path / "photos" / "a.png", before)
    index(store, model, tmp_path / "photos")
    write_picture(file, after)
    os.utime(file, ns=(1, 1))
    report = index(store, model, tmp_path / "photos")
    assert (report.changed, report.added, report.faces) == (1, 0, len(after))
    with open_store(str(tmp_path / "other")) as fresh:
        index(fresh, model, tmp_path / "photos")
        assert points(store) == points(fresh)
        assert vectors(store) == vectors(fresh)


def test_a_picture_that_moves_takes_its_faces_along(store: VectorStore, model: Model, photos: Path) -> None:
    index(store, model, photos)
    before = sorted(map(tuple, vectors(store).values()))
    (photos / "Bob").mkdir()
    for old, new in {"three.png": "Bob/3.png", "none.png": "Bob/0.png", "Ada/one.png": "Bob/1.png"}.items():
        (photos / old).rename(photos / new)
    report = index(store, model, photos)
    assert (report.moved, report.unchanged, report.stored, report.missing) == (3, 1, 3, 0)
    assert points(store) == {
        "Ada/two.png": [(1, 2), (2, 2)],
        "Bob/0.png": [(0, 0)],
        "Bob/1.png": [(1, 1)],
        "Bob/3.png": [(1, 3), (2, 3), (3, 3)],
    }
    assert sorted(map(tuple, vectors(store).values())) == before
    people = {record.payload["path"]: record.payload.get("person") for record in store.scroll(NAME)}
    assert people == {"Ada/two.png": None, "Bob/0.png": None, "Bob/1.png": "Bob", "Bob/3.png": None}
    assert index(store, model, photos).unchanged == 4


def test_pruning_removes_all_faces_of_a_picture(store: VectorStore, model: Model, photos: Path) -> None:
    index(store, model, photos)
    for name in ("three.png", "none.png"):
        (photos / name).unlink()
    report = index(store, model, photos)
    assert (report.missing, report.unchanged) == (2, 2)
    assert points(store) == EXPECTED
    assert index(store, model, photos, prune=True).missing == 2
    assert points(store) == {path: EXPECTED[path] for path in ("Ada/one.png", "Ada/two.png")}


def test_what_a_table_says_counts_for_all_faces(store: VectorStore, model: Model, photos: Path) -> None:
    def indexed(table: Mapping[str, Mapping[str, Any]] | None) -> SyncReport:
        listed = SourceList(sources=(str(photos),), filter=SourceFilter(payload=table))
        return sync(store, NAME, model, listed, crop=Faces())

    indexed(None)
    before = vectors(store)
    table = {"three.png": {"album": "zoo"}, "Ada/two.png": {"person": "Ada"}}
    assert indexed(table).relabelled == 2
    assert indexed(table).unchanged == 4
    albums = [r.payload.get("album") for r in store.scroll(NAME) if r.payload["path"] == "three.png"]
    people = [r.payload.get("person") for r in store.scroll(NAME) if r.payload["path"] == "Ada/two.png"]
    assert (albums, people) == (["zoo"] * 3, ["Ada"] * 2)
    assert (points(store), vectors(store)) == (EXPECTED, before)


def test_checksum_finds_a_damaged_vector_of_any_face(store: VectorStore, model: Model, photos: Path) -> None:
    index(store, model, photos)
    before = vectors(store)
    assert index(store, model, photos, checksum=True).unchanged == 4
    damaged = face_id("photos", "three.png", 3)
    payload = dict(store.get(NAME, [damaged])[damaged].payload)
    wrong = np.eye(1, 512, 7, dtype=np.float32)
    original = store.upsert
    from lookalike.indexer.store import points as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_checksums", lambda rows: np.full(len(rows), 0.123))
        original(NAME, [damaged], wrong, [payload])
    report = index(store, model, photos, checksum=True)
    assert (report.changed, report.unchanged) == (1, 3)
    assert (points(store), vectors(store)) == (EXPECTED, before)


@pytest.mark.parametrize("failing", range(1, 4))
def test_a_run_that_is_killed_while_it_writes_is_made_good_by_the_next(
    store: VectorStore, model: Model, photos: Path, failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    index(store, model, photos)
    (photos / "three.png").rename(photos / "moved.png")
    write_picture(photos / "Ada" / "two.png", (7,))
    calls = iter(range(1, 100))

    def killed(name: str) -> Any:
        whole = getattr(store, name)

        def call(*args: Any) -> Any:
            if next(calls) == failing:
                raise StoreError("killed")
            return whole(*args)

        return call

    with monkeypatch.context() as patch:
        for name in ("upsert", "delete"):
            patch.setattr(store, name, killed(name))
        with pytest.raises(StoreError, match="killed"):
            index(store, model, photos)
    index(store, model, photos)
    expected = {
        "Ada/one.png": [(1, 1)],
        "Ada/two.png": [(1, 1)],
        "moved.png": [(1, 3), (2, 3), (3, 3)],
        "none.png": [(0, 0)],
    }
    assert points(store) == expected


def test_faces_and_whole_pictures_refuse_each_other(store: VectorStore, model: Model, photos: Path) -> None:
    index(store, model, photos)
    with pytest.raises(ModelMismatchError, match="holds faces, this run is for whole pictures; pass --faces"):
        index(store, model, photos, crop=Crop())
    with pytest.raises(ModelMismatchError, match=r"faces:yunet-2023mar:0\.8, this run finds .*0\.9"):
        index(store, model, photos, crop=Faces(0.9))
    sync(store, "whole", model, [photos])
    with pytest.raises(ModelMismatchError, match="holds whole pictures, this run is for faces; leave out"):
        sync(store, "whole", model, [photos], crop=Faces())


def test_a_model_that_does_not_say_where_faces_lie_is_refused(
    store: VectorStore, tiny_model: Path, photos: Path
) -> None:
    with pytest.raises(InvalidArgumentError, match="does not say where faces lie"):
        index(store, Model.open(tiny_model), photos)
    assert store.list_collections() == []


def test_a_picture_that_cannot_be_read_fails_alone(store: VectorStore, model: Model, photos: Path) -> None:
    (photos / "bad.jpg").write_bytes(b"\xff\xd8\xff nothing")
    report = index(store, model, photos)
    assert [Path(path).name for path, _ in report.failed] == ["bad.jpg"]
    assert points(store) == EXPECTED


def test_predictions_are_for_faces_alone(store: VectorStore, model: Model, photos: Path) -> None:
    report = index(store, model, photos, predict=["Smiling"])
    assert report.predicted == 6
    for record in store.scroll(NAME):
        assert ("Smiling" in record.payload) == (record.payload["face"]["number"] > 0)


def test_a_picture_that_lies_on_its_side_is_read_like_one_that_stands(
    store: VectorStore, model: Model, tmp_path: Path
) -> None:
    for turned in range(4):
        write_picture(tmp_path / "photos" / f"{turned}.png", (0,), turned=turned)
    index(store, model, tmp_path / "photos")
    rows = np.array([record.vector for record in store.scroll(NAME, with_vectors=True)])
    assert (rows @ rows.T).min() > 0.85
