"""The settings of the HTTP service, and its fixed limits."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.runtime import Provider
from lookalike.indexer.open import DEFAULT_STORE

KEY_VARIABLE: Final = "LOOKALIKE_API_KEY"
DENOISER: Final = "denoise"
"""The model that denoises unless a request names another."""
MAX_K: Final = 1000
MAX_IMAGES: Final = 16
"""Images that a request may send."""
MAX_GENERATED: Final = 100
"""Images that a request may have generated."""
MAX_DENOISED_PIXELS: Final = 16_000_000
"""Pixels that a request may have denoised, all its images together."""
DENOISED_PER_SECOND: Final = 150_000
"""Pixels that are taken to be denoised a second before that is measured: half of what one core does here."""
MAX_DECODING_PIXELS: Final = 64_000_000
"""Pixels of the images that are decoded at the same time, at some 7 bytes each; a larger image runs alone."""
_MIN_KEY_LENGTH: Final = 16


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The settings of the service.

    Attributes:
        store: Folder or URL of the store.
        models: Bundle folders or shipped names to serve; empty: all shipped models. The models of the store's
            collections are always served too.
        provider: The execution provider of onnxruntime.
        roots: Folders that requests may index, with everything below them.
        host: Address to listen on.
        key: API key that requests must send; None, for loopback addresses only: no key.
        workers: Requests processed at once, each on one core.
        queue_size: Requests that may wait for a worker; more are refused with 503.
        body_bytes: Largest request body, in bytes.
        max_pixels: Larger images are refused; None: 120 million pixels for JPEG files that are decoded small,
            50 million else.
        seconds: Longest time that a request may wait and be processed, in seconds.

    Raises:
        InvalidArgumentError: the host is not loopback and there is no key, the key is shorter than 16
            characters, or a number is out of range.
    """

    store: str = DEFAULT_STORE
    models: tuple[str, ...] = ()
    provider: Provider = "auto"
    roots: tuple[Path, ...] = ()
    host: str = "127.0.0.1"
    key: str | None = field(default=None, repr=False)
    workers: int = field(default_factory=_cores)
    queue_size: int = 64
    body_bytes: int = 16 << 20
    max_pixels: int | None = None
    seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.key is None and not is_loopback(self.host):
            raise InvalidArgumentError(
                f"other machines can reach {self.host}, so an API key is needed; set {KEY_VARIABLE}, "
                "or leave --host out"
            )
        if self.key is not None and (len(self.key) < _MIN_KEY_LENGTH or not self.key.isascii()):
            raise InvalidArgumentError(
                f"{KEY_VARIABLE} must have {_MIN_KEY_LENGTH} ASCII characters or more, it has "
                f"{len(self.key)}; generate one with `openssl rand -hex 32`"
            )
        if (
            min(self.workers, self.body_bytes, self.max_pixels or 1) < 1
            or self.queue_size < 0
            or not self.seconds > 0
        ):
            raise InvalidArgumentError(
                f"workers, body size and timeout must be above 0, not {self.workers}, {self.body_bytes} and "
                f"{self.seconds}; leave them out for the defaults"
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host: ``localhost``, or a loopback address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
