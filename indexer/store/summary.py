"""The metadata fields of a collection's items, and the people in them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, Literal

from lookalike.indexer.store.base import VectorStore
from lookalike.indexer.store.filters import items_filter
from lookalike.indexer.store.points import PREDICTED, RESERVED

PERSON: Final = "person"
_MAX_ITEMS: Final = 100_000
_MAX_DISTINCT: Final = 1000
_MAX_VALUES: Final = 50
_SAMPLE: Final = 12

ValueCounts = tuple[tuple[str, int], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldSummary:
    """A metadata field.

    Attributes:
        name: Its name.
        kind: Whether its values are text or numbers.
        values: Of text the 50 most frequent values, each with its number of items; None for numbers, and
            where there are more than 1,000 different values.
        minimum: Of numbers the smallest; None for text.
        maximum: Of numbers the largest; None for text.
    """

    name: str
    kind: Literal["text", "number"]
    values: ValueCounts | None = None
    minimum: float | None = None
    maximum: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return JSON values: name, kind, and values, or min and max."""
        found: dict[str, Any] = {"name": self.name, "kind": self.kind}
        if self.kind == "number":
            return found | {"min": self.minimum, "max": self.maximum}
        return found if self.values is None else found | {"values": counts_to_json(self.values)}


@dataclass(frozen=True, kw_only=True, slots=True)
class CollectionSummary:
    """The items of a collection in brief.

    Attributes:
        sample: Ids of up to 12 items.
        fields: The metadata fields beside the person and those that the index fills itself, by name.
        people: The 50 most frequent people, each with the number of items; None where there are more than
            1,000.
        looked_at: Items that were read: all of them, but 100,000 at most.
    """

    sample: tuple[str, ...]
    fields: tuple[FieldSummary, ...]
    people: ValueCounts | None
    looked_at: int


@dataclass(slots=True)
class _Values:
    """The values of one field so far."""

    counts: Counter[str] = field(default_factory=Counter)
    numbers: list[float] = field(default_factory=list)
    too_many: bool = False

    def add(self, value: Any) -> None:
        if isinstance(value, str):
            if value in self.counts or len(self.counts) < _MAX_DISTINCT:
                self.counts[value] += 1
            else:
                self.too_many = True
        elif isinstance(value, int | float) and not isinstance(value, bool):
            numbers = [*self.numbers, value]
            self.numbers = [min(numbers), max(numbers)]

    @property
    def most_frequent(self) -> ValueCounts | None:
        if self.too_many:
            return None
        ranked = sorted(self.counts.items(), key=lambda each: (-each[1], each[0]))
        return tuple(ranked[:_MAX_VALUES])

    def summary(self, name: str) -> FieldSummary | None:
        if self.counts:
            return FieldSummary(name=name, kind="text", values=self.most_frequent)
        if self.numbers:
            return FieldSummary(name=name, kind="number", minimum=self.numbers[0], maximum=self.numbers[1])
        return None


def summarize(store: VectorStore, name: str) -> CollectionSummary:
    """Read the items of a collection, 100,000 at most, and return them in brief.

    Raises:
        CollectionNotFoundError: there is no such collection.
    """
    values: dict[str, _Values] = {}
    sample, count = [], 0
    for record in islice(store.scroll(name, where=items_filter(store.info(name))), _MAX_ITEMS):
        if count < _SAMPLE:
            sample.append(record.id)
        count += 1
        for key, value in record.payload.items():
            if key not in RESERVED and key != PREDICTED:
                values.setdefault(key, _Values()).add(value)
    people = values.pop(PERSON, _Values()).most_frequent
    found = [values[key].summary(key) for key in sorted(values)]
    return CollectionSummary(
        sample=tuple(sample),
        fields=tuple(each for each in found if each is not None),
        people=people,
        looked_at=count,
    )


def counts_to_json(counts: ValueCounts) -> list[dict[str, Any]]:
    """Return JSON values: a list of value and count."""
    return [{"value": value, "count": count} for value, count in counts]
