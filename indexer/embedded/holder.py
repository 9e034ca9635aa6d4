"""Who has a collection open: a small file in its folder, beside the shard that Qdrant Edge locks.

The process that has the lock writes it, so it says something only while the shard is locked.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Final

from lookalike.encoder.errors import printable
from lookalike.encoder.files import atomic_write, parse_json, read_bounded

HOLDER_FILE: Final = "holder.json"
_MOST_BYTES: Final = 4096


def write_holder(folder: Path, *, served_at: str | None) -> None:
    """Say that this process has a collection open; where that cannot be written, others are told less.

    Args:
        folder: The collection's folder.
        served_at: URL at which this process answers requests; None: it does not.
    """
    with contextlib.suppress(OSError):
        atomic_write(folder / HOLDER_FILE, json.dumps({"pid": os.getpid(), "served_at": served_at}).encode())


def remove_holder(folder: Path) -> None:
    """Remove the file again, before the collection is closed."""
    with contextlib.suppress(OSError):
        (folder / HOLDER_FILE).unlink()


def holder_of(folder: Path) -> str:
    """Return which other process has a collection open, in words for a message; empty where it is not known.

    Args:
        folder: The collection's folder, whose shard is locked.
    """
    try:
        values = parse_json(read_bounded(folder / HOLDER_FILE, most=_MOST_BYTES))
    except (OSError, ValueError):
        return ""
    pid = values.get("pid") if isinstance(values, dict) else None
    if not isinstance(values, dict) or type(pid) is not int or pid == os.getpid():
        return ""
    served_at = values.get("served_at")
    return f" (pid {pid}" + (
        f", which serves it at {printable(served_at)})" if isinstance(served_at, str) else ")"
    )
