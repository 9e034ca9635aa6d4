"""All units of a plan, done by as many processes and machines as there are."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lookalike.indexer.units.plan import Plan, S
from lookalike.indexer.units.run import Run
from lookalike.indexer.units.status import (
    UnitsStatus,
    finished_parts,
    read_manifest,
    remove_other_parts,
    units_status,
    write_manifest,
)
from lookalike.indexer.units.unit import Done, Shard, Unit

Job = Callable[[tuple[str, Unit]], Done]
"""Does a unit and writes its part, given its file name. It can be pickled."""


@dataclass(slots=True)
class UnitsReport:
    """The result of a run.

    Attributes:
        status: Of all units, or of this run's share.
        finished: Units that this run has done.
        rows: Images that succeeded in this run.
        unfinished: Name and one-line reason of each unit that could not be done; it is left for a later run.
        skipped: What the listed folders hold beside images, kind to how many.
        seconds: How long it took.
    """

    status: UnitsStatus
    finished: int = 0
    rows: int = 0
    unfinished: list[str] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, without ``finished``: each command has a word for it."""
        return {
            **self.status.to_json(),
            "new_rows": self.rows,
            "unfinished": self.unfinished,
            "passed_over": self.skipped,
            "seconds": round(self.seconds, 3),
        }


def do_units(
    plan: Plan[S],
    job: Job,
    run: Run,
    *,
    shard: Shard | None = None,
    tidy: bool = False,
    on_total: Callable[[int], object] = lambda _: None,
    on_progress: Callable[[int], object] = lambda _: None,
    log: Callable[[str], object] = lambda _: None,
) -> UnitsReport:
    """Do all units of a plan that have no part yet, each into a part of its own.

    Killed at any moment and run again, by any number of runs at once, it ends as one whole run does.

    Args:
        plan: The plan.
        job: Does one unit.
        run: Where the units are done.
        shard: Only the units of this share; None: all.
        tidy: Remove the parts of earlier plans at the end.
        on_total: Called with the number of units to do.
        on_progress: Called with the number of units done.
        log: Called with one-line messages.

    Raises:
        DataError: the folder cannot be read or written.
        WorkerDiedError: a process, or the cluster, was killed.
    """
    began = time.monotonic()
    if read_manifest(plan) is None:
        report = _do(plan, job, run, shard, on_total, on_progress)
        _finish(plan, report, shard)
    else:
        report = UnitsReport(units_status(plan, shard))
    report.skipped = plan.skipped
    if tidy and report.status.left == 0:
        remove_other_parts(plan, log)
    report.seconds = time.monotonic() - began
    return report


def _do(
    plan: Plan[S],
    job: Job,
    run: Run,
    shard: Shard | None,
    on_total: Callable[[int], object],
    on_progress: Callable[[int], object],
) -> UnitsReport:
    present = finished_parts(plan.folder)
    report = UnitsReport(units_status(plan, shard, present))
    on_total(report.status.left)

    def on_done(done: Done) -> None:
        if done.error:
            report.unfinished.append(done.error)
        else:
            report.status.add(done)
            report.finished += 1
            report.rows += done.rows
        on_progress(1)

    def on_killed(task: tuple[str, Unit], reason: str) -> None:
        report.unfinished.append(f"{task[1].name}: {reason}; run it again where there is more memory")
        on_progress(1)

    run((each for each in plan.units(shard) if each[0] not in present), job, on_done, on_killed)
    return report


def _finish(plan: Plan[S], report: UnitsReport, shard: Shard | None) -> None:
    """Write the manifest when the last part of all is there."""
    if report.status.left:
        return
    if shard is None or shard.count == 1:
        write_manifest(plan, report.status)
    elif finished_parts(plan.folder).issuperset(plan.parts()):
        write_manifest(plan, units_status(plan))
