"""The sources of commands that make files of files: folders, images and lists."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lookalike.deploy.cli.options import check_root

if TYPE_CHECKING:
    from collections.abc import Callable

    from lookalike.indexer.sources import SourceList
    from lookalike.searcher.denoising import Task


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceOptions:
    """Where the images of a run are; each attribute has the name of its option."""

    sources: tuple[str, ...]
    files_from: str | None
    nul: bool
    root: Path | None
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    hidden: bool

    def read_list(self, forms: str) -> list[Path]:
        """Return the files of ``--files-from``.

        Args:
            forms: What may be a source, for the message where there is none.
        """
        from lookalike.indexer.sources import read_list

        if not self.sources and self.files_from is None:
            raise click.UsageError(f"name a source: {forms} or --files-from")
        check_root(self.root, self.files_from)
        return [] if self.files_from is None else read_list(self.files_from, nul=self.nul)

    def build(self, forms: str) -> SourceList:
        """Return the sources and how they are read, for work in units.

        Args:
            forms: As of :meth:`read_list`.
        """
        from lookalike.indexer.sources import FileList, SourceFilter, SourceList

        if not self.sources and self.files_from is None:
            raise click.UsageError(f"name a source: {forms} or --files-from")
        check_root(self.root, self.files_from)
        return SourceList(
            sources=self.sources,
            files=() if self.files_from is None else FileList(self.files_from, nul=self.nul),
            root=self.root,
            filter=SourceFilter(include=self.include, exclude=self.exclude, hidden=self.hidden),
        )

    def find_tasks(
        self, find: Callable[..., list[Task]]
    ) -> tuple[list[Task], list[tuple[str, str]], dict[str, int]]:
        """Return the images to read, folders that cannot be listed with the reason, and what was skipped.

        Args:
            find: Gets what these options say of folders, as arguments of
                :func:`lookalike.searcher.denoising.find_tasks`.
        """
        from lookalike.encoder.errors import printable
        from lookalike.indexer.sources import SourceFilter

        unreadable: list[tuple[str, str]] = []
        skipped: dict[str, str] = {}

        def on_unreadable(error: OSError) -> None:
            unreadable.append((printable(str(error.filename)), f"cannot be listed ({error.strerror})"))

        tasks = find(
            root=self.root,
            reading=SourceFilter(include=self.include, exclude=self.exclude, hidden=self.hidden),
            on_unreadable=on_unreadable,
            on_skipped=lambda path, kind: skipped.setdefault(path, kind),
        )
        return tasks, unreadable, dict(Counter(skipped.values()).most_common())
