"""What the commands print: results on stdout, messages for people and the progress bar on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import click

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lookalike.indexer.store import VectorStore


@dataclass(slots=True)
class _Talk:
    """How much the running command says and shows: ``--quiet``, ``--verbose`` and ``--open``."""

    quiet: bool = False
    verbose: bool = False
    show: bool = False


_TALK: Final = _Talk()


class _Row(Protocol):
    def to_json(self) -> dict[str, Any]: ...


def set_talk(*, quiet: bool | None = None, verbose: bool | None = None, show: bool | None = None) -> None:
    """Set how much is said from now on; None leaves it."""
    if quiet is not None:
        _TALK.quiet = quiet
    if verbose is not None:
        _TALK.verbose = verbose
    if show is not None:
        _TALK.show = show


def is_verbose() -> bool:
    """Return whether ``--verbose`` was given."""
    return _TALK.verbose


def log(line: str) -> None:
    """Print a line for people on stderr, unless ``--quiet`` was given."""
    if not _TALK.quiet:
        click.echo(line, err=True, color=in_color())


def warn(line: str) -> None:
    """Print a line on stderr that people should not miss: in yellow on a terminal, with ``--quiet`` too."""
    click.echo(click.style(line, fg="yellow"), err=True, color=in_color())


def warn_of_store(store: VectorStore) -> None:
    """Warn of what may go wrong with a store, as a server of another version than its client."""
    if store.warning is not None:
        warn(store.warning)


def in_color() -> bool | None:
    """Return whether outputs are in color: False with NO_COLOR (no-color.org), else None: on terminals."""
    return False if os.environ.get("NO_COLOR") else None


def link(text: str, file: Path | None) -> str:
    """Return text that leads to a file on terminals that know how (OSC 8: Egmont Koblinger, Hyperlinks).

    Others show the text alone; where stdout is no terminal, it stays plain.
    """
    if file is None or not sys.stdout.isatty() or in_color() is False or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b]8;;{file.absolute().as_uri()}\x1b\\{text}\x1b]8;;\x1b\\"


def bold(text: str) -> str:
    """Return text that stands out on a terminal."""
    return click.style(text, bold=True)


def log_failed(failures: Iterable[object]) -> None:
    """Print a line on stderr for each input that failed."""
    for failure in failures:
        warn(f"failed: {failure}")


def log_failed_files(failures: Iterable[tuple[str, str]]) -> None:
    """Print a line on stderr for each path and reason; a reason that names its path stands alone."""
    log_failed(reason if path in reason else f"{path}: {reason}" for path, reason in failures)


def log_no_images() -> None:
    """Print on stderr that the sources hold no image, and which file names count as one."""
    from lookalike.encoder.images import IMAGE_SUFFIXES

    warn(f"no images found; looked for {', '.join(sorted(IMAGE_SUFFIXES))}")


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
    show(file)
    return f"image written: {printable(str(file))}"


def show(file: Path) -> None:
    """Open an image that was written in the program for it, where ``--open`` was given."""
    if _TALK.show and click.launch(str(file)):
        warn(f"no program was found to open {file}; open it yourself")


def exit_code(failed: int, total: int) -> int:
    """Return 0 when nothing failed, 3 when some inputs failed, 1 when all did."""
    return 0 if not failed else 1 if failed == total else 3


@dataclass(slots=True)
class Bar:
    """A line on a terminal that says how far the work is.

    Attributes:
        tqdm: The bar of that library, which draws the line again, not too often.
        doing: What is done: ``Indexing``.
        unit: What is counted, in the plural.
        found: How many there are as far as is known, before the total is.
    """

    tqdm: Any
    doing: str
    unit: str
    found: int = 0

    def log(self, line: str) -> None:
        """Print a line for people on stderr, above the bar."""
        if not _TALK.quiet:
            self.tqdm.write(line, file=sys.stderr)

    def warn(self, line: str) -> None:
        """Print a warning on stderr, above the bar; see :func:`warn`."""
        with self.tqdm.external_write_mode(file=sys.stderr):
            warn(line)

    def paused(self) -> AbstractContextManager[None]:
        """Take the bar away for a block that prints on stdout, which may be the same terminal."""
        hidden: AbstractContextManager[None] = self.tqdm.external_write_mode(file=sys.stdout)
        return hidden

    def on_found(self, count: int) -> None:
        """Add items that were found, before their total is known."""
        self.found += count
        self._show(0)

    def on_total(self, count: int) -> None:
        """Set the total; items that are already done count."""
        self.tqdm.reset(count) if not self.tqdm.n else setattr(self.tqdm, "total", count)
        self._show(0)

    def on_progress(self, count: int = 1) -> None:
        """Add items that are done."""
        self._show(count)

    def _show(self, count: int) -> None:
        self.tqdm.set_description_str(self._line(self.tqdm.n + count, self.tqdm.total), refresh=False)
        self.tqdm.update(count) if count else self.tqdm.refresh()

    def _line(self, done: int, total: int | None) -> str:
        """Return ``Indexing 1,312/5,102 · 320 images/s · 12 s left``, as far as it is known."""
        if not done and total is None and self.found:
            return f"Scanning… {self.found:,} {self.unit}"
        seconds = self.tqdm.format_dict["elapsed"]
        rate = self.tqdm.format_dict["rate"] or (done / seconds if seconds else 0)
        if total is not None:
            counts = f"{done:,}/{total:,}"
        else:
            counts = f"{done:,}" + f" of {self.found:,} found so far" * (self.found > done)
        line = f"{self.doing} {counts}"
        if done and rate:
            line += f" · {rate:.3g} {self.unit}/s" if rate >= 1 else f" · {1 / rate:.3g} s each"
            if total is not None:
                line += f" · {in_words((total - done) / rate)} left"
        return line


def in_words(seconds: float) -> str:
    """Return a time as ``12 s``, ``3 min`` or ``1 h 20 min``."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


@contextmanager
def progress_bar(doing: str, *, unit: str = "images", total: int | None = None) -> Iterator[Bar]:
    """Show on stderr how far the work is until the end of the block, where stderr is a terminal.

    It starts no thread: worker processes are forked only from a process without threads.

    Args:
        doing: What is done: ``Indexing``.
        unit: What is counted, in the plural.
        total: How many there are, if that is known.
    """
    from tqdm import tqdm

    tqdm.monitor_interval = 0
    with tqdm(
        desc=f"{doing}…",
        bar_format="{desc}",
        total=total,
        miniters=1,
        disable=_TALK.quiet or None,
        leave=False,
    ) as bar:
        yield Bar(bar, doing, unit)


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
