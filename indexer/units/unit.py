"""Units of work: one tar archive, one row group of a Parquet file of images, or some thousand image files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final, Literal
from zlib import crc32

from lookalike.encoder.errors import InvalidArgumentError
from lookalike.indexer.units.folder import FileFacts

Kind = Literal["files", "tar", "rows"]
_SHARE: Final = 64


@dataclass(frozen=True, slots=True)
class Unit:
    """What one worker does in one piece.

    Attributes:
        kind: ``files``: image files; ``tar``: an archive; ``rows``: a row group of a Parquet file.
        root: Name of its root.
        group: Number of the row group; 0 for other kinds.
        files: Its files, or the one archive or Parquet file: paths relative to the root, with ``/``, as
            :func:`lookalike.indexer.sources.as_text` writes them, with size and time as they were listed.
        images: How many images it has; None: that is not known before it is read.
    """

    kind: Kind
    root: str
    files: tuple[FileFacts, ...]
    group: int = 0
    images: int | None = None

    @property
    def digest(self) -> bytes:
        """16 bytes that tell it from other units, and from the same files with another size or time."""
        text = json.dumps([self.kind, self.root, self.group, self.files])
        return blake2b(text.encode(), digest_size=16).digest()

    @property
    def name(self) -> str:
        """What it is called in messages."""
        first = self.files[0].name
        if self.kind == "rows":
            return f"{first} (row group {self.group})"
        return first if len(self.files) == 1 else f"{first} to {self.files[-1].name}"


@dataclass(frozen=True, slots=True)
class UnitSize:
    """How many image files become one unit.

    The first units are small, so that all cores of one machine end at about the same time; later ones grow
    with the number of files, so that there are not too many.

    Attributes:
        first: Most files of the first units.
        largest: Most files of any.
        bytes: Bytes of files after which a unit ends; None: they do not matter.
    """

    first: int = 256
    largest: int = 4096
    bytes: int | None = None


def units_of_files(root: str, files: Iterable[FileFacts], size: UnitSize | None = None) -> Iterator[Unit]:
    """Yield units of image files, in their order.

    Where a unit ends is decided by the names around: a file that comes or goes changes its own unit and
    seldom the next, not all that follow.
    """
    size = size or UnitSize()
    held: list[FileFacts] = []
    held_bytes = 0
    for count, file in enumerate(files):
        held.append(file)
        held_bytes += file.size
        most = min(max(size.first, 1 << (count // _SHARE).bit_length()), size.largest)
        is_end = crc32(file.name.encode()) % max(most // 2, 1) == 0
        is_full = len(held) >= most or (size.bytes is not None and held_bytes >= size.bytes)
        if is_full or (is_end and len(held) >= most // 4):
            yield Unit("files", root, tuple(held), images=len(held))
            held, held_bytes = [], 0
    if held:
        yield Unit("files", root, tuple(held), images=len(held))


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a unit.

    Attributes:
        part: File name of its part.
        rows: How many images succeeded: rows of a part of latents.
        failed: Path and one-line reason of each image that failed.
        bytes: Size of what was written.
        counts: More that is counted, by a word for it.
        error: Why there is no part, in one line; empty: there is one.
    """

    part: str
    rows: int = 0
    failed: tuple[tuple[str, str], ...] = ()
    bytes: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True, slots=True)
class Shard:
    """The share of one of several runs.

    Attributes:
        number: Its number, from 1.
        count: How many runs there are.
    """

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``2/8``: the second of eight.

        Raises:
            InvalidArgumentError: it is not of this form.
        """
        number, _, count = text.partition("/")
        if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise InvalidArgumentError(f"--shard is of the form 2/8, from 1/8 to 8/8; {text!r} is not")
        return cls(int(number), int(count))

    def slice(self, total: int) -> range:
        """Return its share of so many elements; all shares together are all of them, each once."""
        return range(total * (self.number - 1) // self.count, total * self.number // self.count)

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"
