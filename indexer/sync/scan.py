"""The images of sources, each once, in the order in which they are found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Final, TypeVar

from lookalike.encoder.text import printable
from lookalike.indexer.sources import Item, Source
from lookalike.indexer.sync.compact import IdSet

CHUNK: Final = 1024
_Each = TypeVar("_Each")


class SourceScan:
    """One scan of some sources; it can be iterated once.

    Args:
        sources: They may overlap.

    Attributes:
        sources: The same.
        unreadable_dirs: Folders that could not be listed so far: source, and path relative to its root.
        unreadable: The same folders as they are shown, with the reason.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = sources
        self.unreadable_dirs: list[tuple[Source, str]] = []
        self.unreadable: list[tuple[str, str]] = []
        self._remaining = self._chunks()

    def __iter__(self) -> Iterator[tuple[Source, list[Item]]]:
        """Yield new items in chunks, with the source that has them.

        Raises:
            DataError: an archive cannot be read.
        """
        return self._remaining

    def at_least(self, count: int) -> bool:
        """Look ahead: whether at least ``count`` items are left.

        Raises:
            DataError: an archive cannot be read.
        """
        ahead: list[tuple[Source, list[Item]]] = []
        while sum(len(items) for _, items in ahead) < count and (chunk := next(self._remaining, None)):
            ahead.append(chunk)
        self._remaining = chain(ahead, self._remaining)
        return sum(len(items) for _, items in ahead) >= count

    def _chunks(self) -> Iterator[tuple[Source, list[Item]]]:
        earlier = IdSet()
        for source in self.sources:
            for items in chunked(source.items(partial(self._note_unreadable, source))):
                known = earlier.contains([item.id for item in items])
                new = [item for item, is_known in zip(items, known, strict=True) if not is_known]
                for item in new if len(self.sources) > 1 else ():
                    earlier.add(item.id)
                yield source, new
            earlier.settle()

    def _note_unreadable(self, source: Source, error: OSError) -> None:
        folder = str(error.filename)
        self.unreadable_dirs.append((source, f"{Path(folder).relative_to(source.root).as_posix()}/"))
        self.unreadable.append((printable(folder), f"cannot be listed ({error.strerror or error})"))


def chunked(each: Iterable[_Each], size: int = CHUNK) -> Iterator[list[_Each]]:
    """Yield the same elements in lists of ``size``; the last may be shorter."""
    left = iter(each)
    while chunk := list(islice(left, size)):
        yield chunk
