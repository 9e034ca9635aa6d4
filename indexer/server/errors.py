"""Checks of a Qdrant server's address and version, and errors made from its answers; no requests."""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

from lookalike.encoder.errors import (
    CollectionExistsError,
    CollectionNotFoundError,
    InvalidArgumentError,
    ModelMismatchError,
    StoreError,
    StoreUnavailableError,
    StoreUnreachableError,
)
from lookalike.encoder.files import parse_json
from lookalike.indexer.store import CollectionSpec

MIN_VERSION: Final = (1, 16)  # the first that stores metadata
SUBSTRING_VERSION: Final = (1, 20)  # the first that filters by a part of a text
_UNINDEXED: Final = re.compile(r'Index required but not found for "(.+?)"(?= of one of|\.|$)')
_NOT_HERE: Final = re.compile(r"(?i)substring matching is not allowed|unknown variant .?substring")
_STRICT: Final = re.compile(r"(?:Bad request|Forbidden)?:? *(?P<what>.+?)\.? *Help: *(?P<help>.+?)\.?$")
"""What Qdrant says of a limit: ``lib/collection/src/operations/verification`` and ``CollectionError``."""
_BETWEEN_PEERS: Final = re.compile(r"(?i)tonic|MetadataMap|grpc|status: \W?unavailable")


class UnindexedFieldError(InvalidArgumentError, StoreError):
    """A filter names a field without an index, and the server lets only indexed fields be filtered."""


class StrictModeError(InvalidArgumentError, StoreError):
    """A request asks for more than the strict mode of a collection allows."""


class SubstringRefusedError(InvalidArgumentError, StoreError):
    """The server does not search for a part of a text in this collection."""


def check_key(url: str, key: str | None) -> None:
    """Check that an API key is sent in clear text only to this machine and private networks.

    Raises:
        StoreUnreachableError: it would be sent elsewhere.
    """
    if key and urlsplit(url).scheme == "http" and not _is_private(url):
        raise StoreUnreachableError(
            f"an API key is not sent to {url} in clear text; use https://, or unset QDRANT_API_KEY"
        )


def check_version(url: str, version: str) -> None:
    """Check that a server has version 1.16 or later.

    Raises:
        StoreUnreachableError: it is older.
    """
    numbers = parse_version(version)
    if numbers is not None and numbers < MIN_VERSION:
        raise StoreUnreachableError(
            f"the Qdrant server at {url} has version {version}; upgrade it to 1.16 or later"
        )


def parse_version(version: str) -> tuple[int, int] | None:
    """Return major and minor version; None for a development build."""
    numbers = re.match(r"(\d+)\.(\d+)", version)
    return None if numbers is None else (int(numbers[1]), int(numbers[2]))


def version_warning(url: str, server: str, client: str) -> str | None:
    """Return a warning when server and client are not compatible by Qdrant's rule; None when they are.

    They are when they have the same major version, and minor versions that differ by one at most.
    """
    has, needs = parse_version(server), parse_version(client)
    if has is None or needs is None or (has[0] == needs[0] and abs(has[1] - needs[1]) <= 1):
        return None
    return (
        f"the Qdrant server at {url} has version {server}, the client here {client}; Qdrant tests them "
        "together only where they are one minor version apart: "
        + (f"upgrade the server to {needs[0]}.{needs[1]}" if has < needs else "upgrade qdrant-client")
    )


def collection_not_found(address: str, name: str | None) -> CollectionNotFoundError:
    """Return the error for a collection that does not exist."""
    return CollectionNotFoundError(f"no collection {name!r} on {address}; `lookalike collections` lists them")


def made_anew(address: str, name: str, known: CollectionSpec, now: CollectionSpec) -> ModelMismatchError:
    """Return the error for a collection that was made anew, for another model, while it was in use."""
    return ModelMismatchError(
        f"collection {name!r} on {address} was made anew for model {now.model_name} ({now.model_id[:12]}, "
        f"crop {now.crop}) while it was in use with {known.model_name} ({known.model_id[:12]}, crop "
        f"{known.crop}); open it again with the model it has now"
    )


def too_few_peers(replicas: int, peers: int) -> InvalidArgumentError:
    """Return the error for a collection with more copies than there are peers."""
    return InvalidArgumentError(
        f"this cluster keeps {replicas} copies of each shard, and has {peers} peers now; wait until the "
        "others have joined, or ask for one copy with --replicas 1"
    )


def error_from_status(
    status: int, reason: str, *, address: str, name: str | None, write: bool = False
) -> StoreError:
    """Return the error for an HTTP status.

    Args:
        status: The status.
        reason: The server's message, one line.
        address: Address of the server, for the message.
        name: The collection of the request, if any.
        write: Whether the request was to change something.
    """
    if status in (400, 403) and (refused := _refused_by_rule(reason, name)) is not None:
        return refused
    if status == 403 and write:
        return StoreUnreachableError(
            f"the API key for {address} may only read, or not change {name or 'this'} (403: {reason}); set "
            "QDRANT_API_KEY to a key that may write"
        )
    if status in (401, 403):
        return StoreUnreachableError(
            f"the server at {address} refuses the API key or its absence ({status}); set QDRANT_API_KEY"
        )
    if name is not None and status == 409:
        return CollectionExistsError(f"collection {name!r} already exists on {address}; choose another name")
    if name is not None and status == 404 and name in reason:
        return collection_not_found(address, name)
    if status == 404:
        return StoreUnreachableError(f"no Qdrant server at {address} (404); check the address and its port")
    if status >= 500 or status in (408, 429):
        return StoreUnavailableError(f"the server at {address} failed ({status}: {reason}); see its log")
    return StoreError(f"the server at {address} refused a request ({status}: {reason}); see its log")


def _refused_by_rule(reason: str, name: str | None) -> StoreError | None:
    """Return the error for what strict mode or an older version refuses; None: it is another."""
    if (field := _UNINDEXED.search(reason)) is not None:
        return UnindexedFieldError(
            f"this server lets only indexed fields be filtered (strict mode), and {field[1]} of {name!r} is "
            "not indexed; check its spelling, or run lookalike index again with a key that may write"
        )
    if _NOT_HERE.search(reason):
        return SubstringRefusedError(
            "this server does not look for a part of a text (~); compare with = or !="
        )
    if (limit := _STRICT.match(reason)) is not None:
        return StrictModeError(
            f"the strict mode of {name or 'this server'} refuses this: {limit['what']}; {limit['help']}, or "
            "have its strict_mode_config changed"
        )
    return None


def error_text(content: bytes, *, default: str) -> object:
    """Return the error message in the body of a response, or ``default`` when it is not Qdrant's."""
    try:
        return parse_json(content)["status"]["error"]
    except (ValueError, KeyError, TypeError):
        return default


def one_line(message: object) -> str:
    """Return an error or a server's words as one line of at most 200 characters, never empty."""
    text = " ".join(str(message).split()) or type(message).__name__
    return (_between_peers(text) if _BETWEEN_PEERS.search(text) else text)[:200]


def _between_peers(text: str) -> str:
    """Return why one peer of a cluster did not reach another, without what the server's RPC prints."""
    reason = re.search(r'(?:message|self): "((?:[^"\\]|\\.)+)"', text)
    told = "a peer of the cluster does not answer another"
    return told if reason is None else f"{told}: {reason[1]}"


def _is_private(url: str) -> bool:
    """Whether the host, by its name or address, is this machine or in a private network."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".local", ".internal", ".localhost"))
