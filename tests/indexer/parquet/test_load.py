"""A file of latents in a collection is what indexing the folder itself would have made of it."""

import json
import multiprocessing
import os
import random
import re
import signal
import subprocess
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from lookalike.encoder.errors import DataError, InvalidArgumentError, ModelMismatchError
from lookalike.encoder.runtime import Model
from lookalike.indexer.open import open_store
from lookalike.indexer.parquet import export_latents, load_latents
from lookalike.indexer.parquet.file import LatentsFile, write_latents
from lookalike.indexer.sources import item_id
from lookalike.indexer.sources.source import open_source
from lookalike.indexer.store import VectorStore
from tests.benchmarks.million_vectors import People
from tests.fixtures import stores
from tests.fixtures.command import COMMAND, lookalike, one_line
from tests.fixtures.killed_load import load_file_and_die
from tests.fixtures.people import write_people
from tests.fixtures.photos import NAME, index, photograph, stored, write_many, write_photos
from tests.fixtures.tiny_models import make_bundle

any_store = stores.store


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Model:
    return Model.open(tiny_model)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_photos(tmp_path / "photos")
    (tmp_path / "photos" / "nobody.jpg").write_bytes(photograph(11))
    return tmp_path / "photos"


def embedded(model: Model, out: Path, *sources: Path, overwrite: bool = True) -> Path:
    found = [open_source(str(each), root_name=None, known_roots={}) for each in sources]
    export_latents(model, found, out, overwrite=overwrite)
    return out


@pytest.fixture
def latents(model: Model, photos: Path, tmp_path: Path) -> Path:
    return embedded(model, tmp_path / "latents.parquet", photos)


@pytest.fixture
def direct(model: Model, photos: Path, tmp_path: Path) -> Iterator[VectorStore]:
    """A store into which the folder itself was indexed."""
    with open_store(str(tmp_path / "direct")) as opened:
        index(opened, model, photos)
        yield opened


@pytest.fixture
def store(any_store: VectorStore) -> Iterator[VectorStore]:
    """Every store in turn; a real server is left as it was."""
    before = any_store.list_collections()
    yield any_store
    for name in set(any_store.list_collections()) - set(before):
        any_store.delete_collection(name)


def test_every_point_is_as_indexing_the_folder_makes_it(
    store: VectorStore, direct: VectorStore, latents: Path, photos: Path
) -> None:
    report = load_latents(store, NAME, [latents], root=photos)
    assert (report.added, report.changed, report.unchanged) == (10, 0, 0)
    ours, theirs = stored(store), stored(direct)
    assert ours.payloads == theirs.payloads
    np.testing.assert_allclose(ours.vectors, theirs.vectors, rtol=0, atol=1e-7)
    assert store.info(NAME) == direct.info(NAME)


def test_no_picture_is_opened_and_none_need_be_there(
    store: VectorStore, direct: VectorStore, latents: Path, photos: Path
) -> None:
    photos.rename(photos.with_name("gone"))
    load_latents(store, NAME, [latents])
    assert stored(store) == stored(direct)


def test_loading_twice_equals_once_and_so_does_indexing_the_folder_then(
    store: VectorStore, model: Model, latents: Path, photos: Path
) -> None:
    load_latents(store, NAME, [latents])
    once = stored(store)
    lines: list[str] = []
    again = load_latents(store, NAME, [latents, latents], warn=lines.append)
    assert (again.added, again.changed, again.unchanged) == (0, 0, 10)  # an image counts once
    assert lines == ["10 rows name an image that a later row names again; the last of them counts"]
    assert index(store, model, photos).unchanged == 10
    assert stored(store) == once


def test_changed_rows_are_told_from_new_ones(
    store: VectorStore, model: Model, latents: Path, photos: Path
) -> None:
    load_latents(store, NAME, [latents])
    (photos / "Hypatia" / "0.jpg").write_bytes(photograph(15))
    (photos / "Hypatia" / "new.jpg").write_bytes(photograph(14))
    (photos / "nobody.jpg").unlink()
    embedded(model, latents, photos)
    report = load_latents(store, NAME, [latents])
    assert (report.added, report.changed, report.unchanged) == (1, 1, 8)
    assert store.count(NAME) == 11  # a file does not say what has left the folder
    assert index(store, model, photos).unchanged == 10


def test_what_more_a_file_says_is_stored_and_kept_up_to_date(store: VectorStore, latents: Path) -> None:
    load_latents(store, NAME, [latents])
    before = stored(store)
    with LatentsFile.open(latents) as opened:
        spec, (rows,) = opened.spec, list(opened.rows())

    def say(smiling: float) -> None:
        more = {"Smiling": smiling, "path": "is said by the file itself"}
        told = rows._replace(
            entries=[entry._replace(payload=more) for entry in rows.entries[:4]] + rows.entries[4:]
        )
        write_latents(latents, spec, [told], draft=latents.with_suffix(".new"), payload=True)

    for smiling in (0.1, 1 / 3):
        say(smiling)
        for changed in (4, 0):
            report = load_latents(store, NAME, [latents])
            assert (report.added, report.changed, report.unchanged) == (0, changed, 10 - changed)
        said = stored(store).payloads
        assert [key for key in said if "Smiling" in said[key]] == sorted(
            item_id("photos", entry.path) for entry in rows.entries[:4]
        )
        assert all(payload.pop("Smiling", smiling) == pytest.approx(smiling) for payload in said.values())
        assert said == before.payloads


