"""Where an item's image lies: always below the folder of its root, whatever the texts say."""

from __future__ import annotations

import os
from pathlib import Path

from lookalike.encoder.errors import DataError, printable
from lookalike.indexer.sources.source import as_path


def leads_out(path: str) -> bool:
    r"""Whether an item's path, with escapes such as ``\x2f`` decoded, leads out of its root or nowhere."""
    # Nearly all paths are plain, and millions of rows are checked: no Path is made of those.
    if not ("\\" in path or ".." in path or "\0" in path or path[:1] in "/." or os.name == "nt"):
        return False
    decoded = as_path(path)
    return decoded == Path() or bool(decoded.anchor) or ".." in decoded.parts or "\0" in str(decoded)


def file_below(folder: str, path: str) -> Path:
    """Return the file of an item, by the texts of its root's folder and of its path.

    Raises:
        DataError: the path leads out of the folder.
    """
    if leads_out(path):
        raise DataError(
            f"an item's path leads from its root to an image, {printable(path)!r} does not; index it again"
        )
    return as_path(folder) / as_path(path)
