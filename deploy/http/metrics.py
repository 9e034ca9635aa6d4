"""What the service tells Prometheus: requests, where their time goes, and how much waits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

__all__ = ["MEDIA_TYPE", "Metrics"]

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Numbers of one service. Safe for several threads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "lookalike_requests",
            "Requests answered.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "lookalike_request_seconds",
            "From the request's headers to the end of the answer.",
            ("route",),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._steps = Histogram(
            "lookalike_step_seconds",
            "What time goes into: wait for a worker, clean, embed, check whether it is like the training "
            "pictures, search, draw.",
            ("step",),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._gauges = {
            name: Gauge(f"lookalike_{name}", said, registry=self.registry)
            for name, said in (
                ("waiting", "Requests that wait for a worker."),
                ("busy", "Workers that work."),
                ("jobs", "Index jobs that wait or run."),
            )
        }

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def took(self, step: str, seconds: float) -> None:
        """Note how long a step took."""
        self._steps.labels(step).observe(seconds)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.took(name, time.perf_counter() - began)

    def told(self, *, waiting: int, busy: int, jobs: int) -> bytes:
        """Return everything in Prometheus's text format, with these gauges."""
        for name, value in (("waiting", waiting), ("busy", busy), ("jobs", jobs)):
            self._gauges[name].set(value)
        return generate_latest(self.registry)
