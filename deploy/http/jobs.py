"""Long work that a service does beside its answers, one piece after the other: folders indexed.

What a job has done is durable batch by batch: cancelled, or killed with the service, it loses none of that,
and the same job again does only the rest.
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

from lookalike.deploy.http.errors import ApiError, content

__all__ = ["Cancelled", "Job", "Jobs"]

_LOG: Final = logging.getLogger("lookalike.service")
_MOST_WAITING: Final = 8
_MOST_KEPT: Final = 100

State = Literal["queued", "running", "finished", "failed", "cancelled"]


class Cancelled(Exception):  # noqa: N818  # nothing went wrong
    """The job is to end."""


@dataclass(slots=True)
class Job:
    """One piece of work, and how far it is.

    Attributes:
        id: A UUID.
        about: What was asked, in JSON values.
        state: queued, running, finished, failed or cancelled.
        total: Pictures to embed; None before that is known.
        done: Of these, those that are stored, or failed.
        report: What it came to; None before it has finished.
        problem: Why it failed; None otherwise.
        created: Seconds since 1970.
        ended: Likewise; None before.
    """

    about: dict[str, Any]
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    state: State = "queued"
    total: int | None = None
    done: int = 0
    report: dict[str, Any] | None = None
    problem: dict[str, Any] | None = None
    created: float = field(default_factory=time.time)
    ended: float | None = None
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def over(self) -> bool:
        """Whether nothing will become of it any more."""
        return self.state in ("finished", "failed", "cancelled")

    def on_total(self, count: int) -> None:
        """Be told how many pictures will be embedded.

        Raises:
            Cancelled: it is to end.
        """
        self.total = count
        self.check()

    def on_progress(self, count: int) -> None:
        """Be told that so many more are stored.

        Raises:
            Cancelled: it is to end.
        """
        self.done += count
        self.check()

    def check(self) -> None:
        """Go on, or not.

        Raises:
            Cancelled: it is to end.
        """
        if self.stop.is_set():
            raise Cancelled

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "id": self.id,
            "state": self.state,
            **self.about,
            "total": self.total,
            "done": self.done,
            "report": self.report,
            "problem": self.problem,
            "created": round(self.created, 3),
            "ended": None if self.ended is None else round(self.ended, 3),
        }


class Jobs:
    """The jobs of a service, one running at a time; those of the last hundred that ended are remembered."""

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
            ApiError: there is none of that id.
        """
        with self._lock:
            job = self._jobs.get(job_id)
        if job is None:
            raise ApiError("job-not-found", "no such job; the service may have been started anew since")
        return job

    def start(self, about: dict[str, Any], work: Callable[[Job], dict[str, Any]]) -> Job:
        """Queue a job.

        Args:
            about: What was asked, in JSON values.
            work: Does it and returns the report; it raises what its job's methods raise.

        Raises:
            ApiError: too many wait.
        """
        if self.open > _MOST_WAITING:
            raise ApiError("busy", f"{_MOST_WAITING} jobs wait already; wait until one has ended")
        job = Job(about)
        with self._lock:
            ended = [each.id for each in self._jobs.values() if each.over]
            for old in ended[: max(0, len(ended) - _MOST_KEPT + 1)]:
                del self._jobs[old]
            self._jobs[job.id] = job
        self._pool.submit(self._run, job, work)
        return job

    def cancel(self, job_id: str) -> Job:
        """Have a job end soon.

        Raises:
            ApiError: there is none of that id, or it has ended.
        """
        job = self.get(job_id)
        if job.over:
            raise ApiError("job-ended", f"the job is {job.state} already")
        job.stop.set()
        return job

    def close(self) -> None:
        """Have all jobs end, and wait for it."""
        for job in self.all():
            job.stop.set()
        self._pool.shutdown(wait=True)

    def _run(self, job: Job, work: Callable[[Job], dict[str, Any]]) -> None:
        try:
            job.check()
            job.state = "running"
            job.report = work(job)
            job.state = "finished"
        except Cancelled:
            job.state = "cancelled"
        except Exception as error:
            _LOG.exception("job failed", extra={"job": job.id})
            job.problem = content(error)
            job.state = "failed"
        finally:
            job.ended = time.time()
            _LOG.info("job ended", extra={"job": job.id, "state": job.state, "done": job.done})
