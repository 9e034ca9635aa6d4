"""Denoise many image files: on all cores, in bounded memory, and so that a killed run can be repeated.

Images are read, decoded, encoded and written on a few threads; their tiles are denoised by a pool of as many
threads as there are cores, so that many small images keep the cores as busy as one large image. An image
waits until the images in progress leave room for its pixels.

All output paths are decided before anything is written: a tree like that of the sources, and never over an
image that is read.
"""

from __future__ import annotations

import errno
import itertools
import math
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.errors import DataError, ImageError, InvalidArgumentError, printable
from lookalike.encoder.files import atomic_write, remove_stale
from lookalike.encoder.images import (
    IMAGE_SUFFIXES,
    WRITABLE_FORMATS,
    OnSkipped,
    PixelBudget,
    find_images,
    suffixes_of,
)
from lookalike.indexer.sources import SourceFilter, as_text
from lookalike.searcher.denoising.denoiser import DenoisedFile, FileDenoiser

_EXTENSIONS: Final = {kind: suffixes_of(kind) for kind in WRITABLE_FORMATS}


@dataclass(frozen=True, slots=True)
class Task:
    """One image and its output path.

    Attributes:
        source: The file to read.
        path: Its name: relative to the source that it was found in, with ``/``.
        target: The file to write.
    """

    source: Path
    path: str
    target: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Destination:
    """How output files are named.

    Attributes:
        out: The folder, or the file of a single image.
        single: Whether ``out`` is that file.
        suffix: Inserted between a name and its extension.
        kind: Format to write; None: as it was, with the same extension.
    """

    out: Path
    single: bool = False
    suffix: str = ""
    kind: str | None = None

    def target(self, relative: Path) -> Path:
        """Return the output path of the image with this path, relative to its source."""
        if self.single:
            return self.out
        stem, extension = relative.stem, relative.suffix
        if extension.lower() not in IMAGE_SUFFIXES:
            stem, extension = relative.name, ""
        if self.kind is not None and extension.lower() not in _EXTENSIONS[self.kind]:
            extension = WRITABLE_FORMATS[self.kind]
        return self.out / relative.with_name(f"{stem}{self.suffix}{extension}")


def resolve_destination(
    sources: Sequence[str], listed: Sequence[Path], *, out: str, kind: str | None, suffix: str
) -> Destination:
    """Return what ``--out`` means: a folder, or for a single file the file to write.

    Args:
        sources: Folders and files.
        listed: Files named in a list.
        out: As given; a file when it has the extension of an image, and there is one source.
        kind: Format to write; None: as ``out`` or each image says.
        suffix: Inserted between names and extensions.

    Raises:
        InvalidArgumentError: these contradict each other.
    """
    if "/" in suffix or "\0" in suffix:
        raise InvalidArgumentError(
            f"--suffix is part of a file name, {printable(suffix)!r} is not; name a folder with --out"
        )
    folder, extension = Path(out), Path(out).suffix.lower()
    format_of_out = next((each for each, extensions in _EXTENSIONS.items() if extension in extensions), None)
    single = len(sources) == 1 and not listed and not Path(sources[0]).is_dir()
    if not single or format_of_out is None or out.endswith("/") or folder.is_dir():
        if folder.exists() and not folder.is_dir():
            raise InvalidArgumentError(f"--out is a folder, {printable(out)} is a file; name another")
        return Destination(out=folder, suffix=suffix, kind=kind)
    if kind not in (None, format_of_out):
        raise InvalidArgumentError(f"--format {kind} contradicts {printable(out)}; leave one of them out")
    if suffix:
        raise InvalidArgumentError(
            f"--suffix is for files that go into a folder, {printable(out)} is a file; leave it out"
        )
    return Destination(out=folder, single=True, kind=format_of_out)


