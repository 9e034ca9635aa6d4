"""From hits to results: copies folded, also where the store changes meanwhile."""

import shutil
from pathlib import Path

import numpy as np

from lookalike.indexer.open import open_store
from lookalike.searcher.search.results import _without_copies
from tests.fixtures.command import lookalike
from tests.fixtures.photos import write_photos


def test_copies_are_folded_where_an_item_is_deleted_meanwhile(tiny_model: Path, tmp_path: Path) -> None:
    write_photos(tmp_path / "photos")
    photos = sorted((tmp_path / "photos").rglob("*.jpg"))
    for photo in photos:
        shutil.copy(photo, photo.with_name(f"{photo.stem}-copy.jpg"))
    done = lookalike("index", "photos", "--model", tiny_model, "--collection", "copies", cwd=tmp_path)
    assert done.returncode == 0
    with open_store(str(tmp_path / ".lookalike")) as store:
        (record, *_) = store.scroll("copies", with_vectors=True)
        assert record.vector is not None
        (hits,) = store.search("copies", np.array([record.vector]), k=100)
        whole = _without_copies(store, "copies", hits)
        # The two best are one picture: the other takes the place of the one that goes.
        store.delete("copies", [hits[0].id])
        left = _without_copies(store, "copies", hits)
        assert [hit.id for hit in left] == [hits[1].id, *(hit.id for hit in whole[1:])]
        store.delete("copies", [hit.id for hit in hits])
        assert _without_copies(store, "copies", hits) == []
