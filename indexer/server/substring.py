"""Searching for a part of a text (``path~TEXT``) where the server cannot: points are filtered here.

Qdrant does it from version 1.20 on, and not in strict mode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from lookalike.encoder.errors import InvalidArgumentError
from lookalike.indexer.store import Condition, Filter, Hit, Payload, Record

MOST_HITS: Final = 16_384
"""Nearest points that are looked at for those that pass."""


def split_substrings(where: Filter | None) -> tuple[Filter | None, list[Condition]]:
    """Return a filter without its substring searches, and these."""
    if where is None or not where.has_substring:
        return where, []
    searches = [each for each in where.conditions if each.op == "~"]
    return replace(where, conditions=tuple(each for each in where.conditions if each.op != "~")), searches


def passes(payload: Payload, searches: Sequence[Condition]) -> bool:
    """Whether a payload has each of these texts in its field; of a list, any element may have it."""
    return all(_has(payload, search.key.split("."), str(search.value)) for search in searches)


def _has(payload: Payload, keys: list[str], text: str) -> bool:
    value: Any = payload
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return any(
        isinstance(each, str) and text in each for each in (value if isinstance(value, list) else [value])
    )


Query = Callable[[list[list[float]], int, Filter | None], list[list[Hit]]]
"""Returns for each row so many of the nearest points that pass a filter."""
Page = Callable[[Any, Filter | None], tuple[list[Record], Any]]
"""Returns the points that pass a filter from an offset on, and the offset of the next page."""


def query_here(query: Query, where: Filter | None) -> Callable[[list[list[float]], int], list[list[Hit]]]:
    """Return what a search asks for the nearest points, with the substring searches of a filter done here."""
    rest, searches = split_substrings(where)

    def passing(rows: list[list[float]], limit: int) -> list[list[Hit]]:
        def of_row(row: list[float]) -> list[Hit]:
            return query_filtered(lambda most: query([row], most, rest)[0], searches, limit=limit)

        return [of_row(row) for row in rows]

    return passing


def page_here(page: Page, where: Filter | None) -> Callable[[Any], tuple[list[Record], Any]]:
    """Return what a scroll asks for the page at an offset, with the substring searches done here."""
    rest, searches = split_substrings(where)

    def passing(offset: Any) -> tuple[list[Record], Any]:
        records, following = page(offset, rest)
        return [each for each in records if passes(each.payload, searches)], following

    return passing


def query_filtered(
    query: Callable[[int], list[Hit]], searches: Sequence[Condition], *, limit: int
) -> list[Hit]:
    """Return at most ``limit`` hits that pass, best first; ever more of the nearest are looked at.

    Args:
        query: Returns so many of the nearest points, best first; fewer where there are no more.
        searches: What hits must pass.
        limit: Hits wanted.

    Raises:
        InvalidArgumentError: too few of the 16,384 nearest points pass, and there are more.
    """
    looked = max(64, 4 * limit)
    while True:
        hits = query(looked)
        passing = [hit for hit in hits if passes(hit.payload, searches)]
        if len(passing) >= limit or len(hits) < looked:
            return passing[:limit]
        if looked >= MOST_HITS:
            searched = " and ".join(f"{each.key}~{each.value}" for each in searches)
            raise InvalidArgumentError(
                f"only {len(passing)} of the {looked} nearest items have {searched}, and this server cannot "
                "look for a part of a text; that needs Qdrant 1.20 without strict mode, or compare with ="
            )
        looked = min(MOST_HITS, 4 * looked)
