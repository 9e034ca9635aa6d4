"""Many pictures cleaned: on all cores, in bounded memory, and so that a killed run can be run again.

Pictures are read, decoded, encoded and written on a few threads, and cleaned by a pool of as many threads as
there are cores, to which each gives its tiles: many small pictures keep the cores as busy as one large
picture does. Pictures are let in while those under way have no more than so many pixels together.
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

_TOGETHER: Final = 40_000_000
"""Pixels of the pictures that are under way at once; a larger one is let in alone."""
_LARGEST_FILE: Final = 1 << 32
_OF_ONE_FILE: Final = {errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.EINVAL}
"""What concerns a single target; anything else (no room, no permission) would stop the next one too."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one picture.

    Attributes:
        task: What it was.
        status: cleaned; clean (it was so before: left as it was); skipped (its file was there already); or
            failed.
        sigma: Estimated noise, in [0, 1]; None: nothing was estimated.
        reason: Why it failed, one line.
        view: The middle before and after, uint8 (h, w, 1 or 3).
    """

    task: Task
    status: Status
    sigma: float | None = None
    reason: str = ""
    view: tuple[Pixels, Pixels] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, without what is empty; sigma as people count it, 0..255."""
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
    """What a run came to, in pictures.

    Attributes:
        cleaned: Cleaned and written.
        clean: Written as they were: there was no noise worth taking away.
        skipped: Left out because their files were there already.
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
        """Pictures written per second of the whole run."""
        return (self.cleaned + self.clean) / self.seconds if self.seconds else 0.0

    def count(self, outcome: Outcome) -> None:
        """Take in what became of one picture."""
        if outcome.status == "failed":
            self.failed.append((outcome.task.path, outcome.reason))
        else:
            setattr(self, outcome.status, getattr(self, outcome.status) + 1)

    def in_words(self) -> str:
        """Return one line for people."""
        words = [f"{self.cleaned} cleaned", f"{self.clean} clean already"]
        words += [f"{self.skipped} there already"] if self.skipped else []
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
    treatment: FileDenoiser,
    *,
    overwrite: bool = False,
    threads: int | None = None,
    on_outcome: Callable[[Outcome], object] | None = None,
) -> BatchReport:
    """Clean pictures and write them; run again after it was killed, it does what is left.

    A picture that cannot be read or written again costs only itself. A file appears whole or not at all; what
    a killed run left half written is removed.

    Args:
        tasks: As :func:`check_tasks` found good.
        treatment: What cleans.
        overwrite: Whether to make again what is there already.
        threads: That clean; None: one for each core.
        on_outcome: Told what became of each picture, in the order of the tasks.

    Raises:
        OSError: files cannot be written there: no room, no permission. What was written stays.
    """
    begun, report = time.perf_counter(), BatchReport()
    remove_stale({task.target.parent for task in tasks})
    with _Workers(treatment, overwrite=overwrite, threads=threads or os.cpu_count() or 1) as workers:
        for outcome in workers.outcomes(tasks):
            report.count(outcome)
            if on_outcome is not None:
                on_outcome(outcome)
    report.seconds = time.perf_counter() - begun
    return report


class _Stopped(Exception):  # noqa: N818  # no error: the run was given up
    """Raised in the threads of a run that was given up."""


class _Room:
    """Lets pictures in while there is room for their pixels."""

    def __init__(self, most: int) -> None:
        self._most, self._used = most, 0
        self._change = threading.Condition()

    @contextmanager
    def guest(self) -> Iterator[Callable[[int], None]]:
        """Give what waits until there is room for so many pixels; they count until the block ends."""
        held = 0

        def enter(pixels: int) -> None:
            nonlocal held
            with self._change:
                self._change.wait_for(lambda: not self._used or self._used + pixels <= self._most)
                self._used += pixels
                held += pixels

        try:
            yield enter
        finally:
            with self._change:
                self._used -= held
                self._change.notify_all()


class _Workers:
    """The threads of a run."""

    def __init__(self, treatment: FileDenoiser, *, overwrite: bool, threads: int) -> None:
        self._treatment, self._overwrite = treatment, overwrite
        self._stop = threading.Event()
        self._room = _Room(_TOGETHER)
        self._ahead = 4 * threads
        # One more than there are cores: while one picture is read or written, the cores clean others.
        self._pictures = ThreadPoolExecutor(threads + 1, thread_name_prefix="picture")
        self._tiles = ThreadPoolExecutor(threads, thread_name_prefix="tile")

    def __enter__(self) -> _Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for pool in (self._pictures, self._tiles):
            pool.shutdown(cancel_futures=True)

    def outcomes(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """Yield what became of each, in order."""
        waiting, pending = iter(tasks), deque[Future[Outcome]]()
        while True:
            for task in itertools.islice(waiting, self._ahead - len(pending)):
                pending.append(self._pictures.submit(self._one, task))
            if not pending:
                return
            yield pending.popleft().result()

    def _one(self, task: Task) -> Outcome:
        if self._stop.is_set():
            raise _Stopped
        if not self._overwrite and os.path.lexists(task.target):
            return Outcome(task, "skipped")
        try:
            data = _read(task.source)
        except OSError as error:
            return Outcome(task, "failed", reason=f"cannot be read ({error.strerror or error})")
        try:
            with self._room.guest() as enter:
                treated = self._treatment(data, task.path, at_once=self._at_once, on_size=enter)
                del data
        except ImageError as error:
            return Outcome(task, "failed", reason=str(error).removeprefix(f"{printable(task.path)}: "))
        try:
            atomic_write(task.target, treated.data)
        except OSError as error:
            if error.errno not in _OF_ONE_FILE:
                raise
            return Outcome(task, "failed", reason=f"cannot be written ({error.strerror})")
        return Outcome(task, treated.status, treated.sigma, view=treated.view)

    def _at_once(self, tile: Callable[..., Any], arguments: Iterable[Any]) -> Iterator[Any]:
        def unless_stopped(argument: Any) -> Any:
            if self._stop.is_set():
                raise _Stopped
            return tile(argument)

        return self._tiles.map(unless_stopped, arguments)


def _read(file: Path) -> bytes:
    status = file.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is no file")
    if status.st_size > _LARGEST_FILE:
        raise OSError("it is too large for a picture")
    return file.read_bytes()