def find_tasks(
    sources: Sequence[str],
    listed: Sequence[Path],
    *,
    root: Path | None,
    reading: SourceFilter,
    destination: Destination,
    on_unreadable: Callable[[OSError], object] | None = None,
    on_skipped: OnSkipped = lambda *_: None,
) -> list[Task]:
    """Find the images to denoise, in the order of the sources and of the images in them.

    Files in the destination are not sources, also where the destination lies in a source.

    Args:
        sources: Folders and files.
        listed: Files named in a list.
        root: What the paths of listed files are relative to; None: the folder they have in common.
        reading: Which images in folders are taken.
        destination: Where their outputs go.
        on_unreadable: Called for a folder that cannot be listed, which is then skipped.
        on_skipped: Called for what is passed over in folders, with its path and its kind.

    Raises:
        DataError: a source does not exist.
        InvalidArgumentError: invalid destination, or a listed file lies outside the root.
    """
    tasks: dict[tuple[Path, Path], Task] = {}
    for source in sources:
        for task in _of_source(source, reading, destination, on_unreadable, on_skipped):
            tasks.setdefault((task.source, task.target), task)
    for task in _of_list(listed, root, destination):
        tasks.setdefault((task.source, task.target), task)
    return list(tasks.values())


def check_tasks(tasks: Sequence[Task]) -> None:
    """Refuse to write one file twice, or over an image that is read.

    Raises:
        InvalidArgumentError: names the two files.
    """
    taken: dict[Path, Task] = {}
    existing: list[Task] = []
    for task in tasks:
        first = taken.setdefault(task.target, task)
        if first is not task:
            raise InvalidArgumentError(
                f"{printable(str(first.source))} and {printable(str(task.source))} would both be written to "
                f"{printable(str(task.target))}; denoise them into two folders, or give --suffix"
            )
        if os.path.exists(task.target):  # noqa: PTH110  # called for each of many files: Path.exists takes three times as long
            existing.append(task)
    if not existing:
        return
    inputs = {_identity(task.source): task for task in tasks}
    for task in existing:
        read = inputs.get(_identity(task.target))
        if read is not None and _identity(task.target) is not None:
            raise InvalidArgumentError(
                f"{printable(str(read.source))} is an input and would be overwritten; "
                "name another folder with --out, or give --suffix"
            )


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(file)  # noqa: PTH116
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _of_source(
    source: str,
    reading: SourceFilter,
    destination: Destination,
    on_unreadable: Callable[[OSError], object] | None,
    on_skipped: OnSkipped,
) -> Iterator[Task]:
    path = Path(source)
    if not source or not (path.exists() or path.is_symlink()):
        raise DataError(f"a source is a folder or an image file; '{printable(source)}' does not exist")
    if not path.is_dir():
        yield Task(path, source, destination.target(Path(path.name)))
        return
    if destination.single:
        raise InvalidArgumentError(
            f"--out must be a folder for a folder of images, {printable(str(destination.out))} is a file"
        )
    within, own = _inside(destination.out.resolve(), path.resolve())
    if own and not destination.suffix:
        raise InvalidArgumentError(
            f"--out {printable(str(destination.out))} is the source itself; name another, or give --suffix"
        )

    def is_source(relative: Path) -> bool:
        is_output = (within is not None and relative.is_relative_to(within)) or (
            own and relative.stem.endswith(destination.suffix)
        )
        return not is_output and reading.accepts(as_text(relative))

    found = find_images(
        path,
        hidden=reading.hidden,
        on_unreadable=on_unreadable,
        on_skipped=lambda name, kind: on_skipped(str(path / name), kind) if is_source(Path(name)) else None,
    )
    for relative in filter(is_source, found):
        yield Task(path / relative, as_text(relative), destination.target(relative))


def _inside(out: Path, source: Path) -> tuple[Path | None, bool]:
    """Return where the destination lies in a source, if it does, and whether it is the source."""
    if out == source:
        return None, True
    return (out.relative_to(source), False) if out.is_relative_to(source) else (None, False)


