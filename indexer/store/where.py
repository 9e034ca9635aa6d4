r"""``--where``: a line of conditions, read into a filter.

::

    line      = condition {"," condition}        all of them hold
    condition = field operator value
    operator  = "=" | "!=" | "~" | "<" | "<=" | ">" | ">="
    field     = bare | quoted                    a payload field: person, path, Smiling, deep.field
    value     = bare | quoted
    bare      = characters up to an operator or a comma; spaces around it do not count
    quoted    = '"' {character | '\"' | '\\'} '"'

``~`` looks for text in text, as it is spelled. A value that reads as a number is one, ``true`` and ``false``
are booleans, all else is text, as is what stands in quotes; person, path, root and sha256 are always text.
"""

from __future__ import annotations

import math
import re
from typing import Final, get_args

from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.text import printable
from lookalike.indexer.store.filters import Condition, Filter, Op

_TEXTS: Final = frozenset({"person", "path", "root", "sha256"})
_WHOLE: Final = frozenset({"size", "mtime_ns"})
_OPERATORS: Final = re.compile("|".join(map(re.escape, sorted(get_args(Op), key=len, reverse=True))))
_FIELD: Final = re.compile(r'[^=!<>~,"]+')
_VALUE: Final = re.compile(r'[^,"]+')
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
_SPACE: Final = re.compile(r"\s*")


def parse_where(text: str) -> Filter:
    """Read conditions such as ``person!=Ada_Lovelace, Smiling>0``.

    Raises:
        InvalidArgumentError: they cannot be read; the message tells where it ends to make sense.
    """
    reader = _Reader(text)
    conditions = [reader.condition()]
    while reader.take(","):
        conditions.append(reader.condition())
    if reader.place < len(text):
        raise reader.error("a comma or the end")
    return Filter(tuple(conditions))


class _Reader:
    """A place in a line."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.place = 0

    def condition(self) -> Condition:
        field, _ = self.word(_FIELD, "a field such as person or Smiling")
        self.skip()
        found = _OPERATORS.match(self.text, self.place)
        if found is None:
            raise self.error(f"one of {' '.join(get_args(Op))}")
        self.place = found.end()
        op: Op = found[0]  # type: ignore[assignment]  # it is one of them
        begin = self.skip()
        told, quoted = self.word(_VALUE, "a value; put it in double quotes if it holds a comma")
        try:
            condition = Condition(field, op, _value(field, op, told, quoted=quoted))
        except InvalidArgumentError as error:
            self.place = begin
            raise self.error(f"what fits ({error})") from error
        self.skip()
        return condition

    def word(self, bare: re.Pattern[str], wanted: str) -> tuple[str, bool]:
        """Take a word, and whether it stood in quotes."""
        self.skip()
        if found := _QUOTED.match(self.text, self.place):
            self.place = found.end()
            return re.sub(r"\\(.)", r"\1", found[1]), True
        found = bare.match(self.text, self.place)
        if found is None or not found[0].strip():
            raise self.error(wanted)
        self.place = found.end()
        return found[0].strip(), False

    def take(self, sign: str) -> bool:
        there = self.text.startswith(sign, self.place)
        self.place += there
        return there

    def skip(self) -> int:
        found = _SPACE.match(self.text, self.place)
        self.place = self.place if found is None else found.end()
        return self.place

    def error(self, wanted: str) -> InvalidArgumentError:
        before, after = self.text[: self.place], self.text[self.place :]
        return InvalidArgumentError(
            f"a condition is FIELD OPERATOR VALUE such as Smiling>0; expected {wanted} at character "
            f"{self.place + 1}, marked ^ here: {printable(before)}^{printable(after)}"
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
