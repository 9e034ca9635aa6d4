"""Checks of a Qdrant server's address and version, and errors made from its answers; no requests."""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Final
from urllib.parse import urlsplit

from lookalike.encoder.errors import (
    CollectionExistsError,
    CollectionNotFoundError,
    StoreError,
    StoreUnavailableError,
    StoreUnreachableError,
)
from lookalike.encoder.files import parse_json
from lookalike.indexer.store import Filter

MIN_VERSION: Final = (1, 16)  # the first that stores metadata


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
    numbers = re.match(r"(\d+)\.(\d+)", version)  # None: a development build
    if numbers is not None and (int(numbers[1]), int(numbers[2])) < MIN_VERSION:
        raise StoreUnreachableError(
            f"the Qdrant server at {url} has version {version}; upgrade it to 1.16 or later"
        )


def collection_not_found(address: str, name: str | None) -> CollectionNotFoundError:
    """Return the error for a collection that does not exist."""
    return CollectionNotFoundError(f"no collection {name!r} on {address}; `lookalike collections` lists them")


def error_from_status(status: int, reason: str, *, address: str, name: str | None) -> StoreError:
    """Return the error for an HTTP status.

    Args:
        status: The status.
        reason: The server's message, one line.
        address: Address of the server, for the message.
        name: The collection of the request, if any.
    """
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


def error_text(content: bytes, *, default: str) -> object:
    """Return the error message in the body of a response, or ``default`` when it is not Qdrant's."""
    try:
        return parse_json(content)["status"]["error"]
    except (ValueError, KeyError, TypeError):
        return default


def one_line(message: object) -> str:
    """Return an error or a server's words as one line of at most 200 characters, never empty."""
    return (" ".join(str(message).split()) or type(message).__name__)[:200]


def _is_private(url: str) -> bool:
    """Whether the host, by its name or address, is this machine or in a private network."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".local", ".internal", ".localhost"))


def filter_to_json(where: Filter, client: object) -> dict[str, Any]:
    """Return a filter as JSON.

    Raises:
        StoreError: the client's models do not support it.
    """
    if where.has_substring and not hasattr(client, "MatchSubstring"):
        raise StoreError("this qdrant-client does not support substring search (~); upgrade it")
    return where.to_json()
