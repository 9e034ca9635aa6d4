"""What `verify` finds out: every kind of untruth made for real, and nothing of a collection that is true."""

import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.encoder.errors import (
    CollectionNotFoundError,
    InvalidArgumentError,
    ModelMismatchError,
    StoreError,
)
from lookalike.encoder.images import Crop
from lookalike.encoder.runtime import Model
from lookalike.indexer.embedded import EdgeStore
from lookalike.indexer.embedded.shard import Shard
from lookalike.indexer.maintenance import VerifyReport, copy_collection, remembered_model, verify
from lookalike.indexer.maintenance.verify import KINDS
from lookalike.indexer.open import open_store
from lookalike.indexer.sources import item_id
from lookalike.indexer.sources.source import open_source
from lookalike.indexer.store import CollectionSpec, Layout, Record, VectorStore, check_points
from lookalike.indexer.sync import sync
from lookalike.indexer.sync.collection import prepare_collection
from tests.fixtures import stores
from tests.fixtures.photos import NAME, index, photograph, write_photos
from tests.fixtures.stores import point_ids
from tests.fixtures.tiny_models import make_bundle

store = stores.store


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Model:
    return Model.open(tiny_model)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_photos(tmp_path / "photos")
    return tmp_path / "photos"


@pytest.fixture
def edge(tmp_path: Path, model: Model, photos: Path) -> Iterator[EdgeStore]:
    """An embedded store with the photographs in it."""
    with EdgeStore(str(tmp_path / "edge")) as opened:
        index(opened, model, photos)
        yield opened


@pytest.fixture
def name(store: VectorStore) -> Iterator[str]:
    """A name for a collection; a real server is left as it was."""
    made = f"test-{uuid.uuid4()}"
    yield made
    if made in store.list_collections():
        store.delete_collection(made)


def found(report: VerifyReport) -> list[tuple[str, str]]:
    return sorted((finding.kind, finding.path) for finding in report.issues)


def test_a_true_collection_is_all_well(store: VectorStore, name: str, model: Model, photos: Path) -> None:
    index(store, model, photos, name=name)
    told: list[int] = []
    progress: list[int] = []
    report = verify(store, name, model=model, on_total=told.append, on_progress=progress.append)
    assert (report.items, report.sampled, report.without_file, report.issues) == (9, 9, 0, [])
    assert (told, sum(progress)) == ([9], 9)
    assert report.counts == dict.fromkeys(KINDS, 0)
    assert verify(store, name, model=model, checksum=True, sample=4).sampled == 4
    assert verify(store, name, model=None).sampled == 0


def test_files_that_are_missing_extra_and_changed_are_named(
    store: VectorStore, name: str, model: Model, photos: Path
) -> None:
    index(store, model, photos, name=name)
    (photos / "Hypatia" / "0.jpg").unlink()
    (photos / "Hypatia" / "1.jpg").write_bytes(photograph(15))
    shutil.rmtree(photos / "Émilie_du_Châtelet")
    (photos / "Ada_Lovelace" / "new.png").write_bytes(b"not even a picture")
    (photos / "Ada_Lovelace" / "notes.txt").write_bytes(b"no picture")
    (photos / "Ada_Lovelace" / ".hidden.jpg").write_bytes(photograph(0))
    report = verify(store, name, model=model)
    assert found(report) == [
        ("changed", "photos/Hypatia/1.jpg"),
        ("extra", "photos/Ada_Lovelace/new.png"),
        ("missing", "photos/Hypatia/0.jpg"),
        *[("missing", f"photos/Émilie_du_Châtelet/{n}.jpg") for n in range(3)],
    ]
    assert report.sampled == 4
    assert report.counts["missing"] == 4
    assert report.to_json()["findings"][0].keys() == {"kind", "path", "reason"}
    index(store, model, photos, name=name, prune=True)
    assert found(verify(store, name, model=model)) == [("extra", "photos/Ada_Lovelace/new.png")]


def test_only_a_checksum_sees_through_size_and_time(edge: EdgeStore, model: Model, photos: Path) -> None:
    touched, swapped = photos / "Hypatia" / "0.jpg", photos / "Hypatia" / "1.jpg"
    os.utime(touched, (0, 0))
    was, data = swapped.stat(), swapped.read_bytes()
    swapped.write_bytes(data[:-3] + b"\0" + data[-2:])
    os.utime(swapped, ns=(was.st_atime_ns, was.st_mtime_ns))
    quick = verify(edge, NAME, model=None)
    assert found(quick) == [("changed", "photos/Hypatia/0.jpg")]
    thorough = verify(edge, NAME, model=None, checksum=True)
    assert found(thorough) == [("changed", "photos/Hypatia/1.jpg")]
    assert thorough.issues[0].reason == "other content"
    sampled = verify(edge, NAME, model=model)  # what is read again is seen through as well
    assert found(sampled) == [("changed", f"photos/Hypatia/{n}.jpg") for n in range(2)]


