"""A folder of parts into every kind of store: as the images themselves, in any shares, killed and again."""

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient

from lookalike.encoder.errors import DataError, InvalidArgumentError, ModelMismatchError, StoreError
from lookalike.encoder.runtime import Model
from lookalike.indexer.open import open_store
from lookalike.indexer.parts import EmbedSettings, load_parts, require_plan
from lookalike.indexer.server import ServerStore
from lookalike.indexer.server.client import Server
from lookalike.indexer.store import StorageConfig, VectorStore
from lookalike.indexer.sync import sync
from lookalike.indexer.sync.collection import INDEX_ABOVE
from lookalike.indexer.units import Folder, Shard, UnitSize, run_on_ray
from tests.fixtures import stores
from tests.fixtures.command import lookalike
from tests.fixtures.parts import embed, names_of, plan_of, run_in_order, some_photos, write_tar
from tests.fixtures.photos import photograph, write_many
from tests.fixtures.processes import child_env
from tests.fixtures.qdrant_stub import serving
from tests.fixtures.ray_cluster import ray_cluster
from tests.fixtures.tiny_models import make_bundle

store = stores.store


@pytest.fixture
def name(store: VectorStore) -> Iterator[str]:
    """A name that is not taken; a real server is left as it was."""
    made = f"test-{uuid.uuid4()}"
    yield made
    store.delete_collection(made)


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Model:
    return Model.open(tiny_model, threads=1)


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EmbedSettings, "unit_size", UnitSize(first=8))


@pytest.fixture
def parts(model: Model, tmp_path: Path) -> Path:
    """Parts of 50 photographs, and of an archive of five."""
    write_many(tmp_path / "photos", 50)
    write_tar(tmp_path / "photos" / "more.tar", some_photos(5))
    embed(model, tmp_path / "parts", tmp_path / "photos")
    return tmp_path / "parts"


def content(store: VectorStore, name: str) -> dict[str, tuple[Any, bytes]]:
    return {
        record.id: (dict(record.payload), np.asarray(record.vector).tobytes())
        for record in store.scroll(name, with_vectors=True)
    }


class Watched:
    """A store that counts the points that are sent, and fails after some."""

    def __init__(self, store: VectorStore, fail_after: int | None = None) -> None:
        self._store, self.sent, self._left = store, 0, fail_after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def upsert(self, name: str, ids: Any, *others: Any) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise StoreError("killed here")
        self.sent += len(ids)
        self._store.upsert(name, ids, *others)


def test_parts_are_stored_as_the_images_are_and_sent_once(
    store: VectorStore, name: str, model: Model, parts: Path, tmp_path: Path
) -> None:
    plan = require_plan(Folder(str(parts)))
    watched = Watched(store)
    report = load_parts(watched, name, plan, root=tmp_path / "photos")
    assert (report.rows.added, report.parts, report.done, report.left) == (55, plan.count, 0, 0)
    assert watched.sent == 55
    sync(store, f"{name}-2", model, [tmp_path / "photos", tmp_path / "photos" / "more.tar"])
    ours, theirs = content(store, name), content(store, f"{name}-2")
    assert ours.keys() == theirs.keys()
    assert all(ours[key][0] == theirs[key][0] for key in ours)
    for key in ours:
        one, other = (np.frombuffer(each[key][1], np.float32) for each in (ours, theirs))
        np.testing.assert_allclose(one, other, atol=1e-6)
    store.delete_collection(f"{name}-2")
    again = load_parts(watched, name, plan, root=tmp_path / "photos")
    assert (again.rows.added, again.parts, again.done) == (0, 0, plan.count)
    assert watched.sent == 55


