"""What is on disk against what is stored: new, changed, moved, relabelled, the same, or gone."""

import json
import os
import shutil
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.deploy.cli.output import json_lines
from lookalike.encoder.errors import DataError, StoreError
from lookalike.encoder.runtime import Model
from lookalike.indexer.open import open_store
from lookalike.indexer.sources import SourceFilter, SourceList
from lookalike.indexer.store import VectorStore, parse_where
from lookalike.indexer.sync import SyncReport, sync
from lookalike.indexer.sync.report import SyncEvent
from tests.fixtures.photos import NAME, photograph, stored, write_photos


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Model:
    return Model.open(tiny_model)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[VectorStore]:
    with open_store(str(tmp_path / "store")) as opened:
        yield opened


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_photos(tmp_path / "photos")
    return tmp_path / "photos"


def index(
    store: VectorStore, model: Model, source: Path, reading: SourceFilter | None = None, **options: Any
) -> SyncReport:
    sources = SourceList(sources=[source], root_name="photos", filter=reading or SourceFilter())
    return sync(store, NAME, model, sources, **options)


def assert_as_fresh(store: VectorStore, model: Model, source: Path, **options: Any) -> None:
    """The collection holds what one clean run over the source would."""
    with open_store(f"{os.fspath(source)}-fresh") as fresh:
        index(fresh, model, source, **options)
        assert stored(store) == stored(fresh)
    shutil.rmtree(f"{os.fspath(source)}-fresh")


def no_embedding(monkeypatch: pytest.MonkeyPatch) -> None:
    really = Model.embed

    def refuse(self: Model, pixels: Any) -> Any:
        assert not len(pixels)
        return really(self, pixels)

    monkeypatch.setattr(Model, "embed", refuse)