def test_vectors_that_the_model_does_not_make_are_named(edge: EdgeStore, model: Model) -> None:
    records = sorted(edge.scroll(NAME, with_vectors=True), key=lambda r: str(r.payload["path"]))
    one, two = records[0], records[5]
    assert one.vector is not None
    assert two.vector is not None
    nudged = one.vector + np.float32(0.1) * two.vector
    edge.upsert(NAME, [one.id], nudged[None], [one.payload])
    report = verify(edge, NAME, model=model)
    assert found(report) == [("differing", f"photos/{one.payload['path']}")]
    assert report.issues[0].reason.startswith("cosine 0.9")
    assert report.sampled == 9


def test_the_sample_is_drawn_by_its_seed(edge: EdgeStore, model: Model) -> None:
    records = list(edge.scroll(NAME, with_vectors=True))
    vectors = np.array([record.vector for record in records])
    edge.upsert(NAME, [r.id for r in records], -vectors, [r.payload for r in records])
    draws = [found(verify(edge, NAME, model=model, sample=3, seed=seed)) for seed in (0, 0, 1, 2, 3)]
    assert [len(draw) for draw in draws] == [3] * 5
    assert draws[0] == draws[1]
    assert any(draw != draws[0] for draw in draws)
    for sample, seed in ((-1, 0), (1, -1)):
        with pytest.raises(InvalidArgumentError, match="0 or more"):
            verify(edge, NAME, model=model, sample=sample, seed=seed)


def test_vectors_that_cannot_be_are_named(edge: EdgeStore, model: Model, tmp_path: Path) -> None:
    records = sorted(edge.scroll(NAME), key=lambda r: str(r.payload["path"]))
    edge.close()
    # Past the store, which lets none in.
    shard = Shard.load(tmp_path / "edge" / NAME / "shard", Layout())
    bad = np.zeros((2, model.bundle.spec.embedding), np.float32)
    bad[0, 0] = np.nan
    shard.upsert([r.id for r in records[:2]], bad, [dict(r.payload) for r in records[:2]])
    shard.close()
    with EdgeStore(edge.address) as again:
        report = verify(again, NAME, model=model)
        assert found(report) == [("vector", f"photos/{r.payload['path']}") for r in records[:2]]
        assert [finding.reason for finding in sorted(report.issues, key=lambda f: f.path)] == [
            "not finite", "length 0, not 1",
        ]  # fmt: skip
        assert report.sampled == 7


def test_vectors_of_another_length_are_named(edge: EdgeStore, tmp_path: Path) -> None:
    edge.close()
    file = tmp_path / "edge" / NAME / "collection.json"
    file.write_text(file.read_text().replace('"dimension": 4', '"dimension": 5'))
    with EdgeStore(edge.address) as again:
        report = verify(again, NAME)
        assert report.counts["vector"] == 9
        assert report.issues[0].reason == "shape (4,), not (5,)"


def test_points_stored_twice_or_without_a_file_are_told(edge: EdgeStore, model: Model) -> None:
    record = next(iter(edge.scroll(NAME, with_vectors=True)))
    assert record.vector is not None
    rows = np.stack([record.vector] * 3)
    edge.upsert(NAME, point_ids(3), rows, [record.payload, {}, {"root": "elsewhere", "path": "a.jpg"}])
    report = verify(edge, NAME, model=model)
    assert found(report) == [
        ("duplicate", f"photos/{record.payload['path']}"),
        ("missing", "elsewhere/a.jpg"),
    ]
    assert report.without_file == 2


def test_a_folder_that_is_not_mounted_is_missing_whole(edge: EdgeStore, model: Model, photos: Path) -> None:
    photos.rename(photos.with_name("away"))
    report = verify(edge, NAME, model=model)
    assert (report.counts["missing"], len(report.issues), report.sampled) == (9, 9, 0)


def test_what_cannot_be_read_is_named_and_stops_nothing(edge: EdgeStore, model: Model, photos: Path) -> None:
    file = photos / "Hypatia" / "0.jpg"
    file.unlink()
    os.mkfifo(file)
    loop = photos / "Hypatia" / "1.jpg"
    loop.unlink()
    loop.symlink_to(loop)
    for checksum in (False, True):
        report = verify(edge, NAME, model=model, checksum=checksum)
        assert found(report) == [("unreadable", f"photos/Hypatia/{n}.jpg") for n in range(2)]
        assert report.sampled == 7


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_listed_is_named(edge: EdgeStore, model: Model, photos: Path) -> None:
    (photos / "Hypatia").chmod(0)
    report = verify(edge, NAME, model=model)
    (photos / "Hypatia").chmod(0o700)
    assert ("unreadable", "photos") in found(report)


