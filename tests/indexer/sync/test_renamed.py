"""A renamed folder: nothing is stored twice, nothing is lost, and the run says which option decides."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.runtime import Model
from lookalike.indexer.maintenance import verify
from lookalike.indexer.open import open_store
from lookalike.indexer.sources import SourceFilter, SourceList, item_id
from lookalike.indexer.store import VectorStore
from lookalike.indexer.sync import SyncReport, sync
from tests.fixtures import stores
from tests.fixtures.command import lookalike, one_line
from tests.fixtures.photos import NAME, index, photograph, stored, write_photos
from tests.fixtures.service import API, client_of

store = stores.store


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Model:
    return Model.open(tiny_model)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_photos(tmp_path / "ph")
    return tmp_path / "ph"


def named(store: VectorStore, model: Model, folder: Path, root_name: str, **options: Any) -> SyncReport:
    return sync(store, NAME, model, SourceList(sources=[folder], root_name=root_name), **options)


def tabled(store: VectorStore, model: Model, folder: Path, **fields: dict[str, int]) -> None:
    sources = SourceList(sources=[folder], root_name=folder.name, filter=SourceFilter(payload=fields))
    sync(store, NAME, model, sources)


def reorganized(folder: Path) -> None:
    for number, file in enumerate(sorted(folder.rglob("*.jpg"))):
        file.rename(folder / f"{number}.jpg")


def grown(folder: Path) -> None:
    for number in range(9, 15):
        (folder / f"new-{number}.jpg").write_bytes(photograph(number))


def grown_and_reorganized(folder: Path) -> None:
    grown(folder)
    reorganized(folder)


CHANGES: dict[str, Callable[[Path], object]] = {
    "as it was": lambda folder: None,
    "with more in it": grown,
    "with other paths": reorganized,
    "with both": grown_and_reorganized,
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("options", [{}, {"prune": True}, {"checksum": True}, {"dry_run": True}])
def test_a_renamed_folder_stops_the_run_before_anything_is_written(
    store: VectorStore, model: Model, photos: Path, change: str, options: dict[str, Any]
) -> None:
    index(store, model, photos)
    before, spec = stored(store), store.info(NAME)
    moved = photos.rename(photos.with_name("ph2"))
    CHANGES[change](moved)
    with pytest.raises(InvalidArgumentError) as caught:
        index(store, model, moved, **options)
    assert str(caught.value) == (
        f"{moved} holds the images of ph, whose folder {photos} is gone; pass --root-name ph if it was "
        "renamed or moved, or --root-name ph2 to store them once more"
    )
    assert (stored(store), store.info(NAME)) == (before, spec)


@pytest.mark.parametrize("change", CHANGES)
def test_with_the_old_name_it_ends_as_if_the_folder_had_always_been_there(
    store: VectorStore, model: Model, photos: Path, tmp_path: Path, change: str
) -> None:
    index(store, model, photos)
    moved = photos.rename(photos.with_name("ph2"))
    CHANGES[change](moved)
    report = named(store, model, moved, "ph", prune=True)
    assert report.missing == report.changed == 0
    assert report.added == (6 if "more" in change or "both" in change else 0)
    with open_store(str(tmp_path / "clean")) as clean:
        named(clean, model, moved, "ph")
        assert stored(store) == stored(clean)
        assert store.info(NAME) == clean.info(NAME)
    assert index(store, model, moved).unchanged == len(stored(store).payloads)
    assert verify(store, NAME).issues == []


def test_with_a_new_name_it_is_a_second_root(store: VectorStore, model: Model, photos: Path) -> None:
    index(store, model, photos)
    moved = photos.rename(photos.with_name("ph2"))
    assert named(store, model, moved, "ph2").added == 9
    assert store.count(NAME) == 18
    checked = verify(store, NAME)
    issues = checked.issues
    assert checked.without_file == 0
    assert [issue.kind for issue in issues] == ["missing"] * 9
    assert {issue.reason for issue in issues} == {f"the folder of its root is gone: {photos}"}


def test_what_was_stored_twice_is_made_one_and_keeps_what_tables_said(
    store: VectorStore, model: Model, photos: Path, tmp_path: Path
) -> None:
    tabled(store, model, photos, **{"Hypatia/0.jpg": {"early": 1, "both": 1}})
    moved = photos.rename(photos.with_name("ph2"))
    grown(moved)
    tabled(store, model, moved, **{"Hypatia/0.jpg": {"late": 2, "both": 2}, "new-9.jpg": {"late": 3}})
    assert store.count(NAME) == 9 + 15
    (moved / "new-10.jpg").unlink()
    report = named(store, model, moved, "ph")
    assert (report.added, report.unchanged, report.missing) == (0, 14, 1)
    assert (store.count(NAME), set(store.info(NAME).roots)) == (15, {"ph"})
    payloads = stored(store).payloads
    fields = {key: payloads[item_id("ph", "Hypatia/0.jpg")][key] for key in ("early", "late", "both")}
    assert fields == {"early": 1, "late": 2, "both": 2}
    assert payloads[item_id("ph", "new-9.jpg")]["late"] == 3
    assert {payload["root"] for payload in payloads.values()} == {"ph"}
    assert named(store, model, moved, "ph", prune=True).missing == 1
    with open_store(str(tmp_path / "clean")) as clean:
        named(clean, model, moved, "ph")
        assert stored(store).payloads.keys() == stored(clean).payloads.keys()


def test_verify_tells_of_two_names_for_one_folder(store: VectorStore, model: Model, photos: Path) -> None:
    index(store, model, photos)
    spec = store.info(NAME)
    moved = photos.rename(photos.with_name("ph2"))
    named(store, model, moved, "ph2")
    # As an earlier version left it.
    store.update_info(NAME, type(spec)(**{**spec.to_json(), "roots": {"ph": str(moved), "ph2": str(moved)}}))
    issues = verify(store, NAME).issues
    assert [issue.kind for issue in issues] == ["duplicate"] * 9
    assert {issue.reason for issue in issues} == {"stored once more under another name of its root"}


def test_a_folder_that_only_resembles_one_that_is_gone_is_indexed(
    store: VectorStore, model: Model, photos: Path, tmp_path: Path
) -> None:
    index(store, model, photos)
    other = tmp_path / "other"
    write_photos(other)
    for file in sorted(other.rglob("*.jpg"))[:2]:  # two of nine are different
        data = bytearray(file.read_bytes())
        data[-40] ^= 1
        file.write_bytes(data)
    photos.rename(tmp_path / "elsewhere")
    assert index(store, model, other).added == 9
    assert store.count(NAME) == 18


def test_a_copy_is_indexed_while_the_first_is_there(
    store: VectorStore, model: Model, photos: Path, tmp_path: Path
) -> None:
    index(store, model, photos)
    write_photos(tmp_path / "copy")
    assert index(store, model, tmp_path / "copy").added == 9


def test_an_empty_root_that_is_gone_stops_nothing(store: VectorStore, model: Model, tmp_path: Path) -> None:
    (tmp_path / "ph").mkdir()
    index(store, model, tmp_path / "ph")
    (tmp_path / "ph").rmdir()
    write_photos(tmp_path / "ph2", each=1)
    assert index(store, model, tmp_path / "ph2").added == 3


def test_the_command_and_the_service_say_what_to_do(tmp_path: Path, tiny_model: Path) -> None:
    home = tmp_path / "home"
    write_photos(home / "ph")
    words = ("--model", tiny_model, "--collection", NAME)
    assert lookalike("index", "ph", *words, cwd=home).returncode == 0
    (home / "ph").rename(home / "ph2")
    done = lookalike("index", "ph2", "--prune", *words, cwd=home)
    assert done.returncode == 2
    assert "pass --root-name ph if it was renamed or moved" in one_line(done)
    with client_of(home, tiny_model) as client:
        asked = {"source": str(home / "ph2"), "collection": NAME, "model": tiny_model.name}
        states = []
        for more in ({}, {"root_name": "ph"}):
            job = client.post(f"{API}/index", json=asked | more).json()
            while (state := client.get(f"{API}/jobs/{job['id']}").json())["state"] in ("queued", "running"):
                pass
            states.append(state)
    assert states[0]["state"] == "failed"
    assert "--root-name ph" in states[0]["problem"]["detail"]
    assert states[1]["report"]["unchanged"] == 9, json.dumps(states[1])


def test_stopped_between_writing_and_deleting_nothing_is_lost_and_the_next_run_ends_the_same(
    store: VectorStore, model: Model, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index(store, model, photos)
    moved = photos.rename(photos.with_name("ph2"))
    tabled(store, model, moved, **{"Hypatia/0.jpg": {"late": 2}})
    with monkeypatch.context() as patch:
        patch.setattr(store, "delete", lambda *_: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception):
            named(store, model, moved, "ph")
    assert store.count(NAME) == 18
    assert named(store, model, moved, "ph").unchanged == 9
    assert (store.count(NAME), set(store.info(NAME).roots)) == (9, {"ph"})
    assert stored(store).payloads[item_id("ph", "Hypatia/0.jpg")]["late"] == 2
