"""Download public files and archives into the user's cache.

A file is downloaded to `<name>.part`, checked by digest and then renamed, so that a file under its final name
is complete. An interrupted download continues where it stopped. Archives are unpacked the same way, into a
folder that is renamed at the end.

Environment:
    LOOKALIKE_CACHE: the cache folder, instead of the platform's own (`platformdirs.user_cache_dir`).
    LOOKALIKE_MIRRORS: base URLs, separated by commas or spaces. When set, only these are used, with the
        file's name appended.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from lookalike.encoder.errors import DataError, InvalidArgumentError

TIMEOUTS: Final = (10.0, 30.0)  # seconds: to connect, and between two pieces of the answer
STALLS: Final = 3  # interruptions in a row without new bytes before a mirror is given up
PAUSE: Final = 1.0  # seconds before a mirror is tried again
PIECE: Final = 1 << 16  # bytes


@final
@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A public file: its addresses and its digest.

    Args:
        name: its file name here and on a mirror, without a folder.
        urls: complete addresses, tried in this order.
        sha256: the digest in hexadecimal; wins over `md5`.
        md5: the digest in hexadecimal, for old archives that publish no better one.
        most: its largest size in bytes; a server that sends more is given up.
    """

    name: str
    urls: tuple[str, ...]
    sha256: str | None = None
    md5: str | None = None
    most: int = 1 << 30

    @property
    def digest(self) -> str:
        """The expected digest, in lower-case hexadecimal."""
        return (self.sha256 or self.md5 or "").lower()

    def digest_of(self, path: Path) -> str:
        """Return the digest of the file at `path`, of the same type, in lower-case hexadecimal."""
        with path.open("rb") as source:
            return hashlib.file_digest(source, hashlib.sha256 if self.sha256 else _md5).hexdigest()


def cache_folder() -> Path:
    """Return the download folder: `LOOKALIKE_CACHE`, else the platform's user cache; it may not exist."""
    import platformdirs

    return Path(os.environ.get("LOOKALIKE_CACHE") or platformdirs.user_cache_dir("lookalike")).expanduser()


