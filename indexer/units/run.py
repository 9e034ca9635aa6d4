"""The same work on many units: in processes of this machine. Nothing is scheduled, retried or locked here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from itertools import islice
from typing import Protocol, TypeVar

from lookalike.encoder.embed import OnProvider, Processes, may_fork

Task = TypeVar("Task")
Result = TypeVar("Result")


class Run(Protocol):
    """Calls a function with each of many units, in any order and on any machine."""

    def __call__(
        self,
        units: Iterable[Task],
        function: Callable[[Task], Result],
        on_done: Callable[[Result], object],
        on_killed: Callable[[Task, str], object] | None = None,
    ) -> None:
        """Return when all are done; memory holds some units.

        Args:
            units: Picklable; read as workers become free.
            function: Picklable; what it raises ends the run.
            on_done: Called in this process with each result.
            on_killed: Called with a unit that has killed the process that did it several times, and the
                reason; where nobody can tell which unit it was, the run ends.

        Raises:
            WorkerDiedError: a process was killed, or the cluster is gone.
        """
        ...


class LocalRun:
    """Does units in processes of this machine, or in this one where there is one core or unit. Close it.

    Where they can be forked with the model in memory, that is done now: pyarrow starts threads as it is
    imported.

    Args:
        model: What the units are done with; kept for the processes by the caller.
        processes: How many; None: one for each core.
    """

    def __init__(self, model: OnProvider, *, processes: int | None = None) -> None:
        on_cpu = model.provider == "CPUExecutionProvider"
        self._count = (processes or os.cpu_count() or 1) if on_cpu else 1
        self._pool: Processes | None = None
        if self._count > 1 and may_fork(model):
            self._pool = Processes(self._count, forked=True)
            self._pool.start()

    def __call__(
        self,
        units: Iterable[Task],
        function: Callable[[Task], Result],
        on_done: Callable[[Result], object],
        on_killed: Callable[[Task, str], object] | None = None,  # noqa: ARG002  # the pool breaks as a whole
    ) -> None:
        """See :class:`Run`."""
        left = iter(units)
        first = list(islice(left, 2 if self._count > 1 else 1))
        if len(first) < 2:
            for unit in (*first, *left):
                on_done(function(unit))
            return
        pool = self._pool = self._pool or Processes(self._count, forked=False)
        for result in _results(pool, first, left, function, ahead=2 * self._count):
            on_done(result)

    def close(self) -> None:
        """End the processes, in the middle of what they do: a unit is done again as a whole."""
        if self._pool is not None:
            self._pool.kill()
            self._pool = None


def _results(
    pool: Processes,
    first: Iterable[Task],
    left: Iterator[Task],
    function: Callable[[Task], Result],
    *,
    ahead: int,
) -> Iterator[Result]:
    pending = {pool.submit(function, unit) for unit in first}
    while pending:
        pending.update(pool.submit(function, unit) for unit in islice(left, ahead - len(pending)))
        done, pending = wait(pending, return_when=FIRST_COMPLETED)
        yield from map(pool.result, done)
