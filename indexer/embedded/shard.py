"""A Qdrant Edge shard, and its atomic replacement. The one module that imports ``qdrant_edge``.

Qdrant Edge holds the GIL during each call, so building an index here would stop all threads of the process
for minutes: ``lookalike.indexer.embedded.hnsw`` calls :func:`build_graph` in a child process.

::

    <root>/<collection>/shard/         the first shard
    <root>/<collection>/shard-<hex>/   one that replaced it, or is being made for that
    <root>/<collection>/shard.name     name of the current shard; missing: shard/
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import qdrant_edge as qe
from numpy.typing import NDArray

from lookalike.encoder.errors import StoreBusyError, StoreError
from lookalike.encoder.files import atomic_write, fsync_path, read_bounded
from lookalike.indexer.embedded.files import SHARD, check_disk_space, map_errors, read_layout
from lookalike.indexer.store import (
    EF_SEARCH,
    MOST_VALUES,
    QUANTILE,
    RESERVED,
    Condition,
    Filter,
    Hit,
    Layout,
    Record,
    check_ids,
    facet_of_text,
    json_path,
    oversampling,
)

POINTS_PER_UPDATE: Final = 4096  # bounds one entry of the write-ahead log
PAGE: Final = 1000
EXACT_UP_TO: Final = 100_000
"""Up to this many points, those that pass conditions are compared one by one, even with a graph.

