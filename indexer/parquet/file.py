"""The file of latents that ``lookalike embed`` writes and ``lookalike index`` reads without opening an image.

One Parquet file with a row for each image: path, root, sha256, size, mtime_ns, person (may be null), and
vector, a list of float32 of fixed length; optionally payload, a JSON object (may be null). The column file,
the absolute path of the image (null in an archive), is for other programs and never read. The collection spec
(model and roots) is stored as JSON under ``lookalike`` in the metadata.

Legend: n rows, D dimensions of an embedding.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.detect import Face, parse_framing
from lookalike.encoder.errors import (
    DataError,
    InvalidArgumentError,
    MissingExtraError,
    StoreError,
    printable,
)
from lookalike.encoder.files import fsync_path, parse_json
from lookalike.encoder.images import find_names
from lookalike.indexer.sources import file_below, leads_out, person_name
from lookalike.indexer.store import FACE, CollectionSpec, payload_fault
from lookalike.indexer.sync import face_number

FORMAT: Final = 1
"""Version of the file format."""
ROWS: Final = 4096
"""Rows in a row group, which is in memory at a time: 4 MB at 256 dimensions."""

_SUFFIX: Final = ".parquet"
_MAX_DIMENSION: Final = 65_536
MOST_FACES: Final = 10_000
"""In one image: a file that says more is wrong, and deleting them would take forever."""
_KEY: Final = b"lookalike"
_FAILED: Final = b"lookalike.failed"
_COLUMNS: Final = ("path", "root", "sha256", "size", "mtime_ns", "person", "vector")
_PAYLOAD: Final = "payload"
_FILE: Final = "file"
_FACTS: Final = ("root", "path", "size", "mtime_ns")


class Entry(NamedTuple):
    """A row without its vector."""

    path: str
    root: str
    sha256: str
    size: int
    mtime_ns: int
    person: str | None
    payload: Mapping[str, Any] | None = None  # of a face, its payload field

    @property
    def face(self) -> int:
        """The number of its face in the image; 0: the image has none. 1 where rows are images."""
        return face_number(self.payload or {})

    @property
    def key(self) -> bytes:
        """16 bytes that identify this image in this state."""
        return key_of(self.root, self.path, self.size, self.mtime_ns)


class Rows(NamedTuple):
    """n entries and their vectors, float32 (n, D)."""

    entries: list[Entry]
    vectors: NDArray[np.float32]

    def select(self, mask: NDArray[np.bool_]) -> Rows:
        """Return the rows where ``mask``, bool (n,), is true."""
        return Rows([self.entries[row] for row in np.flatnonzero(mask)], self.vectors[mask])


def key_of(root: str, path: str, size: int, mtime_ns: int) -> bytes:
    """Return 16 bytes that identify an image in one state."""
    return blake2b(f"{root}\0{path}\0{size}\0{mtime_ns}".encode(), digest_size=16).digest()


def is_latents(source: str) -> bool:
    """Whether a source is a file of latents, by its name or its first bytes, or a folder of such files."""
    path = Path(source)
    if path.is_dir():
        return bool(latents_files(source))
    if path.suffix.lower() == _SUFFIX:
        return True
    try:
        if not path.is_file():  # reading a pipe would block
            return False
        with path.open("rb") as file:
            return file.read(4) == b"PAR1"
    except OSError:
        return False


def latents_files(source: str) -> list[Path]:
    """Return the files of latents that a source names: itself, or those of a folder that holds no image.

    Other programs write a table as a folder of parts; what begins with a dot or ``_`` is their bookkeeping.
    """
    path = Path(source)
    if not path.is_dir():
        return [path]
    try:
        names = sorted(each.name for each in path.iterdir() if each.suffix.lower() == _SUFFIX)
        parts = [path / name for name in names if name[0] not in "._"]
        return [] if not parts or next(find_names(path), None) is not None else parts
    except (OSError, DataError):  # a folder that cannot be listed: indexing it says so
        return []


def write_latents(
    file: Path, spec: CollectionSpec, rows: Iterable[Rows], *, draft: Path, payload: bool = False
) -> None:
    """Write a file of latents, a row group for each of ``rows``; complete and on disk, or not at all.

    Args:
        file: Is replaced.
        spec: The model, its dimension, the crop, and the roots.
        rows: Groups of rows, each of a size that fits into memory.
        draft: Path of the file until it is complete, on the same disk.
        payload: Whether to write the column for :attr:`Entry.payload`.

    Raises:
        MissingExtraError: pyarrow is not installed.
        DataError: the disk is full or cannot be written.
    """
    require_pyarrow(file)
    try:
        with draft.open("wb") as sink:
            write_rows(sink, spec, rows, payload=payload)
            sink.flush()
            fsync_path(draft)
        draft.replace(file)
        fsync_path(file.parent)
    except OSError as error:
        raise DataError(
            f"{printable(str(file))} cannot be written ({error.strerror or _line(error)}); make room "
            "or name another place, and run it again: what was finished is kept"
        ) from error


def write_rows(
    sink: BinaryIO,
    spec: CollectionSpec,
    rows: Iterable[Rows],
    *,
    payload: bool = False,
    failed: Sequence[tuple[str, str]] | None = None,
) -> None:
    """Write the content of a file of latents, a row group for each of ``rows``.

    Args:
        sink: Where it goes.
        spec: The model, its dimension, the crop, and the roots.
        rows: Groups of rows.
        payload: Whether to write the column for :attr:`Entry.payload`.
        failed: Path and one-line reason of images that have no row, to be kept with the rows; None: nothing
            is said of them.

    Raises:
        MissingExtraError: pyarrow is not installed.
        OSError: the sink cannot be written.
    """
    pa, pq = require_pyarrow(Path("latents"))
    schema = _schema(pa, spec, payload=payload, file=True)
    if failed is not None:
        schema = schema.with_metadata({**schema.metadata, _FAILED: json.dumps(failed).encode()})
    options = {"use_dictionary": ["root", "person"], "write_page_checksum": True}
    with pq.ParquetWriter(sink, schema, compression="zstd", **options) as writer:
        for some in rows:
            writer.write_table(_table(pa, schema, spec, some), row_group_size=max(len(some.entries), 1))


class LatentsFile:
    """An opened file of latents. Close it, or use it in a ``with`` block.

    Attributes:
        file: Its path.
        spec: The model, its dimension, the crop, and the roots.
        count: Number of rows.
        has_files: Whether it has the column for other programs, ``file``.
        failed: Path and one-line reason of images that have no row, as far as it says so.
    """

    def __init__(self, file: Path, parquet: Any, spec: CollectionSpec) -> None:
        self.file = file
        self.spec = spec
        self.count = int(parquet.metadata.num_rows)
        self._parquet = parquet
        self.has_files = _FILE in parquet.schema_arrow.names
        self.failed = _failed(parquet.schema_arrow.metadata)
        self._has_payload = _PAYLOAD in parquet.schema_arrow.names

    @classmethod
    def open(cls, file: Path, source: Any = None) -> Self:
        """Open a file and read its metadata; no row is read yet.

        Args:
            file: Its path, or only its name in messages where there is a ``source``.
            source: What it is read from, a ``pyarrow.NativeFile``; it is closed with the file. None: from
                this machine.

        Raises:
            MissingExtraError: pyarrow is not installed.
            DataError: it does not exist, is damaged, or was not written by ``lookalike embed``.
        """
        _, pq = require_pyarrow(file)
        if source is None and not file.is_file():
            raise DataError(
                f"a file of latents is written by lookalike embed; '{printable(str(file))}' is not a file"
            )
        with _reading(file):
            parquet = pq.ParquetFile(file if source is None else source, page_checksum_verification=True)
        try:
            with _reading(file):
                names, metadata = parquet.schema_arrow.names, parquet.schema_arrow.metadata or {}
            return cls(file, parquet, _spec(file, names, metadata))
        except BaseException:
            parquet.close()
            raise

    def last_entry(self) -> Entry | None:
        """Return the last row, reading no vector; None: there is no row.

        Raises:
            DataError: the file is damaged, or the row is invalid.
        """
        columns = list(_COLUMNS[:-1]) + ([_PAYLOAD] if self._has_payload else [])
        for group in reversed(range(self._parquet.num_row_groups)):
            with _reading(self.file):
                rows = self._parquet.read_row_group(group, columns=columns)
                if rows.num_rows:
                    (row,) = rows.slice(rows.num_rows - 1).to_pylist()
                    entry = Entry(
                        *(row[name] for name in columns[:6]), *map(parse_payload, [*row.values()][6:])
                    )
                    self._check(entry.root, entry.path)
                    return entry
        return None

    def keys(self) -> Iterator[bytes]:
        """Yield :attr:`Entry.key` of each row, reading no vector.

        Raises:
            DataError: the file is damaged.
        """
        for batch in self._batches(_FACTS):
            yield from map(key_of, *(batch[name].to_pylist() for name in _FACTS))

    def rows(self) -> Iterator[Rows]:
        """Yield all rows in their order, at most :data:`ROWS` at a time.

        Raises:
            DataError: the file is damaged, or a row is invalid.
        """
        optional = (_PAYLOAD,) if self._has_payload else ()
        for batch in self._batches(_COLUMNS + optional):
            with _reading(self.file):
                columns = [batch[name].to_pylist() for name in _COLUMNS[:-1] + optional]
                entries = [
                    Entry(*row[:6], *map(parse_payload, row[6:])) for row in zip(*columns, strict=True)
                ]
                flat = batch["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
                vectors = flat.reshape(len(entries), self.spec.dimension)
            for entry in entries:
                self._check(entry.root, entry.path)
            yield Rows(entries, vectors)

    def check_rows(self) -> Iterator[list[tuple[str, str, int]]]:
        """Check all rows, and yield root, path and number of the face of each; no vector is read.

        Raises:
            DataError: the file is damaged, or a row is invalid.
        """
        columns = ("root", "path") + ((_PAYLOAD,) if self._has_payload else ())
        row = 0
        for batch in self._batches(columns):
            with _reading(self.file):
                roots, paths, *payloads = (batch[name].to_pylist() for name in columns)
            found: list[tuple[str, str, int]] = []
            for root, path, *texts in zip(roots, paths, *payloads, strict=True):
                row += 1
                self._check(root, path)
                try:
                    payload = (parse_payload(texts[0]) if texts else None) or {}
                    fault = payload_fault(payload) or _face_fault(payload, self.spec)
                except ValueError as error:
                    payload, fault = {}, str(error)
                if fault is not None:
                    raise DataError(
                        f"{printable(str(self.file))}: row {row} has a payload that cannot be "
                        f"stored, {fault}; correct it, or embed again"
                    )
                found.append((root, path, face_number(payload)))
            yield found

    def _batches(self, columns: tuple[str, ...]) -> Iterator[Any]:
        pa, _ = require_pyarrow(self.file)
        whole = _schema(pa, self.spec, payload=self._has_payload)
        schema = pa.schema([whole.field(name) for name in columns])
        left = self.count
        with _reading(self.file):
            # One group after the other: asked for all at once, pyarrow keeps those that are done in memory.
            for group in range(self._parquet.num_row_groups):
                for batch in self._parquet.iter_batches(ROWS, [group], columns=list(columns)):
                    # A program that rewrote the file may have used lists and strings of other widths.
                    yield pa.Table.from_batches([batch]).select(columns).cast(schema)
                    left -= batch.num_rows
            if left:
                raise ValueError(f"{abs(left)} of {self.count} rows are missing or too many")

    def _check(self, root: str, path: str) -> None:
        """Refuse a path that leads out of its root: images are opened by it to show results."""
        if root not in self.spec.roots:
            raise DataError(f"{printable(str(self.file))}: no root is called {root!r}; embed again")
        if leads_out(path):
            raise DataError(
                f"{printable(str(self.file))}: a path leads from its root to an image, {path!r} does not; "
                "embed again"
            )

    def close(self) -> None:
        """Close the file."""
        self._parquet.close(force=True)  # also what it was given to read from

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _schema(pa: Any, spec: CollectionSpec, *, payload: bool, file: bool = False) -> Any:
    record = json.dumps({"latents": FORMAT, **spec.to_json()}, ensure_ascii=False).encode()
    element = pa.field("element", pa.float32(), nullable=False)
    kinds = {
        "path": pa.string(),
        "root": pa.string(),
        "sha256": pa.string(),
        "size": pa.int64(),
        "mtime_ns": pa.int64(),
        "person": pa.string(),
        "vector": pa.list_(element, spec.dimension),
    }
    fields = [pa.field(name, kinds[name], nullable=name == "person") for name in _COLUMNS]
    if file:
        fields.append(pa.field(_FILE, pa.string()))
    if payload:
        fields.append(pa.field(_PAYLOAD, pa.string()))
    return pa.schema(fields, metadata={_KEY: record})


def _table(pa: Any, schema: Any, spec: CollectionSpec, rows: Rows) -> Any:
    flat = np.ascontiguousarray(rows.vectors, dtype=np.float32).reshape(-1)
    columns: dict[str, Any] = {name: [getattr(each, name) for each in rows.entries] for name in _COLUMNS[:-1]}
    columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(flat), type=schema.field("vector").type)
    columns[_FILE] = [_file_of(spec, each) for each in rows.entries]
    if _PAYLOAD in schema.names:
        payloads = (each.payload for each in rows.entries)
        columns[_PAYLOAD] = [None if each is None else json.dumps(each) for each in payloads]
    return pa.table(columns, schema=schema)


def _file_of(spec: CollectionSpec, entry: Entry) -> str | None:
    """Return the absolute path of an item's image; None where it is no file, as in an archive."""
    if leads_out(entry.path):
        return None
    file = file_below(spec.roots[entry.root], entry.path)
    return str(file) if file.is_file() else None


