"""Tables of payload fields by path: CSV, JSON lines, or scores in the form of LFW's attributes.

CSV: RFC 4180, UTF-8, a header with the column ``path``. JSON lines: an object with ``path`` on each line. A
person is text, also one called 123. A column of a CSV holds numbers when each of its cells is one, written
without leading zeros (00123 is a name); else it holds text.
"""

from __future__ import annotations

import csv
import json
import math
import re
import sqlite3
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final

from lookalike.encoder.datasets import read_scores
from lookalike.encoder.errors import DataError, printable
from lookalike.encoder.files import check_readable, parse_json
from lookalike.indexer.sources.source import Source
from lookalike.indexer.store import RESERVED, payload_fault

_LONGEST_LINE: Final = 1 << 24
_NUMBER: Final = re.compile(r" *-?(?:0|[1-9][0-9]{0,18})(?P<broken>(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,4})?) *")
"""As JSON writes numbers; ``+41...`` is a telephone number, ``1_000`` a name."""


class PayloadTable(Mapping[str, dict[str, Any]]):
    """Fields by path; they lie in a temporary file, not in memory.

    SQLite keeps some megabytes of it, writes the rest to where ``TMPDIR`` says, and removes it at the end.
    """

    def __init__(self) -> None:
        # Images may be listed by another thread than the one that reads the table, one at a time.
        self._rows = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        weakref.finalize(self, self._rows.close)
        self._texts: set[str] | None = None
        self._count = 0
        with _full_disk():
            self._rows.execute("PRAGMA journal_mode = OFF")
            self._rows.execute("BEGIN")
            self._rows.execute("CREATE TABLE fields (path TEXT UNIQUE NOT NULL, row TEXT NOT NULL)")

    def __getitem__(self, path: str) -> dict[str, Any]:
        row = self._find(path)
        if row is None:
            raise KeyError(path)
        return self._with_numbers(row)

    def __iter__(self) -> Iterator[str]:
        return (path for (path,) in self._rows.execute("SELECT path FROM fields ORDER BY rowid"))

    def __len__(self) -> int:
        return self._count

    def add(self, path: str, row: Mapping[str, Any]) -> bool:
        """Add the fields of a path; return False, and change nothing, where there are some already.

        Raises:
            DataError: the disk is full.
        """
        with _full_disk():
            done = self._rows.execute(
                "INSERT OR IGNORE INTO fields VALUES (?, ?)", (path, json.dumps(row))
            ).rowcount
        self._count += done
        return done > 0

    def add_beside(self, path: str, row: Mapping[str, Any]) -> None:
        """Add fields of a path that the table does not have.

        Raises:
            DataError: the disk is full.
        """
        known = self._find(path)
        if known is None:
            self.add(path, row)
            return
        with _full_disk():
            self._rows.execute(
                "UPDATE fields SET row = ? WHERE path = ?", (json.dumps({**row, **known}), path)
            )

    def note_texts(self, texts: set[str]) -> None:
        """Give the cells of all columns but these as numbers; without this, no text is a number."""
        self._texts = texts

    def _find(self, path: str) -> dict[str, Any] | None:
        try:
            found = self._rows.execute("SELECT row FROM fields WHERE path = ?", (path,)).fetchone()
        except UnicodeEncodeError:  # half a character, which no table has
            return None
        return None if found is None else json.loads(found[0])

    def _with_numbers(self, row: dict[str, Any]) -> dict[str, Any]:
        if self._texts is None:
            return row
        return {
            key: _number(cell) if isinstance(cell, str) and key not in self._texts else cell
            for key, cell in row.items()
        }


@contextmanager
def _full_disk() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise DataError(
            f"a table is kept in a temporary file while images are read, which cannot be written ({error}); "
            "free some space, or name another folder in TMPDIR"
        ) from error


def read_payload(file: Path) -> Mapping[str, dict[str, Any]]:
    """Return the fields that a table has for each path, relative to the root and with ``/``.

    An empty cell of a CSV is left out; a column in which every cell is a number becomes numbers.

    Raises:
        DataError: the file is missing or malformed (with its line), or has a column that the index fills
            itself; or the disk is full.
    """
    return _read_table(file)


