"""What the commands print: results on stdout, messages for people and the progress bar on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class _Row(Protocol):
    def to_json(self) -> dict[str, Any]: ...


def log(line: str) -> None:
    """Print a line for people on stderr."""
    click.echo(line, err=True)


def log_failed(failures: Iterable[object]) -> None:
    """Print a line on stderr for each input that failed."""
    for failure in failures:
        log(f"failed: {failure}")


def log_failed_files(failures: Iterable[tuple[str, str]]) -> None:
    """Print a line on stderr for each path and reason; a reason that names its path stands alone."""
    log_failed(reason if path in reason else f"{path}: {reason}" for path, reason in failures)


def log_no_images() -> None:
    """Print on stderr that the sources hold no image, and which file names count as one."""
    from lookalike.encoder.images import IMAGE_SUFFIXES

    log(f"no images found; looked for {', '.join(sorted(IMAGE_SUFFIXES))}")


def log_skipped(skipped: Mapping[str, int]) -> None:
    """Print on stderr what was passed over in folders, if anything was: kind to how many."""
    from lookalike.encoder.images import skipped_summary

    if skipped:
        log(skipped_summary(skipped))


def print_json(value: object) -> None:
    """Print one line of JSON on stdout."""
    click.echo(json.dumps(value))


def print_path(path: str | Path, *, end: str = "\n") -> None:
    """Print a path on stdout as the bytes that it is, for the next program: it need not be UTF-8."""
    click.echo(os.fsencode(path) + end.encode(), nl=False)


def save_sheet(file: Path, pixels: NDArray[np.uint8]) -> str:
    """Write a contact sheet or chart and return a line that says so.

    Args:
        file: PNG, JPEG or WebP.
        pixels: uint8 (H, W, 3).
    """
    from lookalike.encoder.errors import printable
    from lookalike.encoder.images import save_image

    save_image(file, pixels)
    return f"image written: {printable(str(file))}"


def exit_code(failed: int, total: int) -> int:
    """Return 0 when nothing failed, 3 when some inputs failed, 1 when all did."""
    return 0 if not failed else 1 if failed == total else 3


@dataclass(frozen=True, slots=True)
class Bar:
    """A progress bar.

    Attributes:
        tqdm: The bar of that library.
    """

    tqdm: Any

    def log(self, line: str) -> None:
        """Print a line for people on stderr, above the bar."""
        self.tqdm.write(line, file=sys.stderr)

    def paused(self) -> AbstractContextManager[None]:
        """Take the bar away for a block that prints on stdout, which may be the same terminal."""
        hidden: AbstractContextManager[None] = self.tqdm.external_write_mode(file=sys.stdout)
        return hidden

    def on_total(self, count: int) -> None:
        """Set the total; items that are already done count."""
        self.tqdm.reset(count) if not self.tqdm.n else setattr(self.tqdm, "total", count)

    def on_progress(self, count: int = 1) -> None:
        """Add items that are done."""
        self.tqdm.update(count)


@contextmanager
def progress_bar(
    description: str | None = None, *, unit: str = "image", total: int | None = None
) -> Iterator[Bar]:
    """Show a progress bar on stderr until the end of the block, where stderr is a terminal.

    It starts no thread: worker processes are forked only from a process without threads.
    """
    from tqdm import tqdm

    tqdm.monitor_interval = 0
    with tqdm(desc=description, unit=unit, total=total, miniters=1, disable=None, leave=False) as bar:
        yield Bar(bar)


@contextmanager
def json_lines(file: Path | None) -> Iterator[Callable[[_Row], object]]:
    """Return what writes a line of JSON for each row into the file of ``--report``; without one, nothing.

    Raises:
        DataError: the file cannot be written.
    """
    from lookalike.encoder.errors import DataError, printable

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
    with lines:
        yield lambda row: lines.write(json.dumps(row.to_json()) + "\n")