@pytest.mark.parametrize("again", [False, True], ids=["first", "again"])
def test_memory_does_not_grow_with_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    monkeypatch.setattr("tests.benchmarks.million_vectors.ROWS", 256)
    held: list[int] = []
    # The first loads what is imported on the way; the last is measured twice, as what other threads of the
    # tests allocate meanwhile counts, too.
    for count in (1024, 1024, 4096, 4096):
        people, file = People(count, dimension=16), tmp_path / f"{count}.parquet"
        write_latents(file, people.spec, people.rows(), draft=tmp_path / "new", payload=True)
        with open_store(str(tmp_path / f"{len(held)}")) as store:
            if again:
                load_latents(store, NAME, [file])
            tracemalloc.start()
            report = load_latents(store, NAME, [file])
            held.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            assert (report.added, report.unchanged) == ((0, count) if again else (count, 0))
    assert min(held[2:]) < 1.05 * held[1]


def test_another_model_is_refused(store: VectorStore, model: Model, latents: Path, photos: Path) -> None:
    other = embedded(Model(make_bundle(photos.parent / "other", seed=1)), photos.parent / "o.parquet", photos)
    index(store, model, photos)
    before = stored(store)
    with pytest.raises(ModelMismatchError, match=r"collection 'photos' holds .*o\.parquet of"):
        load_latents(store, NAME, [other])
    with pytest.raises(ModelMismatchError, match=r"latents\.parquet holds .*o\.parquet of"):
        load_latents(store, "new", [latents, other])
    assert stored(store) == before
    assert store.list_collections() == [NAME]


def test_another_crop_is_refused(store: VectorStore, model: Model, latents: Path, photos: Path) -> None:
    load_latents(store, NAME, [latents])
    store.create("full", replace(store.info(NAME), crop="full"))
    with pytest.raises(ModelMismatchError, match=r"--crop full\), .*--crop center:0\.5\); embed with"):
        load_latents(store, "full", [latents])


def test_roots_are_called_as_the_collection_calls_them(
    store: VectorStore, model: Model, latents: Path, photos: Path, tmp_path: Path
) -> None:
    load_latents(store, NAME, [latents], root_name="mine")
    assert store.info(NAME).roots == {"mine": str(photos.resolve())}
    assert load_latents(store, NAME, [latents]).unchanged == 10
    moved = embedded(model, tmp_path / "m.parquet", photos.rename(tmp_path / "mine"))
    with pytest.raises(
        InvalidArgumentError, match=r"this collection knows 'mine' as .*; pass --root-name mine if"
    ):
        load_latents(store, NAME, [moved])
    assert load_latents(store, NAME, [moved], root_name="mine").unchanged == 10
    assert store.info(NAME).roots == {"mine": str((tmp_path / "mine").resolve())}


def test_a_file_of_two_roots_fills_both(
    store: VectorStore, model: Model, photos: Path, tmp_path: Path
) -> None:
    write_photos(tmp_path / "more", each=1)
    both = embedded(model, tmp_path / "both.parquet", photos, tmp_path / "more")
    assert load_latents(store, NAME, [both]).added == 13
    assert set(store.info(NAME).roots) == {"photos", "more"}
    with pytest.raises(InvalidArgumentError, match=r"both\.parquet has photos, more; leave it out"):
        load_latents(store, NAME, [both], root_name="one")
    with open_store(str(tmp_path / "clean")) as clean:
        index(clean, model, photos, tmp_path / "more")
        assert stored(store) == stored(clean)


def test_a_damaged_file_is_told_and_makes_no_collection(store: VectorStore, latents: Path) -> None:
    whole = latents.read_bytes()
    latents.write_bytes(whole[:-100])
    with pytest.raises(DataError, match=r"latents\.parquet must be a whole Parquet file"):
        load_latents(store, NAME, [latents])
    assert store.list_collections() == []
    latents.write_bytes(whole)
    pq.write_table(pq.read_table(latents).replace_schema_metadata(None), latents)
    with pytest.raises(DataError, match="must name the model of its vectors"):
        load_latents(store, NAME, [latents])
    assert store.list_collections() == []