def test_the_crop_of_the_collection_is_heeded(
    store: VectorStore, name: str, model: Model, photos: Path
) -> None:
    prepare_collection(store, name, model, crop=Crop.parse("full"))
    known = store.info(name).roots
    sync(store, name, model, [open_source(str(photos), root_name=None, known_roots=known)])
    assert verify(store, name, model=model).issues == []


def test_paths_of_any_bytes_are_found(edge: EdgeStore, model: Model, photos: Path) -> None:
    (photos / "Hypatia" / "\udcff\n.jpg").write_bytes(photograph(12))
    index(edge, model, photos)
    assert verify(edge, NAME, model=model).issues == []
    (photos / "Hypatia" / "\udcff\n.jpg").unlink()
    assert found(verify(edge, NAME, model=model)) == [("missing", "photos/Hypatia/\\xff\n.jpg")]


def test_another_model_is_refused(edge: EdgeStore, tmp_path: Path) -> None:
    with pytest.raises(ModelMismatchError):
        verify(edge, NAME, model=Model(make_bundle(tmp_path / "other", seed=1)))
    with pytest.raises(CollectionNotFoundError):
        verify(edge, "absent")


def test_the_remembered_model_is_opened_or_asked_for(edge: EdgeStore, model: Model) -> None:
    spec = edge.info(NAME)
    assert remembered_model(spec, NAME).model_id == model.model_id
    with pytest.raises(ModelMismatchError, match="pass --model with the folder it is in, or --sample 0"):
        remembered_model(replace(spec, model_name="/nowhere/gone"), NAME)


def test_an_audit_of_thousands_counts_each_once(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    spec = CollectionSpec(
        model_id="m", model_name="m", dimension=8, crop="full", roots={"root": str(tmp_path / "root")}
    )
    progress: list[int] = []
    with open_store(str(tmp_path / "store")) as opened:
        opened.create("c", spec)
        ids = [item_id("root", f"{n}.jpg") for n in range(2300)]
        payloads = [{"root": "root", "path": f"{n}.jpg", "size": 1, "mtime_ns": 1} for n in range(2300)]
        opened.upsert("c", ids, stores.random_vectors(2300), payloads)
        report = verify(opened, "c", on_progress=progress.append)
    assert (report.counts["missing"], sum(progress)) == (2300, 2300)


@pytest.mark.parametrize("bit", [31, 30, 27, 23, 22, 14])
def test_a_bit_that_flipped_in_a_vector_is_found_and_mended(
    model: Model, photos: Path, tmp_path: Path, bit: int
) -> None:
    address = str(tmp_path / "flipped")
    with EdgeStore(address) as opened:
        index(opened, model, photos)
        record = next(opened.scroll(NAME, with_vectors=True))
        assert record.vector is not None
        before = record.vector
    _flip(tmp_path / "flipped" / NAME, before, bit)
    with EdgeStore(address) as opened:
        read = opened.get(NAME, [record.id], with_vectors=True)[record.id]
        assert read.damaged
        assert "vector_checksum" not in read.payload
        (issue,) = verify(opened, NAME).issues
        assert (issue.kind, issue.path) == ("vector", f"photos/{record.payload['path']}")
        with pytest.raises(StoreError, match=r"not as it was stored; .* index --checksum"):
            copy_collection(opened, NAME, opened, "copy")
        report = index(opened, model, photos, checksum=True)
        assert (report.changed, report.unchanged) == (1, 8)
        assert verify(opened, NAME).issues == []
        after = opened.get(NAME, [record.id], with_vectors=True)[record.id].vector
        assert after is not None
        np.testing.assert_allclose(after, before, atol=1e-6)


def _flip(folder: Path, vector: np.ndarray[tuple[int], np.dtype[np.float32]], bit: int) -> None:
    """Flip a bit of the largest value, wherever under a folder the vector lies."""
    data, at, found = vector.tobytes(), int(np.abs(vector).argmax()) * 4, 0
    for file in folder.rglob("*"):
        content = bytearray(file.read_bytes()) if file.is_file() else bytearray()
        start = content.find(data)
        while start >= 0:
            found += 1
            content[start + at + bit // 8] ^= 1 << bit % 8
            file.write_bytes(content)
            start = content.find(data, start + 1)
    assert found


@settings(max_examples=30)
@given(place=st.integers(0, 63), bit=st.integers(0, 31), seed=st.integers(0, 9))
def test_a_flip_that_is_not_found_changes_no_score(place: int, bit: int, seed: int) -> None:
    vector = np.random.default_rng(seed).normal(size=64)
    _, rows, payloads = check_points(point_ids(1), vector[None].astype(np.float32), [{}], dimension=64)
    flipped = rows[0].copy()
    flipped.view(np.uint32)[place] ^= np.uint32(1 << bit)
    point = SimpleNamespace(id=point_ids(1)[0], payload=dict(payloads[0]), vector=flipped.tolist())
    record = Record.from_point(point, with_vector=True)
    assert record.payload == {}
    assert record.damaged or np.abs(flipped - rows[0]).max() < 3e-5
