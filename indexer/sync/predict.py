"""Attributes read off stored vectors, and stored beside them where nothing better is known.

Legend: N points, E embedding size.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, Final

import numpy as np

from lookalike.encoder.bundle.attributes import Attribute
from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.runtime.model import Model
from lookalike.encoder.text import printable
from lookalike.indexer.store.base import VectorStore
from lookalike.indexer.store.points import PREDICTED, RESERVED, Record, known_payload

_TOGETHER: Final = 1024
_DIGITS: Final = 3


def attributes_to_predict(model: Model, names: str | None) -> list[Attribute]:
    """Return the attributes that ``names``, joined by commas, ask for; none where that is None.

    Raises:
        InvalidArgumentError: the model does not have them, or one is called as what an item says of itself.
    """
    if names is None:
        return []
    there = model.bundle.attributes
    if there is None:
        raise InvalidArgumentError(
            f"--predict needs attributes, model {printable(model.bundle.name)} has none; "
            "lookalike attributes fit makes some"
        )
    asked = [there[name.strip()] for name in names.split(",")]
    taken = [one.name for one in asked if one.name in {*RESERVED, PREDICTED, "person"}]
    if taken:
        raise InvalidArgumentError(
            f"an attribute cannot be stored as {taken[0]}, which every item has; fit another"
        )
    return asked


def predict_attributes(store: VectorStore, name: str, attributes: Sequence[Attribute]) -> int:
    """Store what is read of each point's vector, log-odds, under the attribute's name.

    The payload's field ``predicted`` lists what was predicted. What a table knows stays. A point that says
    the same already is not written: to do it again changes nothing.

    Args:
        store: Where.
        name: The collection, made by the attributes' model.
        attributes: What to read.

    Returns:
        How many points were written.
    """
    if not attributes:
        return 0
    written = 0
    changed: list[tuple[Record, dict[str, Any]]] = []
    records = store.scroll(name, with_vectors=True)
    while some := list(islice(records, _TOGETHER)):
        vectors = np.array([record.vector for record in some], np.float32)
        odds = {one.name: one.read(vectors).tolist() for one in attributes}
        for row, record in enumerate(some):
            now = _with(record, {key: round(values[row], _DIGITS) for key, values in odds.items()})
            if now != record.payload:
                changed.append((record, now))
    # Written when all are read: a store need not say what a scroll sees of points that change meanwhile.
    for start in range(0, len(changed), _TOGETHER):
        part = changed[start : start + _TOGETHER]
        rows = np.array([record.vector for record, _ in part], np.float32)
        store.upsert(name, [record.id for record, _ in part], rows, [payload for _, payload in part])
        written += len(part)
    if written:
        store.flush(name)
    return written


def _with(record: Record, odds: dict[str, float]) -> dict[str, Any]:
    """Return a payload with predictions: earlier ones of other attributes stay, what is known wins."""
    sure = known_payload(record.payload)
    earlier = {key: value for key, value in record.payload.items() if key not in sure and key != PREDICTED}
    guessed = {key: value for key, value in {**earlier, **odds}.items() if key not in sure}
    return {**sure, **guessed, PREDICTED: sorted(guessed)} if guessed else sure