def _read_table(file: Path) -> PayloadTable:
    is_json = file.suffix.lower() in {".jsonl", ".ndjson"}
    rows = _json_lines(file) if is_json else _csv_rows(file)
    table, texts = PayloadTable(), {"person"}
    for line, row in rows:
        path = row.pop("path", None)
        if not isinstance(path, str) or not path:
            raise _malformed(file, line, "name an image in its column path")
        if taken := RESERVED & row.keys():
            raise _malformed(file, line, f"leave {', '.join(sorted(taken))} to the index")
        if "person" in row:
            try:
                row["person"] = person_name(row["person"])
            except ValueError as error:
                raise _malformed(file, line, f"name a person, but {error}") from error
        if (fault := payload_fault({"path": path, **row})) is not None:
            raise _malformed(file, line, f"hold what can be stored, but {fault}")
        if not table.add(path, row):
            raise _malformed(file, line, f"name each image once, {printable(path)} was named before")
        if not is_json:
            texts |= {key for key, cell in row.items() if key not in texts and _number(cell) is None}
    if not is_json:
        table.note_texts(texts)
    return table


def read_tables(payload: Path | None, attributes: Path | None) -> Mapping[str, Mapping[str, Any]] | None:
    """Return the fields that both tables have for each path; None when neither is given.

    Args:
        payload: For :func:`read_payload`.
        attributes: Scores in the form of ``lfw_attributes.txt``, for :func:`read_scores`.

    Raises:
        DataError: a file is missing or malformed (with its line), or the disk is full.
    """
    if payload is None and attributes is None:
        return None
    table = PayloadTable() if payload is None else _read_table(payload)
    for path, row in ({} if attributes is None else read_scores(attributes)).items():
        table.add_beside(path, row)
    return table


def numeric_fields(sources: Iterable[Source]) -> list[str]:
    """Return the fields for which the tables of sources have numbers, by their first thousand rows."""
    fields: dict[str, None] = {}
    for source in sources:
        for row in islice((source.filter.payload or {}).values(), 1000):
            fields |= dict.fromkeys(key for key, value in row.items() if type(value) in (int, float))
    return [key for key in fields if key not in RESERVED]


def _csv_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with _lines(file) as lines:
        reader = csv.DictReader(lines, strict=True)
        try:
            if "path" not in (reader.fieldnames or ()):
                raise _malformed(file, 1, "be a header with the column path")
            for row in reader:
                if None in row or None in row.values():
                    raise _malformed(file, reader.line_num, "have as many cells as the header")
                yield (
                    reader.line_num,
                    {key: cell for key, cell in row.items() if cell != ""},
                )
        except (csv.Error, UnicodeDecodeError) as error:
            raise _malformed(file, reader.line_num + 1, f"be CSV in UTF-8 ({error})") from error


def _json_lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with _lines(file) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = parse_json(line, parse_constant=_refuse)
            except ValueError as error:
                raise _malformed(file, number, f"be JSON ({error})") from error
            if not isinstance(row, dict):
                raise _malformed(file, number, "be a JSON object")
            yield number, row


@contextmanager
def _lines(file: Path) -> Iterator[Iterator[str]]:
    """Open a table, or a pipe that brings one, as lines of bounded length; a device may never end."""

    def lines() -> Iterator[str]:
        number = 0
        while line := text.readline(_LONGEST_LINE):
            number += 1
            if len(line) == _LONGEST_LINE:
                raise _malformed(file, number, f"be shorter than {_LONGEST_LINE} characters")
            yield line

    try:
        check_readable(file.stat(), pipe=True)
        text = file.open(encoding="utf-8-sig", newline="")
    except OSError as error:
        raise DataError(
            f"a table must be readable, {printable(str(file))} is not ({error.strerror}); check the path"
        ) from error
    with text:
        yield lines()


def person_name(value: object) -> str | None:
    """Return the name of a person as text: the number 123 is ``"123"``; None is nobody.

    Raises:
        ValueError: it is neither text nor a whole number.
    """
    if value is None or isinstance(value, str):
        return value
    if type(value) is int:
        return str(value)
    raise ValueError(f"{printable(repr(value)[:40])} is not text")


def _number(cell: str) -> int | float | None:
    match = _NUMBER.fullmatch(cell)
    if match is None:
        return None
    number = float(cell) if match["broken"] else int(cell)
    return number if math.isfinite(number) and abs(number) < 2**63 else None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _malformed(file: Path, line: int, rule: str) -> DataError:
    return DataError(f"{printable(str(file))}:{line} must {rule}; correct the line")
