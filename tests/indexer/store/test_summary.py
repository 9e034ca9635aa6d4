"""What items say of themselves: fields of text and numbers, people, a sample."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lookalike.encoder.errors import CollectionNotFoundError
from lookalike.indexer.open import open_store
from lookalike.indexer.store import CollectionSpec, CollectionSummary, FieldSummary, summarize

SPEC = CollectionSpec(model_id="m", model_name="m", dimension=3, crop="full")
OWN = {"root": "r", "path": "p", "sha256": "s", "size": 1, "mtime_ns": 1}


def summary(folder: Path, payloads: list[dict[str, Any]]) -> CollectionSummary:
    with open_store(str(folder / "store")) as store:
        store.create("all", SPEC)
        ids = [f"{number:032x}" for number in range(len(payloads))]
        vectors = np.ones((len(payloads), SPEC.dimension), np.float32)
        if payloads:
            store.upsert("all", ids, vectors, [{**OWN, **payload} for payload in payloads])
        with pytest.raises(CollectionNotFoundError):
            summarize(store, "none")
        return summarize(store, "all")


def test_an_empty_collection_has_nothing(tmp_path: Path) -> None:
    assert summary(tmp_path, []) == CollectionSummary(sample=(), fields=(), people=(), looked_at=0)


def test_fields_are_text_or_numbers(tmp_path: Path) -> None:
    found = summary(
        tmp_path,
        [
            {"camera": "b", "year": 1999, "mixed": "x", "predicted": ["year"], "flag": True},
            {"camera": "a", "year": 2001.5, "mixed": 7, "none": None, "list": ["a"], "nested": {"a": "b"}},
            {"camera": "a", "person": "Ada"},
        ],
    )
    assert found.people == (("Ada", 1),)
    assert (len(found.sample), found.looked_at) == (3, 3)
    assert found.fields == (
        FieldSummary(name="camera", kind="text", values=(("a", 2), ("b", 1))),
        FieldSummary(name="mixed", kind="text", values=(("x", 1),)),
        FieldSummary(name="year", kind="number", minimum=1999, maximum=2001.5),
    )
    assert found.fields[0].to_json()["values"][0] == {"value": "a", "count": 2}


def test_values_are_bounded(tmp_path: Path) -> None:
    payloads = [{"serial": f"s{number}", "tag": f"t{number % 60:02}"} for number in range(1100)]
    found = summary(tmp_path, payloads)
    serial, tag = found.fields
    assert serial.values is None
    assert tag.values is not None
    assert len(tag.values) == 50
    assert tag.values[0] == ("t00", 19)
    assert len(found.sample) == 12
