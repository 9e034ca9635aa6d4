"""What is asked of a Qdrant server: how collections are made, and that no point is lost on the way."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from lookalike.encoder.errors import (
    CollectionNotFoundError,
    InvalidArgumentError,
    ModelMismatchError,
    StoreError,
    StoreUnavailableError,
    StoreUnreachableError,
)
from lookalike.indexer.maintenance import copy_collection
from lookalike.indexer.open import open_store
from lookalike.indexer.parquet import load_latents
from lookalike.indexer.parquet.file import write_latents
from lookalike.indexer.server import ServerStore
from lookalike.indexer.server.config import to_qdrant
from lookalike.indexer.server.metadata import to_metadata
from lookalike.indexer.store import Layout, StorageConfig, opening_error
from tests.benchmarks.million_vectors import People
from tests.fixtures.command import lookalike
from tests.fixtures.qdrant_stub import Answer, Asked, Stub, serving
from tests.fixtures.stores import SPEC, D, point_ids, random_vectors

MANY = 2500


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    monkeypatch.setattr("lookalike.indexer.server.upload.PAUSES", (0.01, 0.02, 0.04))
    with serving() as made:
        yield made


@pytest.fixture
def store(stub: Stub) -> Iterator[ServerStore]:
    with ServerStore.connect(stub.url) as opened:
        yield opened


def fill(store: ServerStore, count: int = MANY, *, seed: int = 0) -> list[str]:
    ids = point_ids(count, seed=seed)
    store.upsert("c", ids, random_vectors(count), [{"n": n} for n in range(count)])
    return ids


def test_a_collection_on_a_server_by_itself(stub: Stub, store: ServerStore) -> None:
    store.create("c", SPEC)
    (made,) = stub.of("/collections/c", "PUT")
    assert made.body == {
        "vectors": {"size": D, "distance": "Cosine", "on_disk": False},
        "hnsw_config": {"m": 16, "ef_construct": 128, "payload_m": 0},
        "optimizers_config": {"indexing_threshold": 100_000 * D * 4 // 1024 // 8},
        "metadata": to_metadata(SPEC),
    }
    state = store.index_state("c")
    assert state.layout == StorageConfig().resolve(D)


def test_a_deferred_graph_has_the_edges_that_were_asked_for(stub: Stub, store: ServerStore) -> None:
    chosen = StorageConfig(hnsw_m=24, hnsw_payload_m=8, quantization="int8", on_disk=True)
    store.create("c", SPEC, replace(chosen, defer_index=True))
    (made,) = stub.of("/collections/c", "PUT")
    assert made.body["hnsw_config"] == {"m": 0, "ef_construct": 128, "payload_m": 0}
    fill(store)
    store.update_info("c", replace(SPEC, roots={"more": "/data/more", **SPEC.roots}))
    state = store.index_state("c")
    assert (state.layout, state.deferred, state.indexed) == (chosen.resolve(D), True, 0)
    assert state.to_json()["index"] == {"search": "exact", "indexed": 0, "deferred": True}
    store.build_index("c")
    state = store.index_state("c")
    assert (state.layout, state.deferred, state.indexed) == (chosen.resolve(D), False, MANY)
    assert stub.collections["c"]["hnsw_config"] == {"m": 24, "ef_construct": 128, "payload_m": 8}
    assert "deferred" not in state.to_json()["index"]


@pytest.mark.parametrize("moment", [0, 1, 2])
def test_a_deferred_build_that_was_killed_is_gone_on_with(
    moment: int, stub: Stub, store: ServerStore
) -> None:
    store.create("c", SPEC, StorageConfig(defer_index=True))
    fill(store)
    left = [moment]

    def die(asked: Asked) -> int | None:
        if asked.method != "PATCH":
            return None
        left[0] -= 1
        return 403 if left[0] == -1 else None

    stub.fault = die
    with pytest.raises(StoreError):
        store.build_index("c")
    stub.fault = lambda _: None
    store.build_index("c")
    state = store.index_state("c")
    assert (state.layout, state.deferred, state.indexed) == (StorageConfig().resolve(D), False, MANY)


def test_a_large_collection_on_a_cluster(stub: Stub, store: ServerStore) -> None:
    stub.peers = 3
    spec = SPEC.__class__(**SPEC.to_json() | {"dimension": 512})
    store.create("c", spec, StorageConfig(expect=20_000_000))
    (made,) = stub.of("/collections/c", "PUT")
    assert (made.body["shard_number"], made.body["replication_factor"]) == (6, 2)
    assert made.body["vectors"] == {"size": 512, "distance": "Cosine", "on_disk": True}
    assert made.body["quantization_config"] == {
        "scalar": {"type": "int8", "quantile": 0.99, "always_ram": True}
    }
    layout = store.index_state("c").layout
    assert layout == StorageConfig(expect=20_000_000).resolve(512, peers=3)
    with pytest.raises(InvalidArgumentError, match="the cluster has 3"):
        store.create("d", spec, StorageConfig(replicas=4))
    assert "d" not in stub.collections


def test_payload_is_indexed_before_any_point_comes(stub: Stub, store: ServerStore) -> None:
    store.create("c", SPEC, StorageConfig(numeric_fields=("Smiling", "a b", "x.y")))
    fill(store, 3)
    on_disk = {"type": "keyword", "on_disk": True}
    wanted = [
        *(("root", "keyword"), ("person", "keyword"), ("path", on_disk), ("sha256", on_disk)),
        *(("size", "integer"), ("mtime_ns", "integer"), ("Smiling", "float"), ('"a b"', "float")),
        ("n", "float"),  # came with the points
    ]
    indexes = stub.of("/index", "PUT")
    assert [(each.body["field_name"], each.body["field_schema"]) for each in indexes] == wanted
    assert all(each.wait for each in indexes)
    first = next(n for n, asked in enumerate(stub.asked) if asked.upserts)
    assert all(stub.asked.index(each) < first for each in indexes)


def test_a_create_that_was_killed_before_its_indexes_is_made_good(stub: Stub, store: ServerStore) -> None:
    stub.fault = lambda asked: 500 if asked.path.endswith("/index") else None
    with pytest.raises(StoreUnavailableError):
        store.create("c", SPEC)
    stub.fault = lambda _: None
    fill(store, 3)
    asked = [each.body["field_name"] for each in stub.of("/index")]
    assert asked == [*(["root"] * 5), "person", "path", "sha256", "size", "mtime_ns", "n"]


def test_batches_are_acknowledged_and_then_all_are_there(stub: Stub, store: ServerStore) -> None:
    store.create("c", SPEC)
    ids = fill(store)
    upserts = [asked for asked in stub.asked if asked.upserts]
    assert sorted(len(asked.body["points"]) for asked in upserts) == [MANY % 256] + 9 * [256]
    assert not any(asked.wait for asked in upserts)
    assert stub.queue == []  # nothing that was acknowledged still waits
    assert sorted(stub.points["c"]) == sorted(ids)
    assert store.count("c") == MANY


def test_streams_overlap(stub: Stub, store: ServerStore) -> None:
    store.create("c", SPEC)
    fill(store, 1)
    meeting = threading.Barrier(4, timeout=10)
    real = stub.answer

    def answer(asked: Asked) -> Answer:
        if asked.upserts:
            meeting.wait()  # raises, and the request fails, unless four are here at once
        return real(asked)

    stub.answer = answer  # type: ignore[method-assign]  # for this test
    fill(store, 2048)
    assert store.count("c") == 2048


@pytest.mark.parametrize("status", [500, 503, 0, 429])
def test_a_batch_that_fails_is_sent_again(stub: Stub, store: ServerStore, status: int) -> None:
    store.create("c", SPEC)
    failed: Counter[str] = Counter()

    def fault(asked: Asked) -> int | None:
        first = asked.body["points"][0]["id"] if asked.upserts else ""
        if not first or failed[first] >= 2 or (status == 429 and failed.total()):
            return None
        failed[first] += 1
        return status

    stub.fault = fault
    ids = fill(store)
    assert failed.total() == (1 if status == 429 else 20)  # every batch twice
    assert sorted(stub.points["c"]) == sorted(ids)
    assert store.count("c") == MANY


def test_a_batch_that_never_goes_through_is_named(stub: Stub, store: ServerStore) -> None:
    store.create("c", SPEC)
    ids = point_ids(MANY)

    def fault(asked: Asked) -> int | None:
        return 503 if asked.upserts and asked.body["points"][0]["id"] == ids[512] else None

    stub.fault = fault
    with pytest.raises(StoreUnavailableError) as caught:
        fill(store)
    said = str(caught.value)
    assert "\n" not in said
    assert f"points 513 to 768 of {MANY}, from {ids[512]} on, were not accepted in 4 tries (" in said
    assert "503: on purpose" in said
    assert "run it again" in said
    stub.fault = lambda _: None
    fill(store)  # and the same again completes it
    assert store.count("c") == MANY


@pytest.mark.parametrize("status", [400, 401, 404])
def test_what_is_refused_is_not_sent_again(stub: Stub, store: ServerStore, status: int) -> None:
    store.create("c", SPEC)
    stub.fault = lambda asked: status if asked.upserts else None
    with pytest.raises(StoreError):
        fill(store, 10)
    assert sum(asked.upserts for asked in stub.asked) == 1


def test_the_barrier_is_waited_for(stub: Stub, store: ServerStore) -> None:
    store.create("c", SPEC)
    slow = 2
    real = stub.answer

    def answer(asked: Asked) -> Answer:
        nonlocal slow
        if asked.path.endswith("/points/delete") and slow:
            slow -= 1
            told = {"operation_id": 1, "status": "wait_timeout"}
            return 200, {"result": told, "status": "ok", "time": 0.0}
        return real(asked)

    stub.answer = answer  # type: ignore[method-assign]  # for this test
    fill(store)
    assert (slow, stub.queue, store.count("c")) == (0, [], MANY)


def test_points_that_were_acknowledged_and_are_not_there_are_no_success(
    stub: Stub, store: ServerStore
) -> None:
    store.create("c", SPEC)
    real = stub.answer

    def answer(asked: Asked) -> Answer:
        if asked.upserts:  # acknowledged, and forgotten
            told = {"operation_id": 1, "status": "acknowledged"}
            return 200, {"result": told, "status": "ok", "time": 0.0}
        return real(asked)

    stub.answer = answer  # type: ignore[method-assign]  # for this test
    with pytest.raises(StoreUnavailableError, match="has 0 of 10 points that it acknowledged"):
        fill(store, 10)


def test_of_an_id_given_twice_the_last_stays_whichever_stream_is_faster(
    stub: Stub, store: ServerStore
) -> None:
    store.create("c", SPEC)
    ids = point_ids(600)
    store.upsert("c", [*ids, *ids], random_vectors(1200), [{"turn": n // 600} for n in range(1200)])
    assert {point["payload"]["turn"] for point in stub.points["c"].values()} == {1}
    assert sum(len(asked.body["points"]) for asked in stub.asked if asked.upserts) == 600


def test_a_deletion_is_done_before_what_follows(stub: Stub, store: ServerStore) -> None:
    store.create("c", SPEC)
    ids = fill(store, 10)
    store.delete("c", ids[:4])
    assert sorted(stub.points["c"]) == sorted(ids[4:])
    assert stub.of("/points/delete")[-1].wait


def test_what_is_quantized_is_rescored_from_more_candidates(stub: Stub, store: ServerStore) -> None:
    store.create("c", SPEC, StorageConfig(quantization="int8"))
    searches: list[Asked] = []
    real = stub.answer

    def answer(asked: Asked) -> Answer:
        if not asked.path.endswith("/query/batch"):
            return real(asked)
        searches.append(asked)
        return 200, {"result": [{"points": []}], "status": "ok", "time": 0.0}

    stub.answer = answer  # type: ignore[method-assign]  # for this test
    assert store.search("c", random_vectors(1), k=10) == [[]]
    (search,) = searches[0].body["searches"]
    assert search["params"]["quantization"] == {"rescore": True, "oversampling": 2.0}
    assert search["params"]["hnsw_ef"] == 512


def test_an_alias_is_switched_in_one_request(stub: Stub, store: ServerStore) -> None:
    for name in ("c", "d"):
        store.create(name, SPEC)
    store.set_alias("faces", "c")
    store.set_alias("faces", "d")
    store.set_alias("faces", None)
    first, second, third = (asked.body["actions"] for asked in stub.of("/collections/aliases"))
    made = [{"create_alias": {"collection_name": name, "alias_name": "faces"}} for name in ("c", "d")]
    gone = {"delete_alias": {"alias_name": "faces"}}
    assert (first, second, third) == ([made[0]], [gone, made[1]], [gone])
    with pytest.raises(CollectionNotFoundError, match="no alias 'faces'"):
        store.set_alias("faces", None)


def test_an_alias_is_looked_up_and_the_collection_asked(stub: Stub, store: ServerStore) -> None:
    store.create("c", SPEC)
    store.set_alias("faces", "c")
    store.upsert("faces", point_ids(3), np.ones((3, D), np.float32), [{}] * 3)
    assert store.count("faces") == 3
    assert not stub.of("/collections/faces/points")


def test_a_server_of_streams_is_what_an_address_opens(stub: Stub) -> None:
    with open_store(stub.url) as opened:
        opened.create("c", SPEC)
        assert json.loads(json.dumps(opened.info("c").to_json())) == SPEC.to_json()


CONSENSUS: Final[dict[str, Callable[[ServerStore], object]]] = {
    "PUT /collections/d": lambda store: store.create("d", SPEC),
    "PUT /collections/d/index": lambda store: store.create("d", SPEC),
    "PATCH /collections/c": lambda store: store.update_info("c", replace(SPEC, roots={"new": "/new"})),
    "POST /collections/aliases": lambda store: store.set_alias("faces", "c"),
    "DELETE /collections/c": lambda store: store.delete_collection("c"),
    "GET /cluster": lambda store: store.create("d", SPEC),
}


@pytest.mark.parametrize("request_line", CONSENSUS)
@pytest.mark.parametrize("done", [False, True], ids=["refused", "answer lost"])
def test_while_a_cluster_has_no_leader_changes_wait(
    stub: Stub, store: ServerStore, request_line: str, done: bool
) -> None:
    store.create("c", SPEC)
    failures, real = 2, stub.answer

    def answer(asked: Asked) -> Answer:
        nonlocal failures
        if failures and f"{asked.method} {asked.path}" == request_line:
            failures -= 1
            if done:
                real(asked)
            return 500, {"status": {"error": "Service internal error: no leader"}, "time": 0.0}
        return real(asked)

    stub.answer = answer  # type: ignore[method-assign]  # for this test
    CONSENSUS[request_line](store)
    assert failures < 2
    deleted = request_line.startswith("DELETE")
    assert ("c" in store.list_collections()) != deleted


def test_a_leader_that_does_not_come_back_is_told_in_one_line(stub: Stub, store: ServerStore) -> None:
    store.create("c", SPEC)
    stub.fault = lambda asked: 500 if asked.method == "PATCH" else None
    with pytest.raises(
        StoreUnavailableError, match="changes of collection 'c' were not accepted in 4 tries"
    ) as told:
        store.update_info("c", replace(SPEC, roots={}))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("fresh", [False, True], ids=["open", "opened anew"])
def test_a_collection_that_does_not_answer_is_listed_and_deleted(
    stub: Stub, store: ServerStore, fresh: bool, tmp_path: Path
) -> None:
    for name in ("c", "d"):
        store.create(name, SPEC)
    stub.fault = lambda asked: (
        500 if asked.path.startswith("/collections/c") and asked.method != "DELETE" else None
    )
    with ServerStore.connect(stub.url) as other:
        seen = other if fresh else store
        assert seen.list_collections() == ["c", "d"]
        assert isinstance(opening_error(seen, "c"), StoreUnreachableError)
        assert opening_error(seen, "d") is None
        listed = lookalike("collections", "list", "--store", stub.url, cwd=tmp_path)
        assert listed.returncode == 3
        (first, second) = listed.stdout.splitlines()
        assert first.split()[:2] == ["c", "unreachable"]
        assert second.split()[:2] == ["d", "0"]
        gone = lookalike("collections", "delete", "c", "--yes", "--store", stub.url, cwd=tmp_path)
        assert gone.returncode == 0, gone.stderr
        assert seen.list_collections() == ["d"]
        with pytest.raises(CollectionNotFoundError):
            seen.delete_collection("c")


def test_a_server_that_does_not_answer_at_all_is_no_list(stub: Stub, store: ServerStore) -> None:
    store.create("c", SPEC)
    stub.fault = lambda _: 0
    with pytest.raises(StoreUnreachableError):
        opening_error(store, "c")
    with pytest.raises(StoreUnreachableError):
        store.list_collections()


@pytest.mark.parametrize("options", [{"dimension": 4}, {"model_id": "b" * 64}, {"crop": "face"}])
def test_a_store_that_is_kept_open_does_not_mix_models(
    stub: Stub, store: ServerStore, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    monkeypatch.setattr("lookalike.indexer.server.store.SPEC_SECONDS", 0)
    store.create("c", SPEC)
    fill(store, 10)
    spec = replace(SPEC, **options)
    with ServerStore.connect(stub.url) as other:
        other.delete_collection("c")
        other.create("c", spec)
        calls: list[Callable[[], object]] = [
            lambda: fill(store, 10),
            lambda: store.search("c", random_vectors(1), k=1),
            lambda: store.count("c"),
        ]
        for call in calls:
            with pytest.raises(
                ModelMismatchError, match=r"made anew for model faces .* open it again"
            ) as told:
                call()
            assert "\n" not in str(told.value)
        assert other.count("c") == 0
        assert store.info("c") == spec  # whoever asks goes on with the new one
        assert store.count("c") == 0


@pytest.mark.parametrize(("shards", "segments"), [(1, 2), (1, 8), (6, 2), (6, 8)])
def test_a_large_collection_gets_graphs_by_itself(shards: int, segments: int) -> None:
    """Each segment is compared with the threshold by itself."""
    threshold = to_qdrant(Layout(shards=shards), 512, StorageConfig())["optimizers_config"][
        "indexing_threshold"
    ]
    kilobytes = 120_000 * 512 * 4 / 1024 / shards / segments
    assert kilobytes > threshold
    assert 10_000 * 512 * 4 / 1024 / shards / segments < threshold  # a small one is searched exactly


@pytest.mark.parametrize("left", [None, 1], ids=["usual", "left by an earlier release"])
@pytest.mark.parametrize("fails", [False, True])
def test_the_threshold_is_as_before_once_the_index_is_built(
    stub: Stub, store: ServerStore, monkeypatch: pytest.MonkeyPatch, left: int | None, fails: bool
) -> None:
    monkeypatch.setattr("lookalike.indexer.server.hnsw.POLL_SECONDS", 0)
    store.create("c", SPEC)
    fill(store, 300)
    settings = stub.collections["c"]["optimizers_config"]
    usual = settings["indexing_threshold"]
    settings["indexing_threshold"] = left or usual
    assert store.index_state("c").indexed == 0
    if fails:
        stub.fails_to_build = True
        with pytest.raises(StoreError, match=r"'c' on .* could not get its search index"):
            store.build_index("c")
    else:
        store.build_index("c")
        assert store.index_state("c").indexed == 300
    thresholds = [each.body["optimizers_config"]["indexing_threshold"] for each in stub.of("/c", "PATCH")]
    assert thresholds == [1, usual]
    assert stub.collections["c"]["optimizers_config"]["indexing_threshold"] == usual


def test_files_of_latents_get_their_index(
    stub: Stub, store: ServerStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("lookalike.indexer.server.hnsw.POLL_SECONDS", 0)
    monkeypatch.setattr("lookalike.indexer.sync.collection.INDEX_ABOVE", 500)
    people, file = People(1300, dimension=16), tmp_path / "latents.parquet"
    write_latents(file, people.spec, people.rows(), draft=tmp_path / "new", payload=True)
    said: list[str] = []
    load_latents(store, "c", [file], log=said.append)
    assert said == ["c: building the search index of 1300 vectors"]
    assert store.index_state("c").indexed == 1300


def test_large_pieces_are_waited_for_once(stub: Stub, store: ServerStore, tmp_path: Path) -> None:
    assert store.piece == 8192
    store.piece = 2000
    store.create("c", SPEC)
    fill(store)
    assert len(stub.of("/points/delete")) == 1
    copy_collection(store, "c", store, "d")
    assert len(stub.of("/d/points/delete")) == 2  # 2,000 and the rest
    people, file = People(1100, dimension=16), tmp_path / "latents.parquet"
    write_latents(file, people.spec, people.rows(), draft=tmp_path / "new", payload=True)
    load_latents(store, "e", [file])
    assert (store.count("e"), len(stub.of("/e/points/delete"))) == (1100, 1)


def test_a_peer_that_has_not_heard_of_a_new_collection_yet_is_asked_again(
    stub: Stub, store: ServerStore
) -> None:
    late, real = 2, stub.answer

    def answer(asked: Asked) -> Answer:
        nonlocal late
        if (asked.method, asked.path) == ("GET", "/collections/c") and late:
            late -= 1
            return 404, {"status": {"error": "Not found: Collection `c` doesn't exist!"}, "time": 0.0}
        return real(asked)

    stub.answer = answer  # type: ignore[method-assign]  # for this test
    store.create("c", SPEC)
    assert (late, store.list_collections()) == (0, ["c"])
