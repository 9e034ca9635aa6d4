"""The same work on many units: in processes of this machine. Nothing is scheduled, retried or locked here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from itertools import islice
from typing import Protocol, TypeVar

from lookalike.encoder.embed import Processes

Task = TypeVar("Task")
Result = TypeVar("Result")


class Run(Protocol):
    """Calls a function with each of many units, in any order and on any machine."""

    def __call__(
        self,
        units: Iterable[Task],
        function: Callable[[Task], Result],
        on_done: Callable[[Result], object],
    ) -> None:
        """Return when all are done; memory holds some units.

        Args:
            units: Picklable; read as workers become free.
            function: Picklable; what it raises ends the run.
            on_done: Called in this process with each result.
        """
        ...


def run_here(*, forked: bool, processes: int | None = None) -> Run:
    """Return what runs units in processes of this machine, or in this one where there is one core or unit.

    Args:
        forked: Fork the processes, where that is safe.
        processes: How many; None: one for each core.
    """
    count = processes or os.cpu_count() or 1

    def run(
        units: Iterable[Task], function: Callable[[Task], Result], on_done: Callable[[Result], object]
    ) -> None:
        left = iter(units)
        first = list(islice(left, 2 if count > 1 else 1))
        if len(first) < 2:
            for unit in (*first, *left):
                on_done(function(unit))
            return
        pool = Processes(count, forked=forked)
        try:
            for result in _results(pool, first, left, function, ahead=2 * count):
                on_done(result)
        except BaseException:
            pool.kill()  # a unit may take minutes, and is done again as a whole
            raise
        pool.close()

    return run


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
