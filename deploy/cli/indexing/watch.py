"""``lookalike index --watch``: a collection is brought up to date whenever its folders change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from lookalike.deploy.cli.output import log
from lookalike.encoder.errors import LookalikeError, MissingExtraError, printable

if TYPE_CHECKING:
    from lookalike.indexer.sync import SyncReport

_AGAIN_AFTER: Final = 5000
"""Milliseconds after which an update that failed is tried again."""


def watched_paths(sources: Sequence[str]) -> list[Path]:
    """Return the folders and files of sources.

    Raises:
        UsageError: a source is neither.
        MissingExtraError: the extra ``watch`` is not installed.
    """
    for source in sources:
        if not Path(source).exists():
            raise click.UsageError(f"--watch is for folders and files, '{printable(source)}' is neither")
    if not sources:
        raise click.UsageError("--watch is for folders and files: name them instead of --files-from")
    try:
        import watchfiles  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("--watch needs watchfiles; pip install 'lookalike[watch]'") from error
    return [Path(source).resolve() for source in sources]


def watch(
    paths: Sequence[Path],
    store: str,
    update: Callable[[], SyncReport],
    show: Callable[[SyncReport], object],
    first: SyncReport,
) -> None:
    """Update a collection whenever something in these places changes, until an interrupt.

    Args:
        paths: Folders and files.
        store: What changes in it does not count: it may lie in a watched folder.
        update: Brings the collection up to date, and leaves the store free for others.
        show: Called with reports that say something new.
        first: The report before.

    Raises:
        KeyboardInterrupt: It came during an update, which is not complete.
    """
    from watchfiles import watch as changes_in

    own = Path(store).resolve()
    before, complaint = _unsolved(first), ""
    # Once at the start: something may have changed after the first update had looked there.
    waiting, busy = True, False
    log(f"watching {', '.join(printable(str(path)) for path in paths)}; Ctrl+C ends it")
    try:
        for changes in changes_in(
            *paths,
            watch_filter=lambda _, path: not Path(path).is_relative_to(own),
            rust_timeout=_AGAIN_AFTER,
            yield_on_timeout=True,
        ):
            if not changes and not waiting:
                continue
            busy = True
            try:
                done = update()
            except LookalikeError as error:
                waiting = True
                if str(error) != complaint:
                    complaint = str(error)
                    log(f"not up to date, trying again: {complaint}")
            else:
                waiting, complaint = False, ""
                if _has_changed(done) or _unsolved(done) != before:
                    show(done)
                before = _unsolved(done)
            busy = False
    except KeyboardInterrupt:
        if busy:
            raise
        log("no longer watched")


def _has_changed(report: SyncReport) -> bool:
    """Whether an update changed the collection."""
    changed = report.added or report.changed or report.moved or report.relabelled
    return bool(changed or (report.pruned and report.missing))


def _unsolved(report: SyncReport) -> tuple[object, ...]:
    """Return what failed and is missing: the same again is no news."""
    return (0 if report.pruned else report.missing, *sorted(report.failed))
