"""Prometheus metrics of the service."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_GAUGES: Final = {
    "waiting": "Requests that wait for a worker.",
    "busy": "Workers in use.",
    "jobs": "Jobs that wait or run.",
}


class Metrics:
    """The metrics of one service. Safe for several threads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "lookalike_requests",
            "Requests answered.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._problems = Counter(
            "lookalike_problems",
            "Requests answered with a problem, by its code: busy, timeout, too-slow, image-too-large, ...",
            ("route", "code"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "lookalike_request_seconds",
            "From the headers of the request to the end of the response.",
            ("route",),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._steps = Histogram(
            "lookalike_step_seconds",
            "Time by step: wait for a worker, denoise, find faces, embed, check for out-of-distribution "
            "images, search, draw.",
            ("step",),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._gauges = {
            name: Gauge(f"lookalike_{name}", description, registry=self.registry)
            for name, description in _GAUGES.items()
        }

    def observe_request(
        self, method: str, route: str, status: int, seconds: float, *, problem: str | None = None
    ) -> None:
        """Count a request, with the code of its problem if it has one."""
        self._requests.labels(method, route, str(status)).inc()
        if problem is not None:
            self._problems.labels(route, problem).inc()
        self._seconds.labels(route).observe(seconds)

    def observe_step(self, step: str, seconds: float) -> None:
        """Record how long a step took."""
        self._steps.labels(step).observe(seconds)

    @contextmanager
    def time_step(self, name: str) -> Iterator[None]:
        """Time a step."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.observe_step(name, time.perf_counter() - start)

    def export(self, *, waiting: int, busy: int, jobs: int) -> bytes:
        """Return all metrics in Prometheus's text format, the gauges with these values."""
        for name, value in (("waiting", waiting), ("busy", busy), ("jobs", jobs)):
            self._gauges[name].set(value)
        return generate_latest(self.registry)
