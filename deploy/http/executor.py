"""Blocking work off the event loop: so many at once, so many waiting, no more.

Work of one kind that waits is done together, up to sixteen pieces in one call. That adds no waiting, since a
piece that finds a free worker begins at once; and under load it pays: sixteen faces embedded together take
half of what they take one by one.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

from lookalike.deploy.http.errors import ApiError

__all__ = ["TOGETHER", "BatchingExecutor"]

TOGETHER: Final = 16
"""Pieces that are done in one call at most."""

T = TypeVar("T")
P = TypeVar("P")
Together = Callable[[Sequence[Any]], Sequence[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    kind: Hashable
    value: Any
    work: Together
    future: asyncio.Future[Any]
    since: float


class BatchingExecutor:
    """A bounded pool of threads. Its methods are called on the event loop, but for :meth:`close`.

    Args:
        workers: Calls at once.
        waiting: Pieces that may wait.
        seconds: How long a piece may wait and be worked on.
        on_wait: Told how long each piece waited, in seconds.
    """

    def __init__(
        self,
        workers: int,
        *,
        waiting: int,
        seconds: float,
        on_wait: Callable[[float], object] = lambda _: None,
    ) -> None:
        self._workers, self._most, self._seconds, self._on_wait = workers, waiting, seconds, on_wait
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="lane")
        self._queue: deque[_Piece] = deque()
        self._busy = 0
        self._single = 0

    @property
    def waiting(self) -> int:
        """Pieces that wait."""
        return len(self._queue)

    @property
    def busy(self) -> int:
        """Calls that run."""
        return self._busy

    async def run(self, work: Callable[[], T]) -> T:
        """Do one piece of work by itself.

        Raises:
            ApiError: too many wait (``busy``), or it took too long (``timeout``).
        """
        self._single += 1
        kind = ("single", self._single)  # none is like it
        return cast("T", await self.together(kind, None, lambda _: [work()]))

    async def together(
        self, kind: Hashable, value: P, work: Callable[[Sequence[P]], Sequence[T | Exception]]
    ) -> T:
        """Do one piece of work, together with others of its kind that wait.

        Args:
            kind: Pieces that may be done together have equal kinds.
            value: What the piece is about.
            work: Turns some such values into as many results, in order. What it raises, all of them get; an
                exception among its results only the piece at its place.

        Raises:
            ApiError: as :meth:`run`.
        """
        if self._busy >= self._workers and len(self._queue) >= self._most:
            raise ApiError("busy", f"{len(self._queue)} requests wait already; try again in a second")
        piece = _Piece(kind, value, work, asyncio.get_running_loop().create_future(), time.perf_counter())
        self._queue.append(piece)
        self._pump()
        try:
            return cast("T", await asyncio.wait_for(piece.future, self._seconds))
        except TimeoutError:
            raise ApiError(
                "timeout", f"it took more than {self._seconds:g} s; ask for less, or later"
            ) from None
        finally:
            if piece in self._queue:  # given up before it began
                self._queue.remove(piece)

    def close(self) -> None:
        """Wait for what runs. Nothing may be given to it any more."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _pump(self) -> None:
        """Begin what can be begun."""
        while self._queue and self._busy < self._workers:
            pieces = self._take()
            now = time.perf_counter()
            for piece in pieces:
                self._on_wait(now - piece.since)
            self._busy += 1
            self._begin(pieces)

    def _begin(self, pieces: Sequence[_Piece]) -> None:
        loop = asyncio.get_running_loop()

        def ended(done: Future[Sequence[Any]]) -> None:
            loop.call_soon_threadsafe(self._end, pieces, done)

        self._pool.submit(pieces[0].work, [piece.value for piece in pieces]).add_done_callback(ended)

    def _take(self) -> list[_Piece]:
        """Take the longest waiting piece and those like it off the queue."""
        first = self._queue[0]
        alike = [piece for piece in self._queue if piece.kind == first.kind][:TOGETHER]
        for piece in alike:
            self._queue.remove(piece)
        return alike

    def _end(self, pieces: Sequence[_Piece], done: Future[Sequence[Any]]) -> None:
        self._busy -= 1
        error = done.exception()
        results: Sequence[Any] = [error] * len(pieces) if error is not None else done.result()
        for piece, result in zip(pieces, results, strict=True):
            if piece.future.done():  # nobody waits any more
                continue
            if isinstance(result, BaseException):
                piece.future.set_exception(result)
            else:
                piece.future.set_result(result)
        self._pump()
