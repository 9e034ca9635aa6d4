"""What a vector store must do, and the values that go in and come out.

Two real implementations stand behind :class:`VectorStore`: ``indexer.edge`` (embedded, the default) and
``indexer.server`` (a Qdrant server or cluster). Both answer the same (tests/test_store_contract.py).

Legend: N vectors, Q queries, D dimensions of an embedding, k hits.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Final, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from encoder.errors import ModelMismatchError, OptionError, StoreError, VectorError

__all__ = [
    "DEFAULT_STORE",
    "CollectionSpec",
    "Condition",
    "Filter",
    "Hit",
    "Record",
    "VectorStore",
    "check_ids",
    "check_name",
    "check_points",
    "check_vectors",
    "is_name",
    "open_store",
    "rank",
]

DEFAULT_STORE: Final = ".lookalike"
SPEC_FORMAT: Final = 1

Payload = Mapping[str, Any]
"""What is kept beside a vector: JSON values under string keys (path, person, sha256, ...)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CollectionSpec:
    """What a collection remembers about itself.

    Attributes:
        model_id: Digest of the one model whose embeddings it holds.
        model_name: Shipped name or folder that opens that model again.
        dimension: D, the length of every vector.
        crop: How its pictures were framed, as ``encoder.images.Crop`` writes it.
        metric: Always ``cosine``: embeddings have unit length.
        roots: Root name -> folder that item paths are relative to.
        format: Version of this record.
    """

    model_id: str
    model_name: str
    dimension: int
    crop: str
    metric: Literal["cosine"] = "cosine"
    roots: Mapping[str, str] = field(default_factory=dict)
    format: int = SPEC_FORMAT

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON values that :meth:`from_json` reads back equal."""
        return asdict(self) | {"roots": dict(self.roots)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], *, where: str) -> Self:
        """Read what :meth:`to_json` wrote.

        Raises:
            StoreError: it is no such record, or a later version's; the message names ``where``.
        """
        version = value.get("format")
        if isinstance(version, int) and version > SPEC_FORMAT:
            raise StoreError(
                f"{where} was written by a later lookalike (format {version}); upgrade to read it"
            )
        try:
            spec = cls(**value)
        except TypeError:
            spec = None
        if spec is None or not spec._typed():
            raise StoreError(f"{where} is not a lookalike collection; index into another name")
        return spec

    def _typed(self) -> bool:
        """Whether the values read from outside have the types they are declared with."""
        texts = (self.model_id, self.model_name, self.crop, *self.roots, *self.roots.values())
        return (
            all(isinstance(text, str) for text in texts)
            and type(self.dimension) is int
            and self.dimension > 0
            and self.metric == "cosine"
        )

    def check_model(self, name: str, *, model_id: str, crop: str) -> None:
        """Refuse any model but the one that made this collection, also one of the same dimension.

        Raises:
            ModelMismatchError: another model, or the same one with another crop.
        """
        if model_id != self.model_id:
            raise ModelMismatchError(
                f"collection {name!r} holds vectors of model {self.model_name} ({self.model_id[:12]}), "
                f"this one is {model_id[:12]}; use that model or index into another collection"
            )
        if crop != self.crop:
            raise ModelMismatchError(
                f"collection {name!r} was indexed with --crop {self.crop}, this run uses {crop}; "
                f"pass --crop {self.crop} or index into another collection"
            )

    def check_successor(self, name: str, new: CollectionSpec) -> None:
        """Refuse a record that would make the stored vectors mean something else.

        Raises:
            ModelMismatchError: model_id, dimension, crop or metric differ.
        """
        self.check_model(name, model_id=new.model_id, crop=new.crop)
        if (new.dimension, new.metric) != (self.dimension, self.metric):
            raise ModelMismatchError(
                f"collection {name!r} has {self.dimension} dimensions and metric {self.metric}, not "
                f"{new.dimension} and {new.metric}; index into another collection"
            )


@dataclass(frozen=True, slots=True)
class Condition:
    """One test of one payload field. A point without the field passes only ``!=``.

    Attributes:
        key: Payload field; dots reach into nested ones (``attributes.Smiling``); of a list, any
            element may pass.
        op: ``=`` and ``!=`` compare strings, whole numbers and booleans; the others compare numbers.
        value: What it is compared with. A boolean never equals a number, nor ``1`` a stored ``1.0``.

    Raises:
        OptionError: the key is no path, or the operator cannot compare such a value.
    """

    key: str
    op: Literal["=", "!=", "<", "<=", ">", ">="]
    value: str | int | float | bool

    def __post_init__(self) -> None:
        if not all(part and _is_text(part) and '"' not in part for part in self.key.split(".")):
            raise OptionError(
                f"a condition names a payload field such as person or size; {self.key!r} is none"
            )
        number = type(self.value) in (int, float)
        fits = not isinstance(self.value, float) if self.op in ("=", "!=") else number
        if not fits or (number and not -(2**63) <= self.value < 2**63):  # type: ignore[operator]  # a number here
            raise OptionError(
                "= and != compare text, whole numbers and booleans, the others compare numbers; "
                f"{self.key} {self.op} {self.value!r} does neither"
            )
        if isinstance(self.value, str) and not _is_text(self.value):
            raise OptionError(
                f"condition {self.key} {self.op} {self.value!r} is not valid Unicode; escape it"
            )

    @property
    def path(self) -> str:
        """``key`` as a Qdrant JSON path: parts that are not plain words stand in quotes."""
        return ".".join(part if _WORD.fullmatch(part) else f'"{part}"' for part in self.key.split("."))


@dataclass(frozen=True, slots=True)
class Filter:
    """All conditions hold, and the point's id is in none of ``not_ids``."""

    conditions: tuple[Condition, ...] = ()
    not_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer: id, cosine similarity in [-1, 1] (higher is more alike), payload."""

    id: str
    score: float
    payload: Payload


@dataclass(frozen=True, slots=True)
class Record:
    """One stored point; ``vector`` is float32 (D,) when it was asked for."""

    id: str
    payload: Payload
    vector: NDArray[np.float32] | None = None


class VectorStore(Protocol):
    """A store of named collections. Not for use by several threads unless an implementation says so.

    Every method that takes ``name`` raises CollectionNotFoundError when there is no such collection
    (``create`` excepted), and StoreError or a child of it when the store itself fails.
    """

    @property
    def address(self) -> str:
        """The folder or URL that opens this store again."""
        ...

    def names(self) -> list[str]:
        """Names of all lookalike collections, sorted."""
        ...

    def create(self, name: str, spec: CollectionSpec) -> None:
        """Make an empty collection.

        Raises:
            CollectionExistsError: the name is taken.
            OptionError: the name breaks the rule of :func:`check_name`.
        """
        ...

    def describe(self, name: str) -> CollectionSpec:
        """Return what the collection remembers about itself."""
        ...

    def redescribe(self, name: str, spec: CollectionSpec) -> None:
        """Replace what it remembers (new roots); model, dimension and metric must stay.

        Raises:
            ModelMismatchError: model_id, dimension, crop or metric differ.
        """
        ...

    def drop(self, name: str) -> None:
        """Delete the collection and everything in it."""
        ...

    def upsert(
        self, name: str, ids: Sequence[str], vectors: NDArray[np.float32], payloads: Sequence[Payload]
    ) -> None:
        """Insert or replace N points; once it returns, a crash loses none of them.

        Arguments that are refused store nothing. When the store itself fails on the way (disk full, server
        gone), some of the points may be there: the same call again completes it, and again changes nothing.
        Of an id given twice the last stays.

        Args:
            name: The collection.
            ids: N UUID strings, with dashes or without; they come back with dashes.
            vectors: float32 (N, D), finite, of non-zero length; stored at unit length.
            payloads: N payloads; a replaced point keeps nothing of its old one.

        Raises:
            VectorError: a vector is not finite, is zero, or is not of the collection's dimension.
            StoreError: an id is no UUID, a payload cannot be stored, or there are not N of each.
        """
        ...

    def delete(self, name: str, ids: Sequence[str]) -> None:
        """Delete these points; ids that are not there are no error."""
        ...

    def search(
        self, name: str, queries: NDArray[np.float32], *, k: int, where: Filter | None = None
    ) -> list[list[Hit]]:
        """Return for each of Q queries, float32 (Q, D), at most k hits, best first.

        Equal scores come in the order of their ids.

        Raises:
            VectorError: as for :meth:`upsert`.
            OptionError: k < 1.
        """
        ...

    def scroll(
        self, name: str, *, where: Filter | None = None, with_vectors: bool = False
    ) -> Iterator[Record]:
        """Yield every point that passes, in the order of ids, holding only a page of them in memory."""
        ...

    def count(self, name: str, *, where: Filter | None = None) -> int:
        """Return exactly how many points pass."""
        ...

    def flush(self, name: str) -> None:
        """Return once everything written so far is on disk."""
        ...

    def close(self) -> None:
        """Flush and let go. Closing twice is no error; any other call after it raises StoreError."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_WORD = re.compile(r"[A-Za-z0-9_-]+")


