"""Groups in a collection, on every store."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lookalike.encoder.bundle import Bundle
from lookalike.encoder.errors import CollectionNotFoundError, InvalidArgumentError
from lookalike.indexer.store import VectorStore, parse_where, value_counts
from lookalike.searcher.clusters import cluster_collection, default_threshold, merge_clusters, name_cluster
from tests.fixtures import stores
from tests.fixtures.stores import D, everything, point_ids

store, name = stores.store, stores.name
AXES = np.eye(D, dtype=np.float32)


def fill(store: VectorStore, name: str, axes: Sequence[int], **more: Any) -> list[str]:
    """Store a vector along an axis for each number, under ids in the order of their numbers."""
    ids = sorted(point_ids(len(axes)))
    rows = [
        {"root": "lfw", "path": f"{n}.jpg", "sha256": f"{n:064d}", "size": n, **more}
        for n in range(len(axes))
    ]
    store.upsert(name, ids, AXES[list(axes)], rows)
    return ids


def groups(store: VectorStore, name: str) -> list[int | None]:
    return [payload.get("cluster") for _, payload, _ in everything(store, name)]


def test_groups_are_written_where_filters_and_facets_find_them(store: VectorStore, name: str) -> None:
    ids = fill(store, name, [0, 0, 1, 1, 1, 2])
    before = everything(store, name)
    report = cluster_collection(store, name, 0.5)
    assert groups(store, name) == [2, 2, 1, 1, 1, None]
    assert (report.items, report.grouped, report.created, report.joined) == (6, 5, 2, 0)
    assert [(each.number, each.size, each.added) for each in report.clusters] == [(1, 3, 3), (2, 2, 2)]
    assert set(report.clusters[1].examples) == set(ids[:2])
    assert store.count(name, where=parse_where("cluster=1")) == 3
    assert value_counts(store, name, "cluster") == [(1, 3), (2, 2)]
    after = everything(store, name)
    assert [{**payload, "cluster": 0} for _, payload, _ in before[:5]] == [
        {**payload, "cluster": 0} for _, payload, _ in after[:5]
    ]
    found = store.get(name, ids, with_vectors=True)
    vectors = [found[each].undamaged_vector() for each in ids]
    assert np.array_equal(np.stack(vectors), AXES[[0, 0, 1, 1, 1, 2]])


def test_nothing_is_written_by_a_dry_run(store: VectorStore, name: str) -> None:
    fill(store, name, [0, 0])
    report = cluster_collection(store, name, 0.5, dry_run=True)
    assert report.grouped == 2
    assert groups(store, name) == [None, None]


def test_new_items_join_and_names_stay(store: VectorStore, name: str) -> None:
    fill(store, name, [0, 0, 1, 1, 1])
    cluster_collection(store, name, 0.5)
    assert name_cluster(store, name, 2, "Ada") == 2
    more = point_ids(4, seed=1)
    rows = [{"path": f"new {n}.jpg", "sha256": f"{9 + n:064d}"} for n in range(4)]
    store.upsert(name, more, AXES[[0, 3, 3, 4]], rows)
    report = cluster_collection(store, name, 0.5)
    payloads = {id_: payload for id_, payload, _ in everything(store, name)}
    assert [payloads[each].get("cluster") for each in more] == [2, 3, 3, None]
    assert payloads[more[0]]["cluster_name"] == "Ada"
    assert "cluster_name" not in payloads[more[1]]
    assert (report.created, report.joined) == (1, 1)
    assert {each.number: each.name for each in report.clusters} == {1: None, 2: "Ada", 3: None}
    again = cluster_collection(store, name, 0.5)
    assert (again.created, again.joined) == (0, 0)
    assert store.count(name, where=parse_where("cluster_name=Ada")) == 3


def test_names_are_changed_and_taken_away(store: VectorStore, name: str) -> None:
    fill(store, name, [0, 0], person="folder")
    cluster_collection(store, name, 0.5)
    for text in ("Ada", "Émilie 漢"):
        name_cluster(store, name, 1, text)
        assert {payload["cluster_name"] for _, payload, _ in everything(store, name)} == {text}
    name_cluster(store, name, 1, "")
    for _, payload, _ in everything(store, name):
        assert (payload["cluster"], payload["person"], "cluster_name" in payload) == (1, "folder", False)


@pytest.mark.parametrize(
    ("named", "merged"), [({1: "Ada", 2: "Bob"}, "Ada"), ({2: "Bob"}, "Bob"), ({}, None)]
)
def test_groups_are_merged(store: VectorStore, name: str, named: dict[int, str], merged: str | None) -> None:
    fill(store, name, [0, 0, 0, 1, 1, 2, 2])
    cluster_collection(store, name, 0.5)
    for number, text in named.items():
        name_cluster(store, name, number, text)
    assert merge_clusters(store, name, 1, [2]) == (5, merged)
    assert groups(store, name) == [1, 1, 1, 1, 1, 3, 3]
    assert {payload.get("cluster_name") for _, payload, _ in everything(store, name)[:5]} == {merged}
    assert cluster_collection(store, name, 0.5).created == 0
    assert groups(store, name) == [1, 1, 1, 1, 1, 3, 3]


def test_a_restart_forgets_groups_and_names(store: VectorStore, name: str) -> None:
    fill(store, name, [0, 0, 0, 1, 1])
    cluster_collection(store, name, 0.5)
    name_cluster(store, name, 1, "Ada")
    report = cluster_collection(store, name, 0.5, min_size=4, restart=True)
    assert report.clusters == ()
    assert all(
        "cluster" not in payload and "cluster_name" not in payload
        for _, payload, _ in everything(store, name)
    )


def test_faces_are_grouped_and_pictures_without_one_are_not(store: VectorStore) -> None:
    store.create("of-faces", replace(stores.SPEC, crop="faces:0.8"))
    rows = [{"path": "a.jpg", "face": {"number": number, "count": 1}} for number in (1, 1, 0, 0)]
    store.upsert("of-faces", sorted(point_ids(4)), AXES[[0, 0, 0, 0]], rows)
    assert cluster_collection(store, "of-faces", 0.5).items == 2
    assert groups(store, "of-faces") == [1, 1, None, None]
    store.delete_collection("of-faces")


def test_an_empty_collection_has_no_groups(store: VectorStore, name: str) -> None:
    report = cluster_collection(store, name, 0.5)
    assert (report.items, report.clusters) == (0, ())


def test_what_cannot_be_done_is_refused(store: VectorStore, name: str) -> None:
    fill(store, name, [0, 0])
    cluster_collection(store, name, 0.5)
    with pytest.raises(CollectionNotFoundError):
        cluster_collection(store, "no-such-collection", 0.5)
    for threshold in (0.0, -1.0, 1.5, float("nan")):
        with pytest.raises(InvalidArgumentError, match="above 0 and at most 1"):
            cluster_collection(store, name, threshold)
    with pytest.raises(InvalidArgumentError, match="has no group 4"):
        name_cluster(store, name, 4, "Ada")
    with pytest.raises(InvalidArgumentError, match="has no group 4"):
        merge_clusters(store, name, 1, [4])
    for others in ([], [1]):
        with pytest.raises(InvalidArgumentError, match="two or more different ones"):
            merge_clusters(store, name, 1, others)
    with pytest.raises(InvalidArgumentError, match="valid Unicode"):
        name_cluster(store, name, 1, "\ud800")


@pytest.mark.parametrize("value", ["north", 1.5, True, -1, ["7"]])
def test_a_field_of_that_name_from_a_table_is_not_taken_for_a_group(
    store: VectorStore, name: str, value: Any
) -> None:
    fill(store, name, [0, 0], cluster=value)
    with pytest.raises(InvalidArgumentError, match="rename that column"):
        cluster_collection(store, name, 0.5)


def test_the_threshold_comes_from_the_calibration() -> None:
    for faces, least, most in ((False, 0.45, 0.55), (True, 0.42, 0.52)):
        found = default_threshold(Bundle.open("faces"), faces=faces)
        assert found is not None
        assert least < found < most
    assert default_threshold(Bundle.open("digits")) is None
