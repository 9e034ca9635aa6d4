"""The plan of a folder of parts: one Parquet file that lists all units, written once, read by all workers.

::

    latents/_plan                               the units, in Parquet, in their order
    latents/0b5e6bd9f4….parquet                 the part of one unit, called by its digest
    latents/_manifest.json                      written when all parts are there

A part that exists is a finished unit. Two workers on one unit write the same file. What a part holds is up to
the :class:`Settings` of the plan.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar, Final, Generic, Protocol, Self, TypeVar, cast

from lookalike.encoder.errors import DataError, InvalidArgumentError, LookalikeError, one_line, printable
from lookalike.encoder.files import parse_json
from lookalike.indexer.parquet import require_pyarrow
from lookalike.indexer.sources import SourceFilter, person_pattern
from lookalike.indexer.units.folder import FileFacts, Folder
from lookalike.indexer.units.listing import Listing
from lookalike.indexer.units.unit import Done, Kind, Shard, Unit, UnitSize

PLAN: Final = "_plan"
_FORMAT: Final = 1
_KEY: Final = b"lookalike.plan"
_UNITS: Final = 8
"""Units in a row group of the file, which is in memory at a time."""
_PATIENCE: Final = 2.0
"""Seconds between two looks for a plan that another run writes."""


class Settings(Protocol):
    """What is done with the units of a plan, and decides on their parts beside them.

    Attributes:
        command: The command that does them, for messages.
        compares: What is compared by :meth:`is_same`, in words for messages.
        unit_size: How many image files become one unit.
    """

    command: ClassVar[str]
    compares: ClassVar[str]
    unit_size: ClassVar[UnitSize]

    @property
    def roots(self) -> Mapping[str, str]:
        """Root name to folder, path or URL."""
        ...

    def part_name(self, digest: bytes) -> str:
        """Return the file name of the part of a unit, by its digest; it ends in ``.parquet``."""
        ...

    def read_part(self, folder: Folder, part: str) -> Done:
        """Return what became of a finished unit, as its part tells.

        Raises:
            DataError: the part cannot be read.
        """
        ...

    def is_same(self, other: Self) -> bool:
        """Whether a plan with these settings is one with the others, wherever the model is."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Return JSON values that :meth:`from_json` reads back equal."""
        ...

    @classmethod
    def from_json(cls, value: dict[str, Any], *, where: str) -> Self:
        """Read what :meth:`to_json` wrote.

        Raises:
            LookalikeError, KeyError, TypeError: it is not such a record; messages name ``where``.
        """
        ...


S = TypeVar("S", bound=Settings)


def filter_to_json(chosen: SourceFilter) -> dict[str, Any]:
    """Return a filter without a table of payload as JSON values."""
    person = chosen.person
    values = {key: getattr(chosen, key) for key in ("include", "exclude", "hidden")}
    return {**values, "person": None if person is None else person.pattern}


def filter_from_json(value: dict[str, Any]) -> SourceFilter:
    """Read what :func:`filter_to_json` wrote.

    Raises:
        InvalidArgumentError, KeyError, TypeError: it is not such a record.
    """
    person = value["person"]
    return SourceFilter(
        include=tuple(value["include"]),
        exclude=tuple(value["exclude"]),
        hidden=value["hidden"],
        person=None if person is None else person_pattern(person),
    )


def open_plan(folder: Folder, settings: S, listing: Listing, *, overwrite: bool = False) -> Plan[S]:
    """Return the plan of a folder; it is written where there is none, or with ``overwrite``.

    Args:
        folder: The folder of parts.
        settings: What is done with the units.
        listing: The sources; listed only if the plan is written.
        overwrite: List the sources again; parts whose unit has not changed stay.

    Raises:
        InvalidArgumentError: the folder has a plan with other settings.
        DataError: a source cannot be listed, or the folder not be written.
    """
    existing = read_plan(folder, type(settings))
    if existing is not None and not overwrite:
        if not settings.is_same(existing.settings):
            raise InvalidArgumentError(
                f"{folder} was planned with another {settings.compares}; --overwrite plans it anew, or name "
                "another folder"
            )
        return existing
    folder.remove_drafts()
    return write_plan(folder, settings, listing)


def wait_for_plan(folder: Folder, shard: Shard, log: Callable[[str], object]) -> None:
    """Return when another run has written the plan of a folder, however long that takes."""
    told = False
    while folder.facts(PLAN) is None:
        if not told:
            log(f"waiting for the plan of {folder}, which --shard 1/{shard.count} or --plan writes")
            told = True
        time.sleep(_PATIENCE)


def read_plan(folder: Folder, settings: type[S]) -> Plan[S] | None:
    """Read the plan of a folder, without its units; None: there is none.

    Args:
        folder: The folder of parts.
        settings: What is done with its units.

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
        own = settings.from_json(value, where=where)
        return Plan(folder, own, count, value["images"], value["digest"], value["skipped"])
    except (ValueError, KeyError, TypeError, LookalikeError) as error:
        raise DataError(
            f"{where} must be a plan that {settings.command} wrote, it is not; remove it, or name another "
            "folder"
        ) from error


def write_plan(folder: Folder, settings: S, listing: Listing) -> Plan[S]:
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
        for unit in listing.units(settings.unit_size):
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
class Plan(Generic[S]):
    """The plan of a folder. Use :func:`open_plan` or :func:`read_plan` to make one.

    Attributes:
        folder: The folder of parts.
        settings: What is done with the units.
        count: How many units there are.
        images: How many images there are, without those in archives.
        digest: It tells this plan from others.
        skipped: What the listed folders held beside images, kind to how many.
    """

    folder: Folder
    settings: S
    count: int
    images: int
    digest: str
    skipped: dict[str, int]

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
