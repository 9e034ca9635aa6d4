"""Background jobs: those of one kind run one after the other, apart from the requests and after them.

What an index job has done is durable batch by batch: a job that is cancelled, or killed with the service,
loses none of it, and the same job again does only the rest.
"""

from __future__ import annotations

import logging
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import IO, Any, Final, Literal

from lookalike.deploy.http.errors import ApiError, problem_details
from lookalike.deploy.http.executor import lower_priority

_LOG: Final = logging.getLogger("lookalike.service")
_MAX_WAITING: Final = 8
_MAX_ENDED: Final = 100
_MAX_FAILURES: Final = 100
"""Failed inputs of a job that are listed; all are counted."""
_KEPT_BYTES: Final = 256 << 20
"""Images of jobs are kept within so many bytes, on the disk for temporary files."""

State = Literal["queued", "running", "cancelling", "cancelled", "done", "failed"]
Kind = Literal["index", "denoise"]
_UNITS: Final[dict[Kind, str]] = {"index": "images", "denoise": "tiles"}


class Cancelled(Exception):  # noqa: N818  # not an error
    """The job was cancelled."""


@dataclass(slots=True)
class Job:
    """One job and its progress. Its own thread changes it, others read it.

    Attributes:
        kind: What it does.
        collection: Which collection it fills; None: none.
        source: Where its images are, without the folders above; None: they were sent.
        shown: Returns a text without the server's folders.
        id: A UUID.
        state: cancelling: it was cancelled and has not ended yet.
        total: Images or tiles to do; None until that is known.
        done: How many of these are stored, or failed.
        rate: How many were done a second; None until some are.
        current: Name of the last image, relative to the source.
        failures: Path and reason of the first hundred images that failed.
        failed: How many failed.
        report: The result; None until the job is done.
        problem: Why it failed; None if it did not.
        created: Seconds since 1970, as the next two.
        started: None until it runs.
        ended: None until it has ended.
    """

    kind: Kind
    collection: str | None = None
    source: str | None = None
    shown: Callable[[str], str] = str
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    state: State = "queued"
    total: int | None = None
    done: int = 0
    rate: float | None = None
    current: str | None = None
    failures: list[dict[str, str]] = field(default_factory=list)
    failed: int = 0
    report: dict[str, Any] | None = None
    problem: dict[str, Any] | None = None
    created: float = field(default_factory=time.time)
    started: float | None = None
    ended: float | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    _working_since: float = field(default_factory=time.monotonic)

    @property
    def over(self) -> bool:
        """True once the job is done, has failed or been cancelled."""
        return self.state in ("done", "failed", "cancelled")

    def on_total(self, count: int) -> None:
        """Set the number of images or tiles to do.

        Raises:
            Cancelled: the job was cancelled.
        """
        self.total, self._working_since = count, time.monotonic()
        self.check_cancelled()

    def on_progress(self, count: int) -> None:
        """Add to the number of images or tiles that are done.

        Raises:
            Cancelled: the job was cancelled.
        """
        self.done += count
        self.rate = self.done / max(1e-3, time.monotonic() - self._working_since)
        self.check_cancelled()

    def on_failure(self, path: str, reason: str) -> None:
        """Note an image that failed."""
        self.failed += 1
        if len(self.failures) < _MAX_FAILURES:
            self.failures.append({"path": self.shown(path), "error": self.shown(reason)})

    def check_cancelled(self) -> None:
        """Stop if the job was cancelled.

        Raises:
            Cancelled: it was.
        """
        if self.stop.is_set():
            raise Cancelled

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "id": self.id,
            "kind": self.kind,
            "state": self.state,
            "unit": _UNITS[self.kind],
            "total": self.total,
            "done": self.done,
            "rate": None if self.rate is None else round(self.rate, 2),
            "current": self.current,
            "failures": list(self.failures),
            "failed": self.failed,
            "created": _utc(self.created),
            "started": _utc(self.started),
            "ended": _utc(self.ended),
            "report": self._without_folders(self.report),
            "problem": self._without_folders(self.problem),
            "collection": self.collection,
            "source": self.source,
        }

    def _without_folders(self, value: Any) -> Any:
        """Return JSON values whose texts are without the server's folders."""
        if isinstance(value, dict):
            return {key: self._without_folders(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self._without_folders(each) for each in value]
        return self.shown(value) if isinstance(value, str) else value


class Jobs:
    """The jobs of a service: those that wait or run, and the last hundred that ended.

    Attributes:
        closing: Whether the service is about to end; nobody should wait for a job any more.

    Args:
        root_path: The path below which a proxy serves, for the problems of jobs.
    """

    def __init__(self, *, root_path: str = "") -> None:
        self.closing = False
        self._root_path = root_path
        self._pools = {
            kind: ThreadPoolExecutor(1, thread_name_prefix=f"{kind} job", initializer=lower_priority)
            for kind in _UNITS
        }
        self._jobs: dict[str, Job] = {}
        self._images = _Images()
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

    def image(self, job_id: str) -> bytes:
        """Return the image that a job made, a PNG file.

        Raises:
            ApiError: there is no such job, it is not done, or its image is no longer kept.
        """
        job = self.get(job_id)
        if job.state != "done":
            raise ApiError("job-not-done", f"the job is {job.state}; its image is there once it is done")
        data = self._images.get(job_id)
        if data is None:
            made = "is no longer kept; send it again" if job.kind == "denoise" else "was never made"
            raise ApiError("job-image-gone", f"the image of this job {made}")
        return data

    def start(self, job: Job, work: Callable[[Job], dict[str, Any]]) -> Job:
        """Queue a job.

        Args:
            job: What is to be done.
            work: Does the job and returns the report; it calls the job's methods and lets Cancelled through.

        Raises:
            ApiError: too many jobs of its kind wait, or the service is stopping.
        """
        if self.closing:
            raise ApiError("busy", "the service is stopping; try again once it has started")
        if sum(each.kind == job.kind and not each.over for each in self.all()) > _MAX_WAITING:
            raise ApiError("busy", f"{_MAX_WAITING} jobs are waiting; wait until one has ended")
        with self._lock:
            ended = [each.id for each in self._jobs.values() if each.over]
            for old in ended[: max(0, len(ended) - _MAX_ENDED + 1)]:
                del self._jobs[old]
                self._images.forget(old)
            self._jobs[job.id] = job
        self._pools[job.kind].submit(self._run, job, work)
        return job

    def keep_image(self, job: Job, data: bytes) -> None:
        """Keep the image that a job made.

        Raises:
            OSError: there is no room for it.
        """
        self._images.put(job.id, data)

    def cancel(self, job_id: str) -> Job:
        """Make a job end soon; one that waits ends at once.

        Raises:
            ApiError: there is no such job, or it has ended.
        """
        job = self.get(job_id)
        with self._lock:
            if job.over:
                raise ApiError("job-ended", f"the job is already {job.state}")
            self._cancel(job)
        return job

    def stop(self) -> None:
        """Cancel all jobs."""
        self.closing = True
        for job in self.all():
            with self._lock:
                self._cancel(job)

    def close(self) -> None:
        """Cancel all jobs, and wait until they have ended."""
        self.stop()
        for pool in self._pools.values():
            pool.shutdown(wait=True)
        self._images.close()

    def _cancel(self, job: Job) -> None:
        job.stop.set()
        if job.state == "queued":
            self._end(job, "cancelled")
        elif job.state == "running":
            job.state = "cancelling"

    def _run(self, job: Job, work: Callable[[Job], dict[str, Any]]) -> None:
        with self._lock:
            if job.over:
                return
            job.state, job.started = "running", time.time()
        state: State = "failed"
        try:
            job.report = work(job)
            state = "done"
        except Cancelled:
            state = "cancelled"
        except Exception as error:
            _LOG.exception("job failed", extra={"job": job.id})
            job.problem = problem_details(error, root_path=self._root_path)
        finally:
            with self._lock:
                self._end(job, state)

    @staticmethod
    def _end(job: Job, state: State) -> None:
        job.ended, job.state = time.time(), state
        _LOG.info("job ended", extra={"job": job.id, "state": job.state, "done": job.done})


class _Images:
    """The images that jobs made, in files without a name: the last few, within a number of bytes."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[int, IO[bytes]]] = {}
        self._lock = threading.Lock()

    def put(self, job_id: str, data: bytes) -> None:
        file = tempfile.TemporaryFile()  # noqa: SIM115  # it stays open: it has no name
        try:
            file.write(data)
            file.flush()
        except BaseException:
            file.close()
            raise
        with self._lock:
            self._files[job_id] = len(data), file
            while len(self._files) > 1 and sum(size for size, _ in self._files.values()) > _KEPT_BYTES:
                self._files.pop(next(iter(self._files)))[1].close()

    def get(self, job_id: str) -> bytes | None:
        with self._lock:
            _, file = self._files.get(job_id, (0, None))
            if file is None:
                return None
            file.seek(0)
            return file.read()

    def forget(self, job_id: str) -> None:
        with self._lock:
            _, file = self._files.pop(job_id, (0, None))
            if file is not None:
                file.close()

    def close(self) -> None:
        for job_id in list(self._files):
            self.forget(job_id)


def _utc(seconds: float | None) -> str | None:
    """Return seconds since 1970 as text of ISO 8601."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
