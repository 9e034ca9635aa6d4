"""Maps of collections."""

import json
import re
import time
from pathlib import Path

import numpy as np
import pytest

from lookalike.encoder.errors import InvalidArgumentError, WorkerDiedError
from lookalike.indexer.store import VectorStore, parse_where
from lookalike.searcher.maps import (
    CollectionMap,
    UmapProcess,
    draw_map,
    make_map,
    project,
    take_sample,
    write_page,
)
from tests.fixtures import stores
from tests.fixtures.processes import children
from tests.fixtures.stores import fill

store, name = stores.store, stores.name


def two_groups(count: int = 40) -> np.ndarray:
    rng = np.random.default_rng(0)
    centers = np.repeat(np.eye(16)[:2], count // 2, axis=0)
    return np.asarray(centers + 0.1 * rng.normal(size=(count, 16)), np.float32)


def assert_apart(places: np.ndarray) -> None:
    half = len(places) // 2
    within = max(
        np.linalg.norm(part - part.mean(axis=0), axis=1).max() for part in (places[:half], places[half:])
    )
    between = np.linalg.norm(places[:half].mean(axis=0) - places[half:].mean(axis=0))
    assert between > within


def test_groups_lie_apart_by_principal_components() -> None:
    vectors = two_groups()
    places = project(vectors, "pca")
    assert places.shape == (40, 2)
    assert (places.min(), places.max()) == (0, 1)
    assert_apart(places)
    assert np.array_equal(project(vectors, "pca"), places)


@pytest.mark.slow  # it compiles for some seconds
@pytest.mark.parametrize("count", [3, 40])
def test_groups_lie_apart_by_umap_the_same_for_a_seed(count: int) -> None:
    vectors = two_groups()[:count]
    places = project(vectors, "umap", seed=3)
    assert np.array_equal(project(vectors, "umap", seed=3), places)
    if count == 40:
        assert_apart(places)
        assert not np.array_equal(project(vectors, "umap", seed=4), places)


@pytest.mark.parametrize("shape", [(3, 1), (3, 2), (5, 2000)])
def test_vectors_of_any_size_have_places(shape: tuple[int, int]) -> None:
    places = project(np.ones(shape, np.float32), "pca")
    assert np.isfinite(places).all()


def test_a_collection_or_a_part_of_it_is_placed(store: VectorStore, name: str) -> None:
    ids, _ = fill(store, name, 30)
    found = make_map(store, name, method="pca")
    assert (found.ids, found.total, found.method) == (tuple(sorted(ids)), 30, "pca")
    assert len(found.payloads) == len(found.places) == 30
    some = make_map(store, name, method="pca", count=7, seed=1)
    assert (len(some.ids), some.total) == (7, 30)
    assert make_map(store, name, method="pca", count=7, seed=1).ids == some.ids
    assert make_map(store, name, method="pca", count=7, seed=2).ids != some.ids
    assert make_map(store, name, method="pca", where=parse_where("person=p0")).total == 10
    with pytest.raises(InvalidArgumentError, match="needs 3 images or more"):
        make_map(store, name, where=parse_where("n<2"))


class StoppedError(Exception):
    """As a caller raises who does not want it any more."""


def test_a_sample_is_of_the_first_items_and_can_be_stopped(store: VectorStore, name: str) -> None:
    ids, vectors = fill(store, name, 30)
    sample = take_sample(store, name, count=5, among=8)
    assert set(sample.ids) <= set(sorted(ids)[:8])
    assert (len(sample.ids), sample.total, sample.vectors.shape) == (5, 30, (5, vectors.shape[1]))
    read = 0

    def stop() -> None:
        nonlocal read
        read += 1
        if read == 4:
            raise StoppedError

    with pytest.raises(StoppedError):
        take_sample(store, name, count=5, on_read=stop)
    assert read == 4


def test_umap_in_a_process_is_stopped_and_the_process_is_gone() -> None:
    before = children()
    seen = set[int]()

    def stop() -> None:
        seen.update(children() - before)
        raise StoppedError

    began = time.monotonic()
    with pytest.raises(StoppedError):
        UmapProcess().project(two_groups(), on_wait=stop)
    assert time.monotonic() - began < 5
    assert len(seen) == 1
    assert not seen & children()


@pytest.mark.slow
def test_umap_in_a_process_gives_the_same_places_and_remembers_them() -> None:
    made, vectors = UmapProcess(kept=1), two_groups()
    places = made.project(vectors, seed=3)
    assert np.array_equal(places, project(vectors, "umap", seed=3))

    def never() -> None:
        raise AssertionError("it waited")

    assert np.array_equal(made.project(vectors, seed=3, on_wait=never), places)
    with pytest.raises(AssertionError, match="it waited"):
        made.project(vectors, seed=4, on_wait=never)
    with pytest.raises(WorkerDiedError, match=r"UMAP failed .*; use the method pca"):
        made.project(np.full((5, 4), np.nan, np.float32))


def test_an_image_shows_pictures_and_dots(tmp_path: Path) -> None:
    places = np.array([[0, 0], [1, 1], [0, 0.001], [1, 0]], np.float32)
    found = CollectionMap(tuple("abcd"), tuple({"path": each} for each in "abcd"), places, "pca", 4)
    red = np.full((128, 128, 3), (255, 0, 0), np.uint8)
    canvas, dots = draw_map(found, [red, red, red, None])
    assert dots == 2
    assert ((canvas == (255, 0, 0)).all(axis=2)).sum() in range(2 * 128 * 128 - 100, 2 * 128 * 128 + 1)


def test_the_page_stands_alone_and_its_words_cannot_leave_the_script(tmp_path: Path) -> None:
    paths = ["a</script><script>alert(1)//.jpg", "@ATLAS@ @DATA@.jpg", "ü \u2028.jpg"]
    payloads = tuple({"path": path, "person": "Ada", "cluster": 3, "sha256": "x"} for path in paths)
    places = np.array([[0, 0], [1, 1], [0.5, 0.5]], np.float32)
    write_page(
        tmp_path / "new" / "map.html",
        "c",
        CollectionMap(tuple("abc"), payloads, places, "pca", 3),
        [None] * 3,
    )
    page = (tmp_path / "new" / "map.html").read_text(encoding="utf-8")
    assert page.count("</script>") == 1
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    (data,) = re.findall(r"^const data = (.*)$", page, flags=re.MULTILINE)
    points = json.loads(data)["points"]
    assert [point[:2] for point in points] == places.tolist()
    assert points[1][2] == "@ATLAS@ @DATA@.jpg · person: Ada · cluster: 3"
    with pytest.raises(InvalidArgumentError, match="cannot write here"):
        write_page(
            tmp_path / "new" / "map.html" / "x.html",
            "c",
            CollectionMap(tuple("abc"), payloads, places, "pca", 3),
            [None] * 3,
        )