def _face_fault(payload: Mapping[str, Any], spec: CollectionSpec) -> str | None:
    """Return what is wrong with the face of a row; None if nothing is."""
    if not spec.has_faces:
        return f"its field {FACE!r} is of faces, this file of whole images" if FACE in payload else None
    face = payload.get(FACE)
    if not isinstance(face, dict):
        return f"its field {FACE!r} does not describe a face"
    number, count = face.get("number"), face.get("count")
    if type(number) is not int or type(count) is not int:
        return f"its field {FACE!r} has no number and count of the face"
    if not (1 <= number <= count <= MOST_FACES or number == count == 0):
        return f"its face has the number {number} of {count}"
    try:
        if number:
            Face.from_json(face)
    except InvalidArgumentError as error:
        return str(error)
    return None


def parse_payload(text: str | None) -> dict[str, Any] | None:
    """Return the payload that a row holds as JSON text; the person in it is text.

    Raises:
        ValueError: it is not a JSON object, or its person is no text.
    """
    if text is None:
        return None
    value = parse_json(text)
    if not isinstance(value, dict):
        raise ValueError(f"a payload is a JSON object, {printable(text[:40])} is not")  # noqa: TRY004  # as bad JSON
    if "person" in value:
        value["person"] = person_name(value["person"])
    return value


