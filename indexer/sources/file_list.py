"""Lists of files, from a file or standard input: one per line, or separated by NUL (``find -print0``)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from lookalike.encoder.errors import DataError, printable
from lookalike.encoder.files import read_bounded, read_stream


def read_list(source: str, *, nul: bool) -> list[Path]:
    """Return the files that a list names, in their order.

    Args:
        source: A file, or ``-`` for standard input.
        nul: Whether names are separated by NUL, not by line ends: for names that contain line breaks.

    Raises:
        DataError: the list cannot be read, or is empty.
    """
    try:
        data = read_stream(sys.stdin.buffer) if source == "-" else read_bounded(source, pipe=True)
    except OSError as error:
        raise DataError(
            f"--files-from is a file or - for standard input, {printable(source)} cannot be read "
            f"({error.strerror or error}); check the path"
        ) from error
    names = data.split(b"\0") if nul else [line.removesuffix(b"\r") for line in data.split(b"\n")]
    files = [Path(os.fsdecode(name)) for name in names if name]
    if not files:
        raise DataError(
            f"--files-from needs at least one name, {printable(source)} holds none; check what wrote it"
        )
    return files