def _of_list(listed: Sequence[Path], root: Path | None, destination: Destination) -> Iterator[Task]:
    if not listed:
        return
    # The name is not resolved: a link keeps its own name, as it does in a folder.
    absolute = [file.parent.resolve() / file.name for file in listed]
    folder = root.resolve() if root is not None else Path(os.path.commonpath([f.parent for f in absolute]))
    for file, whole in zip(listed, absolute, strict=True):
        if not whole.is_relative_to(folder):
            raise InvalidArgumentError(
                f"listed files lie under --root {printable(str(folder))}, {printable(str(file))} does not; "
                "name a folder that holds them all"
            )
        relative = whole.relative_to(folder)
        yield Task(file, as_text(relative), destination.target(relative))


Pixels = NDArray[np.uint8]
Status = Literal["cleaned", "clean", "skipped", "failed"]

_MAX_PIXELS: Final = 40_000_000
"""Pixels of the images in progress; a larger image runs alone."""
_MAX_FILE_BYTES: Final = 1 << 32
SINGLE_FILE_ERRORS: Final = {errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.EINVAL}
"""Errors of a single target; others (no room, no permission) would stop the next one too."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one image.

    Attributes:
        task: The image.
        status: cleaned; clean (left as it is); skipped (its target exists); or failed.
        reason: Why it failed, one line; or why it was left as it is.
        sigmas: Noise level, in [0, 1], as estimated or given: median, 10th and 90th percentile of its
            places; None: neither.
        changed: Share of its pixels that changed; None: it was made anew.
        psnr: Between input and output, in dB; None: it was made anew, or is unchanged.
        view: The middle before, after, and of the noise map, uint8 (h, w, 1 or 3).
    """

    task: Task
    status: Status
    reason: str = ""
    sigmas: tuple[float, float, float] | None = None
    changed: float | None = None
    psnr: float | None = None
    view: tuple[Pixels, ...] | None = None

    @classmethod
    def of(cls, task: Task, result: DenoisedFile) -> Self:
        """Return the outcome of an image that was denoised, or left as it is."""
        noise, change = result.noise, result.change
        return cls(
            task,
            result.status,
            result.reason,
            None if noise is None else (noise.percentile(50), noise.percentile(10), noise.percentile(90)),
            None if change is None else change.share,
            None if change is None or not math.isfinite(change.psnr) else change.psnr,
            result.view,
        )

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, without empty ones; sigma in 0..255, PSNR in dB."""
        names = ("sigma", "sigma_p10", "sigma_p90")
        sigmas = () if self.sigmas is None else (round(255 * sigma, 2) for sigma in self.sigmas)
        values = {
            "path": self.task.path,
            "out": str(self.task.target) if self.status != "failed" else "",
            "status": self.status,
            **dict(zip(names, sigmas, strict=False)),
            "changed": None if self.changed is None else round(self.changed, 4),
            "psnr_to_input_db": None if self.psnr is None else round(self.psnr, 2),
            "reason": self.reason,
        }
        return {key: value for key, value in values.items() if value not in (None, "")}


@dataclass(slots=True)
class BatchReport:
    """The counts of a run, in images.

    Attributes:
        cleaned: Denoised and written.
        clean: Written as they were.
        reasons: Why these were left: reason to how many.
        skipped: Left out because their targets exist.
        failed: Path and one-line reason.
        passed_over: What folders hold beside images that can be read: kind to how many.
        seconds: Of the whole run.
    """

    cleaned: int = 0
    clean: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    skipped: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    passed_over: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def images_per_second(self) -> float:
        """Images written per second of the whole run."""
        return (self.cleaned + self.clean) / self.seconds if self.seconds else 0.0

    def count(self, outcome: Outcome) -> None:
        """Count the result of one image."""
        if outcome.status == "failed":
            self.failed.append((outcome.task.path, outcome.reason))
        else:
            setattr(self, outcome.status, getattr(self, outcome.status) + 1)
        if outcome.status == "clean":
            self.reasons[outcome.reason] = self.reasons.get(outcome.reason, 0) + 1

    def summary(self) -> str:
        """Return one line for people."""
        left = ", ".join(f"{count} {reason}" for reason, count in sorted(self.reasons.items(), reverse=True))
        words = [
            f"{self.cleaned} denoised",
            f"{self.clean} left as they are" + (f" ({left})" if left else ""),
        ]
        words += [f"{self.skipped} skipped (exist)"] if self.skipped else []
        return ", ".join([*words, f"{len(self.failed)} failed"])

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "cleaned": self.cleaned,
            "clean": self.clean,
            "reasons": self.reasons,
            "skipped": self.skipped,
            "failed": [{"path": path, "reason": reason} for path, reason in self.failed],
            "passed_over": self.passed_over,
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.images_per_second, 1),
        }


def denoise_all(
    tasks: Sequence[Task],
    denoiser: FileDenoiser,
    *,
    overwrite: bool = False,
    threads: int | None = None,
    on_outcome: Callable[[Outcome], object] | None = None,
) -> BatchReport:
    """Denoise images and write them; repeated after it was killed, it does what is left.

    An image that cannot be read or written fails alone. A file appears whole or not at all; what a killed run
    left half written is removed.

    Args:
        tasks: Checked by :func:`check_tasks`.
        denoiser: The model.
        overwrite: Whether to replace existing targets.
        threads: For denoising; None: one for each core.
        on_outcome: Called with the result of each image, in the order of the tasks.

    Raises:
        OSError: files cannot be written: no room, no permission. What was written stays.
    """
    begun, report = time.perf_counter(), BatchReport()
    remove_stale({task.target.parent for task in tasks})
    with WorkerPool(denoiser, overwrite=overwrite, threads=threads or os.cpu_count() or 1) as workers:
        for outcome in workers.outcomes(tasks):
            report.count(outcome)
            if on_outcome is not None:
                on_outcome(outcome)
    report.seconds = time.perf_counter() - begun
    return report


class _Canceled(Exception):  # noqa: N818  # not an error: the run was canceled
    """Raised in the threads of a run that was canceled."""


class WorkerPool:
    """The threads of a run."""

    def __init__(self, denoiser: FileDenoiser, *, overwrite: bool, threads: int) -> None:
        self._denoiser, self._overwrite = denoiser, overwrite
        self._stop = threading.Event()
        self._budget = PixelBudget(_MAX_PIXELS)
        self._prefetch = 4 * threads
        # One more than there are cores: while one image is read or written, the cores denoise others.
        self._images = ThreadPoolExecutor(threads + 1, thread_name_prefix="image")
        self._tiles = ThreadPoolExecutor(threads, thread_name_prefix="tile")

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for pool in (self._images, self._tiles):
            pool.shutdown(cancel_futures=True)

    def outcomes(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """Yield the result of each, in order."""
        waiting, pending = iter(tasks), deque[Future[Outcome]]()
        while True:
            for task in itertools.islice(waiting, self._prefetch - len(pending)):
                pending.append(self._images.submit(self._one, task))
            if not pending:
                return
            yield pending.popleft().result()

    def _one(self, task: Task) -> Outcome:
        if self._stop.is_set():
            raise _Canceled
        if not self._overwrite and os.path.lexists(task.target):
            return Outcome(task, "skipped")
        try:
            data = _read(task.source)
        except OSError as error:
            return Outcome(task, "failed", reason=f"cannot be read ({error.strerror or error})")
        try:
            with self._budget.acquire() as wait_for:
                result = self._denoiser(data, task.path, map_tiles=self._map_tiles, on_size=wait_for)
                del data
        except ImageError as error:
            return Outcome(task, "failed", reason=str(error).removeprefix(f"{printable(task.path)}: "))
        try:
            atomic_write(task.target, result.data)
        except OSError as error:
            if error.errno not in SINGLE_FILE_ERRORS:
                raise
            return Outcome(task, "failed", reason=f"cannot be written ({error.strerror})")
        return Outcome.of(task, result)

    def _map_tiles(self, tile: Callable[..., Any], arguments: Iterable[Any]) -> Iterator[Any]:
        def unless_canceled(argument: Any) -> Any:
            if self._stop.is_set():
                raise _Canceled
            return tile(argument)

        return self._tiles.map(unless_canceled, arguments)


def _read(file: Path) -> bytes:
    status = file.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError("not a regular file")
    if status.st_size > _MAX_FILE_BYTES:
        raise OSError("too large for an image")
    return file.read_bytes()