def _spec(file: Path, names: list[str], metadata: Mapping[bytes, bytes]) -> CollectionSpec:
    name = printable(str(file))
    try:
        record = parse_json(metadata.get(_KEY, b""))
        version = record.pop("latents")
        spec = None if version != FORMAT else CollectionSpec.from_json(record, where=name)
    except (ValueError, AttributeError, KeyError, TypeError, StoreError) as error:
        raise DataError(
            f"{name} must name the model of its vectors under 'lookalike' in its metadata, as lookalike "
            "embed writes it; embed the images with that"
        ) from error
    if spec is None:
        raise DataError(f"{name} was written by a later lookalike (latents {version}); upgrade to read it")
    try:
        parse_framing(spec.crop)
    except InvalidArgumentError as error:
        raise DataError(f"{name} names a crop that cannot be read ({error}); embed again") from error
    if spec.dimension > _MAX_DIMENSION:
        raise DataError(
            f"{name} says that its vectors have {spec.dimension} dimensions, the most is {_MAX_DIMENSION}; "
            "embed again"
        )
    if any(names.count(column) != 1 for column in _COLUMNS) or names.count(_PAYLOAD) > 1:
        raise DataError(
            f"{name} must have columns {', '.join(_COLUMNS)}, it has {printable(', '.join(names))}; "
            "embed again"
        )
    return replace(spec, foreign_roots=())  # it may say nothing of who knows its roots


