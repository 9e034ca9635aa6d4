"""Denoise many image files: on all cores, in bounded memory, and so that a killed run can be repeated.

Images are read, decoded, encoded and written on a few threads; their tiles are denoised by a pool of as many
threads as there are cores, so that many small images keep the cores as busy as one large image. An image
waits until the images in progress leave room for its pixels.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.errors import ImageError
from lookalike.encoder.files import atomic_write, remove_stale
from lookalike.encoder.text import printable
from lookalike.searcher.denoising.denoiser import FileDenoiser
from lookalike.searcher.denoising.paths import Task

Pixels = NDArray[np.uint8]
Status = Literal["cleaned", "clean", "skipped", "failed"]

_MAX_PIXELS: Final = 40_000_000
"""Pixels of the images in progress; a larger image runs alone."""
_MAX_FILE_BYTES: Final = 1 << 32
_SINGLE_FILE_ERRORS: Final = {errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.EINVAL}
"""Errors of a single target; others (no room, no permission) would stop the next one too."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one image.

    Attributes:
        task: The image.
        status: cleaned; clean (no noise to remove: unchanged); skipped (its target exists); or failed.
        sigma: Estimated noise level, in [0, 1]; None: not estimated.
        reason: Why it failed, one line.
        view: The middle before and after, uint8 (h, w, 1 or 3).
    """

    task: Task
    status: Status
    sigma: float | None = None
    reason: str = ""
    view: tuple[Pixels, Pixels] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, without empty ones; sigma in 0..255."""
        values = {
            "path": self.task.path,
            "out": str(self.task.target) if self.status != "failed" else "",
            "status": self.status,
            "sigma": None if self.sigma is None else round(255 * self.sigma, 2),
            "reason": self.reason,
        }
        return {key: value for key, value in values.items() if value not in (None, "")}


@dataclass(slots=True)
class BatchReport:
    """The counts of a run, in images.

    Attributes:
        cleaned: Denoised and written.
        clean: Written unchanged: there was no noise to remove.
        skipped: Left out because their targets exist.
        failed: Path and one-line reason.
        seconds: Of the whole run.
    """

    cleaned: int = 0
    clean: int = 0
    skipped: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
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

    def summary(self) -> str:
        """Return one line for people."""
        words = [f"{self.cleaned} denoised", f"{self.clean} already clean"]
        words += [f"{self.skipped} skipped (exist)"] if self.skipped else []
        return ", ".join([*words, f"{len(self.failed)} failed"])

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "cleaned": self.cleaned,
            "clean": self.clean,
            "skipped": self.skipped,
            "failed": [{"path": path, "reason": reason} for path, reason in self.failed],
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


class PixelBudget:
    """A semaphore that counts the pixels of the images in progress."""

    def __init__(self, limit: int) -> None:
        self._limit, self._used = limit, 0
        self._change = threading.Condition()

    @contextmanager
    def acquire(self) -> Iterator[Callable[[int], None]]:
        """Give a function that waits for room for some pixels; they are released when the block ends."""
        acquired = 0

        def wait_for(pixels: int) -> None:
            nonlocal acquired
            with self._change:
                self._change.wait_for(lambda: not self._used or self._used + pixels <= self._limit)
                self._used += pixels
                acquired += pixels

        try:
            yield wait_for
        finally:
            with self._change:
                self._used -= acquired
                self._change.notify_all()


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
            if error.errno not in _SINGLE_FILE_ERRORS:
                raise
            return Outcome(task, "failed", reason=f"cannot be written ({error.strerror})")
        return Outcome(task, result.status, result.sigma, view=result.view)

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
