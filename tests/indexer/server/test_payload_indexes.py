"""Payload indexes: a server that lets only indexed fields be filtered filters whatever items have."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lookalike.encoder.errors import InvalidArgumentError, StoreError, StoreUnavailableError
from lookalike.encoder.runtime import Model
from lookalike.indexer.server import ServerStore
from lookalike.indexer.server.payload_indexes import MOST, PayloadIndexes, field_kinds
from lookalike.indexer.store import StorageConfig, check_fields, items_filter, parse_where
from tests.fixtures.command import lookalike
from tests.fixtures.photos import index, write_photos
from tests.fixtures.qdrant_stub import Stub, serving
from tests.fixtures.stores import SPEC, point_ids, random_vectors

ITEM: dict[str, Any] = {
    "root": "lfw",
    "path": "a/1.jpg",
    "sha256": "0" * 64,
    "size": 1024,
    "mtime_ns": 1_700_000_000_000_000_000,
    "person": "Ada",
}
"""What every item has."""


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    monkeypatch.setattr("lookalike.indexer.server.upload.PAUSES", (0.01, 0.01))
    with serving(strict=True) as made:
        yield made


@pytest.fixture
def store(stub: Stub) -> Iterator[ServerStore]:
    with ServerStore.connect(stub.url) as opened:
        yield opened


def put(store: ServerStore, *payloads: dict[str, Any], seed: int = 0) -> None:
    ids = point_ids(len(payloads), seed=seed)
    store.upsert("c", ids, random_vectors(len(payloads)), [{**ITEM, **each} for each in payloads])


VALUES: dict[str, tuple[Any, list[str]]] = {
    "text": ("Alexandria", ["=Alexandria", "!=x", "~xandr"]),
    "whole": (415, [">400", "<=415", "=415", "!=7"]),
    "broken": (0.5, [">0", "=0.5"]),
    "flag": (True, ["=true", "!=false"]),
    "texts": (["a", "bc"], ["=a", "=bc", "~c"]),
    "numbers": ([1, 2.5], [">2", "=1"]),
    "a b": ("x", ["=x"]),
    "größe": (3, [">2"]),
    "deep.er": ("y", ["=y"]),
}


WHERES = [
    *("root=lfw", "person=Ada", "path=a/1.jpg", "path~/1", "size>1000", "size=1024", "mtime_ns>5"),
    *(f"sha256={'0' * 64}", "sha256!=f, root!=x"),
    *(field + test for field, (_, tests) in VALUES.items() for test in tests),
]


@pytest.mark.parametrize("late", [False, True])
def test_whatever_an_item_has_can_be_filtered(stub: Stub, store: ServerStore, late: bool) -> None:
    """Also what comes with a later run into a collection that has items."""
    payload: dict[str, Any] = {key: value for key, (value, _) in VALUES.items() if "." not in key}
    payload["deep"] = {"er": "y", "none": None}
    store.create("c", SPEC)
    if late:
        other = {"person": "Bo", "root": "other", "size": 1, "path": "b", "sha256": "1" * 64, "mtime_ns": 1}
        put(store, other, seed=1)
    put(store, payload)
    made = len(stub.of("/index"))
    (key,) = point_ids(1)
    for where in WHERES:
        test = parse_where(where)
        assert key in {record.id for record in store.scroll("c", where=test)}, where
        assert store.count("c", where=test) >= 1, where
        (hits,) = store.search("c", random_vectors(1), k=5, where=test)
        assert key in {hit.id for hit in hits}, where
        check_fields(store, "c", test)
    assert len(stub.of("/index")) == made  # none was missing


def test_faces_can_be_counted(stub: Stub, store: ServerStore) -> None:
    spec = replace(SPEC, crop="faces:0.5")
    store.create("c", spec)
    assert stub.indexes["c"]["face.number"] == "integer"
    put(store, {"face": {"number": 0, "count": 0}}, {"face": {"number": 1, "count": 1, "box": [1, 2, 3, 4]}})
    assert store.count("c", where=items_filter(spec)) == 1
    assert set(stub.indexes["c"]) == {*ITEM, "face.number", "face.count"}


def test_a_run_and_the_next_one(stub: Stub, store: ServerStore, tiny_model: Path, tmp_path: Path) -> None:
    write_photos(tmp_path / "photos")
    model = Model.open(tiny_model)
    index(store, model, tmp_path / "photos", name="c")
    (tmp_path / "photos" / "Hypatia" / "0.jpg").unlink()
    report = index(store, model, tmp_path / "photos", name="c", prune=True)
    assert (report.unchanged, report.missing, report.failed) == (8, 1, [])
    assert len(stub.points["c"]) == 8


def test_a_run_says_that_the_server_is_too_old_for_the_client(tiny_model: Path, tmp_path: Path) -> None:
    write_photos(tmp_path / "photos")
    with serving(version="1.16.3") as old:
        words = ["index", "photos", "--collection", "c", "--model", str(tiny_model), "--store", old.url]
        done = lookalike(*words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "has version 1.16.3, the client here" in done.stderr


def test_what_an_earlier_release_filled_is_indexed_when_it_is_filtered(
    stub: Stub, store: ServerStore
) -> None:
    store.create("c", SPEC)
    put(store, {"year": 415, "place": "Alexandria"})
    stub.indexes["c"] = {"person": "keyword"}
    with ServerStore.connect(stub.url) as later:
        assert later.count("c", where=parse_where("root=lfw, year>400, place=Alexandria")) == 1
        begun = len(stub.asked)
        with pytest.raises(InvalidArgumentError, match="lets only indexed fields be filtered") as refused:
            later.count("c", where=parse_where("yaer>400"))
        assert "yaer of 'c' is not indexed" in str(refused.value)
        assert "\n" not in str(refused.value)
        assert not [each for each in stub.asked[begun:] if each.path.endswith("/index")]  # nothing for a typo


def test_who_may_only_read_is_told_what_is_missing(stub: Stub, store: ServerStore) -> None:
    store.create("c", SPEC)
    put(store, {})
    stub.indexes["c"], stub.read_only = {}, True
    with (
        ServerStore.connect(stub.url) as later,
        pytest.raises(
            InvalidArgumentError, match=r"only indexed fields .*root of 'c' .* a key that may write"
        ),
    ):
        later.count("c", where=parse_where("root=lfw"))


def test_an_index_is_made_once(stub: Stub, store: ServerStore) -> None:
    store.create("c", SPEC, StorageConfig(numeric_fields=("n",)))
    for seed in range(3):
        put(store, {"n": 1, "text": "a"}, {"n": 2, "none": None}, seed=seed)
    with ServerStore.connect(stub.url) as later:
        put(later, {"n": 3, "text": "b"}, seed=7)
    fields = [each.body["field_name"] for each in stub.of("/index", "PUT")]
    assert fields == ["root", "person", "path", "sha256", "size", "mtime_ns", "n", "text"]


def test_a_collection_that_was_made_anew_is_indexed_anew(
    stub: Stub, store: ServerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lookalike.indexer.server.store.SPEC_SECONDS", 0)
    store.create("c", SPEC)
    put(store, {"text": "a"})
    with ServerStore.connect(stub.url) as other:
        other.delete_collection("c")
        other.create("c", SPEC)
    put(store, {"text": "a"})
    assert store.count("c", where=parse_where("text=a,root=lfw")) == 1


def test_a_server_that_allows_few_indexes_keeps_the_points(stub: Stub, store: ServerStore) -> None:
    real = stub.answer

    def answer(asked: Any) -> Any:
        if asked.path.endswith("/index") and len(stub.indexes["c"]) >= 8:
            return 400, {
                "status": {"error": "Bad request: Collection has the maximum of 8 payload indexes"},
                "time": 0,
            }
        return real(asked)

    stub.answer = answer  # type: ignore[method-assign]  # for this test
    store.create("c", SPEC)
    many = {f"f{n:02}": n for n in range(20)}
    put(store, many)
    put(store, many)
    assert len(stub.points["c"]) == 1
    assert store.count("c", where=parse_where("root=lfw,f01=1")) == 1
    with pytest.raises(StoreError, match="only indexed fields be filtered"):
        store.count("c", where=parse_where("f07=7"))


class Noting:
    """Takes every index, or fails."""

    def __init__(self, error: StoreError | None = None) -> None:
        self.made: list[tuple[str, str]] = []
        self.error = error

    def create_payload_index(self, name: str, field: str, kind: str) -> None:
        if self.error is not None:
            raise self.error
        self.made.append((field, kind))


def test_a_table_of_thousands_of_columns_has_so_many_indexes_and_no_more() -> None:
    server = Noting()
    indexes = PayloadIndexes(server)
    assert indexes.add_standard("c", SPEC)
    assert indexes.add_new("c", [{f"f{n}": n} for n in range(5000)])
    assert len(server.made) == MOST
    assert not indexes.add_new("c", [ITEM])


def test_a_server_that_does_not_answer_is_no_reason_to_go_on_without() -> None:
    indexes = PayloadIndexes(Noting(StoreUnavailableError("busy")))
    with pytest.raises(StoreUnavailableError):
        indexes.add_new("c", [{"a": 1}])


def test_names_that_no_condition_can_hold_and_values_that_none_compares_are_left_out() -> None:
    odd: dict[str, Any] = {
        "": 1,
        'a"b': 1,
        "a\\b": 1,
        "a.b": 1,
        "none": None,
        "empty": [],
        "inner": {"": 1, "x": None},
    }
    assert list(field_kinds(odd)) == []
    own = {"vector_checksum": 0.5, "moved_to": "x", "face": {"box": [1, 2], "landmarks": [[1, 2]]}}
    assert list(field_kinds(own)) == []
    assert list(field_kinds({"a b": 1, "of": {"x y": "t"}})) == [('"a b"', "float"), ('of."x y"', "keyword")]
