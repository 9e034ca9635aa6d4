"""What a folder of parts holds: units done and left, rows, bytes, and the images that failed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, Final

from lookalike.encoder.errors import printable
from lookalike.encoder.files import parse_json
from lookalike.indexer.units.folder import Folder
from lookalike.indexer.units.plan import Plan, S
from lookalike.indexer.units.unit import Done, Shard

MANIFEST: Final = "_manifest.json"
_FORMAT: Final = 1
_TOGETHER: Final = 16


@dataclass(slots=True)
class UnitsStatus:
    """What is done of a plan, or of a share of it.

    Attributes:
        units: How many units there are.
        done: How many have a part.
        rows: How many images succeeded: rows of parts of latents.
        bytes: Size of what was written.
        failed: Path and one-line reason of each image that failed, as the parts tell.
        counts: More that is counted, by a word for it.
    """

    units: int = 0
    done: int = 0
    rows: int = 0
    bytes: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def left(self) -> int:
        """How many units have no part."""
        return self.units - self.done

    def add(self, done: Done) -> None:
        """Count a finished unit."""
        self.done += 1
        self.rows += done.rows
        self.bytes += done.bytes
        self.failed += done.failed
        self.counts.update(done.counts)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; ``counts`` only where there are any."""
        values = {**asdict(self), "left": self.left, "counts": dict(self.counts)}
        values["failed"] = [{"path": path, "reason": reason} for path, reason in self.failed]
        return {key: value for key, value in values.items() if key != "counts" or value}


def finished_parts(folder: Folder) -> set[str]:
    """Return the file names of all parts in a folder.

    Raises:
        DataError: it cannot be listed.
    """
    return {each.name for each, is_folder in folder.listed() if not is_folder and _is_part(each.name)}


def _is_part(name: str) -> bool:
    return name.endswith(".parquet") and name[0] not in "._"


def units_status(plan: Plan[S], shard: Shard | None = None, present: set[str] | None = None) -> UnitsStatus:
    """Return what is done; of a finished folder its manifest is read, of others the end of each part.

    Args:
        plan: The plan of the folder.
        shard: Only the units of this share; None: all.
        present: From :func:`finished_parts` a moment ago; None: look now.

    Raises:
        DataError: the folder or a part cannot be read.
    """
    whole = shard is None or shard.count == 1
    if whole and present is None and (finished := read_manifest(plan)) is not None:
        return finished
    if present is None:
        present = finished_parts(plan.folder)
    status = UnitsStatus(len((shard or Shard()).slice(plan.count)))
    for done in read_parts(plan, (part for part in plan.parts(shard) if part in present)):
        status.add(done)
    return status


def read_parts(plan: Plan[S], parts: Iterable[str]) -> Iterator[Done]:
    """Yield what parts tell, several read at once.

    Raises:
        DataError: one cannot be read.
    """
    left = iter(parts)
    with ThreadPoolExecutor(_TOGETHER, thread_name_prefix="parts") as pool:
        while some := list(islice(left, 4 * _TOGETHER)):
            yield from pool.map(lambda part: plan.settings.read_part(plan.folder, part), some)


def read_manifest(plan: Plan[S]) -> UnitsStatus | None:
    """Return what the manifest says; None: there is none, or it is of an earlier plan."""
    folder = plan.folder
    if folder.facts(MANIFEST) is None:
        return None
    try:
        value = parse_json(folder.read(MANIFEST))
        if (value["manifest"], value["plan"]) != (_FORMAT, plan.digest):
            return None
        failed = [(str(each["path"]), str(each["reason"])) for each in value["failed"]]
        counts = Counter({str(key): int(count) for key, count in value.get("counts", {}).items()})
        return UnitsStatus(plan.count, plan.count, int(value["rows"]), int(value["bytes"]), failed, counts)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # it is written again


def write_manifest(plan: Plan[S], status: UnitsStatus) -> None:
    """Write the manifest of a folder in which all parts are there.

    Raises:
        DataError: it cannot be written.
    """
    record = {"manifest": _FORMAT, "plan": plan.digest, **status.to_json()}
    for name in ("done", "left"):
        del record[name]
    with plan.folder.writing(MANIFEST) as file:
        file.write(json.dumps(record, indent=1).encode())


def remove_other_parts(plan: Plan[S], log: Callable[[str], object]) -> None:
    """Delete parts of earlier plans.

    Raises:
        DataError: one cannot be deleted.
    """
    other = finished_parts(plan.folder) - set(plan.parts())
    for part in other:
        plan.folder.remove(part)
    if other:
        log(f"{printable(plan.folder.address)}: {len(other)} parts of the plan before removed")
