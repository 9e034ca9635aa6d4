"""The fields of a collection's items: their names, and how often each value is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from itertools import islice
from typing import Any, Final

from lookalike.encoder.errors import InvalidArgumentError, printable
from lookalike.indexer.store.base import VectorStore
from lookalike.indexer.store.filters import Condition, Filter, items_filter, json_path
from lookalike.indexer.store.points import Payload

MOST_VALUES: Final = 1 << 16
"""Values of a field that a store is asked for at once."""
_SAMPLE: Final = 256
"""Items that are looked at for the names of fields before all are asked for one."""


def value_counts(
    store: VectorStore, name: str, field: str, *, where: Filter | None = None
) -> list[tuple[str | int | float | bool, int]]:
    """Return each value of a field and its number of points, the most frequent first, then by value.

    Each element of a list counts, once per point; nested objects and missing fields are not counted. All
    points are read, unless an index of the field knows how often each of its values is there.

    Raises:
        InvalidArgumentError: the field is not a valid payload path.
        CollectionNotFoundError: there is no such collection.
    """
    parts = Condition(field, "=", "").key.split(".")
    if where is not None:
        check_fields(store, name, where)
    items = items_filter(store.info(name), where)
    if (known := store.facet(name, json_path(".".join(parts)), where=items)) is not None:
        return sorted(known.items(), key=lambda item: (-item[1], item[0]))
    counts: Counter[tuple[str, Any]] = Counter()
    for record in store.scroll(name, where=items):
        value: Any = record.payload
        for part in parts:
            value = value.get(part) if isinstance(value, dict) else None
        values = value if isinstance(value, list) else [value]
        counts.update({(type(one).__name__, one) for one in values if isinstance(one, str | int | float)})
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0][0], item[0][1]))
    return [(value, count) for (_, value), count in ranked]


def facet_of_text(
    values: Iterable[tuple[Any, int]], *, points: int, with_several: int
) -> dict[str, int] | None:
    """Return the values of a field and their numbers of points; None where an index may not have them all.

    Args:
        values: What the index of the field knows.
        points: How many points have the field.
        with_several: How many of these have several values.
    """
    counts = dict(values)
    # An index of text knows no numbers: each point has one value that it knows, or the points are read.
    whole = not with_several and sum(counts.values()) == points and all(isinstance(v, str) for v in counts)
    return counts if whole else None


def check_fields(store: VectorStore, name: str, where: Filter) -> None:
    """Check that for each field in a filter there is an item that has it.

    Raises:
        InvalidArgumentError: there is none; the message names fields that are spelled alike.
        CollectionNotFoundError: there is no such collection.
    """
    known: dict[str, None] = {}
    for record in islice(store.scroll(name), _SAMPLE):
        known |= dict.fromkeys(field_names(record.payload))
    for key in dict.fromkeys(condition.key for condition in where.conditions):
        if not known or key in known or store.count(name, where=Filter(present=(key,))):
            continue
        near = get_close_matches(key, known, n=3) or list(known)[:10]
        raise InvalidArgumentError(
            f"no item of {name} has a field {printable(key)!r}; fields are for example "
            f"{printable(', '.join(near))}"
        )


def field_names(payload: Payload, above: str = "") -> Iterator[str]:
    """Yield the fields of a payload, and with dots those of objects in it."""
    for key, value in payload.items():
        yield above + key
        if isinstance(value, dict):
            yield from field_names(value, f"{above}{key}.")