def test_killed_at_any_write_and_run_again_equals_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "tests.benchmarks.million_vectors.ROWS", 512
    )  # rows of a piece that is loaded at once
    people, file = People(1300, dimension=16), tmp_path / "latents.parquet"
    write_latents(file, people.spec, people.rows(), draft=tmp_path / "new", payload=True)
    with open_store(str(tmp_path / "clean")) as clean:
        told: list[int] = []
        load_latents(clean, NAME, [file], on_progress=told.append)
        assert told == [512, 512, 276]  # no more is in memory at a time
        expected = stored(clean)
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.fixtures.killed_load"])
    moments = 0
    while True:
        store = tmp_path / f"store-{moments}"
        child = processes.Process(target=load_file_and_die, args=(store, file, moments))
        child.start()
        child.join(60)
        with open_store(str(store)) as again:
            load_latents(again, NAME, [file])
            assert stored(again) == expected
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
        moments += 1
    assert moments >= 2 * (
        1 + 3 + 1
    )  # before and after creating it, three writes and what makes them durable


@pytest.mark.slow
def test_killed_anywhere_and_run_again_equals_once(model: Model, tmp_path: Path) -> None:
    write_many(tmp_path / "photos", 9000)
    embedded(model, tmp_path / "latents.parquet", tmp_path / "photos")
    words = ["index", "latents.parquet", "--collection", NAME]
    rng = random.Random(os.getpid())
    for _ in range(3):
        with subprocess.Popen([COMMAND, *words], cwd=tmp_path, stderr=subprocess.DEVNULL) as running:
            time.sleep(rng.uniform(0.3, 1.5))
            running.send_signal(signal.SIGKILL)
    done = lookalike(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with open_store(str(tmp_path / ".lookalike")) as killed, open_store(str(tmp_path / "clean")) as clean:
        told: list[int] = []
        load_latents(clean, NAME, [tmp_path / "latents.parquet"], on_progress=told.append)
        assert told == [4096, 4096, 808]  # no more is in memory at a time
        assert killed.count(NAME) == 9000
        assert stored(killed) == stored(clean)


def test_the_command_takes_a_file_for_a_source(latents: Path, tiny_model: Path, tmp_path: Path) -> None:
    latents = latents.rename(tmp_path / "latents.bin")  # known by its first bytes
    done = lookalike("index", "latents.bin", "--collection", NAME, "--json", cwd=tmp_path)
    assert done.returncode == 0
    hint, line = done.stderr.splitlines()
    assert hint == (
        "images of photos will not be shown: only the file says that they are in "
        f"{(tmp_path / 'photos').resolve()}; if they are, index it again with --root and that folder"
    )
    assert line.startswith("photos: 10 added, 0 changed, 0 unchanged; ")
    report = json.loads(done.stdout)
    assert (report["added"], report["failed"], report["provider"]) == (10, [], None)
    words = ["index", "latents.bin", "--collection", NAME, "--model", str(tiny_model), "--crop", "center:0.5"]
    again = lookalike(*words, cwd=tmp_path)
    assert one_line(again).startswith("photos: 0 added, 0 changed, 10 unchanged; ")
    found = lookalike(
        "search", "photos/Hypatia/0.jpg", "--collection", NAME, "-n", "1", "--json", cwd=tmp_path
    )
    assert json.loads(found.stdout), found.stderr


@pytest.mark.parametrize(
    ("code", "words", "said"),
    [
        (1, "latents.parquet --model faces", "--model faces is .*; leave --model out"),
        (1, "latents.parquet --crop full", r"was embedded with --crop center:0\.5, not full; leave"),
        (1, "gone.parquet", "'gone.parquet' is not a file"),
        (1, "text.parquet", "must be a whole Parquet file, but: .*; fetch it again or embed again"),
        (2, "latents.parquet photos", "need separate runs; 'photos' is no file of latents"),
        (2, "latents.parquet --prune", "a file of latents does not list what was removed; index the folder"),
        (2, "latents.parquet --root-name=", "a root name is one or more printable characters"),
    ],
)
def test_errors_are_one_line_with_a_code(
    latents: Path, tmp_path: Path, code: int, words: str, said: str
) -> None:
    (tmp_path / "text.parquet").write_text("not so")
    done = lookalike("index", *words.split(), "--collection", "new", cwd=tmp_path)
    assert done.returncode == code
    line = one_line(done)
    assert len(line) < 400
    assert re.search(said, line), line
    assert lookalike("collections", "list", "--json", cwd=tmp_path).stdout == "[]\n"


def test_evaluate_reads_the_file_and_finds_what_the_model_finds(tiny_model: Path, tmp_path: Path) -> None:
    write_people(tmp_path / "people", people=24, each=3)
    embedded(Model.open(tiny_model), tmp_path / "latents.parquet", tmp_path / "people")
    done = lookalike(
        *("evaluate", "retrieval", "--data", "people", "--model", tiny_model, "--json"),
        *("--vectors", "latents.parquet"),
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    ours, theirs = json.loads(done.stdout)
    assert (ours.pop("name"), theirs.pop("name")) == ("tiny", "latents.parquet")
    assert ours.pop("kind") != theirs.pop("kind")
    assert ours == theirs
