"""Whether a Qdrant server will do, and what it means when it refuses; no request is made here."""

from __future__ import annotations

import ipaddress
import json
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
from lookalike.indexer.store.filters import Filter

NEEDED: Final = (1, 16)  # the first that keeps metadata


def check_key(url: str, key: str | None) -> None:
    """Refuse to send an API key in clear text anywhere but to this machine and private networks.

    Raises:
        StoreUnreachableError: it would be.
    """
    if key and urlsplit(url).scheme == "http" and not _is_private(url):
        raise StoreUnreachableError(
            f"an API key is not sent to {url} in clear text; use https://, or unset QDRANT_API_KEY"
        )


def check_version(url: str, version: str) -> None:
    """Refuse a server older than 1.16.

    Raises:
        StoreUnreachableError: it is.
    """
    numbers = re.match(r"(\d+)\.(\d+)", version)  # None: a development build
    if numbers is not None and (int(numbers[1]), int(numbers[2])) < NEEDED:
        raise StoreUnreachableError(
            f"the Qdrant server at {url} has version {version}; upgrade it to 1.16 or later"
        )


def collection_not_found(address: str, name: str | None) -> CollectionNotFoundError:
    """Return the error of a collection that is not there."""
    return CollectionNotFoundError(f"no collection {name!r} on {address}; `lookalike collections` lists them")


def error_from_status(status: int, reason: str, *, address: str, name: str | None) -> StoreError:
    """Return what an HTTP status that is no success means.

    Args:
        status: The status.
        reason: The server's own words, one line.
        address: What to call the server.
        name: The collection that was asked about, if any.
    """
    if status in (401, 403):
        return StoreUnreachableError(
            f"the server at {address} refuses the API key or its absence ({status}); set QDRANT_API_KEY"
        )
    if name is not None and status == 409:
        return CollectionExistsError(f"collection {name!r} is on {address} already; choose another name")
    if name is not None and status == 404 and name in reason:
        return collection_not_found(address, name)
    if status == 404:
        return StoreUnreachableError(f"no Qdrant server at {address} (404); check the address and its port")
    if status >= 500 or status in (408, 429):
        return StoreUnavailableError(f"the server at {address} failed ({status}: {reason}); see its log")
    return StoreError(f"the server at {address} refused a request ({status}: {reason}); see its log")


def error_text(content: bytes, *, instead: str) -> object:
    """Return the server's own words in the body of an answer, or ``instead`` when it is not Qdrant's."""
    try:
        return json.loads(content)["status"]["error"]
    except (ValueError, KeyError, TypeError):
        return instead


def one_line(error_text: object) -> str:
    """Return an error or a server's words as one line of at most 200 characters, never empty."""
    return (" ".join(str(error_text).split()) or type(error_text).__name__)[:200]


def _is_private(url: str) -> bool:
    """Whether the host is this machine or, by its name or number, one of a private network."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".local", ".internal", ".localhost"))


def filter_to_json(where: Filter, client: object) -> dict[str, Any]:
    """Return a filter as JSON, when the client's models can say it.

    Raises:
        StoreError: they cannot.
    """
    if where.looks_inside and not hasattr(client, "MatchSubstring"):
        raise StoreError("this qdrant-client cannot look for text in text (~); upgrade it")
    return where.to_json()
