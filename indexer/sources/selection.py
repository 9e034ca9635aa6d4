"""What of a source is taken, and what is said of it beside the picture."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from lookalike.encoder.errors import InvalidArgumentError


@dataclass(frozen=True, kw_only=True)
class SourceFilter:
    """How sources are read.

    Attributes:
        include: Patterns, of which a path or its last part must match one; none: all are taken.
        exclude: Patterns, of which neither may match any. ``*`` also stands for ``/``.
        hidden: Whether files and folders are taken whose name begins with a dot.
        person: Searched for in a path: who is on the picture; None: the folder's name tells.
        payload: Path to what is stored beside the vector; None: nothing was given, what is stored stays.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    hidden: bool = False
    person: re.Pattern[str] | None = None
    payload: Mapping[str, Mapping[str, Any]] | None = None

    def takes(self, path: str, *, named: bool = False) -> bool:
        """Whether the item with this path, relative to its root and with ``/``, is taken.

        One that was ``named`` by itself may be hidden.
        """
        if not (self.hidden or named) and (path.startswith(".") or "/." in path):
            return False
        if self.include and not _matches(path, self.include):
            return False
        return not _matches(path, self.exclude)

    def person_in(self, path: str, folder: str | None) -> str | None:
        """Return who is on a picture: what the pattern found in its path, else the folder's name."""
        if self.person is None:
            return folder
        found = self.person.search(path)
        if found is None:
            return None
        named = "person" in self.person.groupindex
        return found["person" if named else min(1, self.person.groups)] or None


def person_pattern(text: str) -> re.Pattern[str]:
    """Compile ``--person-from``: who it is says the group ``person``, else the first one, else all of it.

    Raises:
        InvalidArgumentError: it is no regular expression.
    """
    try:
        return re.compile(text)
    except re.error as error:
        raise InvalidArgumentError(
            f"--person-from is a regular expression, {text!r} is not ({error}); mend it"
        ) from error


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    if not patterns:
        return False
    name = path.rsplit("/", 1)[-1]
    return any(fnmatchcase(path, pattern) or fnmatchcase(name, pattern) for pattern in patterns)
