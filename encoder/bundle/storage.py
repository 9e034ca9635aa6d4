"""The files of a bundle of any kind: read only as their digests say, written all or none."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from lookalike.encoder.errors import BundleCorruptError, BundleError
from lookalike.encoder.images.preprocess import printable
from lookalike.encoder.replacing import atomic_replace_dir

__all__ = ["check_writable", "digests_of", "read_file", "read_verified", "verify_digests", "write_all"]

T = TypeVar("T")


def digests_of(contents: Mapping[str, bytes]) -> dict[str, str]:
    """Return the SHA-256 of each file, 64 hex digits."""
    return {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}


def read_file(folder: Path, name: str) -> bytes:
    """Return a file of the bundle in ``folder``.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise ValueError(f"{name} cannot be read ({error.strerror})") from error


def verify_digests(folder: Path, name: str, digest: object) -> bytes:
    """Return a file of the bundle in ``folder`` that has this SHA-256.

    Raises:
        ValueError: it cannot be read, or has another.
    """
    data = read_file(folder, name)
    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError(f"{name} does not match its SHA-256")
    return data


def read_verified(folder: Path, name: str, digest: object) -> bytes:
    """Return a file of a bundle that was opened before.

    Raises:
        BundleCorruptError: it is no longer what it was.
    """
    try:
        return verify_digests(folder, name, digest)
    except ValueError as error:
        raise BundleCorruptError(
            f"bundle {printable(str(folder))} has changed since it was opened: {error}; open it again"
        ) from error


def write_all(target: Path, contents: Mapping[str, bytes], opened: Callable[[Path], T]) -> T:
    """Write a bundle whole or not at all, and return it as ``opened`` from its new folder.

    Raises:
        BundleError: the folder cannot be written.
    """
    try:
        with atomic_replace_dir(target) as fresh:
            for name, data in contents.items():
                (fresh / name).write_bytes(data)
            return opened(fresh)
    except OSError as error:
        raise check_writable(target, error) from error


def check_writable(target: Path, error: OSError) -> BundleError:
    """Return what is raised where the system does not let the bundle be written."""
    return BundleError(
        f"bundle {printable(str(target))} cannot be written ({error.strerror}); make room or name another folder"
    )
