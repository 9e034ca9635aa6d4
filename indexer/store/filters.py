r"""Filters of points: conditions on payload fields, ids to leave out, and the language of ``--where``.

::

    line      = condition {"," condition}        all must hold
    condition = field operator value
    operator  = "=" | "!=" | "~" | "<" | "<=" | ">" | ">="
    field     = bare | quoted                    a payload field: person, path, Smiling, deep.field
    value     = bare | quoted
    bare      = characters up to an operator or a comma, without surrounding spaces
    quoted    = '"' {character | '\"' | '\\'} '"'

``~`` is a case-sensitive substring search. A value that reads as a number is one, ``true`` and ``false`` are
booleans, everything else and everything in quotes is text; person, path, root and sha256 are always text.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, get_args

from lookalike.encoder.errors import InvalidArgumentError, printable
from lookalike.indexer.store.layout import CollectionSpec
from lookalike.indexer.store.points import FACE, check_ids, is_text

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
        _check_key(self.key)
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
        """``key`` as a Qdrant JSON path."""
        return json_path(self.key)


def json_path(key: str) -> str:
    """Return a payload field as a Qdrant JSON path: parts that are not plain words are quoted."""
    return ".".join(part if _WORD.fullmatch(part) else f'"{part}"' for part in key.split("."))


def _check_key(key: str) -> None:
    if not all(part and is_text(part) for part in key.split(".")):
        raise InvalidArgumentError(
            f"a condition names a payload field such as person or size; {key!r} is none"
        )
    if set(key) & set('"\\'):
        raise InvalidArgumentError(
            f"a field whose name has a quote or a backslash cannot be used in conditions, {key!r} has one; "
            "store it under another name"
        )


@dataclass(frozen=True, slots=True)
class Filter:
    """Passes points for which all conditions hold.

    Attributes:
        conditions: Conditions on payload fields.
        not_ids: Ids that do not pass.
        present: Payload fields of which a point must have a value.
    """

    conditions: tuple[Condition, ...] = ()
    not_ids: tuple[str, ...] = ()
    present: tuple[str, ...] = ()

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
        must_not += ({"is_empty": {"key": json_path(key)}} for key in self.present)
        if self.not_ids:
            must_not.append({"has_id": check_ids(self.not_ids)})
        return {"must": must, "must_not": must_not}


_TEXTS: Final = frozenset({"person", "path", "root", "sha256"})
_WHOLE: Final = frozenset({"size", "mtime_ns"})
_OPERATORS: Final = re.compile("|".join(map(re.escape, sorted(get_args(Op), key=len, reverse=True))))
_FIELD: Final = re.compile(r'[^=!<>~,"]+')
_VALUE: Final = re.compile(r'[^,"]+')
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
_SPACE: Final = re.compile(r"\s*")


def parse_where(text: str) -> Filter:
    """Parse conditions such as ``person!=Ada_Lovelace, Smiling>0``.

    Raises:
        InvalidArgumentError: they cannot be parsed; the message marks the position.
    """
    parser = _Parser(text)
    conditions = [parser.condition()]
    while parser.take(","):
        conditions.append(parser.condition())
    if parser.position < len(text):
        raise parser.error("a comma or the end")
    return Filter(tuple(conditions))


class _Parser:
    """A position in a line."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0

    def condition(self) -> Condition:
        field, _ = self.word(_FIELD, "a field such as person or Smiling")
        self.skip()
        match = _OPERATORS.match(self.text, self.position)
        if match is None:
            raise self.error(f"one of {' '.join(get_args(Op))}")
        self.position = match.end()
        op: Op = match[0]  # type: ignore[assignment]  # it is one of them
        begin = self.skip()
        text, quoted = self.word(_VALUE, "a value; put it in double quotes if it holds a comma")
        try:
            condition = Condition(field, op, _value(field, op, text, quoted=quoted))
        except InvalidArgumentError as error:
            self.position = begin
            raise self.error(f"a value that fits ({error})") from error
        self.skip()
        return condition

    def word(self, bare: re.Pattern[str], expected: str) -> tuple[str, bool]:
        """Take a word; return it and whether it was quoted."""
        self.skip()
        if match := _QUOTED.match(self.text, self.position):
            self.position = match.end()
            return re.sub(r"\\(.)", r"\1", match[1]), True
        match = bare.match(self.text, self.position)
        if match is None or not match[0].strip():
            raise self.error(expected)
        self.position = match.end()
        return match[0].strip(), False

    def take(self, sign: str) -> bool:
        taken = self.text.startswith(sign, self.position)
        self.position += taken
        return taken

    def skip(self) -> int:
        match = _SPACE.match(self.text, self.position)
        self.position = self.position if match is None else match.end()
        return self.position

    def error(self, expected: str) -> InvalidArgumentError:
        before, after = self.text[: self.position], self.text[self.position :]
        return InvalidArgumentError(
            f"a condition is FIELD OPERATOR VALUE such as Smiling>0; expected {expected} at character "
            f"{self.position + 1}, marked ^ here: {printable(before)}^{printable(after)}"
        )


def _value(field: str, op: Op, text: str, *, quoted: bool) -> str | int | float | bool:
    if quoted or op == "~" or field in _TEXTS:
        return text
    if text in ("true", "false"):
        return text == "true"
    try:
        if field in _WHOLE or op not in ("=", "!="):
            return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text


def items_filter(spec: CollectionSpec, where: Filter | None = None) -> Filter | None:
    """Return the filter of a collection's items: of a collection of faces, points that are faces.

    Pictures without a face have a point there too, see ``lookalike.indexer.sync.faces``.
    """
    if not spec.has_faces:
        return where
    base = Filter() if where is None else where
    return replace(base, conditions=(*base.conditions, Condition(f"{FACE}.number", ">=", 1)))