def _failed(metadata: Mapping[bytes, bytes] | None) -> list[tuple[str, str]]:
    """Return the failures that a file tells; none where it tells nothing that can be read."""
    try:
        return [(str(path), str(reason)) for path, reason in parse_json((metadata or {}).get(_FAILED, b"[]"))]
    except (ValueError, TypeError):
        return []


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    pa, _ = require_pyarrow(file)  # the boundary: what pyarrow raises at a file leaves as a DataError
    try:
        yield
    except MemoryError:
        raise  # says nothing of the file
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: null where there may be none
        if isinstance(error, OSError) and error.errno is not None:  # the system's: no word about the content
            raise DataError(f"{printable(str(file))} cannot be read ({os.strerror(error.errno)})") from error
        raise DataError(
            f"{printable(str(file))} must be a whole Parquet file, but: {_line(error)}; fetch it again "
            "or embed again"
        ) from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def require_pyarrow(file: Path) -> tuple[Any, Any]:
    """Return pyarrow and its module for Parquet.

    Raises:
        MissingExtraError: it is not installed; the message names ``file``.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        needs = "Parquet needs pyarrow; pip install 'lookalike[parquet]'"
        raise MissingExtraError(f"{printable(file.name)}: {needs}") from error
    return pyarrow, pyarrow.parquet
