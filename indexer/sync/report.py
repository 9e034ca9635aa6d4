"""What a sync did: the report, and an event for each item."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["added", "changed", "moved", "relabelled", "missing", "failed"]


@dataclass(frozen=True, slots=True)
class SyncEvent:
    """What happened to one item.

    Attributes:
        status: added, changed (other bytes), moved (same bytes under another path), relabelled (only its
            payload changed), missing (stored, but the file is gone) or failed.
        path: Path relative to its root; of a failed file, the file itself.
        root: Name of its root; empty when it has none.
        detail: Previous path of a moved item, reason of a failed one.
    """

    status: Status
    path: str
    root: str = ""
    detail: str = ""

    def to_json(self) -> dict[str, str]:
        """Return JSON values, without empty ones."""
        detail = {"moved": "from", "failed": "reason"}.get(self.status, "detail")
        values = {"status": self.status, "path": self.path, "root": self.root, detail: self.detail}
        return {key: value for key, value in values.items() if value}


@dataclass(slots=True)
class SyncReport:
    """The result of a sync; counts are of items.

    Attributes:
        collection: Name of the collection.
        provider: What the model ran on (``cpu``, ``cuda``); None when nothing could be embedded.
        added: Stored for the first time.
        changed: Stored again because size, time or checksum of the file differ.
        moved: Stored under another path with the same content; not embedded again.
        relabelled: Only their payload changed; not embedded again.
        unchanged: Left as they were.
        missing: Stored, but no longer in the sources; removed when ``pruned``.
        pruned: Whether the missing ones were removed.
        dry: Whether it was a dry run: the counts say what would happen.
        failed: Path and one-line reason.
        passed_over: What folders hold beside images that can be read: kind to how many.
        seconds: From comparing the sources to the last flush.
        predicted: For how many items attributes were predicted; None when no attribute was asked for.
        faces: Faces in the pictures that were read; None: the collection holds whole pictures.
        without_face: How many of these pictures have none.
        warning: Says so where most of the images are unlike what the model was trained on; else None.
    """

    collection: str = ""
    provider: str | None = None
    added: int = 0
    changed: int = 0
    moved: int = 0
    relabelled: int = 0
    unchanged: int = 0
    missing: int = 0
    pruned: bool = False
    dry: bool = False
    failed: list[tuple[str, str]] = field(default_factory=list)
    passed_over: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    predicted: int | None = None
    faces: int | None = None
    without_face: int | None = None
    warning: str | None = None

    @property
    def stored(self) -> int:
        """Images that were written."""
        return self.added + self.changed + self.moved + self.relabelled

    @property
    def seen(self) -> int:
        """Images that were found in the sources, and folders that could not be listed."""
        return self.stored + self.unchanged + len(self.failed)

    @property
    def images_per_second(self) -> float:
        """Embedded images per second of the whole run."""
        return (self.added + self.changed) / self.seconds if self.seconds and not self.dry else 0.0

    def summary(self) -> str:
        """Return one line for people."""
        optional = {"moved": self.moved, "relabelled": self.relabelled}
        counts = [f"{self.added} added", f"{self.changed} changed"]
        counts += [f"{count} {kind}" for kind, count in optional.items() if count]
        counts += [f"{self.unchanged} unchanged", f"{self.missing} missing{' and removed' * self.pruned}"]
        line = f"{', '.join(counts)}, {len(self.failed)} failed"
        if self.faces is not None and not self.dry:
            line += f"; {self.faces} faces found, {self.without_face} pictures without a face"
        return f"dry run, nothing was changed; it would be {line}" if self.dry else line

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; ``predicted``, faces and ``warning`` only where there is something to tell."""
        values = asdict(self)
        optional = ("predicted", "faces", "without_face", "warning")
        return {
            **{key: value for key, value in values.items() if value is not None or key not in optional},
            "failed": [{"path": path, "reason": reason} for path, reason in self.failed],
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.images_per_second, 1),
        }


@dataclass(slots=True)
class SyncReporter:
    """Counts each item in the report and passes it on as an event."""

    report: SyncReport
    on_event: Callable[[SyncEvent], object]

    def event(self, status: Status, path: str, root: str = "", detail: str = "") -> None:
        """Count an item that is stored, or missing."""
        setattr(self.report, status, getattr(self.report, status) + 1)
        self.on_event(SyncEvent(status, path, root, detail))

    def failed(self, path: str, reason: str, root: str = "") -> None:
        """Note a file that could not be read."""
        self.report.failed.append((path, reason))
        self.on_event(SyncEvent("failed", path, root, reason))
