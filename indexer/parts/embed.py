"""Images to a folder of parts, by as many processes and machines as there are."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from lookalike.encoder.detect import Framing
from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.runtime import Model
from lookalike.indexer.parts.embed_unit import EmbedJob
from lookalike.indexer.parts.folder import Folder
from lookalike.indexer.parts.listing import Listing
from lookalike.indexer.parts.plan import PLAN, Plan, write_plan
from lookalike.indexer.parts.run import Run
from lookalike.indexer.parts.status import (
    PartsStatus,
    finished_parts,
    parts_status,
    read_manifest,
    remove_other_parts,
    write_manifest,
)
from lookalike.indexer.parts.unit import Done, Settings, Shard
from lookalike.indexer.sources import SourceList
from lookalike.indexer.sync import check_faces, new_spec

_PATIENCE = 2.0
"""Seconds between two looks for a plan that another run writes."""


@dataclass(slots=True)
class PartsReport:
    """The result of a run.

    Attributes:
        status: Of all units, or of this run's share.
        embedded: Units that this run has done.
        rows: Rows that this run has written.
        unfinished: Name and one-line reason of each unit that could not be read; it is left for a later run.
        skipped: What the listed folders hold beside images, kind to how many.
        seconds: How long it took.
    """

    status: PartsStatus
    embedded: int = 0
    rows: int = 0
    unfinished: list[str] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            **self.status.to_json(),
            "embedded": self.embedded,
            "new_rows": self.rows,
            "unfinished": self.unfinished,
            "passed_over": self.skipped,
            "seconds": round(self.seconds, 3),
        }


def make_plan(
    folder: Folder,
    model: Model,
    sources: SourceList,
    *,
    crop: Framing | None = None,
    max_pixels: int | None = None,
    overwrite: bool = False,
) -> Plan:
    """Return the plan of a folder; it is written where there is none, or with ``overwrite``.

    Args:
        folder: The folder of parts.
        model: The model.
        sources: The images, without a table of payload.
        crop: How the images are framed, or which faces; None: the model's own crop.
        max_pixels: Larger images fail; None: the default limit.
        overwrite: List the sources again; parts whose unit has not changed stay.

    Raises:
        InvalidArgumentError: the folder has a plan with another model, crop, source or filter, or a source
            cannot be split into units.
        DataError: a source cannot be listed, or the folder not be written.
    """
    spec = new_spec(model.bundle, crop=crop)
    if spec.has_faces:
        check_faces(model.bundle)
    listing = Listing.of(sources)
    settings = Settings(replace(spec, roots=listing.roots), sources.filter, max_pixels)
    existing = Plan.read(folder)
    if existing is not None and not overwrite:
        named = replace(settings.spec, model_name=existing.settings.spec.model_name)
        if replace(settings, spec=named).to_json() != existing.settings.to_json():
            raise InvalidArgumentError(
                f"{folder} was planned with another model, --crop, source or filter; --overwrite plans it "
                "anew, or name another folder"
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


def embed_parts(
    model: Model,
    plan: Plan,
    run: Run,
    *,
    shard: Shard | None = None,
    tidy: bool = False,
    on_total: Callable[[int], object] = lambda _: None,
    on_progress: Callable[[int], object] = lambda _: None,
    log: Callable[[str], object] = lambda _: None,
) -> PartsReport:
    """Embed all units of a plan that have no part yet, each into a part of its own.

    Killed at any moment and run again, by any number of runs at once, it ends as one whole run does.

    Args:
        model: The model of the plan.
        plan: From :func:`make_plan`.
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
        report = _embed(model, plan, run, shard, on_total, on_progress)
        _finish(plan, report, shard)
    else:
        report = PartsReport(parts_status(plan, shard))
    report.skipped = plan.skipped
    if tidy and report.status.left == 0:
        remove_other_parts(plan, log)
    report.seconds = time.monotonic() - began
    return report


def _embed(
    model: Model,
    plan: Plan,
    run: Run,
    shard: Shard | None,
    on_total: Callable[[int], object],
    on_progress: Callable[[int], object],
) -> PartsReport:
    present = finished_parts(plan.folder)
    report = PartsReport(parts_status(plan, shard, present))
    on_total(report.status.left)
    job = EmbedJob(plan.folder, plan.settings, model.bundle.address)

    def on_done(done: Done) -> None:
        if done.error:
            report.unfinished.append(done.error)
        else:
            report.status.add(done)
            report.embedded += 1
            report.rows += done.rows
        on_progress(1)

    run((each for each in plan.units(shard) if each[0] not in present), job, on_done)
    return report


def _finish(plan: Plan, report: PartsReport, shard: Shard | None) -> None:
    """Write the manifest when the last part of all is there."""
    if report.status.left:
        return
    if shard is None or shard.count == 1:
        write_manifest(plan, report.status)
    elif finished_parts(plan.folder).issuperset(plan.parts()):
        write_manifest(plan, parts_status(plan))