def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count how often each picture is opened from now on, in this process."""
    really, counts = os.open, Counter[str]()

    def opens(path: Any, *rest: Any, **options: Any) -> int:
        counts.update([Path(os.fsdecode(path)).name] if os.fsdecode(path).endswith(".jpg") else [])
        return really(path, *rest, **options)

    monkeypatch.setattr(os, "open", opens)
    return counts


def test_what_moved_is_not_embedded_again(
    store: VectorStore, model: Model, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index(store, model, photos)
    (photos / "Hypatia" / "0.jpg").rename(photos / "Ada_Lovelace" / "not Ada.jpg")
    (photos / "Hypatia").rename(photos / "Hypatia of Alexandria")
    events: list[SyncEvent] = []
    with monkeypatch.context() as patch:
        no_embedding(patch)
        report = index(store, model, photos, on_event=events.append)
    assert (report.moved, report.unchanged, report.added, report.missing) == (3, 6, 0, 0)
    assert SyncEvent("moved", "Ada_Lovelace/not Ada.jpg", "photos", "Hypatia/0.jpg") in events
    assert_as_fresh(store, model, photos)


@pytest.mark.parametrize("writes", range(4))
@pytest.mark.parametrize("prune", [False, True])
def test_a_move_that_ends_after_any_write_loses_nothing_and_is_completed(
    store: VectorStore, model: Model, photos: Path, monkeypatch: pytest.MonkeyPatch, writes: int, prune: bool
) -> None:
    said = {f"Hypatia/{number}.jpg": {"note": f"of {number}", "person": "H."} for number in range(3)}
    index(store, model, photos, SourceFilter(payload=said))
    before = {record.payload["sha256"] for record in store.scroll(NAME)}
    (photos / "Hypatia").rename(photos / "Theano")
    with monkeypatch.context() as patch:
        _end_after(writes, store, patch)
        with pytest.raises(StoreError, match="its disk is full"):
            index(store, model, photos, prune=prune)
    assert {record.payload["sha256"] for record in store.scroll(NAME)} == before
    report = index(store, model, photos, prune=prune)
    assert (report.added, report.missing) == (0, 0)
    assert store.count(NAME) == 9
    found = {record.payload["path"]: record.payload for record in store.scroll(NAME)}
    for number in range(3):
        moved = found[f"Theano/{number}.jpg"]
        assert (moved["note"], moved["person"]) == (f"of {number}", "H.")
    assert not [payload for payload in found.values() if "moved_to" in payload]
    for record in store.scroll(NAME):  # what the tables said comes from no clean run
        store.upsert(NAME, [record.id], *_without_note(store, record.id))
    assert_as_fresh(store, model, photos)


def _end_after(writes: int, store: VectorStore, patch: pytest.MonkeyPatch) -> None:
    """Let so many writes pass; the next finds the disk full."""
    left = [writes]

    def limited(write: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            if not left[0]:
                raise StoreError("its disk is full")
            left[0] -= 1
            write(*arguments)

        return call

    for name in ("upsert", "delete", "flush"):
        patch.setattr(store, name, limited(getattr(store, name)))


def _without_note(store: VectorStore, point: str) -> tuple[Any, list[dict[str, Any]]]:
    record = store.get(NAME, [point], with_vectors=True)[point]
    assert record.vector is not None
    payload = {key: value for key, value in record.payload.items() if key != "note"}
    return np.array([record.vector]), [{**payload, "person": str(payload["path"]).split("/")[-2]}]


def test_what_tables_said_stays_when_the_bytes_change(store: VectorStore, model: Model, photos: Path) -> None:
    said = {"Hypatia/0.jpg": {"note": "by hand", "person": "H."}, "Hypatia/1.jpg": {"note": "another"}}
    index(store, model, photos, SourceFilter(payload=said))
    for number in range(3):
        (photos / "Hypatia" / f"{number}.jpg").write_bytes(photograph(12 + number))
    assert index(store, model, photos).changed == 3
    found = {record.payload["path"]: record.payload for record in store.scroll(NAME)}
    assert [found[f"Hypatia/{number}.jpg"].get("note") for number in range(3)] == ["by hand", "another", None]
    assert [found[f"Hypatia/{number}.jpg"]["person"] for number in range(3)] == ["H.", "Hypatia", "Hypatia"]
    assert index(store, model, photos, SourceFilter(payload={"Hypatia/0.jpg": {"note": "new"}})).relabelled
    (record,) = store.scroll(NAME, where=parse_where("path=Hypatia/0.jpg"))
    assert record.payload["note"] == "new"


@pytest.mark.parametrize("mount", ["Hypatia", "deep", "deep/er"])
def test_an_empty_folder_that_held_pictures_is_not_pruned(
    store: VectorStore, model: Model, photos: Path, mount: str
) -> None:
    (photos / "deep" / "er" / "still").mkdir(parents=True)
    for folder in ("deep", "deep/er", "deep/er/still"):
        (photos / folder / "a.jpg").write_bytes(photograph(10 + len(folder) % 5))
    index(store, model, photos)
    shutil.rmtree(photos / mount)
    (photos / mount).mkdir()
    with pytest.raises(DataError, match=rf"/{mount} is there and empty, and held [23]; mount what belongs"):
        index(store, model, photos, prune=True)
    assert store.count(NAME) == 12
    assert index(store, model, photos).missing in (2, 3)
    (photos / mount).rmdir()
    assert index(store, model, photos, prune=True).missing in (2, 3)
    assert_as_fresh(store, model, photos)


def test_a_folder_whose_pictures_moved_may_be_empty(store: VectorStore, model: Model, photos: Path) -> None:
    index(store, model, photos)
    for file in (photos / "Hypatia").iterdir():
        file.rename(photos / f"once Hypatia {file.name}")
    assert index(store, model, photos, prune=True).moved == 3
    assert_as_fresh(store, model, photos)


def test_a_copy_is_new_and_its_first_stays(store: VectorStore, model: Model, photos: Path) -> None:
    index(store, model, photos)
    shutil.copy2(photos / "Hypatia" / "0.jpg", photos / "copy.jpg")
    report = index(store, model, photos)
    assert (report.added, report.moved, report.unchanged) == (1, 0, 9)


def test_a_touched_file_is_changed_but_not_by_its_checksum(
    store: VectorStore, model: Model, photos: Path
) -> None:
    index(store, model, photos)
    os.utime(photos / "Hypatia" / "0.jpg", (1, 1))
    assert index(store, model, photos, checksum=True).unchanged == 9
    assert index(store, model, photos).changed == 1


def test_bytes_changed_behind_size_and_time_are_seen_by_their_checksum(
    store: VectorStore, model: Model, photos: Path
) -> None:
    index(store, model, photos)
    file = photos / "Hypatia" / "0.jpg"
    before, data = file.stat(), bytearray(file.read_bytes())
    data[-40] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert index(store, model, photos).unchanged == 9
    assert index(store, model, photos, checksum=True).changed == 1


def test_by_checksum_each_picture_is_read_once_whatever_it_comes_to(
    store: VectorStore, model: Model, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index(store, model, photos)
    (photos / "Hypatia" / "0.jpg").write_bytes(photograph(15))  # changed
    os.utime(photos / "Hypatia" / "1.jpg", (1, 1))  # touched only
    (photos / "Hypatia" / "2.jpg").rename(photos / "moved.jpg")
    shutil.copy(photos / "moved.jpg", photos / "moved too.jpg")
    (photos / "new.jpg").write_bytes(photograph(14))
    said = SourceFilter(payload={"Ada_Lovelace/0.jpg": {"Smiling": 0.5}})
    with monkeypatch.context() as patch:
        counts = reads(patch)
        report = index(store, model, photos, said, checksum=True)
    assert (report.changed, report.moved, report.added, report.relabelled) == (1, 1, 2, 1)
    assert (report.unchanged, report.missing, report.failed) == (6, 0, [])
    assert counts == Counter(
        {"0.jpg": 3, "1.jpg": 3, "2.jpg": 2, "moved.jpg": 1, "moved too.jpg": 1, "new.jpg": 1}
    )


def test_what_may_have_moved_is_read_once_also_when_it_has_not(
    store: VectorStore, model: Model, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index(store, model, photos)
    data = (photos / "Hypatia" / "0.jpg").read_bytes()
    (photos / "Hypatia" / "0.jpg").rename(photos / "moved.jpg")
    (photos / "Hypatia" / "1.jpg").unlink()
    (photos / "as long.jpg").write_bytes(data[:-40] + bytes([data[-40] ^ 1]) + data[-39:])
    (photos / "other.jpg").write_bytes(photograph(14))
    counts = reads(monkeypatch)
    report = index(store, model, photos, prune=True)
    assert (report.moved, report.added, report.missing, report.unchanged) == (1, 2, 1, 7)
    assert counts == Counter(["moved.jpg", "as long.jpg", "other.jpg"])
    monkeypatch.undo()
    assert_as_fresh(store, model, photos)


@pytest.mark.parametrize("together", [1, 2, 1024])
def test_copies_of_what_moved_take_its_vector(
    store: VectorStore, model: Model, photos: Path, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    shutil.copy(photos / "Hypatia" / "0.jpg", photos / "twin.jpg")
    index(store, model, photos)
    (photos / "twin.jpg").unlink()
    (photos / "Hypatia" / "0.jpg").rename(photos / "a.jpg")
    for name in ("b", "c", "d", "e"):
        shutil.copy(photos / "a.jpg", photos / f"{name}.jpg")
    with monkeypatch.context() as patch:
        no_embedding(patch)
        patch.setattr(sys.modules["lookalike.indexer.sync.sync"], "_DURABLE_TOGETHER", together)
        report = index(store, model, photos)
    assert (report.moved, report.added, report.unchanged, report.missing) == (2, 3, 8, 0)
    assert_as_fresh(store, model, photos)


def test_a_dry_run_foretells_copies_and_checksums(store: VectorStore, model: Model, photos: Path) -> None:
    index(store, model, photos)
    (photos / "Hypatia" / "0.jpg").rename(photos / "a.jpg")
    shutil.copy(photos / "a.jpg", photos / "b.jpg")
    os.utime(photos / "Hypatia" / "1.jpg", (1, 1))
    (photos / "Hypatia" / "2.jpg").write_bytes(photograph(15))
    foretold = index(store, model, photos, dry_run=True, checksum=True)
    done = index(store, model, photos, checksum=True)
    assert (foretold.moved, foretold.added, foretold.changed, foretold.unchanged) == (1, 1, 1, 7)
    assert (done.moved, done.added, done.changed, done.unchanged) == (1, 1, 1, 7)


def test_a_dry_run_does_nothing(store: VectorStore, model: Model, photos: Path) -> None:
    index(store, model, photos)
    before = stored(store)
    (photos / "new.jpg").write_bytes(photograph(14))
    (photos / "Hypatia" / "0.jpg").rename(photos / "moved.jpg")
    (photos / "Hypatia" / "1.jpg").unlink()
    os.utime(photos / "Hypatia" / "2.jpg", (1, 1))
    events: list[SyncEvent] = []
    report = index(store, model, photos, dry_run=True, prune=True, on_event=events.append)
    assert (report.added, report.moved, report.missing, report.changed) == (1, 1, 1, 1)
    assert (report.dry, report.pruned, report.unchanged) == (True, False, 6)
    assert {event.status for event in events} == {"added", "moved", "missing", "changed"}
    assert stored(store) == before
    again = index(store, model, photos, prune=True)
    assert (again.added, again.moved, again.missing, again.changed) == (1, 1, 1, 1)
    assert_as_fresh(store, model, photos)


def test_what_is_said_of_a_picture_changes_without_embedding(
    store: VectorStore, model: Model, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index(store, model, photos)
    no_embedding(monkeypatch)
    said = SourceFilter(payload={"Hypatia/0.jpg": {"Smiling": 0.5, "place": "Αλεξάνδρεια"}})
    assert index(store, model, photos, said).relabelled == 1
    assert index(store, model, photos, said).unchanged == 9
    payload = next(p for p in stored(store).payloads.values() if p["path"] == "Hypatia/0.jpg")
    assert (payload["Smiling"], payload["place"], payload["person"]) == (0.5, "Αλεξάνδρεια", "Hypatia")
    assert index(store, model, photos).unchanged == 9  # nothing was given: what is stored stays
    (photos / "Hypatia" / "0.jpg").rename(photos / "0.jpg")
    assert index(store, model, photos).moved == 1  # there too
    payload = next(p for p in stored(store).payloads.values() if p["path"] == "0.jpg")
    assert (payload["Smiling"], "person" in payload) == (0.5, False)
    assert index(store, model, photos, SourceFilter(payload={})).relabelled == 1


def test_an_unlistable_folder_is_named_and_its_pictures_are_not_missing(
    store: VectorStore, model: Model, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index(store, model, photos)
    really = os.scandir

    def scan(folder: Any = ".") -> Any:
        if Path(os.fsdecode(folder)).name == "Hypatia":
            raise PermissionError(13, "Permission denied", folder)
        return really(folder)

    monkeypatch.setattr(os, "scandir", scan)
    (photos / "Ada_Lovelace" / "0.jpg").unlink()
    report = index(store, model, photos, prune=True)
    assert (report.unchanged, report.missing) == (5, 1)
    ((path, reason),) = report.failed
    assert path.endswith("Hypatia")
    assert reason.endswith("cannot be listed (Permission denied)")
    assert store.count(NAME) == 8


def test_what_is_not_selected_is_neither_stored_nor_missing(
    store: VectorStore, model: Model, photos: Path
) -> None:
    (photos / ".hidden.jpg").write_bytes(photograph(13))
    some = SourceFilter(include=("*.jpg",), exclude=("Hypatia/*", "2.*"))
    assert index(store, model, photos, some).added == 4
    assert index(store, model, photos, SourceFilter(hidden=True)).added == 6
    assert index(store, model, photos, some, prune=True).missing == 0
    assert index(store, model, photos, prune=True).missing == 0  # the hidden one is not looked at
    assert store.count(NAME) == 10


def write_tar(file: Path, folder: Path) -> None:
    with tarfile.open(file, "w") as tar:
        tar.add(folder, arcname=".")


def test_an_archive_is_read_where_it_lies(
    store: VectorStore, model: Model, photos: Path, tmp_path: Path
) -> None:
    write_tar(tmp_path / "shard-000.tar", photos)
    report = index(store, model, tmp_path / "shard-000.tar")
    assert (report.added, report.failed) == (9, [])
    assert index(store, model, tmp_path / "shard-000.tar").unchanged == 9
    in_archive = stored(store)
    with open_store(str(tmp_path / "plain")) as plain:
        index(plain, model, photos)
        of_folder = stored(plain)
    here = {p["path"].removeprefix("shard-000.tar/"): p for p in in_archive.payloads.values()}
    there = {p["path"]: p for p in of_folder.payloads.values()}
    assert here.keys() == there.keys()
    for path, payload in here.items():
        assert (payload["sha256"], payload["person"]) == (there[path]["sha256"], there[path]["person"])
    np.testing.assert_allclose(
        np.sort(in_archive.vectors, axis=0), np.sort(of_folder.vectors, axis=0), atol=1e-5
    )
    (photos / "Hypatia" / "0.jpg").unlink()
    write_tar(tmp_path / "shard-000.tar", photos)
    report = index(store, model, tmp_path / "shard-000.tar", prune=True)
    assert (report.unchanged, report.missing, store.count(NAME)) == (8, 1, 8)


def test_events_become_json(tmp_path: Path) -> None:
    moved = SyncEvent("moved", "b\n.jpg", "photos", "c.jpg")
    failed = SyncEvent("failed", "d.jpg", "photos", "d.jpg: is empty")
    with json_lines(tmp_path / "out.jsonl") as write:
        write(moved)
        write(failed)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert lines == [
        {"status": "moved", "path": "b\n.jpg", "root": "photos", "from": "c.jpg"},
        {"status": "failed", "path": "d.jpg", "root": "photos", "reason": "d.jpg: is empty"},
    ]


MOVES = st.lists(
    st.tuples(st.sampled_from(["write", "move", "delete", "touch"]), st.integers(0, 5), st.integers(0, 5)),
    max_size=6,
)


@settings(max_examples=15, deadline=None)
@given(moves=st.lists(MOVES, min_size=1, max_size=3))
def test_whatever_happens_to_a_folder_pruning_ends_as_a_clean_run(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, moves: list[list[tuple[str, int, int]]]
) -> None:
    model, folder = Model.open(tiny_model), tmp_path_factory.mktemp("any") / "photos"
    folder.mkdir()
    (folder / "always.jpg").write_bytes(photograph(15))
    with open_store(str(folder.parent / "store")) as store:
        for step in moves:
            for what, one, other in step:
                _happen(what, folder / f"{one}.jpg", folder / f"{other}.jpg", photograph(other))
            index(store, model, folder, prune=True)
        assert_as_fresh(store, model, folder)


def _happen(what: str, file: Path, other: Path, data: bytes) -> None:
    if what == "write":
        file.write_bytes(data)
    elif not file.exists():
        return
    elif what == "move":
        file.rename(other)
    elif what == "delete":
        file.unlink()
    else:
        os.utime(file, ns=(0, file.stat().st_mtime_ns + 1000))
