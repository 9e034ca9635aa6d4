"""Filters of points: conditions on payload fields, and ids to leave out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, Literal

from lookalike.encoder.errors import InvalidArgumentError
from lookalike.indexer.store.points import check_ids, is_text

Op = Literal["=", "!=", "~", "<", "<=", ">", ">="]
_WORD: Final = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition on one payload field. A point without the field passes only ``!=``.

    Attributes:
        key: Payload field; dots reach into nested objects (``attributes.Smiling``); of a list, any element
            may pass.
        op: ``=`` and ``!=`` compare strings, numbers and booleans; ``~`` is a case-sensitive substring
            search; the others compare numbers.
        value: The value to compare with. A boolean never equals a number, nor ``1`` a stored ``1.0``; but
            ``1.0`` equals both.

    Raises:
        InvalidArgumentError: the key is not a path, or the operator cannot compare such a value.
    """

    key: str
    op: Op
    value: str | int | float | bool

    def __post_init__(self) -> None:
        if not all(part and is_text(part) and '"' not in part for part in self.key.split(".")):
            raise InvalidArgumentError(
                f"a condition names a payload field such as person or size; {self.key!r} is none"
            )
        number = type(self.value) in (int, float)
        text = isinstance(self.value, str)
        fits = (text and bool(self.value)) if self.op == "~" else self.op in ("=", "!=") or number
        if not fits or (number and not -(2**63) <= self.value < 2**63):  # type: ignore[operator]  # a number here
            raise InvalidArgumentError(
                "= and != compare text, numbers and booleans, ~ looks for text in text, the others compare "
                f"numbers; {self.key} {self.op} {self.value!r} does neither"
            )
        if isinstance(self.value, str) and not is_text(self.value):
            raise InvalidArgumentError(
                f"condition {self.key} {self.op} {self.value!r} is not valid Unicode; escape it"
            )

    @property
    def bounds(self) -> dict[str, float] | None:
        """The condition as Qdrant's range parameters; None when it is not a range."""
        if isinstance(self.value, float) and self.op in ("=", "!="):
            return {"gte": self.value, "lte": self.value}
        bound = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}.get(self.op)
        return None if bound is None else {bound: self.value}  # type: ignore[dict-item]  # a number here

    @property
    def path(self) -> str:
        """``key`` as a Qdrant JSON path: parts that are not plain words are quoted."""
        return ".".join(part if _WORD.fullmatch(part) else f'"{part}"' for part in self.key.split("."))


@dataclass(frozen=True, slots=True)
class Filter:
    """Passes points for which all conditions hold and whose id is not in ``not_ids``."""

    conditions: tuple[Condition, ...] = ()
    not_ids: tuple[str, ...] = ()

    @property
    def has_substring(self) -> bool:
        """Whether any condition is a substring search."""
        return any(each.op == "~" for each in self.conditions)

    def to_json(self) -> dict[str, Any]:
        """Return the filter in the JSON form of Qdrant's REST API.

        Raises:
            StoreError: an id is not a UUID.
        """
        must: list[dict[str, Any]] = []
        must_not: list[dict[str, Any]] = []
        for condition in self.conditions:
            if (bounds := condition.bounds) is not None:
                test = {"key": condition.path, "range": bounds}
            else:
                match = "substring" if condition.op == "~" else "value"
                test = {"key": condition.path, "match": {match: condition.value}}
            (must_not if condition.op == "!=" else must).append(test)
        if self.not_ids:
            must_not.append({"has_id": check_ids(self.not_ids)})
        return {"must": must, "must_not": must_not}
