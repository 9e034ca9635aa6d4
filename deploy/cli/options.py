"""What the commands that read pictures have in common: the sources, and the options that choose in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import click

if TYPE_CHECKING:
    from lookalike.indexer.sources.source import SourceList

__all__ = ["Selection", "selecting"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """What was said of the pictures; each attribute is an option, or the argument SOURCE."""

    sources: tuple[str, ...]
    split: Literal["train", "test", "all"] | None
    root_name: str | None
    files_from: str | None
    nul: bool
    root: Path | None
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    hidden: bool
    person_from: str | None

    def __post_init__(self) -> None:
        if not self.sources and self.files_from is None:
            raise click.UsageError(
                "name a source: a folder, a picture file, a tar archive, lfw, mnist, or --files-from"
            )
        if self.root is not None and self.files_from is None:
            raise click.UsageError("--root is the folder of --files-from; a source is its own")
        if self.split is not None and (self.files_from is not None or set(self.sources) != {"mnist"}):
            raise click.UsageError("--split is of mnist alone; name other sources in another run")

    def files(self) -> list[Path]:
        """Read the list of files, if there is one; standard input is read to its end.

        Raises:
            DataError: it cannot be read, or names nothing.
        """
        from lookalike.indexer.sources.file_list import read_list

        return [] if self.files_from is None else read_list(self.files_from, nul=self.nul)

    def source_list(self, payload: Mapping[str, Mapping[str, Any]] | None = None) -> SourceList:
        """Return the sources and how they are read, with the fields to store for each path.

        Raises:
            DataError: the list of files cannot be read, or names nothing.
            InvalidArgumentError: ``--person-from`` is not a regular expression.
        """
        from lookalike.indexer.sources.selection import SourceFilter, person_pattern
        from lookalike.indexer.sources.source import SourceList

        return SourceList(
            sources=self.sources,
            files=self.files(),
            root=self.root,
            root_name=self.root_name,
            split=self.split,
            filter=SourceFilter(
                include=self.include,
                exclude=self.exclude,
                hidden=self.hidden,
                person=None if self.person_from is None else person_pattern(self.person_from),
                payload=payload,
            ),
        )


_OPTIONS: Final = (
    click.argument("sources", nargs=-1, metavar="SOURCE..."),
    click.option("--split", type=click.Choice(["train", "test", "all"]), help="Of mnist; default: all."),
    click.option("--root-name", metavar="NAME", help="What to call the source's folder from now on."),
    click.option("--files-from", metavar="-|FILE", help="Pictures by name, one a line; - is standard input."),
    click.option("-0", "--null", "nul", is_flag=True, help="NUL stands between names of --files-from."),
    click.option(
        "--root",
        type=click.Path(path_type=Path, file_okay=False, exists=True),
        help="Folder of --files-from; default: what its names have in common.",
    ),
    click.option(
        "--include", multiple=True, metavar="GLOB", help="Only paths or names like this; repeatable."
    ),
    click.option("--exclude", multiple=True, metavar="GLOB", help="None like this; repeatable."),
    click.option("--hidden", is_flag=True, help="Also what begins with a dot."),
    click.option(
        "--person-from", metavar="REGEX", help="Who it is, from the path; default: the folder's name."
    ),
)


def selecting(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the argument SOURCE and the options that choose, all as its argument ``chosen``."""

    @wraps(command)
    def with_selection(*words: Any, **options: Any) -> None:
        said = {field.name: options.pop(field.name) for field in fields(Selection)}
        command(*words, chosen=Selection(**said), **options)

    for option in reversed(_OPTIONS):
        option(with_selection)
    return with_selection
