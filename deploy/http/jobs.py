"""Background jobs, run one after the other.

What a job has done is durable batch by batch: a job that is cancelled, or killed with the service, loses none
    of
it, and the same job again does only the rest.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from lookalike.deploy.http.errors import ApiError, problem_details

_LOG: Final = logging.getLogger("lookalike.service")
_MAX_WAITING: Final = 8
_MAX_ENDED: Final = 100


class Cancelled(Exception):  # noqa: N818  # not an error
    """The job was cancelled."""


@dataclass(slots=True)
class Job:
    """One job and its progress.

    Attributes:
        request: What was asked for, as JSON values.
        id: A UUID.
        state: queued, running, finished, failed or cancelled.
        total: Images to embed; None until that is known.
        done: How many of these are stored, or failed.
        report: The result; None until the job has finished.
        problem: Why it failed; None if it did not.
        created: Seconds since 1970.
        ended: Seconds since 1970; None until it has ended.
    """

    request: dict[str, Any]
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    state: Literal["queued", "running", "finished", "failed", "cancelled"] = "queued"
    total: int | None = None
    done: int = 0
    report: dict[str, Any] | None = None
    problem: dict[str, Any] | None = None
    created: float = field(default_factory=time.time)
    ended: float | None = None
    cancel_requested: threading.Event = field(default_factory=threading.Event)

    @property
    def over(self) -> bool:
        """True once the job has finished, failed or been cancelled."""
        return self.state in ("finished", "failed", "cancelled")

    def on_total(self, count: int) -> None:
        """Set the number of images to embed.

        Raises:
            Cancelled: the job was cancelled.
        """
        self.total = count
        self.check_cancelled()

    def on_progress(self, count: int) -> None:
        """Add to the number of images that are done.

        Raises:
            Cancelled: the job was cancelled.
        """
        self.done += count
        self.check_cancelled()

    def check_cancelled(self) -> None:
        """Stop if the job was cancelled.

        Raises:
            Cancelled: it was.
        """
        if self.cancel_requested.is_set():
            raise Cancelled

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "id": self.id,
            "state": self.state,
            **self.request,
            "total": self.total,
            "done": self.done,
            "report": self.report,
            "problem": self.problem,
            "created": round(self.created, 3),
            "ended": None if self.ended is None else round(self.ended, 3),
        }


class Jobs:
    """The jobs of a service: those that wait or run, and the last hundred that ended."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="job")
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()

    @property
    def open(self) -> int:
        """How many wait or run."""
        return sum(not job.over for job in self.all())

    def all(self) -> list[Job]:
        """Return the jobs, oldest first."""
        with self._lock:
            return list(self._jobs.values())

    def get(self, job_id: str) -> Job:
        """Return a job.

        Raises:
            ApiError: there is no such job.
        """
        with self._lock:
            job = self._jobs.get(job_id)
        if job is None:
            raise ApiError("job-not-found", "no such job; the service may have been restarted since")
        return job

    def start(self, request: dict[str, Any], work: Callable[[Job], dict[str, Any]]) -> Job:
        """Queue a job.

        Args:
            request: What was asked for, as JSON values.
            work: Does the job and returns the report; it calls the job's methods and lets Cancelled through.

        Raises:
            ApiError: too many jobs wait.
        """
        if self.open > _MAX_WAITING:
            raise ApiError("busy", f"{_MAX_WAITING} jobs are waiting; wait until one has ended")
        job = Job(request)
        with self._lock:
            ended = [each.id for each in self._jobs.values() if each.over]
            for old in ended[: max(0, len(ended) - _MAX_ENDED + 1)]:
                del self._jobs[old]
            self._jobs[job.id] = job
        self._pool.submit(self._run, job, work)
        return job

    def cancel(self, job_id: str) -> Job:
        """Make a job end soon.

        Raises:
            ApiError: there is no such job, or it has ended.
        """
        job = self.get(job_id)
        if job.over:
            raise ApiError("job-ended", f"the job is already {job.state}")
        job.cancel_requested.set()
        return job

    def close(self) -> None:
        """Cancel all jobs, and wait until they have ended."""
        for job in self.all():
            job.cancel_requested.set()
        self._pool.shutdown(wait=True)

    def _run(self, job: Job, work: Callable[[Job], dict[str, Any]]) -> None:
        try:
            job.check_cancelled()
            job.state = "running"
            job.report = work(job)
            job.state = "finished"
        except Cancelled:
            job.state = "cancelled"
        except Exception as error:
            _LOG.exception("job failed", extra={"job": job.id})
            job.problem = problem_details(error)
            job.state = "failed"
        finally:
            job.ended = time.time()
            _LOG.info("job ended", extra={"job": job.id, "state": job.state, "done": job.done})
