"""Attributes predicted from stored vectors, and stored with them where no table knows better.

Legend: N points, E embedding size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from lookalike.encoder.bundle import Attribute
from lookalike.encoder.errors import InvalidArgumentError, printable
from lookalike.encoder.runtime import Model
from lookalike.indexer.store import PREDICTED, RESERVED, Record, VectorStore, known_payload
from lookalike.indexer.sync.collection import CompressedList
from lookalike.indexer.sync.faces import face_number
from lookalike.indexer.sync.plan import chunked

_DIGITS: Final = 3


def attributes_to_predict(model: Model, names: Sequence[str]) -> list[Attribute]:
    """Return the model's attributes of these names.

    Raises:
        InvalidArgumentError: the model does not have one, or its name is a payload field that every item has.
    """
    if not names:
        return []
    available = model.bundle.attributes
    if available is None:
        raise InvalidArgumentError(
            f"--predict needs attributes, model {printable(model.bundle.name)} has none; "
            "lookalike attributes fit makes some"
        )
    attributes = [available[name.strip()] for name in names]
    for attribute in attributes:
        if attribute.name in {*RESERVED, PREDICTED, "person"}:
            raise InvalidArgumentError(
                f"an attribute cannot be stored as {attribute.name}, which every item has; fit another"
            )
    return attributes


def predict_attributes(store: VectorStore, name: str, attributes: Sequence[Attribute]) -> int:
    """Predict attributes from each point's vector and store the log-odds under the attributes' names.

    The payload field ``predicted`` lists which fields were predicted. What a table knows stays. A point that
    has the same predictions already is not written: doing it again changes nothing. Memory holds some points,
    and some bytes of the id of each.

    Args:
        store: The store.
        name: The collection, filled by the attributes' model.
        attributes: What to predict.

    Returns:
        How many points were written.
    """
    ids: CompressedList[str] = CompressedList()
    for record in store.scroll(name) if attributes else ():
        if face_number(record.payload):  # a vector of a picture without a face means nothing
            ids.append(record.id)
    # Written when all ids are known: a store need not say what a scroll sees of points that change meanwhile.
    written = 0
    for some in chunked(ids):
        records = list(store.get(name, some, with_vectors=True).values())
        vectors = np.array([record.vector for record in records], np.float32)
        log_odds = {each.name: each.read(vectors).tolist() for each in attributes} if records else {}
        changed: list[tuple[Record, dict[str, Any]]] = []
        for row, record in enumerate(records):
            rounded = {key: round(values[row], _DIGITS) for key, values in log_odds.items()}
            payload = _with_predictions(record, rounded)
            if payload != record.payload:
                changed.append((record, payload))
        if changed:
            vectors = np.array([record.undamaged_vector() for record, _ in changed], np.float32)
            payloads = [payload for _, payload in changed]
            store.upsert(name, [record.id for record, _ in changed], vectors, payloads)
        written += len(changed)
    if written:
        store.flush(name)
    return written


def _with_predictions(record: Record, log_odds: dict[str, float]) -> dict[str, Any]:
    """Return a payload with predictions: earlier ones of other attributes stay, known values win."""
    known = known_payload(record.payload)
    earlier = {key: value for key, value in record.payload.items() if key not in known and key != PREDICTED}
    predicted = {key: value for key, value in {**earlier, **log_odds}.items() if key not in known}
    return {**known, **predicted, PREDICTED: sorted(predicted)} if predicted else known
