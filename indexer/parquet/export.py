"""Images to a file of latents: killed at any moment and run again, it ends as one whole run does.

Rows are written in parts (``lookalike.indexer.parquet.resume``) that are joined at the end. A row
of a killed run, or of the file that is to be replaced, is reused when its image has the same size and time as
then. Memory holds a few batches of pixels, one part of rows, and a digest of each row that may be reused.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.detect import Framing, parse_framing
from lookalike.encoder.embed import EmbeddedBatch, Readable, embed_files
from lookalike.encoder.errors import DataError, InvalidArgumentError, printable
from lookalike.encoder.runtime import Model
from lookalike.indexer.parquet.file import ROWS, Entry, LatentsFile, Rows, key_of
from lookalike.indexer.parquet.resume import (
    NO_KEY,
    PartFiles,
    ReusableRows,
    concatenate,
    open_existing,
)
from lookalike.indexer.sources import Source, merge_roots
from lookalike.indexer.store import CollectionSpec
from lookalike.indexer.sync import (
    ToEmbed,
    check_faces,
    drop_degenerate,
    face_payloads,
    face_vectors,
    new_items,
    new_spec,
)

_PART_SECONDS: Final = 30.0
"""The rows of a slow model are written this often, those of a fast one every :data:`ROWS`."""


@dataclass(slots=True)
class EmbedReport:
    """The result of an embedding run; counts are of images.

    Attributes:
        rows: Rows in the file now.
        embedded: Embedded by this run.
        kept: Reused from an earlier run.
        dropped: Rows of an earlier run whose image is gone or has changed.
        failed: Path and one-line reason.
        passed_over: What folders hold beside images that can be read: kind to how many.
        unchanged: Whether the file existed, was up to date and was left alone.
        seconds: From the start until the file was on disk.
    """

    rows: int = 0
    embedded: int = 0
    kept: int = 0
    dropped: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    passed_over: dict[str, int] = field(default_factory=dict)
    unchanged: bool = False
    seconds: float = 0.0

    @property
    def images_per_second(self) -> float:
        """Embedded images per second of the whole run."""
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
    crop: Framing | None = None,
    max_pixels: int | None = None,
    processes: bool = False,
    overwrite: bool = False,
    on_total: Callable[[int], object] = lambda _: None,
    on_progress: Callable[[int], object] = lambda _: None,
) -> EmbedReport:
    """Write a file with a row for each image of the sources that can be read, or for each face in them.

    A file that exists and is up to date is left alone. The finished parts of a killed run are kept next to
    ``out`` and reused by the next run; an interrupt keeps everything but the current batch.

    Args:
        model: The model.
        sources: The images.
        out: The file, ``.parquet``.
        crop: How the images are framed, or which faces; None: the model's own crop.
        max_pixels: Larger images fail; None: the default limit.
        processes: Allow worker processes, see :func:`embed_files`.
        overwrite: Bring an existing file up to date; rows that are still valid are reused.
        on_total: Called with the number of images to embed.
        on_progress: Called after each batch with the number of images done.

    Raises:
        InvalidArgumentError: ``out`` is not a file of latents, or is not up to date and ``overwrite`` is not
            set; its suffix is wrong; or two sources have one root name and different folders.
        DataError: ``out`` cannot be written, another process writes it, or no image is left for it.
        MissingExtraError: pyarrow is not installed.
    """
    began = time.monotonic()
    spec = replace(new_spec(model.bundle, crop=crop), roots=merge_roots({}, sources))
    if spec.has_faces:
        check_faces(model.bundle)
    with ExitStack() as stack:
        parts = stack.enter_context(PartFiles.opened(out))
        if (existing := open_existing(out)) is not None:
            stack.enter_context(existing)
        run = _Run(model, sources, out, spec, max_pixels, processes, parts, on_total, on_progress)
        if existing is None or overwrite:
            run.write(existing)
        else:
            run.require_current(existing)
        parts.remove()
    run.report.seconds = time.monotonic() - began
    return run.report


@dataclass(slots=True)
class _Run:
    """One call of :func:`export_latents`; ``new_parts`` are the parts that it wrote."""

    model: Model
    sources: Sequence[Source]
    out: Path
    spec: CollectionSpec
    max_pixels: int | None
    processes: bool
    parts: PartFiles
    on_total: Callable[[int], object]
    on_progress: Callable[[int], object]
    report: EmbedReport = field(default_factory=EmbedReport)
    reusable: ReusableRows = field(default_factory=ReusableRows)
    new_parts: list[Path] = field(default_factory=list)

    def write(self, existing: LatentsFile | None) -> None:
        """Embed what no earlier run did and write the file, unless the existing one needs no change."""
        self._collect_reusable(existing)
        self.on_total(self._count_left())
        self._embed()
        report = self.report
        report.kept, report.dropped = self.reusable.taken, self.reusable.left
        report.rows = report.kept + report.embedded
        if existing is not None and self._is_current(existing):
            report.unchanged = True
            return
        if existing is not None and existing.count and not report.rows:
            raise DataError(
                f"{printable(str(self.out))} has {existing.count} rows and no image at all is left in "
                f"{', '.join(map(printable, self.spec.roots.values()))}; mount it, or remove the file"
            )
        self.parts.finish(self.spec, self._all_rows())

    def require_current(self, existing: LatentsFile) -> None:
        """Check that the existing file is up to date; images without a row must be unreadable ones.

        Raises:
            InvalidArgumentError: it is not up to date.
        """
        if replace(existing.spec, model_name=self.spec.model_name) != self.spec:
            raise self._outdated("made with another model, --crop or source")
        self.reusable.add(self.out, existing.keys())
        missing = self._count_left()
        with closing(self._stream()) as stream:
            for batch in stream:
                if self._rows_of(batch).entries:
                    raise self._outdated(f"without {missing} of the images as they are now")
        if self.reusable.left:
            raise self._outdated(
                f"{self.reusable.left} of its {existing.count} images are gone or changed since"
            )
        self.report.kept = self.report.rows = existing.count
        self.report.unchanged = True

    def _outdated(self, why: str) -> InvalidArgumentError:
        return InvalidArgumentError(
            f"{printable(str(self.out))} exists, {why}; --overwrite brings it up to date, or name another"
        )

    def _collect_reusable(self, existing: LatentsFile | None) -> None:
        """Find the rows that may be reused."""
        if existing is not None and existing.spec.same_embedding(self.spec):
            self.reusable.add(self.out, existing.keys())
        for file, spec, keys in self.parts.survey():
            if spec.same_embedding(self.spec):
                self.reusable.add(file, keys)
            elif existing is not None:  # --overwrite was given
                file.unlink()
            else:
                raise InvalidArgumentError(
                    f"{printable(str(file.parent))} holds parts of a run with model {spec.model_name} "
                    f"({spec.model_id[:12]}) and --crop {spec.crop}; finish that run, or remove the folder"
                )

    def _images(
        self, on_skipped: Callable[[str], object] = lambda _: None
    ) -> Iterator[tuple[list[ToEmbed], list[bytes]]]:
        """Yield each image once, in chunks, with their current keys."""
        scan = new_items(self.sources, _raise, lambda _, __, kind: on_skipped(kind))
        for source, items in scan:
            images = [ToEmbed(item, source.root_name, new=True) for item in items]
            yield images, [_current_key(image) for image in images]

    def _count_left(self) -> int:
        skipped = Counter[str]()
        left = 0
        for images, keys in self._images(lambda kind: skipped.update([kind])):
            left += len(images) - int(self.reusable.contains(keys).sum())
        self.report.passed_over = dict(skipped.most_common())
        return left

    def _to_embed(self) -> Iterator[tuple[ToEmbed, str | Readable]]:
        """Yield the images to embed; the rows of the others are marked as reused."""
        for images, keys in self._images():
            for image, is_reused in zip(images, self.reusable.take(keys), strict=True):
                if not is_reused:
                    yield image, image.item.where

    def _stream(self) -> Any:
        crop = parse_framing(self.spec.crop)
        return embed_files(
            self.model, self._to_embed(), crop=crop, max_pixels=self.max_pixels, processes=self.processes
        )

    def _embed(self) -> None:
        held: list[Rows] = []
        due = time.monotonic() + _PART_SECONDS
        with closing(self._stream()) as stream:
            try:
                for batch in stream:
                    held.append(self._rows_of(batch))
                    self.on_progress(len(batch.keys) + len(batch.failures))
                    if sum(len(rows.entries) for rows in held) >= ROWS or time.monotonic() > due:
                        self._write_part(held)
                        due = time.monotonic() + _PART_SECONDS
            except KeyboardInterrupt:
                self._write_part(held)
                raise
        self._write_part(held)

    def _write_part(self, held: list[Rows]) -> None:
        if any(rows.entries for rows in held):
            rows = concatenate(held)
            self.new_parts.append(self.parts.add(self.spec, rows))
            self.report.embedded += len(rows.entries)
        held.clear()

    def _rows_of(self, batch: EmbeddedBatch[ToEmbed]) -> Rows:
        """Return a batch as rows; failures and degenerate embeddings go to the report."""
        batch = drop_degenerate(batch)
        self.report.failed += [(printable(str(each.item.file)), reason) for each, reason in batch.failures]
        return rows_of(batch, [(each.item.path, each.root_name, each.item.person) for each in batch.keys])

    def _is_current(self, existing: LatentsFile) -> bool:
        """Whether the existing file needs no change."""
        return (
            not self.report.embedded
            and existing.spec == self.spec
            and existing.count == self.report.kept
            and existing.has_files
            and self.reusable.takes_all(existing.keys())
        )

    def _all_rows(self) -> Iterator[Rows]:
        yield from self.reusable.rows()
        for file in self.new_parts:
            with LatentsFile.open(file) as part:
                yield from part.rows()


def rows_of(batch: EmbeddedBatch[Any], images: Sequence[tuple[str, str, str | None]]) -> Rows:
    """Return a batch as rows, by the path, root name and person of each image."""
    entries = [
        Entry(path, root, **asdict(info), person=person)
        for (path, root, person), info in zip(images, batch.facts, strict=True)
    ]
    return Rows(entries, batch.embeddings) if batch.faces is None else _rows_of_faces(batch, entries)


def _rows_of_faces(batch: EmbeddedBatch[Any], entries: Sequence[Entry]) -> Rows:
    """Return a row for each face; an image without one has a row too, so that it is not read again."""
    rows: list[Entry] = []
    vectors: list[NDArray[np.float32]] = []
    start = 0
    for entry, faces in zip(entries, batch.faces or (), strict=True):
        person = {} if entry.person is None else {"person": entry.person}
        payloads = face_payloads(person, faces, folder_person=entry.person)
        rows += [entry._replace(person=each.pop("person", None), payload=each) for each in payloads]
        vectors.append(face_vectors(batch.embeddings[start : start + len(faces)], faces))
        start += len(faces)
    return Rows(rows, np.concatenate([np.empty((0, batch.embeddings.shape[1]), np.float32), *vectors]))


def _current_key(image: ToEmbed) -> bytes:
    """Return the key that a row of this image has; of a file that cannot be examined one that none has."""
    now = image.item.size_and_mtime()
    return NO_KEY if now is None else key_of(image.root_name, image.item.path, *now)


def _raise(_: Source, error: OSError) -> None:
    raise error