def is_name(name: str) -> bool:
    """Whether ``name`` can name a collection (and so neither leave a folder nor a URL)."""
    return _NAME.fullmatch(name) is not None


def check_name(name: str) -> str:
    """Return ``name`` when it can name a collection in every store.

    Raises:
        OptionError: it cannot (1 to 64 of A-Z a-z 0-9 . _ -, a letter or digit first).
    """
    if not is_name(name):
        raise OptionError(
            f"a collection name is 1 to 64 letters, digits, '.', '_' or '-', a letter or digit first; "
            f"{name!r} is not"
        )
    return name


def check_vectors(vectors: NDArray[np.float32], *, dimension: int) -> NDArray[np.float32]:
    """Return ``vectors`` at unit length, contiguous float32 (N, D), when a store may hold them.

    Raises:
        VectorError: wrong shape, or a row that holds NaN or infinity, or has no length.
    """
    rows = np.ascontiguousarray(vectors, dtype=np.float32)
    if rows.ndim != 2 or rows.shape[1] != dimension:
        raise VectorError(
            f"vectors must have shape (N, {dimension}) like the collection's, these have {rows.shape}; "
            "use the model that made the collection"
        )
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1) | ~rows.any(axis=1))
    if bad.size:
        raise VectorError(
            f"vectors must be finite and not zero, row {bad[0]} ({bad.size} in all) is not; "
            "leave these rows out"
        )
    # In float64: the square of a very short or long row leaves the range of float32, in which Qdrant divides.
    exact = rows.astype(np.float64)
    unit: NDArray[np.float64] = exact / np.linalg.norm(exact, axis=1, keepdims=True)
    return np.ascontiguousarray(unit, dtype=np.float32)