def fetch(file: RemoteFile, folder: Path, *, progress: bool = False) -> Path:
    """Download `file` into `folder`, continuing an earlier attempt, and return its path.

    An existing file with the right digest is kept. Two processes must not download the same file into the
    same folder at once: see `only_one`.

    Args:
        file: what to fetch.
        folder: where to; made when missing.
        progress: draw a bar on stderr, when that is a terminal.

    Raises:
        InvalidArgumentError: ``file`` has no digest, or its name holds a folder.
        DataError: No mirror had the right file (with the reason for each), or `folder` cannot be written.
            Downloaded bytes stay in `<name>.part` for the next attempt.
    """
    if not file.digest or Path(file.name).name != file.name:
        raise InvalidArgumentError(
            f"a remote file needs a digest and a name without a folder, not {file}; give sha256 or md5"
        )
    path, part = folder / file.name, folder / f"{file.name}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.is_file() and file.digest_of(path) == file.digest:
            return path
        # A kill between the last byte and the rename leaves a complete .part file.
        if not (part.is_file() and file.digest_of(part) == file.digest):
            _try_mirrors(file, part, progress=progress)
        part.replace(path)
    except OSError as error:
        raise DataError(
            f"{folder} must be a folder that can be written, but: {error}; choose one in LOOKALIKE_CACHE"
        ) from error
    return path


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a tar archive (plain, gz, bz2 or xz) as the new folder `folder`, and return it.

    A single top-level folder is removed. Members that would leave the folder, and
    devices, are refused (`tarfile.data_filter`, PEP 706). `folder` appears by one rename.

    Raises:
        DataError: `folder` exists, or the archive is damaged, refused or cannot be unpacked.
    """
    if folder.exists():
        raise DataError(f"{archive.name} must be unpacked to a new folder, {folder} exists; remove it")
    staging = folder.with_name(f".{folder.name}.unpacking")
    try:
        shutil.rmtree(staging, ignore_errors=True)  # left by a killed run
        staging.mkdir(parents=True)
        with tarfile.open(archive) as tar:
            tar.extractall(staging, filter="data")
        inside = list(staging.iterdir())
        wrapped = len(inside) == 1 and inside[0].is_dir() and not inside[0].is_symlink()
        (inside[0] if wrapped else staging).rename(folder)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{archive} must be a tar archive that unpacks to {folder.parent}, but: {error}; "
            "remove the archive to fetch it again, or make room"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Let one process at a time work in `folder` (created if missing); others wait.

    Systems without `fcntl` (Windows) and file systems without locks are not protected, but a
    wrong file is still found by its digest.

    Raises:
        DataError: `folder` cannot be created or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / ".lock").open("w")
    except OSError as error:
        raise DataError(
            f"{folder} must be a folder that can be written, but: {error}; choose one in LOOKALIKE_CACHE"
        ) from error
    with handle:
        with suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


class _MirrorError(Exception):
    """This mirror cannot give the file."""


class _CutOffError(Exception):
    """The response stopped in the middle; the bytes so far are in the .part file."""


def _md5() -> hashlib._Hash:
    # Against damage, not attacks; without the flag it is missing on FIPS systems.
    return hashlib.md5(usedforsecurity=False)


def _addresses(file: RemoteFile) -> tuple[str, ...]:
    mirrors = re.split(r"[,\s]+", os.environ.get("LOOKALIKE_MIRRORS", ""))
    return tuple(f"{base.rstrip('/')}/{file.name}" for base in mirrors if base) or file.urls


def _try_mirrors(file: RemoteFile, part: Path, *, progress: bool) -> None:
    reasons = []
    for url in _addresses(file):
        try:
            _take_from(url, file, part, progress=progress)
        except _MirrorError as error:
            reasons.append(f"{url}: {error}")
        else:
            return
    raise DataError(
        f"{file.name} cannot be downloaded: {'; '.join(reasons) or 'it has none'}; "
        f"put the file into {part.parent} by hand, or name other servers in LOOKALIKE_MIRRORS"
    )


def _take_from(url: str, file: RemoteFile, part: Path, *, progress: bool) -> None:
    """Complete `part` from one mirror, as long as attempts bring new bytes."""
    inherited = part.is_file()
    longest, stalls = _size(part), 0
    while True:
        try:
            _append(url, part, most=file.most, progress=progress)
        except _CutOffError as error:
            grown = _size(part) > longest
            longest, stalls = max(longest, _size(part)), 0 if grown else stalls + 1
            if stalls == STALLS:
                raise _MirrorError(f"cut off again and again ({error})") from error
            time.sleep(PAUSE)
            continue
        digest = file.digest_of(part)
        if digest == file.digest:
            return
        part.unlink()
        if not inherited:
            raise _MirrorError(f"sent a file with the digest {digest} instead of {file.digest}")
        # The beginning came from an earlier run or another mirror and may be wrong.
        inherited, longest, stalls = False, 0, 0


def _append(url: str, part: Path, *, most: int, progress: bool) -> None:
    """Request the rest of `part` once; if the server sends the whole file, start over."""
    import requests
    import urllib3.exceptions
    from tqdm import tqdm

    start, too_much = _size(part), False
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUTS) as answer:
            if answer.status_code == requests.codes.range_not_satisfiable and start:
                return  # our part is complete: its digest decides
            start = _start_of(answer.status_code, answer.reason, answer.headers.get("Content-Range"), start)
            length = answer.headers.get("Content-Length", "")
            bar = tqdm(
                desc=part.stem,
                total=start + int(length) if length.isdecimal() else None,
                initial=start,
                unit="B",
                unit_scale=True,
                disable=None if progress else True,
            )
            # Raw, because some servers mark a .tgz as gzip-encoded, and it would be unpacked.
            pieces: Callable[..., Iterator[bytes]] = answer.raw.stream
            with bar, part.open("ab" if start else "wb") as sink:
                for piece in pieces(PIECE, decode_content=False):
                    if too_much := sink.tell() + len(piece) > most:
                        break
                    sink.write(piece)
                    bar.update(len(piece))
    except requests.RequestException as error:
        raise _MirrorError(_root(error)) from error
    except urllib3.exceptions.HTTPError as error:
        raise _CutOffError(_root(error)) from error
    if too_much:
        part.unlink()  # it is not our file, and would fill the disk
        raise _MirrorError(f"sent more than {most} bytes")


def _start_of(status: int, reason: str | None, content_range: str | None, start: int) -> int:
    """Return the offset in bytes of the body of this response."""
    if status == 200:
        return 0
    if status == 206 and start and (content_range or "").startswith(f"bytes {start}-"):
        return start
    raise _MirrorError(f"answered {status} {reason or ''}".rstrip())


def _root(error: BaseException) -> str:
    """Return the innermost cause on one line: the HTTP libraries wrap it several times."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return " ".join(f"{type(error).__name__}: {error}".split())


def _size(path: Path) -> int:
    """Return the size of `path` in bytes, 0 if it does not exist."""
    return path.stat().st_size if path.is_file() else 0
