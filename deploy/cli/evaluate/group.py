"""``lookalike evaluate``: the group, and what its commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])
_MAX_FAILURES: Final = 20


@click.group()
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


def options(*chosen: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """Add options to a command, in the order of its help."""

    def decorate(command: Command) -> Command:
        for option in reversed(chosen):
            command = option(command)
        return command

    return decorate


@contextmanager
def show_progress(task: str, total: int) -> Iterator[Callable[[int], object]]:
    """Show a bar on stderr, if that is a terminal."""
    from tqdm import tqdm

    with tqdm(desc=task, total=total, unit="image", disable=None, leave=False) as bar:
        yield bar.update


def print_failures(failures: Sequence[str]) -> bool:
    """Print why images could not be read, and return whether there are any."""
    for failure in failures[:_MAX_FAILURES]:
        click.echo(f"failed: {failure}", err=True)
    if len(failures) > _MAX_FAILURES:
        click.echo(f"failed: {len(failures) - _MAX_FAILURES} more images", err=True)
    return bool(failures)


def write_plot(file: Path, plot: Callable[[], None]) -> bool:
    """Write a plot, and return whether the extra that it needs is installed."""
    from lookalike.encoder.errors import MissingExtraError

    try:
        plot()
    except MissingExtraError as error:
        click.echo(str(error), err=True)
        return False
    print_written(file)
    return True


def print_written(file: Path) -> None:
    """Say on stderr that a file was written."""
    from lookalike.encoder.errors import printable

    click.echo(f"written: {printable(str(file))}", err=True)