With more points the graph is searched, over neighbors of neighbors where those do not pass (ACORN-1: Patel et
al., SIGMOD 2024), which costs as much as reading the payloads of some 70,000 points.
"""
NUMBERS_INDEXED: Final = 100
"""At most this many numeric payload fields are indexed, the most frequent first; each takes memory."""
SHARE_IN_GRAPH: Final = 0.02
"""Conditions that a smaller share of points is estimated to pass are not searched for in the graph."""


class Shard:
    """A shard that this process has open. Its methods raise what Qdrant Edge raises (``map_errors``).

    Attributes:
        layout: Layout of its collection.
    """

    def __init__(self, shard: qe.EdgeShard, layout: Layout) -> None:
        self._shard = shard
        self.layout = layout

    @classmethod
    def load(cls, path: Path, layout: Layout) -> Self:
        """Open the shard in a folder; no other process can open it until :meth:`close`."""
        return cls(qe.EdgeShard.load(str(path)), layout)

    def upsert(self, keys: list[str], rows: NDArray[np.float32], payloads: list[dict[str, Any]]) -> None:
        """Insert or replace N points, rows float32 (N, D) of unit length; on disk once it returns."""
        for start in range(0, len(keys), POINTS_PER_UPDATE):
            part = slice(start, start + POINTS_PER_UPDATE)
            points = [
                qe.Point(*each) for each in zip(keys[part], rows[part].tolist(), payloads[part], strict=True)
            ]
            self._shard.update(qe.UpdateOperation.upsert_points(points))
        self._shard.flush()

    def delete(self, keys: Sequence[str]) -> None:
        """Delete points by id; on disk once it returns."""
        ids: list[Any] = list(keys)
        self._shard.update(qe.UpdateOperation.delete_points(ids))
        self._shard.flush()

    def query(self, rows: list[list[float]], *, limit: int, where: Filter | None) -> list[list[Hit]]:
        """Return for each row at most ``limit`` hits, best first.

        Vectors that no graph covers are compared one by one. So are all where the graph would miss hits or
        save nothing: for more hits than its search width, and with conditions up to :data:`EXACT_UP_TO`
            points. Hits
        among quantized vectors are rescored by the original vectors.
        """
        condition, params = _filter(where), self._params(limit, where)
        requests = [
            qe.QueryRequest(
                limit=limit, query=qe.Query.Nearest(row), filter=condition, with_payload=True, params=params
            )
            for row in rows
        ]
        answers = self._shard.query_batch(qe.QueryBatchRequest(requests))
        return [[Hit.from_point(p) for p in answer] for answer in answers]

    def _params(self, limit: int, where: Filter | None) -> qe.SearchParams:
        conditions = where is not None and bool(where.conditions)
        if limit > EF_SEARCH or (conditions and self._shard.info().points_count <= EXACT_UP_TO):
            return qe.SearchParams(exact=True)
        acorn = qe.AcornSearchParams(enable=True, max_selectivity=1.0) if conditions else None
        factor = oversampling(self.layout.quantization)
        rescore = None if factor is None else qe.QuantizationSearchParams(rescore=True, oversampling=factor)
        return qe.SearchParams(hnsw_ef=EF_SEARCH, acorn=acorn, quantization=rescore)

    def scroll_page(
        self, offset: Any, *, where: Filter | None, with_vectors: bool
    ) -> tuple[list[Record], Any]:
        """Return a page of records ordered by id from ``offset`` (None: the first), and the next offset."""
        request = qe.ScrollRequest(
            offset=offset, limit=PAGE, filter=_filter(where), with_payload=True, with_vector=with_vectors
        )
        points, next_offset = self._shard.scroll(request)
        records = [Record.from_point(point, with_vector=with_vectors) for point in points]
        return records, next_offset

    def get(self, keys: Sequence[str], *, with_vectors: bool) -> list[Record]:
        """Return the points that exist among these ids."""
        ids: list[Any] = list(keys)
        points = self._shard.retrieve(ids, with_payload=True, with_vector=with_vectors)
        return [Record.from_point(point, with_vector=with_vectors) for point in points]

    def count(self, where: Filter | None = None) -> int:
        """Return the exact number of points that pass the filter.

        Of all points the shard knows it: a count gathers the ids of what it counts. No point is in two
        segments, as nothing optimizes a shard that is open.
        """
        if where is None:
            return self._shard.info().points_count
        return self._shard.count(qe.CountRequest(exact=True, filter=_filter(where)))

    def facet(self, path: str, where: Filter | None) -> dict[str, int] | None:
        """Count the values of a field, given as a Qdrant path; see :meth:`VectorStore.facet`."""
        if path not in self._shard.info().payload_schema:
            return None
        passing = _filter(where) or qe.Filter()
        must, must_not = list(passing.must or ()), list(passing.must_not or ())
        has = qe.Filter(must=must, must_not=[*must_not, qe.IsEmptyCondition(path)])
        several = qe.FieldCondition(path, values_count=qe.ValuesCount(gt=1))
        found = self._shard.facet(qe.FacetRequest(path, limit=MOST_VALUES, exact=True, filter=passing))
        return facet_of_text(
            ((hit.value, hit.count) for hit in found.hits),
            points=self._shard.count(qe.CountRequest(exact=True, filter=has)),
            with_several=self._shard.count(
                qe.CountRequest(exact=True, filter=qe.Filter(must=[*must, several], must_not=must_not))
            ),
        )

    def indexed(self) -> int:
        """Return how many vectors the graph covers, including those replaced or deleted since."""
        return self._shard.info().indexed_vectors_count

    def indexed_fields(self) -> set[str]:
        """Return the names of indexed payload fields, without quotes."""
        return {key.strip('"') for key in self._shard.info().payload_schema}

    def flush(self) -> None:
        """Return when everything written is on disk."""
        self._shard.flush()

    def close(self) -> None:
        """Close the shard."""
        self._shard.close()


def make_shard(path: Path, dimension: int, layout: Layout) -> None:
    """Create an empty shard in a new folder."""
    path.mkdir(parents=True)
    config = qe.EdgeConfig(
        vectors=_vectors(dimension, layout), wal_enabled=True, quantization_config=_quantization(layout)
    )
    shard = qe.EdgeShard.create(str(path), config)
    shard.update(qe.UpdateOperation.create_field_index("person", qe.PayloadSchemaType.Keyword))
    shard.flush()
    shard.close()


def build_graph(path: Path, dimension: int, layout: Layout) -> None:
    """Build one HNSW graph over all vectors of a shard that nobody has open; takes minutes and holds the GIL.

    Quantized vectors are made too, if the layout has them. Numeric payload fields (a smile, a year) are
    indexed: without an index, a condition on one reads the payloads of all points.

    Args:
        path: Folder of the shard, changed in place; if the process is killed, it may be unusable.
        dimension: D.
        layout: Layout of its collection.
    """
    shard = qe.EdgeShard.load(str(path))
    kilobytes = shard.info().points_count * dimension * 4 / 1024
    for key in _numeric_fields(shard):
        path_in_payload = Condition(key, ">", 0).path
        shard.update(qe.UpdateOperation.create_field_index(path_in_payload, qe.PayloadSchemaType.Float))
    shard.flush()
    shard.close()
    config = qe.EdgeConfig(
        vectors=_vectors(dimension, layout),
        wal_enabled=True,
        hnsw_config=qe.HnswIndexConfig(
            m=layout.hnsw_m,
            ef_construct=layout.hnsw_ef_construct,
            full_scan_threshold=max(1, int(SHARE_IN_GRAPH * kilobytes)),
            payload_m=layout.hnsw_payload_m,
        ),
        quantization_config=_quantization(layout),
        # One segment of any size with a graph: the caller has decided that it is worth it.
        optimizers=qe.EdgeOptimizersConfig(
            indexing_threshold=1, default_segment_number=1, max_segment_size=1 << 40
        ),
    )
    shard = qe.EdgeShard.load(str(path), config)
    shard.optimize()
    shard.flush()
    shard.close()


def _numeric_fields(shard: qe.EdgeShard) -> list[str]:
    """Return the payload fields that hold numbers, most frequent first, without those that every item has."""
    counts: Counter[str] = Counter()
    offset: Any = None
    while True:
        points, offset = shard.scroll(qe.ScrollRequest(offset=offset, limit=PAGE, with_payload=True))
        for point in points:
            payload = point.payload or {}
            counts.update(key for key, value in payload.items() if type(value) in (int, float))
        if offset is None:
            break
    fields = [key for key, _ in counts.most_common() if key not in RESERVED and not set(key) & set('."')]
    return fields[:NUMBERS_INDEXED]


def _vectors(dimension: int, layout: Layout) -> qe.EdgeVectorParams:
    memory = qe.Memory.Cold if layout.on_disk else None
    return qe.EdgeVectorParams(size=dimension, distance=qe.Distance.Cosine, memory=memory)


def _quantization(layout: Layout) -> qe.ScalarQuantizationConfig | qe.BinaryQuantizationConfig | None:
    match layout.quantization:
        case "int8":
            return qe.ScalarQuantizationConfig(qe.ScalarType.Int8, quantile=QUANTILE, memory=qe.Memory.Pinned)
        case "binary":
            return qe.BinaryQuantizationConfig(memory=qe.Memory.Pinned)
        case "none":
            return None


def _filter(where: Filter | None) -> qe.Filter | None:
    if where is None:
        return None
    must: list[Any] = []
    must_not: list[Any] = []
    for condition in where.conditions:
        path, value = condition.path, condition.value
        if (bounds := condition.bounds) is not None:
            limits = qe.RangeFloat(**{bound: float(limit) for bound, limit in bounds.items()})
            test = qe.FieldCondition(path, range=limits)
        elif condition.op == "~":
            test = qe.FieldCondition(path, match=qe.MatchSubstring(str(value)))
        else:
            # Given a Python bool, the binding matches the integer 0 or 1 instead; a numpy bool works.
            exact: Any = np.bool_(value) if isinstance(value, bool) else value
            test = qe.FieldCondition(path, match=qe.MatchValue(exact))
        (must_not if condition.op == "!=" else must).append(test)
    if where.not_ids:
        must_not.append(qe.HasIdCondition(set(check_ids(where.not_ids))))
    must_not += (qe.IsEmptyCondition(json_path(key)) for key in where.present)
    return qe.Filter(must=must, must_not=must_not)


SHARD_NAME: Final = "shard.name"
_SHARD: Final = re.compile(r"shard(-[0-9a-f]{8})?")
_MOST_NAME: Final = 4096
_HOLE: Final = bytes(1 << 16)


def current_shard(folder: Path) -> Path:
    """Return the folder of a collection's current shard.

    Raises:
        StoreError: the file that names it is damaged.
    """
    file = folder / SHARD_NAME
    with map_errors(file):
        try:
            name = read_bounded(file, most=_MOST_NAME).decode("ascii", "replace").strip()
        except FileNotFoundError:
            name = SHARD
    if _SHARD.fullmatch(name) is None:
        raise StoreError(f"{file} is damaged; write the name of the current shard folder into it")
    return folder / name


@contextmanager
def copy_shard(folder: Path) -> Iterator[Path]:
    """Yield a copy of the current shard; it is removed afterwards unless it has become the current one.

    Nobody may write to the current shard meanwhile, and everything written must be on disk.
    """
    fresh = folder / f"{SHARD}-{secrets.token_hex(4)}"
    try:
        shutil.copytree(current_shard(folder), fresh, copy_function=_copy)
        yield fresh
    finally:
        if current_shard(folder) != fresh:
            shutil.rmtree(fresh, ignore_errors=True)


def replace_shard(folder: Path, fresh: Path) -> None:
    """Make another shard of a collection the current one, atomically."""
    for path in (*fresh.rglob("*"), fresh, folder):
        fsync_path(path)
    atomic_write(folder / SHARD_NAME, f"{fresh.name}\n".encode(), durable=True)


def remove_stale_shards(folder: Path) -> None:
    """Remove all shards but the current one, which the caller must have open."""
    current = current_shard(folder)
    for path in folder.iterdir():
        if _SHARD.fullmatch(path.name) and path != current:
            shutil.rmtree(path, ignore_errors=True)


def bytes_on_disk(folder: Path) -> int:
    """Return the disk usage of a folder in bytes. Qdrant's files are sparse; holes do not count."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                status = Path(parent, name).stat()
            except FileNotFoundError:
                continue  # a temporary file
            total += status.st_blocks * 512 if hasattr(status, "st_blocks") else status.st_size
    return total


def open_shard(folder: Path) -> Shard:
    """Open a collection's shard; retry when another process replaces it meanwhile."""
    while True:
        path = current_shard(folder)
        try:
            with map_errors(folder):
                check_disk_space(folder)
                shard = Shard.load(path, read_layout(folder))
        except StoreError:
            if current_shard(folder) == path:
                raise
            continue
        if current_shard(folder) == path:
            remove_stale_shards(folder)
            return shard
        shard.close()


def check_idle(folder: Path) -> None:
    """Raise StoreBusyError when another process has the shard open; a damaged shard is idle."""
    try:
        open_shard(folder).close()
    except StoreBusyError:
        raise
    except StoreError:
        return


def _copy(source: str, target: str) -> None:
    """Copy a file; runs of zeros become holes, which take no space."""
    with Path(source).open("rb") as read, Path(target).open("wb") as write:
        while block := read.read(len(_HOLE)):
            if block == _HOLE:
                write.seek(len(block), os.SEEK_CUR)
            else:
                write.write(block)
        write.truncate()