@pytest.mark.parametrize("together", [1, 1024])
def test_a_load_that_is_killed_anywhere_and_run_again_ends_as_a_whole_one(
    together: int, model: Model, parts: Path, tmp_path: Path
) -> None:
    plan = require_plan(Folder(str(parts)))
    with in_memory(together) as store:
        load_parts(store, "a", plan)
        expected = content(store, "a")
    for calls in range(5):
        with in_memory(together) as store:
            try:
                load_parts(Watched(store, calls), "a", plan)
            except StoreError as error:
                assert "killed here" in str(error)  # noqa: PT017  # of some
            load_parts(store, "a", plan)
            assert content(store, "a") == expected
            load_parts(Watched(store, 0), "a", plan)  # sends nothing


def in_memory(together: int) -> ServerStore:
    store = ServerStore(Server(QdrantClient(":memory:"), ":memory:", in_memory=True))
    store.piece = together
    return store


def test_shares_store_everything_once(
    store: VectorStore, name: str, parts: Path, model: Model, tmp_path: Path
) -> None:
    plan = require_plan(Folder(str(parts)))
    watched = Watched(store)
    reports = [load_parts(watched, name, plan, shard=Shard(number, 3)) for number in (2, 1, 3)]
    assert sum(report.rows.added for report in reports) == watched.sent == store.count(name) == 55
    assert sum(report.units for report in reports) == plan.count


def test_processes_load_into_a_server_and_a_rerun_sends_nothing(parts: Path) -> None:
    plan = require_plan(Folder(str(parts)))
    with serving() as stub, open_store(stub.url) as server:
        report = load_parts(server, "a", plan, run=run_in_order)
        assert (report.rows.added, report.parts, report.done, report.left) == (55, plan.count, 0, 0)
        with in_memory(8192) as here:
            load_parts(here, "a", plan)
            assert content(server, "a").keys() == content(here, "a").keys()
        sent = len([asked for asked in stub.asked if asked.upserts])
        again = load_parts(server, "a", plan, run=run_in_order)
        assert (again.rows.added, again.parts, again.done) == (0, 0, plan.count)
        assert len([asked for asked in stub.asked if asked.upserts]) == sent


def test_a_store_with_one_writer_is_loaded_by_one(parts: Path, tmp_path: Path) -> None:
    with open_store(tmp_path / "store") as store:
        with pytest.raises(InvalidArgumentError, match="has one writer at a time; leave --engine out"):
            load_parts(store, "a", require_plan(Folder(str(parts))), run=run_in_order)
        with pytest.raises(InvalidArgumentError, match="--defer-index is for a Qdrant server"):
            load_parts(store, "a", require_plan(Folder(str(parts))), storage=StorageConfig(defer_index=True))
        assert store.list_collections() == []


