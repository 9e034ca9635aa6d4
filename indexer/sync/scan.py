"""The pictures of sources, each once, in the order in which they lie there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Final, TypeVar

from lookalike.encoder.text import printable
from lookalike.indexer.sources.source import Item, Source
from lookalike.indexer.sync.compact import IdSet

_AT_ONCE: Final = 1024
_Each = TypeVar("_Each")


class SourceScan:
    """A walk through sources, to be made once.

    Args:
        sources: They may overlap.

    Attributes:
        sources: They.
        unreadable_dirs: Folders that could not be listed so far, each with its source and relative to its root.
        unreadable: The same folders as they are shown, with the reason.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = sources
        self.unreadable_dirs: list[tuple[Source, str]] = []
        self.unreadable: list[tuple[str, str]] = []
        self._left = self._steps()

    def __iter__(self) -> Iterator[tuple[Source, list[Item]]]:
        """Yield items that were not there yet, some together, and the source that has them.

        Raises:
            DataError: an archive cannot be read.
        """
        return self._left

    def at_least(self, count: int) -> bool:
        """Look ahead: whether so many are left at least.

        Raises:
            DataError: an archive cannot be read.
        """
        seen: list[tuple[Source, list[Item]]] = []
        while sum(len(items) for _, items in seen) < count and (step := next(self._left, None)):
            seen.append(step)
        self._left = chain(seen, self._left)
        return sum(len(items) for _, items in seen) >= count

    def _steps(self) -> Iterator[tuple[Source, list[Item]]]:
        earlier = IdSet()
        for source in self.sources:
            for items in chunked(source.items(partial(self._pass_over, source))):
                again = earlier.contains([item.id for item in items])
                fresh = [item for item, known in zip(items, again, strict=True) if not known]
                for item in fresh if len(self.sources) > 1 else ():
                    earlier.add(item.id)
                yield source, fresh
            earlier.settle()

    def _pass_over(self, source: Source, error: OSError) -> None:
        folder = str(error.filename)
        self.unreadable_dirs.append((source, f"{Path(folder).relative_to(source.root).as_posix()}/"))
        self.unreadable.append((printable(folder), f"cannot be listed ({error.strerror or error})"))


def chunked(each: Iterable[_Each]) -> Iterator[list[_Each]]:
    """Yield the same, some hundreds in a list."""
    left = iter(each)
    while some := list(islice(left, _AT_ONCE)):
        yield some
