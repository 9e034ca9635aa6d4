"""The files of a bundle of any kind: read only as their digests say, written all or none."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.errors import BundleCorruptError, BundleError
from lookalike.encoder.files import atomic_replace_dir
from lookalike.encoder.text import one_line, printable

Floats = NDArray[np.float32]
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


@dataclass(frozen=True, slots=True)
class Golden:
    """Inputs and what they gave where the bundle was made: pictures the model drew itself, or made-up ones.

    Attributes:
        pixels: uint8 (N, H, W, C).
        latents: float32 (N, D), of ``pixels``.
        decoded: float32 (N, H, W, C) in [0, 1], of ``latents``; None for a model that has no decoder.
    """

    pixels: NDArray[np.uint8]
    latents: Floats
    decoded: Floats | None

    def to_npz(self) -> bytes:
        """Return ``golden.npz``."""
        drawn = {} if self.decoded is None else {"decoded": self.decoded}
        return npz_bytes(pixels=self.pixels, latents=self.latents, **drawn)

    @classmethod
    def from_npz(cls, files: Mapping[str, bytes]) -> Self:
        """Read ``golden.npz`` of the files of a bundle; with a decoder, what it drew must be there.

        Raises:
            ValueError: it does not hold the arrays.
        """
        if "decoder.onnx" in files:
            return cls(*read_npz("golden.npz", files, "pixels", "latents", "decoded"))
        pixels, latents = read_npz("golden.npz", files, "pixels", "latents")
        return cls(pixels, latents, None)


def read_npz(file: str, files: Mapping[str, bytes], *names: str) -> list[NDArray[Any]]:
    """Return arrays of an ``.npz`` by name. Nothing in it is executed.

    Raises:
        ValueError: it does not hold them.
    """
    try:
        with np.load(io.BytesIO(files[file]), allow_pickle=False) as archive:
            return [np.asarray(archive[name]) for name in names]
    except Exception as error:  # zipfile, zlib, struct and numpy each raise their own
        raise ValueError(f"{file} does not hold the arrays {', '.join(names)} ({one_line(error)})") from error


def npz_bytes(**arrays: NDArray[Any]) -> bytes:
    """Return an ``.npz`` with these arrays."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
