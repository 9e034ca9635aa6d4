"""What a load came to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from lookalike.encoder.errors import DataError
from lookalike.encoder.text import printable

Status = Literal["added", "changed", "moved", "relabelled", "missing", "failed"]


@dataclass(frozen=True, slots=True)
class SyncEvent:
    """What became of one item.

    Attributes:
        status: added, changed (its bytes), moved (same bytes under another path), relabelled (only what is
            said of it), missing (stored, no longer there) or failed.
        path: Relative to its root, or of what failed as it was found.
        root: Name of its root; empty of what has none.
        detail: The path before of what was moved, the reason of what failed.
    """

    status: Status
    path: str
    root: str = ""
    detail: str = ""

    def to_json(self) -> dict[str, str]:
        """Return JSON values, without what is empty."""
        detail = {"moved": "from", "failed": "reason"}.get(self.status, "detail")
        values = {"status": self.status, "path": self.path, "root": self.root, detail: self.detail}
        return {key: value for key, value in values.items() if value}


@dataclass(slots=True)
class SyncReport:
    """What a load came to, in items.

    Attributes:
        added: Stored for the first time.
        changed: Stored again because size, time or checksum of the file differ.
        moved: Stored under another path with the same content; not embedded again.
        relabelled: Only what is said of them changed; not embedded again.
        unchanged: Left as they were.
        missing: Stored, but no longer in the folders that were named; removed when ``pruned``.
        pruned: Whether the missing ones were removed.
        dry: Whether nothing was done: the counts are of what would be.
        failed: Path and one-line reason.
        seconds: From start to flushed.
    """

    added: int = 0
    changed: int = 0
    moved: int = 0
    relabelled: int = 0
    unchanged: int = 0
    missing: int = 0
    pruned: bool = False
    dry: bool = False
    failed: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def stored(self) -> int:
        """Pictures that were written."""
        return self.added + self.changed + self.moved + self.relabelled

    @property
    def seen(self) -> int:
        """Pictures that were found in the sources, and folders that could not be listed."""
        return self.stored + self.unchanged + len(self.failed)

    @property
    def images_per_second(self) -> float:
        """Embedded images per second of the whole run."""
        return (self.added + self.changed) / self.seconds if self.seconds and not self.dry else 0.0

    def summary(self) -> str:
        """Return one line for people."""
        kinds = {"moved": self.moved, "relabelled": self.relabelled}
        words = [f"{self.added} added", f"{self.changed} changed"]
        words += [f"{count} {kind}" for kind, count in kinds.items() if count]
        words += [f"{self.unchanged} unchanged", f"{self.missing} missing{' and removed' * self.pruned}"]
        line = f"{', '.join(words)}, {len(self.failed)} failed"
        return f"nothing was done; it would be {line}" if self.dry else line

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        failed = [{"path": path, "reason": reason} for path, reason in self.failed]
        return {
            **asdict(self),
            "failed": failed,
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.images_per_second, 1),
        }


@contextmanager
def event_log(file: Path | None) -> Iterator[Callable[[SyncEvent], object]]:
    """Give what writes a line of JSON for each event that is not simply an addition; None: it writes nothing.

    Raises:
        DataError: the file cannot be written.
    """
    if file is None:
        yield lambda _: None
        return
    try:
        lines = file.open("w", encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"--report must be a file that can be written, {printable(str(file))} cannot ({error.strerror}); "
            "name another"
        ) from error

    def tell(event: SyncEvent) -> None:
        if event.status != "added":
            lines.write(json.dumps(event.to_json()) + "\n")

    with lines:
        yield tell
