"""The plan of a folder of parts: one Parquet file that lists all units, written once, read by all workers.

::

    latents/_plan                               the units, in Parquet, in their order
    latents/0b5e6bd9f4….parquet                 the part of one unit, called by its digest
    latents/_manifest.json                      written when all parts are there

A part that exists is a finished unit. Two workers on one unit write the same file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, cast

from lookalike.encoder.errors import DataError, LookalikeError, one_line, printable
from lookalike.encoder.files import parse_json
from lookalike.indexer.parquet import require_pyarrow
from lookalike.indexer.parts.folder import FileFacts, Folder
from lookalike.indexer.parts.listing import Listing
from lookalike.indexer.parts.unit import Kind, Settings, Shard, Unit

PLAN: Final = "_plan"
_FORMAT: Final = 1
_KEY: Final = b"lookalike.plan"
_UNITS: Final = 8
"""Units in a row group of the file, which is in memory at a time."""


def write_plan(folder: Folder, settings: Settings, listing: Listing) -> Plan:
    """List all units, write them to the plan of a folder, whole or not at all, and return the plan.

    Memory holds some units.

    Raises:
        DataError: a source cannot be listed, or the folder not be written.
    """
    pa, pq = require_pyarrow(Path(PLAN))
    schema = _schema(pa)
    digest, images = blake2b(json.dumps(settings.to_json()).encode(), digest_size=16), 0
    count = 0
    with folder.writing(PLAN) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        held: list[Unit] = []
        for unit in listing.units():
            digest.update(unit.digest)
            images += unit.images or 0
            count += 1
            held.append(unit)
            if len(held) == _UNITS:
                writer.write_table(_table(pa, schema, held), row_group_size=_UNITS)
                held.clear()
        if held:
            writer.write_table(_table(pa, schema, held), row_group_size=_UNITS)
        record = {
            "plan": _FORMAT,
            **settings.to_json(),
            "digest": digest.hexdigest(),
            "images": images,
            "skipped": dict(listing.skipped.most_common()),
        }
        writer.add_key_value_metadata({_KEY.decode(): json.dumps(record)})
    return Plan(folder, settings, count, images, digest.hexdigest(), dict(listing.skipped.most_common()))


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of a folder. Use :meth:`read` to make one.

    Attributes:
        folder: The folder of parts.
        settings: What decides on the content of its parts.
        count: How many units there are.
        images: How many images there are, without those in archives.
        digest: It tells this plan from others.
        skipped: What the listed folders held beside images, kind to how many.
    """

    folder: Folder
    settings: Settings
    count: int
    images: int
    digest: str
    skipped: dict[str, int]

    @classmethod
    def read(cls, folder: Folder) -> Plan | None:
        """Read the plan of a folder, without its units; None: there is none.

        Raises:
            DataError: it cannot be read, or is no plan.
        """
        if folder.facts(PLAN) is None:
            return None
        with _opened(folder) as file:
            record = (file.metadata.metadata or {}).get(_KEY, b"")
            count = int(file.metadata.num_rows)
        where = printable(folder.join(PLAN))
        try:
            value = parse_json(record)
            settings = Settings.from_json(value, where=where)
            return cls(folder, settings, count, value["images"], value["digest"], value["skipped"])
        except (ValueError, KeyError, TypeError, LookalikeError) as error:
            raise DataError(
                f"{where} must be a plan that lookalike embed wrote, it is not; remove it, or name another "
                "folder"
            ) from error

    def parts(self, shard: Shard | None = None) -> Iterator[str]:
        """Yield the file name of the part of each unit, of all or of a share; no other column is read."""
        for row in self._rows(shard or Shard(), ["digest"]):
            yield self.settings.part_name(row["digest"])

    def units(self, shard: Shard | None = None) -> Iterator[tuple[str, Unit]]:
        """Yield the units, of all or of a share, each with the file name of its part."""
        for row in self._rows(shard or Shard(), None):
            facts = zip(row["names"], row["sizes"], row["mtimes_ns"], strict=True)
            files = tuple(FileFacts(*each) for each in facts)
            unit = Unit(cast("Kind", row["kind"]), row["root"], files, row["group"], row["images"])
            yield self.settings.part_name(row["digest"]), unit

    def _rows(self, shard: Shard, columns: list[str] | None) -> Iterator[dict[str, Any]]:
        wanted = shard.slice(self.count)
        with _opened(self.folder) as file:
            start = 0
            for group in range(file.num_row_groups):
                end = start + file.metadata.row_group(group).num_rows
                if start < wanted.stop and end > wanted.start:
                    rows = file.read_row_group(group, columns=columns)
                    first = max(wanted.start - start, 0)
                    yield from rows.slice(first, min(end, wanted.stop) - start - first).to_pylist()
                start = end


def _opened(folder: Folder) -> Any:
    pa, pq = require_pyarrow(Path(PLAN))
    try:
        return pq.ParquetFile(folder.open(PLAN))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{printable(folder.join(PLAN))} cannot be read "
            f"({one_line(error)[:200]}); remove it to list the sources again"
        ) from error


def _schema(pa: Any) -> Any:
    kinds = {
        "digest": pa.binary(16),
        "kind": pa.string(),
        "root": pa.string(),
        "group": pa.int32(),
        "images": pa.int64(),
        "names": pa.list_(pa.string()),
        "sizes": pa.list_(pa.int64()),
        "mtimes_ns": pa.list_(pa.int64()),
    }
    return pa.schema(list(kinds.items()))


def _table(pa: Any, schema: Any, units: list[Unit]) -> Any:
    columns: dict[str, list[Any]] = {
        **{
            name: [getattr(unit, name) for unit in units]
            for name in ("digest", "kind", "root", "group", "images")
        },
        **{
            name: [[each[place] for each in unit.files] for unit in units]
            for place, name in enumerate(("names", "sizes", "mtimes_ns"))
        },
    }
    return pa.table(columns, schema=schema)
