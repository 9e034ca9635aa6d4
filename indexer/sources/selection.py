"""Which images of a source are taken, and what is known of each besides its pixels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from lookalike.encoder.errors import InvalidArgumentError


@dataclass(frozen=True, kw_only=True)
class SourceFilter:
    """Which images of a source are taken, and what is stored with them.

    Attributes:
        include: Patterns, one of which must match the path or its last part; empty: all paths are taken.
        exclude: Patterns, none of which may match either. ``*`` also matches ``/``.
        hidden: Whether files and folders are taken whose name begins with a dot.
        person: Pattern that finds the person's name in a path; None: the folder's name is the person.
        payload: Path to more fields to store; None: no table was given, and what is stored stays.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    hidden: bool = False
    person: re.Pattern[str] | None = None
    payload: Mapping[str, Mapping[str, Any]] | None = None

    def accepts(self, path: str, *, named: bool = False) -> bool:
        """Whether the item with this path, relative to its root and with ``/``, is taken.

        An item that was ``named`` itself may be hidden.
        """
        if not (self.hidden or named) and (path.startswith(".") or "/." in path):
            return False
        if self.include and not _matches(path, self.include):
            return False
        return not _matches(path, self.exclude)

    def person_in(self, path: str, folder: str | None) -> str | None:
        """Return the person: what the pattern finds in the path, or without a pattern the folder's name."""
        if self.person is None:
            return folder
        match = self.person.search(path)
        if match is None:
            return None
        has_group = "person" in self.person.groupindex
        return match["person" if has_group else min(1, self.person.groups)] or None


def person_pattern(text: str) -> re.Pattern[str]:
    """Compile ``--person-from``: the person is the group ``person``, else the first group, else the match.

    Raises:
        InvalidArgumentError: it is not a regular expression.
    """
    try:
        return re.compile(text)
    except re.error as error:
        raise InvalidArgumentError(
            f"--person-from is a regular expression, {text!r} is not ({error}); correct it"
        ) from error


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    if not patterns:
        return False
    name = path.rsplit("/", 1)[-1]
    return any(fnmatchcase(path, pattern) or fnmatchcase(name, pattern) for pattern in patterns)
