"""API keys: the full key, the read-only key, and what the latter may ask for."""

from __future__ import annotations

import hashlib
import hmac
from typing import Final, Literal

from starlette.datastructures import Headers

Role = Literal["full", "read"]
"""``read`` may look, search and generate, and change nothing that is stored."""

_API: Final = "/api/v1/"
_READING: Final = frozenset(
    f"{_API}{verb}"
    for verb in (
        "compare",
        "denoise",
        "edit",
        "embed",
        "faces",
        "generate",
        "interpolate",
        "reconstruct",
        "search",
    )
)
"""Paths to which a POST changes nothing. Every other method and path is refused to the read-only key, so that
a new route is closed to it until it is named here."""


def role_of(headers: Headers, *, key: str | None, read_key: str | None) -> Role | None:
    """Return what a request may do by its key; None where it has no right key."""
    if is_key(headers, key):
        return "full"
    return "read" if read_key is not None and is_key(headers, read_key) else None


def has_key(headers: Headers) -> bool:
    """Whether a request has any key, right or wrong."""
    return bool(_given(headers))


def is_key(headers: Headers, key: str | None) -> bool:
    """Whether a request has the key, compared in constant time."""
    if key is None:
        return True
    # Digests have one length, whatever was sent.
    digests = (hashlib.sha256(text.encode("utf-8", "replace")).digest() for text in (_given(headers), key))
    return hmac.compare_digest(*digests)


def only_reads(method: str, path: str) -> bool:
    """Whether a request changes nothing that is stored."""
    return method in ("GET", "HEAD") or (method == "POST" and path in _READING)


def _given(headers: Headers) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