def check_points(
    ids: Sequence[str], vectors: NDArray[np.float32], payloads: Sequence[Payload], *, dimension: int
) -> tuple[list[str], NDArray[np.float32], list[dict[str, Any]]]:
    """Return the arguments of :meth:`VectorStore.upsert` as a store writes them.

    Raises:
        VectorError, StoreError: as :meth:`VectorStore.upsert` says.
    """
    rows = check_vectors(vectors, dimension=dimension)
    if not len(ids) == len(rows) == len(payloads):
        raise StoreError(
            f"each point has an id, a vector and a payload; got {len(ids)}, {len(rows)} and {len(payloads)} "
            "of them; pass as many of each"
        )
    return check_ids(ids), rows, [_check_payload(each) for each in payloads]


def check_ids(ids: Sequence[str]) -> list[str]:
    """Return ``ids`` as lower-case UUIDs with dashes.

    Raises:
        StoreError: one is no UUID.
    """
    return [_canonical(each) for each in ids]


def _canonical(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except (ValueError, AttributeError, TypeError):
        raise StoreError(f"point ids are UUID strings, {text!r} is not; derive one with uuid.uuid5") from None


def _check_payload(payload: Payload) -> dict[str, Any]:
    """Return ``payload`` as a dict when every store gives it back as it went in.

    Raises:
        StoreError: a value is not JSON (NaN, bytes, numpy scalars, numbers beyond 64 bits) or its text is no
            valid Unicode; the message names the key.
    """
    for key, value in payload.items():
        if not _is_text(key) or not _is_json(value):
            raise StoreError(
                "a payload holds JSON values of valid Unicode text and finite 64-bit numbers; "
                f"field {key!r} does not; convert or escape it"
            )
    return dict(payload)


def _is_text(value: object) -> bool:
    """Whether it is a string that UTF-8 can write (a path with undecodable bytes holds lone surrogates)."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_json(value: object) -> bool:
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, str):
        return _is_text(value)
    if type(value) is int:
        return -(2**63) <= value < 2**63
    if type(value) is float:
        return math.isfinite(value)
    if type(value) is list:
        return all(_is_json(each) for each in value)
    return type(value) is dict and all(_is_text(key) and _is_json(each) for key, each in value.items())


def rank(hits: list[Hit], *, k: int, fetch: Callable[[int], list[Hit]]) -> list[Hit]:
    """Return the k best hits, equal scores in the order of their ids.

    Qdrant orders equal scores as it likes, also across the k-th place; so a run of equal scores that reaches
    the end of what was fetched is fetched whole.

    Args:
        hits: The k + 1 best (fewer when there are no more), best first.
        k: How many to return.
        fetch: Gives the n best for any n.
    """
    limit = k + 1
    while len(hits) >= limit and hits[k - 1].score == hits[-1].score:
        limit *= 2
        hits = fetch(limit)
    return sorted(hits, key=lambda hit: (-hit.score, hit.id))[:k]


def open_store(address: str = DEFAULT_STORE, *, api_key: str | None = None) -> VectorStore:
    """Open the store at a folder (embedded; made when missing) or an ``http(s)://`` URL (Qdrant server).

    Args:
        address: Folder or URL.
        api_key: For a server; when None, ``QDRANT_API_KEY`` of the environment is used.

    Raises:
        StoreUnreachableError: the server does not answer or refuses the key.
    """
    if address.startswith(("http://", "https://")):
        from indexer.server import ServerStore

        return ServerStore.connect(address, api_key=api_key)
    from indexer.edge import EdgeStore

    return EdgeStore(address)
