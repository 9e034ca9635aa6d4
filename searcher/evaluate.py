"""How good a collection is at its job, by its own labels.

Legend: N vectors, E embedding size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from encoder.errors import OptionError
from indexer.store import VectorStore

__all__ = ["Retrieval", "retrieval"]

_TOGETHER: Final = 64


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Shares in [0, 1] of queries whose person is the first hit, or among the first five.

    Attributes:
        queries: How many there were.
        recall_at_1: Share with the same person first.
        recall_at_5: Share with the same person among the first five.
        others: How many images each query searched, itself left out.
    """

    queries: int
    recall_at_1: float
    recall_at_5: float
    others: int

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def retrieval(
    store: VectorStore,
    name: str,
    *,
    people: Collection[str] | None = None,
    on_total: Callable[[int], object] = lambda _: None,
    on_progress: Callable[[int], object] = lambda _: None,
) -> Retrieval:
    """Let every image of a person with two or more images query all others, through the store.

    Args:
        store: Where the collection is.
        name: Its name.
        people: Only these people's images query; everybody's are searched.
        on_total: Told how many queries there will be.
        on_progress: Told of each batch.

    Raises:
        OptionError: nobody has two images.
    """
    records = list(store.scroll(name, with_vectors=True))
    images = Counter(record.payload.get("person") for record in records)
    asking = [
        record
        for record in records
        if (person := record.payload.get("person")) is not None
        and images[person] > 1
        and (people is None or person in people)
        and record.vector is not None
    ]
    if not asking:
        raise OptionError(f"retrieval needs people with two or more images, collection {name!r} has none")
    on_total(len(asking))
    first = among = 0
    for start in range(0, len(asking), _TOGETHER):
        batch = asking[start : start + _TOGETHER]
        queries = np.stack([record.vector for record in batch if record.vector is not None])
        for record, hits in zip(batch, store.search(name, queries, k=6), strict=True):
            found = [hit.payload.get("person") for hit in hits if hit.id != record.id][:5]
            first += found[:1] == [record.payload["person"]]
            among += record.payload["person"] in found
        on_progress(len(batch))
    return Retrieval(len(asking), first / len(asking), among / len(asking), len(records) - 1)
