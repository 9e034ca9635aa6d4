"""Pages of results, and queries that are items or vectors: the same hits, whatever the query is given as."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lookalike.encoder.errors import InvalidArgumentError, ItemNotFoundError, VectorError
from lookalike.indexer.open import open_store
from lookalike.searcher.search import Searcher, SearchHit, SearchParams, StoredItem
from tests.fixtures.photos import NAME, make_home


@pytest.fixture(scope="module")
def home(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("home"), tiny_model)


@pytest.fixture(scope="module")
def searcher(home: Path) -> Iterator[Searcher]:
    with open_store(str(home / ".lookalike")) as opened:
        yield Searcher.open(opened, NAME)


@pytest.mark.parametrize("options", [{}, {"exclude_self": True}, {"group_by": "person"}])
def test_pages_one_after_the_other_are_the_whole(
    searcher: Searcher, home: Path, options: dict[str, object]
) -> None:
    (whole,) = searcher.similar([home / "me.jpg"], k=9, **options)  # type: ignore[arg-type]
    pages: list[SearchHit] = []
    for offset in range(0, 12, 2):
        (page,) = searcher.similar([home / "me.jpg"], k=2, offset=offset, **options)  # type: ignore[arg-type]
        pages += page.results
    assert [(hit.rank, hit.id) for hit in pages] == [(hit.rank, hit.id) for hit in whole.results]
    item = whole.results[1].id
    more = searcher.similar_to_item(item, k=9)
    page = searcher.similar_to_item(item, k=3, offset=4)
    assert page.results == more.results[4:7]
    with pytest.raises(InvalidArgumentError, match="offset must be 0 or more"):
        searcher.similar_to_item(item, offset=-1)


def test_an_item_as_example_is_its_image(searcher: Searcher, home: Path) -> None:
    (found,) = searcher.similar([home / "me.jpg"], k=9)
    me, other = found.results[0], found.results[-1]
    file = home / "photos" / other.path
    params = SearchParams(k=9)
    files = searcher.similar_to_examples([home / "me.jpg"], [file], params=params)
    items = searcher.similar_to_examples([StoredItem(me.id)], [StoredItem(other.id)], params=params)
    assert [hit.id for hit in items.results] == [hit.id for hit in files.results]
    assert [hit.score for hit in items.results] == pytest.approx(
        [hit.score for hit in files.results], abs=1e-4
    )
    assert items.query == f"{me.path} - {other.path}"
    assert {hit.path for hit in items.results if hit.same_file} == {me.path}
    with pytest.raises(ItemNotFoundError):
        searcher.similar_to_examples([StoredItem("00000000-0000-0000-0000-000000000000")])


def test_negative_examples_are_not_judged(
    searcher: Searcher, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody sees a warning about them, which takes a reconstruction."""
    judged: list[int] = []

    def why_unlike(pixels: NDArray[np.uint8], **_: object) -> list[str | None]:
        judged.append(len(pixels))
        return ["noise"] * len(pixels)

    monkeypatch.setattr(searcher.model, "can_judge", lambda **_: True)
    monkeypatch.setattr(searcher.model, "why_unlike", why_unlike)
    unlike = [home / "photos" / "Hypatia" / f"{number}.jpg" for number in range(3)]
    found = searcher.similar_to_examples([home / "me.jpg"], unlike)
    assert judged == [1]
    assert found.warning is not None
    assert "noise" in found.warning


def test_a_vector_is_a_query(searcher: Searcher, home: Path) -> None:
    (found,) = searcher.similar([home / "me.jpg"], k=9)
    stored = searcher.store.get(NAME, [found.results[0].id], with_vectors=True)[found.results[0].id]
    assert stored.vector is not None
    (hits,) = searcher.similar_to_vectors(stored.vector[None], k=3, offset=2)
    assert [(hit.rank, hit.id) for hit in hits] == [(hit.rank, hit.id) for hit in found.results[2:5]]
    assert not any(hit.same_file for hit in hits)
    (people,) = searcher.similar_to_vectors(stored.vector[None], k=9, group_by="person")
    assert len(people) == 3
    with pytest.raises(VectorError):
        searcher.similar_to_vectors(np.ones((1, 3), np.float32), k=3)
