"""``lookalike evaluate``: the group, and what its commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click

from lookalike.deploy.cli.options import Group
from lookalike.deploy.cli.output import log, progress_bar, warn

_MAX_FAILURES: Final = 20


@click.group(cls=Group)
def evaluate() -> None:
    """Measure models, collections and vectors of any origin."""


def image_file(_ctx: click.Context, _option: click.Parameter, file: Path | None) -> Path | None:
    """Refuse an image file that could not be written, before anything is measured."""
    if file is not None and file.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise click.BadParameter("an image is written as .png, .jpg, .jpeg or .webp; change the file name")
    return file


provider_option = click.option(
    "--provider", default="auto", show_default=True, type=click.Choice(["auto", "cpu", "cuda"])
)


@contextmanager
def show_progress(task: str, total: int) -> Iterator[Callable[[int], object]]:
    """Show how far a task is on stderr, if that is a terminal."""
    with progress_bar(task, total=total) as bar:
        yield bar.on_progress


def print_failures(failures: Sequence[str]) -> bool:
    """Print why images could not be read, and return whether there are any."""
    for failure in failures[:_MAX_FAILURES]:
        warn(f"failed: {failure}")
    if len(failures) > _MAX_FAILURES:
        warn(f"failed: {len(failures) - _MAX_FAILURES} more images")
    return bool(failures)


def write_plot(file: Path, plot: Callable[[], None]) -> bool:
    """Write a plot, and return whether the extra that it needs is installed."""
    from lookalike.encoder.errors import MissingExtraError

    try:
        plot()
    except MissingExtraError as error:
        warn(str(error))
        return False
    print_written(file)
    return True


def print_written(file: Path) -> None:
    """Say on stderr that a file was written."""
    from lookalike.encoder.errors import printable

    log(f"written: {printable(str(file))}")
