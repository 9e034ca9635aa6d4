"""Which payload fields a server indexes: those that every item has, and all others as they come.

A server in strict mode, as in Qdrant Cloud, lets only indexed fields be filtered. An index is made before the
first point with its field is written; of a collection that was filled before, when a filter is refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Literal, Protocol

from lookalike.encoder.errors import StoreError, StoreUnreachableError
from lookalike.indexer.store import FACE, CollectionSpec, Payload, json_path

Kind = Literal["keyword", "unique", "integer", "float", "bool"]
"""Of an index, in Qdrant's words; ``unique``: keywords that differ for each item, kept on disk."""

EVERY_ITEM: Final[Mapping[str, Kind]] = {
    "root": "keyword",
    "person": "keyword",
    "path": "unique",
    "sha256": "unique",
    "size": "integer",
    "mtime_ns": "integer",
}
MOST: Final = 90
"""Indexes of a collection; Qdrant Cloud allows 100."""
_NEVER: Final = frozenset({"vector_checksum", "moved_to", f"{FACE}.box", f"{FACE}.landmarks"})


class IndexingServer(Protocol):
    """What makes the indexes."""

    def create_payload_index(self, name: str, field: str, kind: Kind) -> None:
        """Index a field, given as a Qdrant path; doing it again changes nothing."""
        ...


class PayloadIndexes:
    """The indexed fields of each collection, as far as they are known here.

    Args:
        server: Makes the indexes.
    """

    def __init__(self, server: IndexingServer) -> None:
        self._server = server
        self._known = defaultdict[str, set[str]](set)
        self._refused = defaultdict[str, set[str]](set)

    def note(self, name: str, fields: Iterable[str]) -> None:
        """Remember the fields, as Qdrant paths, that are indexed on the server."""
        self._known[name] = set(fields)

    def forget(self, name: str) -> None:
        """Forget a collection that was deleted."""
        self._known.pop(name, None)
        self._refused.pop(name, None)

    def add_standard(self, name: str, spec: CollectionSpec, numbers: Iterable[str] = ()) -> bool:
        """Index what every item has, and fields that will hold numbers; return whether any was not.

        Raises:
            StoreError: the server refused it.
        """
        wanted: dict[str, Kind] = {**EVERY_ITEM}
        if spec.has_faces:
            wanted[f"{FACE}.number"] = "integer"
        made = [self._create(name, json_path(key), kind) for key, kind in wanted.items()]
        more: dict[str, Kind] = {json_path(key): "float" for key in numbers if _is_usable(key)}
        return self._add(name, more) or any(made)

    def add_new(self, name: str, payloads: Iterable[Payload]) -> bool:
        """Index the fields of payloads that are not indexed yet; return whether there were any.

        Raises:
            StoreUnreachableError: the server did not answer, or the key may only read.
        """
        known, refused = self._known[name], self._refused[name]
        found: dict[str, Kind] = {}
        for payload in payloads:
            for path, kind in field_kinds(payload):
                if path not in known and path not in refused:
                    found.setdefault(path, kind)
        return self._add(name, found)

    def _add(self, name: str, wanted: Mapping[str, Kind]) -> bool:
        made = False
        for path, kind in wanted.items():
            if len(self._known[name]) >= MOST:
                break  # a filter on the rest says what it needs, where the server is strict
            try:
                made |= self._create(name, path, kind)
            except StoreUnreachableError:
                raise
            except StoreError:  # more than this server allows
                self._refused[name].add(path)
        return made

    def _create(self, name: str, path: str, kind: Kind) -> bool:
        known = self._known[name]
        if path in known:
            return False
        self._server.create_payload_index(name, path, kind)
        known.add(path)
        return True


def field_kinds(payload: Payload, above: str = "") -> Iterator[tuple[str, Kind]]:
    """Yield each field of a payload as a Qdrant path, with the kind of index that its value needs.

    Fields without a value, and those whose names no condition can hold, are left out.
    """
    for key, value in payload.items():
        name = above + key
        if name in _NEVER or not _is_usable(key):
            continue
        if isinstance(value, dict):
            yield from field_kinds(value, f"{name}.")
        elif (kind := EVERY_ITEM.get(name) or _kind(value)) is not None:
            yield json_path(name), kind


def _is_usable(key: str) -> bool:
    return bool(key) and not set(key) & set('."\\')


def _kind(value: Any) -> Kind | None:
    if isinstance(value, list):
        return next((kind for each in value if (kind := _kind(each)) is not None), None)
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "float"
    return "keyword" if isinstance(value, str) else None
