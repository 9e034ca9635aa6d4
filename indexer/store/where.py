r"""The language of ``--where``: a line of conditions, parsed into a filter.

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
