"""A file of latents: what ``lookalike embed`` writes and ``lookalike index`` reads, with no picture opened.

One Parquet file, a row for each picture: path, root, sha256, size, mtime_ns, person (may be null), and
vector, a list of float32 of one length; where more is said of pictures, also payload, a JSON object (may be
null). What a collection remembers of its model and roots stands as JSON under ``lookalike`` in the file's
metadata. The one module of the indexer that names pyarrow.

Legend: n rows, D dimensions of an embedding.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.errors import DataError, MissingExtraError, StoreError
from lookalike.encoder.files import fsync_path
from lookalike.encoder.text import printable
from lookalike.encoder.files import fsync
from lookalike.indexer.store.spec import CollectionSpec

FORMAT: Final = 1
"""Of the file; a later lookalike that writes otherwise counts on."""
ROWS: Final = 4096
"""In a row group: what is held in memory at a time, 4 MB at 256 dimensions."""

_KEY: Final = b"lookalike"
_COLUMNS: Final = ("path", "root", "sha256", "size", "mtime_ns", "person", "vector")
_PAYLOAD: Final = "payload"
_FACTS: Final = ("root", "path", "size", "mtime_ns")


class Entry(NamedTuple):
    """A row without its vector: what a collection keeps beside one."""

    path: str
    root: str
    sha256: str
    size: int
    mtime_ns: int
    person: str | None
    payload: Mapping[str, Any] | None = None

    @property
    def key(self) -> bytes:
        """16 bytes that stand for this picture in this state."""
        return key_of(self.root, self.path, self.size, self.mtime_ns)


class Rows(NamedTuple):
    """n entries and their vectors, float32 (n, D)."""

    entries: list[Entry]
    vectors: NDArray[np.float32]

    def only(self, wanted: NDArray[np.bool_]) -> Rows:
        """Return the rows of a bool (n,)."""
        return Rows([self.entries[row] for row in np.flatnonzero(wanted)], self.vectors[wanted])


def key_of(root: str, path: str, size: int, mtime_ns: int) -> bytes:
    """Return 16 bytes that stand for a picture in one state: no two have the same."""
    return blake2b(f"{root}\0{path}\0{size}\0{mtime_ns}".encode(), digest_size=16).digest()


def is_latents(source: str) -> bool:
    """Whether a source is to be read as a file of latents: by its name, else by its first bytes."""
    path = Path(source)
    if path.suffix.lower() == ".parquet":
        return not path.is_dir()
    try:
        if not path.is_file():  # a pipe would keep us waiting
            return False
        with path.open("rb") as file:
            return file.read(4) == b"PAR1"
    except OSError:
        return False


def write_latents(
    file: Path, spec: CollectionSpec, rows: Iterable[Rows], *, draft: Path, payload: bool = False
) -> None:
    """Write a file of latents, a row group for each of ``rows``; it is durable and whole, or is not there.

    Args:
        file: Replaced when it is there.
        spec: The model, its dimension, the crop, and the roots.
        rows: Each of a size that fits into memory.
        draft: Where the file stands until it is whole, on the same disk.
        payload: Whether there is a column for :attr:`Entry.payload`; without, that is not written.

    Raises:
        MissingExtraError: pyarrow is not installed.
        DataError: the disk is full or cannot be written.
    """
    pa, pq = require_pyarrow(file)
    schema = _schema(pa, spec, payload=payload)
    try:
        with draft.open("wb") as sink:
            options = {"use_dictionary": ["root", "person"], "write_page_checksum": True}
            with pq.ParquetWriter(sink, schema, compression="zstd", **options) as writer:
                for some in rows:
                    writer.write_table(_table(pa, schema, some), row_group_size=max(len(some.entries), 1))
            sink.flush()
            fsync_path(draft)
        draft.replace(file)
        fsync_path(file.parent)
    except OSError as error:
        raise DataError(
            f"{printable(str(file))} cannot be written ({error.strerror or _line(error)}); make room "
            "or name another place, and run it again: what was finished is kept"
        ) from error


class LatentsFile:
    """An opened file of latents. Close it, or use it in a ``with`` block.

    Attributes:
        file: Where it lies.
        spec: The model, its dimension, the crop, and the roots.
        count: How many rows it has.
    """

    def __init__(self, file: Path, parquet: Any, spec: CollectionSpec) -> None:
        self.file = file
        self.spec = spec
        self.count = int(parquet.metadata.num_rows)
        self._parquet = parquet
        self._has_payload = _PAYLOAD in parquet.schema_arrow.names

    @classmethod
    def open(cls, file: Path) -> Self:
        """Open a file and read what it says of itself; no row is read yet.

        Raises:
            MissingExtraError: pyarrow is not installed.
            DataError: it is not there, damaged, of a later version, or not written by ``lookalike embed``.
        """
        _, pq = require_pyarrow(file)
        if not file.is_file():
            raise DataError(
                f"a file of latents is written by lookalike embed; '{printable(str(file))}' is no file"
            )
        with _reading(file):
            parquet = pq.ParquetFile(file, page_checksum_verification=True)
        try:
            with _reading(file):
                names, metadata = parquet.schema_arrow.names, parquet.schema_arrow.metadata or {}
            return cls(file, parquet, _spec(file, names, metadata))
        except BaseException:
            parquet.close()
            raise

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
            DataError: the file is damaged, or a row cannot be.
        """
        more = (_PAYLOAD,) if self._has_payload else ()
        for batch in self._batches(_COLUMNS + more):
            with _reading(self.file):
                told = [batch[name].to_pylist() for name in _COLUMNS[:-1] + more]
                entries = [Entry(*row[:6], *map(_object, row[6:])) for row in zip(*told, strict=True)]
                flat = batch["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
                vectors = flat.reshape(len(entries), self.spec.dimension)
            for entry in entries:
                self._check(entry)
            yield Rows(entries, vectors)

    def _batches(self, columns: tuple[str, ...]) -> Iterator[Any]:
        pa, _ = require_pyarrow(self.file)
        whole = _schema(pa, self.spec, payload=self._has_payload)
        schema = pa.schema([whole.field(name) for name in columns])
        left = self.count
        with _reading(self.file):
            # One group after the other: asked for all of them, pyarrow keeps those that are done.
            for group in range(self._parquet.num_row_groups):
                for batch in self._parquet.iter_batches(ROWS, [group], columns=list(columns)):
                    # Whoever has rewritten the file may have lists and texts of other widths.
                    yield pa.Table.from_batches([batch]).select(columns).cast(schema)
                    left -= batch.num_rows
            if left:
                raise ValueError(f"{abs(left)} of {self.count} rows are missing or too many")

    def _check(self, entry: Entry) -> None:
        """Refuse a path that leads out of its root: pictures are opened by it when results are drawn."""
        if entry.root not in self.spec.roots:
            raise DataError(f"{printable(str(self.file))}: no root is called {entry.root!r}; embed again")
        if not entry.path or entry.path.startswith("/") or ".." in entry.path.split("/"):
            raise DataError(
                f"{printable(str(self.file))}: a path leads from its root to a picture, {entry.path!r} does not; "
                "embed again"
            )

    def close(self) -> None:
        """Let go of the file."""
        self._parquet.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _schema(pa: Any, spec: CollectionSpec, *, payload: bool) -> Any:
    told = json.dumps({"latents": FORMAT, **spec.to_json()}, ensure_ascii=False).encode()
    number = pa.field("element", pa.float32(), nullable=False)
    kinds = {
        "path": pa.string(),
        "root": pa.string(),
        "sha256": pa.string(),
        "size": pa.int64(),
        "mtime_ns": pa.int64(),
        "person": pa.string(),
        "vector": pa.list_(number, spec.dimension),
    }
    fields = [pa.field(name, kinds[name], nullable=name == "person") for name in _COLUMNS]
    if payload:
        fields.append(pa.field(_PAYLOAD, pa.string()))
    return pa.schema(fields, metadata={_KEY: told})


def _table(pa: Any, schema: Any, rows: Rows) -> Any:
    flat = np.ascontiguousarray(rows.vectors, dtype=np.float32).reshape(-1)
    columns: dict[str, Any] = {name: [getattr(each, name) for each in rows.entries] for name in _COLUMNS[:-1]}
    columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(flat), type=schema.field("vector").type)
    if _PAYLOAD in schema.names:
        said = (each.payload for each in rows.entries)
        columns[_PAYLOAD] = [None if each is None else json.dumps(each) for each in said]
    return pa.table(columns, schema=schema)


