"""A bounded thread pool for blocking work, with micro-batching.

Waiting jobs of one kind are run in one call, up to sixteen together. That adds no waiting, since a job that
finds a free worker starts at once; and it pays under load: sixteen faces embedded together take half the time
of sixteen calls.
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

MAX_BATCH: Final = 16
"""Jobs in one call."""

T = TypeVar("T")
P = TypeVar("P")
BatchFunction = Callable[[Sequence[Any]], Sequence[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    kind: Hashable
    value: Any
    function: BatchFunction
    future: asyncio.Future[Any]
    queued_at: float


class BatchingExecutor:
    """A bounded pool of threads. Call its methods on the event loop, :meth:`close` excepted.

    Args:
        workers: Calls at once.
        queue_size: Jobs that may wait.
        seconds: Longest time that a job may wait and run, in seconds.
        on_wait: Called with the seconds that each job waited.
    """

    def __init__(
        self,
        workers: int,
        *,
        queue_size: int,
        seconds: float,
        on_wait: Callable[[float], object] = lambda _: None,
    ) -> None:
        self._workers, self._queue_size, self._seconds = workers, queue_size, seconds
        self._on_wait = on_wait
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="worker")
        self._queue: deque[_Job] = deque()
        self._busy = 0

    @property
    def waiting(self) -> int:
        """Jobs that wait."""
        return len(self._queue)

    @property
    def busy(self) -> int:
        """Calls that run."""
        return self._busy

    async def run(self, work: Callable[[], T]) -> T:
        """Run one job by itself.

        Raises:
            ApiError: too many jobs wait (``busy``), or it took too long (``timeout``).
        """
        return cast("T", await self.submit_batched(object(), None, lambda _: [work()]))  # a kind of its own

    async def submit_batched(
        self, kind: Hashable, value: P, function: Callable[[Sequence[P]], Sequence[T | Exception]]
    ) -> T:
        """Run a job, in one call with waiting jobs of the same kind.

        Args:
            kind: Jobs of equal kinds may be run in one call.
            value: The input of this job.
            function: Maps several inputs to as many results, in order. If it raises, all of the jobs fail; an
                exception among its results fails only the job at that position.

        Raises:
            ApiError: as :meth:`run`.
        """
        if self._busy >= self._workers and len(self._queue) >= self._queue_size:
            raise ApiError("busy", f"{len(self._queue)} requests are waiting; try again in a second")
        job = _Job(kind, value, function, asyncio.get_running_loop().create_future(), time.perf_counter())
        self._queue.append(job)
        self._start_jobs()
        try:
            return cast("T", await asyncio.wait_for(job.future, self._seconds))
        except TimeoutError:
            raise ApiError(
                "timeout", f"it took more than {self._seconds:g} s; send less, or try again later"
            ) from None
        finally:
            if job in self._queue:  # timed out or cancelled before it started
                self._queue.remove(job)

    def close(self) -> None:
        """Wait for the running calls. Nothing may be submitted afterwards."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _start_jobs(self) -> None:
        while self._queue and self._busy < self._workers:
            jobs = self._next_batch()
            now = time.perf_counter()
            for job in jobs:
                self._on_wait(now - job.queued_at)
            self._busy += 1
            self._start(jobs)

    def _start(self, jobs: Sequence[_Job]) -> None:
        loop = asyncio.get_running_loop()

        def done(future: Future[Sequence[Any]]) -> None:
            loop.call_soon_threadsafe(self._finish, jobs, future)

        self._pool.submit(jobs[0].function, [job.value for job in jobs]).add_done_callback(done)

    def _next_batch(self) -> list[_Job]:
        """Take the job that has waited longest, and those of its kind, off the queue."""
        first = self._queue[0]
        batch = [job for job in self._queue if job.kind == first.kind][:MAX_BATCH]
        for job in batch:
            self._queue.remove(job)
        return batch

    def _finish(self, jobs: Sequence[_Job], future: Future[Sequence[Any]]) -> None:
        self._busy -= 1
        error = future.exception()
        results: Sequence[Any] = [error] * len(jobs) if error is not None else future.result()
        for job, result in zip(jobs, results, strict=True):
            if job.future.done():  # nobody waits for it any more
                continue
            if isinstance(result, BaseException):
                job.future.set_exception(result)
            else:
                job.future.set_result(result)
        self._start_jobs()
