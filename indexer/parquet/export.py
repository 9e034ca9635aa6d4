"""Pictures to a file of latents: killed at any moment and run again, it ends as one whole run does.

Rows become durable piece by piece (``lookalike.indexer.parquet.resume``) and are joined at the end. A row is taken over, from
pieces of a killed run or from the file that is to be replaced, when its picture has the size and time it had.
In memory are a few batches of pixels, one piece of rows, and a digest of each row that may be taken over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from lookalike.encoder.embed.batch import Readable
from lookalike.encoder.embed.pipeline import EmbeddedBatch, embed_files
from lookalike.encoder.errors import DataError, InvalidArgumentError
from lookalike.encoder.images.decode import DEFAULT_MAX_PIXELS
from lookalike.encoder.images.preprocess import Crop
from lookalike.encoder.runtime.model import Model
from lookalike.encoder.text import printable
from lookalike.indexer.parquet.file import ROWS, Entry, LatentsFile, Rows, key_of
from lookalike.indexer.parquet.resume import (
    PartFiles,
    ReusableRows,
    concatenated,
    open_existing,
    same_embedding,
)
from lookalike.indexer.sources.source import Item, Source, as_text
from lookalike.indexer.store.spec import CollectionSpec
from lookalike.indexer.sync.sync import NOTHING_SEEN

_PIECE_SECONDS: Final = 30.0
"""A slow model's rows become durable this often, a fast one's by :data:`ROWS`."""


@dataclass(slots=True)
class EmbedReport:
    """What an embedding run came to, in pictures.

    Attributes:
        rows: In the file now.
        embedded: By this run.
        kept: Taken over from an earlier run.
        dropped: Rows of an earlier run whose picture is gone or has changed.
        failed: Path and one-line reason.
        unchanged: Whether the file was there and up to date, and was left alone.
        seconds: From start to a durable file.
    """

    rows: int = 0
    embedded: int = 0
    kept: int = 0
    dropped: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    unchanged: bool = False
    seconds: float = 0.0

    @property
    def images_per_second(self) -> float:
        """EmbeddedBatch images per second of the whole run."""
        return self.embedded / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            **asdict(self),
            "failed": [{"path": path, "reason": reason} for path, reason in self.failed],
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.images_per_second, 1),
        }


def export_latents(
    model: Model,
    sources: Sequence[Source],
    out: Path,
    *,
    crop: Crop | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    processes: bool = False,
    overwrite: bool = False,
    on_total: Callable[[int], object] = lambda _: None,
    on_progress: Callable[[int], object] = lambda _: None,
) -> EmbedReport:
    """Write a file with a row for each picture of the sources that can be read.

    A file that is there and up to date is left alone. What is finished of a run that is killed is kept beside
    ``out`` and taken over by the next; an interrupt keeps all but the batch at hand.

    Args:
        model: What embeds.
        sources: The pictures.
        out: The file, ``.parquet``.
        crop: How the pictures are framed; None: as the model was trained.
        max_pixels: Larger pictures fail.
        processes: May embed in processes of their own, see :func:`embed_files`.
        overwrite: Bring a file that is there up to date; rows that still hold are taken over.
        on_total: Told how many images will be embedded.
        on_progress: Told of each batch: images done.

    Raises:
        InvalidArgumentError: ``out`` is there and is no file of latents, or is not up to date and ``overwrite`` is not
            set; it has another suffix; two sources have one root name and different folders.
        DataError: ``out`` cannot be written, another process writes it, or nothing at all is left for it.
        MissingExtraError: pyarrow is not installed.
    """
    began = time.monotonic()
    spec = _spec(model, sources, crop)
    with ExitStack() as stack:
        parts = stack.enter_context(PartFiles.opened(out))
        if (earlier := open_existing(out)) is not None:
            stack.enter_context(earlier)
        run = _Run(model, sources, out, spec, max_pixels, processes, parts, on_total, on_progress)
        if earlier is None or overwrite:
            run.write(earlier)
        else:
            run.require_current(earlier)
        parts.remove()
    run.report.seconds = time.monotonic() - began
    return run.report


class _Picture(NamedTuple):
    root_name: str
    item: Item


@dataclass(slots=True)
class _Run:
    """One call of :func:`export_latents`; ``fresh`` are its own pieces."""

    model: Model
    sources: Sequence[Source]
    out: Path
    spec: CollectionSpec
    max_pixels: int
    processes: bool
    parts: PartFiles
    on_total: Callable[[int], object]
    on_progress: Callable[[int], object]
    report: EmbedReport = field(default_factory=EmbedReport)
    old: ReusableRows = field(default_factory=ReusableRows)
    fresh: list[Path] = field(default_factory=list)

    def write(self, earlier: LatentsFile | None) -> None:
        """Embed what no earlier run did and put the file in place, unless the one there needs no change."""
        self._survey(earlier)
        self.on_total(self._count_left())
        self._embed()
        report = self.report
        report.kept, report.dropped = self.old.taken, self.old.left
        report.rows = report.kept + report.embedded
        if earlier is not None and self._holds(earlier):
            report.unchanged = True
            return
        if earlier is not None and earlier.count and not report.rows:
            raise DataError(
                f"{printable(str(self.out))} has {earlier.count} rows and no picture at all is left in "
                f"{', '.join(map(printable, self.spec.roots.values()))}; mount it, or remove the file"
            )
        self.parts.finish(self.spec, self._all_rows())

    def require_current(self, earlier: LatentsFile) -> None:
        """Do nothing when a file holds what the sources hold; pictures it lacks are tried: are they bad ones?

        Raises:
            InvalidArgumentError: it does not.
        """
        if replace(earlier.spec, model_name=self.spec.model_name) != self.spec:
            raise self._refused("made with another model, --crop or source")
        self.old.add(self.out, earlier.keys())
        lacking = self._count_left()
        with closing(self._stream()) as stream:
            for batch in stream:
                rows = self._comparable(batch)
                if rows.entries:
                    raise self._refused(f"without {lacking} of the pictures as they are now")
        if self.old.left:
            raise self._refused(f"{self.old.left} of its {earlier.count} pictures are gone or changed since")
        self.report.kept = self.report.rows = earlier.count
        self.report.unchanged = True

    def _refused(self, why: str) -> InvalidArgumentError:
        return InvalidArgumentError(
            f"{printable(str(self.out))} is there, {why}; --overwrite brings it up to date, or name another"
        )

    def _survey(self, earlier: LatentsFile | None) -> None:
        """Note which rows may be taken over."""
        if earlier is not None and same_embedding(earlier.spec, self.spec):
            self.old.add(self.out, earlier.keys())
        for file, spec, keys in self.parts.survey():
            if same_embedding(spec, self.spec):
                self.old.add(file, keys)
            elif earlier is not None:  # --overwrite was said
                file.unlink()
            else:
                raise InvalidArgumentError(
                    f"{printable(str(file.parent))} holds pieces of a run with model {spec.model_name} "
                    f"({spec.model_id[:12]}) and --crop {spec.crop}; finish that run, or remove the folder"
                )

    def _pictures(self) -> Iterator[tuple[_Picture, bytes | None]]:
        """Yield each picture once, with the key it has now; None when it cannot be looked at."""
        seen: set[str] = set()
        for source in self.sources:
            for item in source.items():
                if len(self.sources) > 1:
                    if item.id in seen:
                        continue
                    seen.add(item.id)
                yield _Picture(source.root_name, item), _key_now(source.root_name, item)

    def _count_left(self) -> int:
        return sum(key not in self.old for _, key in self._pictures())

    def _left(self) -> Iterator[tuple[_Picture, str | Readable]]:
        """Yield the pictures to embed; the rows of the others are noted as taken over."""
        for picture, key in self._pictures():
            if key is None or not self.old.take(key):
                yield picture, picture.item.where

    def _stream(self) -> Any:
        crop = Crop.parse(self.spec.crop)
        return embed_files(
            self.model, self._left(), crop=crop, max_pixels=self.max_pixels, processes=self.processes
        )

    def _embed(self) -> None:
        held: list[Rows] = []
        due = time.monotonic() + _PIECE_SECONDS
        with closing(self._stream()) as stream:
            try:
                for batch in stream:
                    held.append(self._comparable(batch))
                    self.on_progress(len(batch.keys) + len(batch.failures))
                    if sum(len(rows.entries) for rows in held) >= ROWS or time.monotonic() > due:
                        self._keep(held)
                        due = time.monotonic() + _PIECE_SECONDS
            except KeyboardInterrupt:
                self._keep(held)
                raise
        self._keep(held)

    def _keep(self, held: list[Rows]) -> None:
        if any(rows.entries for rows in held):
            rows = concatenated(held)
            self.fresh.append(self.parts.add(self.spec, rows))
            self.report.embedded += len(rows.entries)
        held.clear()

    def _comparable(self, batch: EmbeddedBatch[_Picture]) -> Rows:
        """Return a batch as rows; what failed, or has an embedding without direction, goes to the report."""
        good = [bool(np.isfinite(row).all() and row.any()) for row in batch.embeddings]
        for (_, item), reason in batch.failures:
            self.report.failed.append((printable(str(item.file)), reason))
        entries = []
        for (root_name, item), facts, fine in zip(batch.keys, batch.facts, good, strict=True):
            if fine:
                entries.append(Entry(item.path, root_name, **asdict(facts), person=item.person))
            else:
                name = printable(str(item.file))
                self.report.failed.append((name, f"{name}: {NOTHING_SEEN}"))
        return Rows(entries, batch.embeddings[good])

    def _holds(self, earlier: LatentsFile) -> bool:
        """Whether a file needs no change."""
        return (
            not self.report.embedded
            and earlier.spec == self.spec
            and earlier.count == self.report.kept
            and self.old.takes_all(earlier.keys())
        )

    def _all_rows(self) -> Iterator[Rows]:
        yield from self.old.rows()
        for file in self.fresh:
            with LatentsFile.open(file) as piece:
                yield from piece.rows()


def _key_now(root_name: str, item: Item) -> bytes | None:
    facts = item.facts()
    return None if facts is None else key_of(root_name, item.path, *facts)


def _spec(model: Model, sources: Sequence[Source], crop: Crop | None) -> CollectionSpec:
    roots: dict[str, str] = {}
    for source in sources:
        root = as_text(source.root)
        if roots.setdefault(source.root_name, root) != root:
            raise InvalidArgumentError(
                f"two sources are called {source.root_name!r}, {roots[source.root_name]} and {root}; "
                "embed them into two files, one with --root-name"
            )
    described = model.bundle.spec
    return CollectionSpec(
        model_id=model.model_id,
        model_name=model.bundle.address,
        dimension=described.embedding,
        crop=str(crop if crop is not None else described.image.crop),
        roots=roots,
    )