def _object(text: str | None) -> dict[str, Any] | None:
    found = None if text is None else json.loads(text)
    if text is not None and not isinstance(found, dict):
        raise ValueError(f"a payload is a JSON object, {printable(text[:40])} is not")
    return found


def _spec(file: Path, names: list[str], metadata: Mapping[bytes, bytes]) -> CollectionSpec:
    name = printable(str(file))
    try:
        told = json.loads(metadata.get(_KEY, b""))
        version = told.pop("latents")
        spec = None if version != FORMAT else CollectionSpec.from_json(told, where=name)
    except (ValueError, AttributeError, KeyError, TypeError, StoreError) as error:
        raise DataError(
            f"{name} must say which model made its vectors, under 'lookalike' in its metadata, as "
            "lookalike embed writes it; embed the pictures with that"
        ) from error
    if spec is None:
        raise DataError(f"{name} was written by a later lookalike (latents {version}); upgrade to read it")
    if any(names.count(column) != 1 for column in _COLUMNS) or names.count(_PAYLOAD) > 1:
        raise DataError(
            f"{name} must have columns {', '.join(_COLUMNS)}, it has {printable(', '.join(names))}; embed again"
        )
    return spec


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    pa, _ = require_pyarrow(file)  # the boundary: what pyarrow raises at a file leaves as a DataError
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: null where there may be none
        raise DataError(
            f"{printable(str(file))} must be a whole Parquet file, but: {_line(error)}; fetch it or embed again"
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