def test_a_graph_that_is_deferred_is_built_once_at_the_end(parts: Path, tmp_path: Path) -> None:
    with serving() as stub:
        words = ("index", "parts/", "--collection", "a", "--store", stub.url)
        for number in (1, 2):
            done = lookalike(*words, "--defer-index", "--shard", f"{number}/2", cwd=tmp_path)
            assert done.returncode == 0, done.stderr
        done = lookalike(*words, "--defer-index", cwd=tmp_path)
        assert "no search index is built yet; lookalike collections optimize a builds it" in done.stderr
        graph = {"m": 0, "ef_construct": 128, "payload_m": 0}
        assert stub.collections["a"]["hnsw_config"] == graph
        made, indexed, upserted = (
            next(place for place, asked in enumerate(stub.asked) if is_first(asked))
            for is_first in (
                lambda asked: (asked.method, asked.path) == ("PUT", "/collections/a"),
                lambda asked: asked.path.endswith("/index") and asked.body["field_name"] == "person",
                lambda asked: asked.upserts,
            )
        )
        assert made < indexed < upserted
        shown = lookalike("collections", "show", "a", "--store", stub.url, cwd=tmp_path)
        assert "deferred, lookalike collections optimize builds it" in shown.stdout
        assert "16" in next(line for line in shown.stdout.splitlines() if "hnsw m" in line)
        done = lookalike("collections", "optimize", "a", "--store", stub.url, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "a: building the search index of 55 vectors" in done.stderr
        assert stub.collections["a"]["hnsw_config"] == graph | {"m": 16}
        shown = lookalike("collections", "show", "a", "--store", stub.url, "--json", cwd=tmp_path)
        assert "deferred" not in json.loads(shown.stdout)["index"]
        again = lookalike(*words, "--defer-index", cwd=tmp_path)
        assert "a was made before and keeps its search index" in again.stderr


def test_the_number_of_rows_decides_how_they_are_stored(parts: Path) -> None:
    plan = require_plan(Folder(str(parts)))
    manifest = json.loads((parts / "_manifest.json").read_text())
    (parts / "_manifest.json").write_text(json.dumps({**manifest, "rows": 20_000_000}))
    spec = plan.settings.spec
    with serving(peers=3) as stub, open_store(stub.url) as server:
        load_parts(server, "a", plan)
        layout = server.index_state("a").layout
        assert layout == StorageConfig(expect=20_000_000).resolve(spec.dimension, peers=3)
        assert layout is not None
        assert (layout.shards, layout.replicas) == (6, 2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_on_ray_everything_is_stored_once(parts: Path) -> None:
    plan = require_plan(Folder(str(parts)))
    with serving() as stub, open_store(stub.url) as server:
        with ray_cluster():
            report = load_parts(server, "a", plan, run=run_on_ray)
            again = load_parts(server, "a", plan, run=run_on_ray)
        assert (report.rows.added, report.parts) == (55, plan.count)
        assert (again.rows.added, again.done) == (0, plan.count)
        assert server.count("a") == 55


def test_what_is_embedded_later_is_loaded_later(
    store: VectorStore, name: str, model: Model, parts: Path, tmp_path: Path
) -> None:
    write_many(tmp_path / "others", 40)
    plan = plan_of(model, tmp_path / "half", tmp_path / "others")
    embed(model, tmp_path / "half", tmp_path / "others", shard=Shard(1, 2))
    first = load_parts(store, name, plan)
    assert 0 < first.left < plan.count
    embed(model, tmp_path / "half", tmp_path / "others")
    second = load_parts(store, name, plan)
    assert (second.parts, second.done, second.left) == (first.left, first.parts, 0)
    assert store.count(name) == 40


def test_a_part_of_something_else_is_refused(
    store: VectorStore, name: str, model: Model, parts: Path, tmp_path: Path
) -> None:
    other = Model(make_bundle(tmp_path / "other", seed=1))
    embed(other, tmp_path / "foreign", tmp_path / "photos")
    plan = require_plan(Folder(str(parts)))
    victim = max(names_of(parts))
    good = (parts / victim).read_bytes()
    (parts / victim).write_bytes((tmp_path / "foreign" / min(names_of(tmp_path / "foreign"))).read_bytes())
    with pytest.raises(DataError, match="is of another model, crop or source than _plan"):
        load_parts(store, name, plan)
    (parts / victim).write_bytes(good[: len(good) // 2])
    with pytest.raises(DataError, match="must be a whole Parquet file"):
        load_parts(store, name, plan)
    (parts / victim).write_bytes(good)
    load_parts(store, name, plan)
    assert store.count(name) == 55
    with pytest.raises(ModelMismatchError, match="holds vectors of model"):
        load_parts(store, name, require_plan(Folder(str(tmp_path / "foreign"))))


def test_the_commands_embed_load_and_tell(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        EmbedSettings, "unit_size", UnitSize(first=256)
    )  # one unit of files, and one of an archive
    write_many(tmp_path / "photos", 20)
    (tmp_path / "photos" / "bad.jpg").write_bytes(b"")
    write_tar(tmp_path / "photos" / "more.tar", some_photos(10))
    words = ("embed", "photos/", "--model", tiny_model, "--out", "parts/")
    planned = lookalike(*words, "--plan", cwd=tmp_path)
    assert (planned.returncode, "2 units, 21 images" in planned.stderr) == (0, True)
    for number in (2, 1):
        done = lookalike(*words, "--shard", f"{number}/2", cwd=tmp_path)
        assert "share" in done.stderr
    done = lookalike("latents", "status", "parts", cwd=tmp_path)
    assert "0 left; 30 rows" in done.stdout
    assert "bad.jpg" in done.stderr
    assert lookalike("latents", "status", "parts", "--json", cwd=tmp_path).stdout.count('"reason"') == 1
    index = ("index", "parts/", "--collection", "a")
    shares = [lookalike(*index, "--shard", f"{number}/2", cwd=tmp_path) for number in (1, 2)]
    assert [done.returncode for done in shares] == [0, 0]
    again = lookalike(*index, "--json", cwd=tmp_path)
    assert (again.returncode, '"loaded": 0' in again.stdout) == (0, True)
    assert lookalike(*words, cwd=tmp_path).returncode == 3  # the bad image, told again


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["embed", "photos", "--out", "x.parquet", "--shard", "1/2"], "write a folder of parts"),
        (["embed", "photos", "--out", "x.parquet", "--engine", "ray"], "write a folder of parts"),
        (
            ["embed", "photos", "--out", "x/", "--shard", "1/2", "--overwrite"],
            "--overwrite with --plan before",
        ),
        (["embed", "photos", "--out", "x/", "--shard", "3/2"], "--shard is of the form 2/8"),
        (["embed", "photos", "--out", "ftp://host/x"], "a place is a path or a URL with s3"),
        (["index", "photos", "--shard", "1/2"], "--shard works with a folder from lookalike embed"),
        (["index", "photos", "--engine", "ray"], "--engine works with a folder from lookalike embed"),
        (["index", "photos", "--defer-index"], "--defer-index works with a folder from lookalike embed"),
        (["index", "parts", "--shard", "1/2", "--engine", "ray"], "use --engine ray without it"),
        (["index", "parts", "photos"], "a folder of parts is indexed alone"),
        (["latents", "status", "photos"], "a folder of parts is written by lookalike embed"),
    ],
)
def test_wrong_words_are_told_with_the_way_out(
    words: list[str], told: str, tiny_model: Path, tmp_path: Path
) -> None:
    write_many(tmp_path / "photos", 3)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "_plan").write_bytes(b"")
    model = ["--model", str(tiny_model)] if words[0] != "latents" else []
    done = lookalike(*words, *model, cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert told in " ".join(done.stderr.split())
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_thousands_of_parts_are_loaded_with_few_open_files(
    model: Model, tiny_model: Path, tmp_path: Path
) -> None:
    for number in range(3000):
        write_tar(tmp_path / "shards" / f"{number:04d}.tar", {"a.jpg": photograph(number % 16)})
    embed(model, tmp_path / "parts", tmp_path / "shards")
    command = Path(sys.executable).with_name("lookalike")
    for _ in range(2):
        line = f"ulimit -n 256; exec {command} index parts/ --collection a --json"
        done = subprocess.run(
            ["sh", "-c", line], cwd=tmp_path, env=child_env(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["loaded"] == 0
    assert json.loads(done.stdout)["stored"] == 3000


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_large_collection_of_parts_has_a_graph(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # units of the usual size
    count = INDEX_ABOVE + 10_000
    write_many(tmp_path / "photos", count)
    embed(model, tmp_path / "parts", tmp_path / "photos")
    told: list[str] = []
    with open_store(str(tmp_path / "store")) as store:
        load_parts(store, "a", require_plan(Folder(str(tmp_path / "parts"))), log=told.append)
        state = store.index_state("a")
    assert (state.points, state.indexed) == (count, count)
    assert told == [f"a: building the search index of {count} vectors"]
