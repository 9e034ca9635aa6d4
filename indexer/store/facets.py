"""How often each value of a payload field occurs."""

from __future__ import annotations

from collections import Counter
from typing import Any

from lookalike.indexer.store.base import VectorStore
from lookalike.indexer.store.filters import Condition, Filter


def value_counts(
    store: VectorStore, name: str, field: str, *, where: Filter | None = None
) -> list[tuple[str | int | float | bool, int]]:
    """Return each value of a field and its number of points, the most frequent first, then by value.

    Each element of a list counts, once per point; nested objects and missing fields are not counted. All
    points are read.

    Raises:
        InvalidArgumentError: the field is not a valid payload path.
        CollectionNotFoundError: there is no such collection.
    """
    parts = Condition(field, "=", "").key.split(".")
    counts: Counter[tuple[str, Any]] = Counter()
    for record in store.scroll(name, where=where):
        value: Any = record.payload
        for part in parts:
            value = value.get(part) if isinstance(value, dict) else None
        values = value if isinstance(value, list) else [value]
        counts.update({(type(one).__name__, one) for one in values if isinstance(one, str | int | float)})
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0][0], item[0][1]))
    return [(value, count) for (_, value), count in ranked]
