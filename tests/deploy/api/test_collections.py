"""Copies, groups and maps of collections in Python: the same as the library and the commands give."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lookalike
from lookalike.encoder.errors import CollectionNotFoundError, InvalidArgumentError
from lookalike.encoder.images import decode_rgb
from lookalike.encoder.runtime import Model
from lookalike.indexer.store import VectorStore
from lookalike.searcher.search import SearchParams
from lookalike.searcher.search import compare as compare_images
from tests.fixtures.face_pictures import face_picture
from tests.fixtures.photos import photograph

NUMBERS = (1, 1, 1, 4, 4, 6, 9)
"""Three copies of one photograph, two of another, and two without."""


@pytest.fixture(scope="module")
def model() -> Model:
    return lookalike.load_model("faces", threads=1)


@contextmanager
def filled(folder: Path, model: Model) -> Iterator[VectorStore]:
    (folder / "photos").mkdir()
    for number, name in zip(NUMBERS, "abcdefg", strict=True):
        (folder / "photos" / f"{name}.jpg").write_bytes(photograph(number))
    with lookalike.open_store(folder / "store") as opened:
        lookalike.index(folder / "photos", model=model, store=opened, collection="family", crop="full")
        yield opened


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, model: Model) -> Iterator[VectorStore]:
    """A store that tests only read."""
    with filled(tmp_path_factory.mktemp("home"), model) as opened:
        yield opened


@pytest.fixture
def own(tmp_path: Path, model: Model) -> Iterator[VectorStore]:
    """A store of one test; its photographs lie in its folder."""
    with filled(tmp_path, model) as opened:
        yield opened


def test_items_are_listed_with_their_files(store: VectorStore) -> None:
    found = sorted(lookalike.items(store, "family"), key=lambda item: str(item.file))
    assert [item.file.name for item in found if item.file is not None] == [f"{c}.jpg" for c in "abcdefg"]
    assert all(item.file is not None and item.file.is_file() for item in found)
    assert all(item.payload["size"] == len(item.file.read_bytes()) for item in found if item.file)
    (one,) = lookalike.items(store, "family", where="path=c.jpg")
    assert one.payload["path"] == "c.jpg"


@pytest.mark.parametrize("threshold", [None, 0.9])
def test_copies_are_groups_the_largest_first(store: VectorStore, threshold: float | None) -> None:
    found = lookalike.duplicates(store, "family", threshold=threshold)
    assert sorted(len(group.copies) for group in found) == [2, 3]
    assert all(group.identical and len(group.spare) == len(group.copies) - 1 for group in found)
    assert len(found) == len(found.groups) == 2
    assert repr(found) == "<Duplicates: 5 images in groups: 2>"
    assert found[0].spare_bytes >= found[1].spare_bytes
    assert found.failed == ()
    if threshold is None:
        assert found._repr_png_() is not None


def test_without_copies_a_notebook_shows_no_sheet(store: VectorStore, tmp_path: Path) -> None:
    found = lookalike.duplicates(store, "family", where="path=f.jpg")
    assert (len(found), found._repr_png_(), repr(found)) == (0, None, "<Duplicates: 0 images in groups: 0>")
    with pytest.raises(InvalidArgumentError, match="at least one group"):
        found.save(tmp_path / "none.png")


def test_turned_copies_are_found_and_what_cannot_be_read_is_said(
    own: VectorStore, tmp_path: Path, model: Model
) -> None:
    (tmp_path / "photos" / "g.jpg").unlink()
    found = lookalike.duplicates(own, "family", threshold=0.9, turned=True, model=model)
    assert len(found) >= 2
    assert len(found.failed) == 1
    assert "g.jpg" in found.failed[0]


def test_a_search_gives_copies_one_place(store: VectorStore) -> None:
    searcher = lookalike.Searcher(store, "family")
    assert len(searcher.search(photograph(1), k=7)) == 7
    assert len(searcher.search(photograph(1), k=7, fold_duplicates=True)) == 4
    with pytest.raises(InvalidArgumentError, match="not by both"):
        searcher.search(photograph(1), fold_duplicates=True, group_by="person")


def test_several_images_are_one_query_as_on_the_command_line(store: VectorStore, tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.jpg" for number in (1, 4, 9)]
    for number, file in zip((1, 4, 9), files, strict=True):
        file.write_bytes(photograph(number))
    searcher = lookalike.Searcher(store, "family")
    want = searcher._searcher.similar_to_examples(files[:2], files[2:], params=SearchParams(k=7))
    for query in (
        searcher.search(files[0], 7, like=[files[1]], unlike=[files[2]]),
        searcher.search(k=7, like=files[:2], unlike=files[2:]),
    ):
        assert [(hit.id, hit.score) for hit in query] == [(hit.id, hit.score) for hit in want.results]
    query.save(tmp_path / "found.png")
    assert decode_rgb((tmp_path / "found.png").read_bytes(), name="").shape[1] > 10 * 128
    with pytest.raises(InvalidArgumentError, match="needs an image or text"):
        searcher.search(unlike=files)
    with pytest.raises(InvalidArgumentError, match="for an image alone"):
        searcher.search(files[0], like=files[1:], prior=0.5)


def test_groups_are_found_named_merged_and_joined(own: VectorStore, tmp_path: Path, model: Model) -> None:
    tried = lookalike.cluster(own, "family", threshold=0.9, dry_run=True)
    assert [group.size for group in tried] == [3, 2]
    assert all("cluster" not in item.payload for item in lookalike.items(own, "family"))
    found = lookalike.cluster(own, "family", threshold=0.9)
    assert repr(found) == "<Clusters: 5 of 7 images in 2 groups>"
    assert [(group.number, group.size, group.added) for group in found] == [(1, 3, 3), (2, 2, 2)]
    assert (found.threshold, found.report.created, found.report.joined) == (0.9, 2, 0)
    assert found.sheet().shape[2] == 3
    assert lookalike.name_cluster(own, "family", 1, "Ada") == 3
    (tmp_path / "photos" / "new.jpg").write_bytes(photograph(1))
    lookalike.index(tmp_path / "photos", model=model, store=own, collection="family")
    again = lookalike.cluster(own, "family", threshold=0.9)
    assert (again[0].name, again[0].size, again[0].added) == ("Ada", 4, 1)
    assert len(list(lookalike.items(own, "family", where="cluster=1"))) == 4
    assert lookalike.merge_clusters(own, "family", [1, 2]) == 6
    assert len(list(lookalike.items(own, "family", where="cluster_name=Ada"))) == 6


def test_the_threshold_of_groups_is_that_of_the_model(store: VectorStore) -> None:
    found = lookalike.cluster(store, "family", dry_run=True)
    assert 0.3 < found.threshold < 0.7
    assert found.report.damaged == 0


def test_a_map_has_places_and_is_written_as_image_or_page(store: VectorStore, tmp_path: Path) -> None:
    found = lookalike.make_map(store, "family", method="pca")
    assert (len(found), found.places.shape, found.method, found.total) == (7, (7, 2), "pca", 7)
    assert all(item.file is not None and item.file.is_file() for item in found.items)
    assert repr(found) == "<Map of 7 images by pca>"
    found.save(tmp_path / "map.png")
    assert decode_rgb((tmp_path / "map.png").read_bytes(), name="").shape == (2000, 2000, 3)
    found.save(tmp_path / "map.html")
    assert "family" in (tmp_path / "map.html").read_text(encoding="utf-8")
    assert len(lookalike.make_map(store, "family", method="pca", count=3)) == 3
    with pytest.raises(lookalike.LookalikeError, match=r"map\.txt"):
        found.save(tmp_path / "map.txt")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda store: lookalike.items(store, "none"), "none"),
        (lambda store: lookalike.items(store, "family", where="?"), "condition|read"),
        (lambda store: lookalike.duplicates(store, "none"), "none"),
        (lambda store: lookalike.duplicates(store, "family", threshold=2), "at most 1"),
        (lambda store: lookalike.duplicates(store, "family", threshold=None, turned=True), "never turned"),
        (lambda store: lookalike.cluster(store, "none"), "none"),
        (lambda store: lookalike.cluster(store, "family", threshold=0), "above 0"),
        (lambda store: lookalike.cluster(store, "family", min_size=1), "min_size is 1"),
        (lambda store: lookalike.name_cluster(store, "family", 5, "Ada"), "no group 5"),
        (lambda store: lookalike.merge_clusters(store, "family", []), "two or more groups"),
        (lambda store: lookalike.merge_clusters(store, "family", [1]), "two or more"),
        (lambda store: lookalike.make_map(store, "none"), "none"),
        (lambda store: lookalike.make_map(store, "family", count=2), "count is 2"),
        (lambda store: lookalike.make_map(store, "family", method="tsne"), "umap or pca, not tsne"),  # type: ignore[arg-type]
        *(
            (lambda store, function=function: function("photos", "family"), "pass lookalike.open_store")
            for function in (lookalike.items, lookalike.duplicates, lookalike.cluster, lookalike.make_map)
        ),
    ],
)
def test_a_wrong_argument_is_one_clear_error(
    store: VectorStore, call: Callable[[VectorStore], Any], message: str
) -> None:
    with pytest.raises(lookalike.LookalikeError, match=message) as raised:
        call(store)
    assert "\n" not in str(raised.value)


def test_two_images_are_compared_as_the_library_does(tmp_path: Path, model: Model) -> None:
    for number in (0, 1):
        (tmp_path / f"{number}.jpg").write_bytes(photograph(number))
    files = [tmp_path / f"{number}.jpg" for number in (0, 1)]
    found = lookalike.compare(model, *files, prior=0.2)
    assert found == compare_images(model, *files, prior=0.2)
    assert lookalike.compare(model, photograph(0), files[0]).same_file
    pixels = decode_rgb(photograph(1), name="")
    assert lookalike.compare(model, files[0], pixels).score == pytest.approx(found.score, abs=1e-4)
    faces = lookalike.compare(model, face_picture(0, 8), face_picture(11), faces=True).faces
    assert [face and face.count for face in faces] == [2, 1]
    with pytest.raises(InvalidArgumentError, match="leave one of the two out"):
        lookalike.compare(model, *files, faces=True, crop="full")
    with pytest.raises(lookalike.LookalikeError, match="second image: not an image"):
        lookalike.compare(model, files[0], b"no image")


def test_a_collection_that_is_not_there_is_an_error_of_its_own(store: VectorStore) -> None:
    with pytest.raises(CollectionNotFoundError):
        lookalike.duplicates(store, "none")
    assert np.isfinite(lookalike.make_map(store, "family", method="pca").places).all()
