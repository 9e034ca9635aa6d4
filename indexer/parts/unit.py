"""Units of work: one tar archive, one row group of a Parquet file of images, or some thousand image files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final, Literal
from zlib import crc32

from lookalike.encoder.errors import InvalidArgumentError
from lookalike.indexer.parts.folder import FileFacts
from lookalike.indexer.sources import SourceFilter, person_pattern
from lookalike.indexer.store import CollectionSpec

Kind = Literal["files", "tar", "rows"]
_FIRST: Final = 256
_LARGEST: Final = 4096
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
class Settings:
    """What decides on the content of a part, beside its unit.

    Attributes:
        spec: The model, crop and roots.
        filter: Which images are taken, without a table of payload.
        max_pixels: Larger images fail; None: the default limit.
    """

    spec: CollectionSpec
    filter: SourceFilter = field(default_factory=SourceFilter)
    max_pixels: int | None = None

    def part_name(self, digest: bytes) -> str:
        """Return the file name of the part of a unit, by its digest."""
        spec = self.spec
        options = [spec.model_id, spec.crop, self._filter_json(), self.max_pixels]
        text = json.dumps(options).encode()
        return f"{blake2b(text + digest, digest_size=16).hexdigest()}.parquet"

    def _filter_json(self) -> dict[str, Any]:
        person = self.filter.person
        values = {key: getattr(self.filter, key) for key in ("include", "exclude", "hidden")}
        return {**values, "person": None if person is None else person.pattern}

    def to_json(self) -> dict[str, Any]:
        """Return JSON values that :meth:`from_json` reads back equal."""
        return {
            "spec": self.spec.to_json(),
            "filter": self._filter_json(),
            "max_pixels": self.max_pixels,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any], *, where: str) -> Settings:
        """Read what :meth:`to_json` wrote.

        Raises:
            StoreError: the spec is none; the message names ``where``.
            InvalidArgumentError, KeyError, TypeError: it is not such a record.
        """
        chosen = value["filter"]
        person = chosen["person"]
        return cls(
            CollectionSpec.from_json(value["spec"], where=where),
            SourceFilter(
                include=tuple(chosen["include"]),
                exclude=tuple(chosen["exclude"]),
                hidden=chosen["hidden"],
                person=None if person is None else person_pattern(person),
            ),
            value["max_pixels"],
        )


def units_of_files(root: str, files: Iterable[FileFacts]) -> Iterator[Unit]:
    """Yield units of image files, in their order.

    The first units are of some hundred files, so that all cores of one machine end at about the same time;
    after some hundred thousand files each has some thousand. Where a unit ends is decided by the names
    around: a file that comes or goes changes its own unit and seldom the next, not all that follow.
    """
    held: list[FileFacts] = []
    for count, file in enumerate(files):
        held.append(file)
        size = min(max(_FIRST, 1 << (count // _SHARE).bit_length()), _LARGEST)
        is_end = crc32(file.name.encode()) % (size // 2) == 0
        if len(held) >= size or (is_end and len(held) >= size // 4):
            yield Unit("files", root, tuple(held), images=len(held))
            held = []
    if held:
        yield Unit("files", root, tuple(held), images=len(held))


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a unit.

    Attributes:
        part: File name of its part.
        rows: Rows in the part.
        failed: Path and one-line reason of each image that failed.
        bytes: Size of the part.
        error: Why there is no part, in one line; empty: there is one.
    """

    part: str
    rows: int = 0
    failed: tuple[tuple[str, str], ...] = ()
    bytes: int = 0
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
