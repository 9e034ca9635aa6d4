"""How the service is set up: what it serves, to whom, and how much of it."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.runtime.session import Provider
from lookalike.indexer.open import DEFAULT_STORE

__all__ = [
    "KEY_VARIABLE",
    "MOST_CLEANED",
    "MOST_DRAWN",
    "MOST_PICTURES",
    "MOST_RESULTS",
    "Settings",
    "is_loopback",
]

KEY_VARIABLE: Final = "LOOKALIKE_API_KEY"
MOST_RESULTS: Final = 1000
"""The largest k."""
MOST_PICTURES: Final = 16
"""Pictures of one request."""
MOST_DRAWN: Final = 100
"""Pictures that one request may have drawn."""
MOST_CLEANED: Final = 16_000_000
"""Pixels that one request may have cleaned, of all its pictures together."""
_SHORTEST_KEY: Final = 16


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How the service is set up.

    Attributes:
        store: Folder or URL of the store.
        models: Bundle folders or shipped names that are served; empty: all that are shipped. The models that
            collections remember are served beside them.
        provider: Of onnxruntime.
        roots: Folders that may be indexed, with all below them.
        host: Where it listens.
        key: API key; None: none is asked for, which only a loopback address allows.
        workers: Requests that are worked on at once, each on one core.
        waiting: Requests that may wait for that; those beyond get 503.
        body_bytes: The largest request.
        seconds: The longest that a request may wait and be worked on.

    Raises:
        InvalidArgumentError: a host that others reach and no key, a key under 16 characters, or a number under 1.
    """

    store: str = DEFAULT_STORE
    models: tuple[str, ...] = ()
    provider: Provider = "auto"
    roots: tuple[Path, ...] = ()
    host: str = "127.0.0.1"
    key: str | None = field(default=None, repr=False)
    workers: int = field(default_factory=_cores)
    waiting: int = 64
    body_bytes: int = 16 << 20
    seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.key is None and not is_loopback(self.host):
            raise InvalidArgumentError(
                f"others can reach {self.host}, so an API key is needed; set {KEY_VARIABLE}, "
                "or leave --host out"
            )
        if self.key is not None and (len(self.key) < _SHORTEST_KEY or not self.key.isascii()):
            raise InvalidArgumentError(
                f"{KEY_VARIABLE} must have {_SHORTEST_KEY} ASCII characters or more, this one has "
                f"{len(self.key)}; `openssl rand -hex 32` makes one"
            )
        if min(self.workers, self.body_bytes) < 1 or self.waiting < 0 or not self.seconds > 0:
            raise InvalidArgumentError(
                f"workers, bytes and seconds must be above 0, got {self.workers}, {self.body_bytes} and "
                f"{self.seconds}; leave them out for what is usual"
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host: a loopback address, or ``localhost``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
