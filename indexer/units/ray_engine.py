"""The same work on many units on a Ray cluster (https://www.ray.io). The one module that imports Ray.

Ray schedules, and moves work to machines that join. What a lost machine was doing is done again by others,
however often; a unit whose own worker died, as by lack of memory, is tried a few times.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from lookalike.encoder.errors import LookalikeError, MissingExtraError, WorkerDiedError, one_line

if TYPE_CHECKING:
    from lookalike.indexer.units.run import Result, Task

TRIES: Final = 3
"""How often a unit may kill the process that does it."""


def run_on_ray(
    units: Iterable[Task],
    function: Callable[[Task], Result],
    on_done: Callable[[Result], object],
    on_killed: Callable[[Task, str], object] | None = None,
) -> None:
    """Call the function with each unit on the cluster of ``RAY_ADDRESS``, or of ``ray start`` here.

    Without a cluster one is started for this run, with the cores of this machine. See :class:`Run`.

    Raises:
        MissingExtraError: Ray is not installed.
        WorkerDiedError: the cluster is gone, or a unit has killed its worker :data:`TRIES` times and there is
            no ``on_killed``.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("--engine ray needs Ray; pip install 'lookalike[ray]'") from error
    own = not ray.is_initialized()
    if own:
        _connect(ray)
    try:
        _run(ray, units, function, on_done, on_killed or _give_up)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, LookalikeError):
            raise error.cause from error
        raise
    except (ray.exceptions.RayError, ConnectionError) as error:
        raise WorkerDiedError(
            f"the Ray cluster has failed ({one_line(error)[:300]}); run it again to continue"
        ) from error
    finally:
        if own:
            ray.shutdown()


def _give_up(_unit: object, reason: str) -> None:
    raise WorkerDiedError(f"{reason}; run it again to continue")


def _connect(ray: Any) -> None:
    try:
        ray.init(include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    except Exception as error:  # Ray raises Exception itself where a process of it does not start in time
        ray.shutdown()
        raise WorkerDiedError(
            f"no Ray cluster could be reached or started ({one_line(error)[:300]}); check RAY_ADDRESS, or "
            "start one with ray start --head"
        ) from error


def _run(
    ray: Any,
    units: Iterable[Task],
    function: Callable[[Task], Result],
    on_done: Callable[[Result], object],
    on_killed: Callable[[Task, str], object],
) -> None:
    # With Ray's own retries, a unit that kills its worker would be repeated as a lost machine's are: forever.
    task = ray.remote(num_cpus=1, max_retries=0, scheduling_strategy="SPREAD")(_call)
    shared, errors = ray.put(function), ray.exceptions
    left = ((unit, 0) for unit in units)
    again: deque[tuple[Task, int]] = deque()
    pending: dict[Any, tuple[Task, int]] = {}
    while True:
        # Twice as many as there are cores now: machines that join find work, and memory holds few units.
        ahead = 2 * int(ray.cluster_resources().get("CPU", 1)) + 2
        while len(pending) < ahead and (begun := again.popleft() if again else next(left, None)) is not None:
            pending[task.remote(shared, begun[0])] = begun
        if not pending:
            return
        (done,), _ = ray.wait([*pending], num_returns=1)
        unit, kills = pending.pop(done)
        try:
            result = ray.get(done)
        except (errors.NodeDiedError, errors.ObjectLostError):
            again.append((unit, kills))
        except (errors.WorkerCrashedError, errors.OutOfMemoryError) as error:
            if kills + 1 < TRIES:
                again.append((unit, kills + 1))
            else:
                on_killed(unit, f"the process that did it was killed {TRIES} times ({_reason(error)})")
        else:
            on_done(result)


def _reason(error: Exception) -> str:
    return "out of memory" if type(error).__name__ == "OutOfMemoryError" else "out of memory, or a crash"


def _call(function: Callable[[Task], Result], unit: Task) -> Result:
    return function(unit)
