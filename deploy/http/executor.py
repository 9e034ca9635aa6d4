"""A bounded thread pool for blocking work, with micro-batching, and with a lane of its own for long work.

Waiting jobs of one kind are run in one call, up to sixteen together. That adds no waiting, since a job that
finds a free worker starts at once; and it pays under load: sixteen faces embedded together take half the time
of sixteen calls.

Long work (denoising takes seconds to a minute) never takes the last worker, and waits in half of the queue at
most. What could not be done in time behind the long work that waits is refused at once: else it would wait
until its time is over, and with what it had begun take the time of others. Its threads have a low priority,
so that also with a single worker, where it has a thread of its own beside it, a search takes hardly longer
than alone.

When a client has gone, its waiting work is dropped, and its long work is told to stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast

from lookalike.deploy.http.errors import ApiError

MAX_BATCH: Final = 16
"""Jobs in one call."""
_MAX_LONG: Final = 4
"""Long calls at once, however many workers there are: each takes some 300 MB and more."""
_MAX_PACE: Final = 10.0
"""Times as long as expected, and as quick: more is an exception."""
_LOWER: Final = 5
"""Steps of priority: a thread gets a quarter of the core that it shares with a search."""

CLIENT_GONE: Final[ContextVar[Callable[[], Awaitable[None]] | None]] = ContextVar("client_gone", default=None)
"""Returns once the client of the request in progress has closed its connection; None outside of requests."""

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
    long: bool
    expected: float
    stop: threading.Event = field(default_factory=threading.Event)


class BatchingExecutor:
    """A bounded pool of threads. Call its methods on the event loop, :meth:`close` excepted.

    Args:
        workers: Calls at once; long ones one less, but at least one, and at most four.
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
        self._workers, self._queue_size, self._seconds = max(2, workers), queue_size, seconds
        self._limits = {
            False: workers,
            True: min(max(1, workers - 1), _MAX_LONG),
        }  # by whether a call is long
        self._running = {False: 0, True: 0}
        self._started: dict[_Job, float] = {}  # when the long jobs that run began
        self._pace = 1.0
        """Seconds that the last long jobs took for each that was expected of them."""
        self._on_wait = on_wait
        self._pools = {
            False: ThreadPoolExecutor(self._limits[False], thread_name_prefix="worker"),
            True: ThreadPoolExecutor(
                self._limits[True], thread_name_prefix="long", initializer=lower_priority
            ),
        }
        self._queue: deque[_Job] = deque()

    @property
    def waiting(self) -> int:
        """Jobs that wait."""
        return len(self._queue)

    @property
    def busy(self) -> int:
        """Calls that run."""
        return sum(self._running.values())

    async def run(self, work: Callable[[], T]) -> T:
        """Run one job by itself.

        Raises:
            ApiError: too many jobs wait (``busy``), it took too long (``timeout``), or the client of the
                request has gone (``client-gone``).
        """
        return cast("T", await self.submit_batched(object(), None, lambda _: [work()]))  # a kind of its own

    async def run_long(self, work: Callable[[threading.Event], T], *, expected: float = 0.0) -> T:
        """Run one job that takes long by itself.

        Args:
            work: Given an event that is set once nobody waits for the result; it should then raise anything.
            expected: Seconds that it will take, about; 0: nobody knows.

        Raises:
            ApiError: as :meth:`run`; ``busy`` also if it would not be done in time.
        """
        job = self._job(object(), None, lambda _: [work(job.stop)], long=True, expected=expected)
        return cast("T", await self._result(job))

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
        return cast("T", await self._result(self._job(kind, value, function)))

    def close(self) -> None:
        """Wait for the running calls. Nothing may be submitted afterwards."""
        for pool in self._pools.values():
            pool.shutdown(wait=True, cancel_futures=True)

    def _job(
        self,
        kind: Hashable,
        value: Any,
        function: BatchFunction,
        *,
        long: bool = False,
        expected: float = 0.0,
    ) -> _Job:
        future, now = asyncio.get_running_loop().create_future(), time.perf_counter()
        return _Job(kind, value, function, future, now, long, expected)

    async def _result(self, job: _Job) -> Any:
        """Queue a job and wait for its result, for as long as somebody waits for that."""
        self._check_room(job)
        self._queue.append(job)
        self._start_jobs()
        client = CLIENT_GONE.get()
        gone = None if client is None else asyncio.ensure_future(client())
        try:
            await asyncio.wait(
                [job.future] if gone is None else [job.future, gone],
                timeout=self._seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if job.future.done():
                return job.future.result()
            if gone is not None and gone.done():
                gone.result()
                raise ApiError("client-gone", "the client closed the connection before the response")
            raise self._timeout(job)
        finally:
            if gone is not None:
                gone.cancel()
            self._end_long(job)
            job.future.cancel()
            job.stop.set()
            if job in self._queue:  # it has not started
                self._queue.remove(job)

    def _check_room(self, job: _Job) -> None:
        """Refuse a job that would have to wait where too many wait already, or for too long."""
        if self._has_room(long=job.long):
            return
        waiting = sum(each.long for each in self._queue) if job.long else len(self._queue)
        wait = self._expected_wait() if job.long else 0.0
        own = self._pace * job.expected
        late = wait + own - self._seconds
        retry = math.ceil(max(1.0, late))
        if len(self._queue) >= self._queue_size or (job.long and waiting >= -(-self._queue_size // 2)):
            raise _busy(f"{waiting} requests{' that take long' * job.long} are waiting", retry)
        if late > 0:
            raise _busy(
                f"this would take about {own:.0f} s after {wait:.0f} s of other such work, and a "
                f"request may wait and be processed for {self._seconds:g} s in all",
                retry,
            )

    def _expected_wait(self) -> float:
        """Return the seconds until the long work that runs and waits is done, about."""
        now = time.perf_counter()
        left = sum(max(0.0, began + self._pace * job.expected - now) for job, began in self._started.items())
        left += sum(self._pace * job.expected for job in self._queue if job.long)
        return left / self._limits[True]

    def _end_long(self, job: _Job) -> None:
        """Learn from a long job that is done or given up how long such work takes."""
        began, future = self._started.pop(job, None), job.future
        if began is None or not job.expected:
            return
        pace = min(max((time.perf_counter() - began) / job.expected, 1 / _MAX_PACE), _MAX_PACE)
        done = future.done() and not future.cancelled() and future.exception() is None
        if done or pace > self._pace:
            self._pace = (self._pace + pace) / 2

    def _timeout(self, job: _Job) -> ApiError:
        if job in self._queue:
            why = f"no worker was free for {self._seconds:g} s"
            return ApiError("timeout", f"{why}; {len(self._queue)} requests are waiting; try again later")
        return ApiError("timeout", f"it took more than {self._seconds:g} s; send less, or try again later")

    def _has_room(self, *, long: bool) -> bool:
        """Whether one more call may run."""
        return self._running[long] < self._limits[long] and self.busy < self._workers

    def _start_jobs(self) -> None:
        while first := next((job for job in self._queue if self._has_room(long=job.long)), None):
            jobs = self._take_batch(first)
            now = time.perf_counter()
            for job in jobs:
                self._on_wait(now - job.queued_at)
            self._running[first.long] += 1
            if first.long:
                self._started[first] = now
            self._start(jobs)

    def _start(self, jobs: Sequence[_Job]) -> None:
        loop = asyncio.get_running_loop()

        def done(future: Future[Sequence[Any]]) -> None:
            loop.call_soon_threadsafe(self._finish, jobs, future)

        pool = self._pools[jobs[0].long]
        pool.submit(jobs[0].function, [job.value for job in jobs]).add_done_callback(done)

    def _take_batch(self, first: _Job) -> list[_Job]:
        """Take a job and those of its kind off the queue."""
        batch = [job for job in self._queue if job.kind == first.kind][:MAX_BATCH]
        for job in batch:
            self._queue.remove(job)
        return batch

    def _finish(self, jobs: Sequence[_Job], future: Future[Sequence[Any]]) -> None:
        self._running[jobs[0].long] -= 1
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


def _busy(why: str, retry: int) -> ApiError:
    """Return the refusal of a request that may be sent again after some seconds."""
    detail = f"{why}; try again in {'a second' if retry == 1 else f'{retry} s'}"
    return ApiError("busy", detail, headers={"Retry-After": str(retry)})


def lower_priority() -> None:
    """Let this thread, and what it starts, take only what others leave of the cores. Only on Linux.

    For the ``initializer`` of a pool: a thread cannot raise its priority again.
    """
    if sys.platform == "linux":  # elsewhere a thread has no priority of its own
        thread = threading.get_native_id()
        with contextlib.suppress(OSError):  # where the system forbids it, it is only slower for others
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + _LOWER)
