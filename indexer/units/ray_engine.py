"""The same work on many units on a Ray cluster (https://www.ray.io). The one module that imports Ray.

Ray schedules, moves work to machines that join, and does again what a lost machine was doing.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

from lookalike.encoder.errors import LookalikeError, MissingExtraError, WorkerDiedError, one_line

if TYPE_CHECKING:
    from lookalike.indexer.units.run import Result, Task


def run_on_ray(
    units: Iterable[Task], function: Callable[[Task], Result], on_done: Callable[[Result], object]
) -> None:
    """Call the function with each unit on the cluster of ``RAY_ADDRESS``, or of ``ray start`` here.

    Without a cluster one is started for this run, with the cores of this machine. See :class:`Run`.

    Raises:
        MissingExtraError: Ray is not installed.
        WorkerDiedError: the cluster is gone.
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
        _run(ray, units, function, on_done)
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
    ray: Any, units: Iterable[Task], function: Callable[[Task], Result], on_done: Callable[[Result], object]
) -> None:
    task = ray.remote(num_cpus=1, max_retries=-1, scheduling_strategy="SPREAD")(_call)
    shared, left = ray.put(function), iter(units)
    pending: list[Any] = []
    while True:
        # Twice as many as there are cores now: machines that join find work, and memory holds few units.
        ahead = 2 * int(ray.cluster_resources().get("CPU", 1)) + 2
        pending += [task.remote(shared, unit) for unit in islice(left, max(ahead - len(pending), 0))]
        if not pending:
            return
        done, pending = ray.wait(pending, num_returns=1)
        for result in ray.get(done):
            on_done(result)


def _call(function: Callable[[Task], Result], unit: Task) -> Result:
    return function(unit)
