"""The settings of the HTTP service, and its fixed limits."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from lookalike.encoder.errors import InvalidArgumentError, printable
from lookalike.encoder.runtime import Provider
from lookalike.indexer.open import default_store

KEY_VARIABLE: Final = "LOOKALIKE_API_KEY"
READ_KEY_VARIABLE: Final = "LOOKALIKE_READ_KEY"
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
_ORIGIN: Final = re.compile(
    r"(https?)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?/?", re.IGNORECASE
)
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}
_ROOT_PATH: Final = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")
_OWN: Final = frozenset(
    {"api", "page", "reference", "healthz", "readyz", "metrics", "favicon.ico", ".", ".."}
)
"""First parts of the service's own paths: below a root path of this name they could not be told apart."""


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
        read_key: A second key, for requests that change nothing stored; None: there is none.
        origins: Origins under which a reverse proxy serves, such as ``https://photos.example.org``.
        root_path: Path below which a reverse proxy serves, such as ``/lookalike``; empty: at the top.
        workers: Requests processed at once, each on one core.
        queue_size: Requests that may wait for a worker; more are refused with 503.
        body_bytes: Largest request body, in bytes.
        max_pixels: Larger images are refused; None: 120 million pixels for JPEG files that are decoded small,
            50 million else.
        seconds: Longest time that a request may wait and be processed, in seconds.

    Raises:
        InvalidArgumentError: the host is not loopback and there is no key, a key is shorter than 16
            characters, there is a read-only key alone or both are equal, an origin or the root path is none,
            or a number is out of range.
    """

    store: str = field(default_factory=default_store)
    models: tuple[str, ...] = ()
    provider: Provider = "auto"
    roots: tuple[Path, ...] = ()
    host: str = "127.0.0.1"
    key: str | None = field(default=None, repr=False)
    read_key: str | None = field(default=None, repr=False)
    origins: tuple[str, ...] = ()
    root_path: str = ""
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
        for variable, key in ((KEY_VARIABLE, self.key), (READ_KEY_VARIABLE, self.read_key)):
            if key is not None and (len(key) < _MIN_KEY_LENGTH or not key.isascii()):
                raise InvalidArgumentError(
                    f"{variable} must have {_MIN_KEY_LENGTH} ASCII characters or more, it has "
                    f"{len(key)}; generate one with `openssl rand -hex 32`"
                )
        if self.read_key is not None and self.read_key == (self.key or self.read_key):
            raise InvalidArgumentError(
                f"{READ_KEY_VARIABLE} is a second key beside {KEY_VARIABLE}; set both, to different keys"
            )
        object.__setattr__(self, "origins", tuple(dict.fromkeys(map(parse_origin, self.origins))))
        object.__setattr__(self, "root_path", parse_root_path(self.root_path))
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


def parse_origin(text: str) -> str:
    """Return an origin in its normal form: lower case, without the default port.

    Raises:
        InvalidArgumentError: it is not an origin.
    """
    found = _ORIGIN.fullmatch(text.strip())
    if found is None:
        raise InvalidArgumentError(
            f"an origin is a scheme and a host, such as https://photos.example.org, not {printable(text)!r}"
        )
    scheme, name, port = found[1].lower(), found[2].lower(), found[3]
    return f"{scheme}://{name}" + ("" if port in (None, _DEFAULT_PORTS[scheme]) else f":{port}")


def parse_root_path(text: str) -> str:
    """Return the path below which a proxy serves, without a slash at its end; empty: at the top.

    Raises:
        InvalidArgumentError: it is not a path, or one of the service's own.
    """
    path = text.rstrip("/")
    if not path:
        return ""
    if not _ROOT_PATH.fullmatch(path) or path.split("/")[1] in _OWN:
        raise InvalidArgumentError(
            f"a root path is a path such as /lookalike and none of the service's own, not {printable(text)!r}"
        )
    return path
