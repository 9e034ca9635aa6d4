"""Groups of copies in a collection, on every store."""

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lookalike.encoder.errors import CollectionNotFoundError, InvalidArgumentError
from lookalike.indexer.store import VectorStore, parse_where
from lookalike.searcher.duplicates import find_duplicates
from tests.fixtures import stores
from tests.fixtures.stores import D

store, name = stores.store, stores.name
Vectors = NDArray[np.float32]


def identity(number: int) -> str:
    return str(uuid.UUID(int=number + 1))


def payload(number: int, **more: Any) -> dict[str, Any]:
    return {"root": "lfw", "path": f"{number}.jpg", "sha256": f"{number:064d}", "size": 1000 + number} | more


def turned(vector: Vectors, cosine: float, towards: int) -> Vectors:
    """A vector with this cosine to another one, within the plane of that and an axis."""
    other = np.eye(D, dtype=np.float32)[towards]
    other = other - vector * (other @ vector)
    other /= np.linalg.norm(other)
    return np.asarray(cosine * vector + np.sqrt(1 - cosine**2) * other, np.float32)


def fill(store: VectorStore, name: str, vectors: Sequence[Vectors], **more: Sequence[Any]) -> None:
    rows = [payload(n, **{key: values[n] for key, values in more.items()}) for n in range(len(vectors))]
    store.upsert(name, [identity(n) for n in range(len(vectors))], np.stack(vectors), rows)


AXES = np.eye(D, dtype=np.float32)


def test_similar_items_are_groups_the_largest_file_first(store: VectorStore, name: str) -> None:
    near, far = turned(AXES[0], 0.9, 1), turned(AXES[2], 0.7, 3)
    fill(store, name, [AXES[0], near, AXES[2], far, AXES[5]], size=[10, 500, 1, 1, 1])
    (group,) = find_duplicates(store, name, threshold=0.8)
    assert [copy.path for copy in group.copies] == ["1.jpg", "0.jpg"]
    assert group.similarity == pytest.approx(0.9, abs=1e-5)
    assert not group.identical
    assert group.spare_bytes == 10
    assert group.copies[0].file == Path("/data/lfw/1.jpg")
    assert len(find_duplicates(store, name, threshold=0.65)) == 2
    assert find_duplicates(store, name, threshold=0.95) == []


def test_copies_of_copies_are_one_group_with_its_weakest_link(store: VectorStore, name: str) -> None:
    one, two = turned(AXES[0], 0.9, 1), AXES[0]
    three = turned(two, 0.85, 2)
    fill(store, name, [one, two, three])
    assert one @ three < 0.8
    (group,) = find_duplicates(store, name, threshold=0.8)
    assert len(group.copies) == 3
    assert group.similarity == pytest.approx(0.85, abs=1e-5)


def test_identical_files_are_copies_whatever_their_vectors(store: VectorStore, name: str) -> None:
    fill(store, name, [AXES[0], AXES[1], AXES[2]], sha256=["a" * 64, "b" * 64, "a" * 64])
    for threshold in (None, 0.8):
        (group,) = find_duplicates(store, name, threshold=threshold)
        assert group.identical
        assert group.similarity == 1
        assert {copy.path for copy in group.copies} == {"0.jpg", "2.jpg"}


def test_more_copies_than_are_asked_for_at_once(store: VectorStore, name: str) -> None:
    rng = np.random.default_rng(0)
    close = [AXES[0] + rng.normal(0, 0.01, D).astype(np.float32) for _ in range(90)]
    fill(store, name, [*close, AXES[4], AXES[6]])
    (group,) = find_duplicates(store, name)
    assert len(group.copies) == 90


def test_faces_of_one_picture_are_no_copies_of_each_other(store: VectorStore, name: str) -> None:
    face = {"box": [0.1, 0.1, 0.2, 0.2], "landmarks": [[0.1, 0.1]] * 5, "score": 0.9, "width": 40, "count": 2}
    rows = [
        payload(0, face=face | {"number": 1}),
        payload(0, face=face | {"number": 2}),
        payload(1, face=face | {"number": 1}, sha256=f"{0:064d}"),
    ]
    vectors = np.stack([AXES[0], turned(AXES[0], 0.95, 1), turned(AXES[5], 0.5, 6)])
    store.upsert(name, [identity(n) for n in range(3)], vectors, rows)
    (group,) = find_duplicates(store, name)
    faces = [(copy.path, copy.payload["face"]["number"]) for copy in group.copies]
    assert faces == [("1.jpg", 1), ("0.jpg", 1)]


def test_only_items_that_match_are_compared(store: VectorStore, name: str) -> None:
    fill(store, name, [AXES[0]] * 3, person=["Ada", "Ada", "Bob"])
    (group,) = find_duplicates(store, name, where=parse_where("person=Ada"))
    assert {copy.path for copy in group.copies} == {"0.jpg", "1.jpg"}


def test_the_bytes_wasted_decide_the_order(store: VectorStore, name: str) -> None:
    fill(store, name, [AXES[0], AXES[0], AXES[3], AXES[3]], size=[1, 1, 10**7, 10**6])
    assert [group.spare_bytes for group in find_duplicates(store, name)] == [10**6, 1]
    counts: list[int] = []
    find_duplicates(store, name, on_progress=counts.append)
    assert sum(counts) == 4


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.5, float("nan")])
def test_thresholds_out_of_range_are_refused(store: VectorStore, name: str, threshold: float) -> None:
    with pytest.raises(InvalidArgumentError, match="above 0 and at most 1"):
        find_duplicates(store, name, threshold=threshold)


def test_there_must_be_a_collection(store: VectorStore) -> None:
    with pytest.raises(CollectionNotFoundError):
        find_duplicates(store, "no-such-collection")
