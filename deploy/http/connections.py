"""Connections of the service: so many at a time as there are file descriptors, and none that only waits.

uvicorn closes a connection that is silent after a response, but not one whose first request never comes to
an end ("slowloris"), and takes connections until no descriptor is left. asyncio then logs an error for each
place in the queue of the socket, every second. httptools, which reads requests in half of the time that h11
takes, sets no bound to their headers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_LOG: Final = logging.getLogger("lookalike.service")
_MAX_CONNECTIONS: Final = 2048
_MAX_BACKLOG: Final = 512
_OTHER_FILES: Final = 64
"""Descriptors that are left for the store, models and images."""
_LOG_EVERY: Final = 60.0
"""Seconds between two lines about connections that could not be accepted."""
_TIMEOUT: Final = (
    b"HTTP/1.1 408 Request Timeout\r\nContent-Type: text/plain\r\nContent-Length: 0\r\n"
    b"Connection: close\r\n\r\n"
)
_TOO_LARGE: Final = _TIMEOUT.replace(b"408 Request Timeout", b"431 Request Header Fields Too Large")
_MAX_HEADER: Final = 1 << 16
"""Bytes that may arrive before the end of a header."""
_MAX_OVERHEAD: Final = 1 << 20
"""Bytes of a request beside its body, with what comes between and behind the chunks of one."""


def connection_limits() -> tuple[int, int]:
    """Return how many connections may be open, and how many may wait to be accepted.

    Both together leave descriptors for files. The soft limit of this process is raised if it may be.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return _MAX_CONNECTIONS, _MAX_BACKLOG
    wanted = _MAX_CONNECTIONS + _MAX_BACKLOG + 4 * _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return _MAX_CONNECTIONS, _MAX_BACKLOG
    left = max(8, soft - _OTHER_FILES)
    backlog = min(_MAX_BACKLOG, left // 4)
    return min(_MAX_CONNECTIONS, left - backlog), backlog


def bounded_protocol(limit: int, header_seconds: float) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol with bounds.

    Where ``limit`` connections are open, a new one takes the place of the one that has waited longest for a
    request; if none waits, it is closed.

    Args:
        limit: Connections at a time.
        header_seconds: Longest time for the header of a request to arrive whole, from its first byte or, of
            the first request, from the connection.
    """
    bounds = {"limit": limit, "header_seconds": header_seconds, "waiting": {}}
    return type("BoundedProtocol", (_BoundedProtocol,), bounds)


class _BoundedProtocol(HttpToolsProtocol):
    limit: int
    header_seconds: float
    waiting: dict[_BoundedProtocol, None]
    """The connections of a server that wait for a request, in the order in which they began to."""
    header_timer: asyncio.TimerHandle | None = None
    overhead: int = 0
    """Bytes of the request in progress that are not its body; httptools itself takes a header without end."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > self.limit:
            oldest = next(iter(self.waiting), self)
            oldest.stop_waiting()
            oldest.transport.abort()
            if oldest is self:
                return
        self.watch_header()

    def data_received(self, data: bytes) -> None:
        self.overhead += len(data)
        super().data_received(data)
        if self.overhead > (_MAX_HEADER if self._awaits_header() else _MAX_OVERHEAD):
            self._refuse(_TOO_LARGE)
        self.watch_header()

    def on_body(self, body: bytes) -> None:
        self.overhead -= len(body)
        super().on_body(body)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self.waiting[self] = None  # no timer: uvicorn's own runs
        self.overhead = 0

    def connection_lost(self, exc: Exception | None) -> None:
        self.stop_waiting()
        super().connection_lost(exc)

    def watch_header(self) -> None:
        """Start the timer where a header is awaited, and stop it where none is."""
        if not self._awaits_header():
            self.stop_waiting()
        elif self.header_timer is None and not self.transport.is_closing():
            self.header_timer = self.loop.call_later(self.header_seconds, self.give_up)
            self.waiting[self] = None

    def stop_waiting(self) -> None:
        self.waiting.pop(self, None)
        if self.header_timer is not None:
            self.header_timer.cancel()
            self.header_timer = None

    def give_up(self) -> None:
        self._refuse(_TIMEOUT)

    def _awaits_header(self) -> bool:
        cycle: Any = self.cycle  # None before the first request, whatever uvicorn's annotation says
        return cycle is None or bool(cycle.response_complete)

    def _refuse(self, response: bytes) -> None:
        """Close the connection, with a response unless one is on its way."""
        self.stop_waiting()
        if not self.transport.is_closing():
            if self._awaits_header():
                self.transport.write(response)
            self.transport.close()


def quiet_accept_errors(loop: asyncio.AbstractEventLoop) -> None:
    """Log connections that cannot be accepted once in a while, on one line, not each with its traceback."""
    told = -_LOG_EVERY

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        nonlocal told
        error = context.get("exception")
        if not isinstance(error, OSError) or "accept" not in context.get("message", ""):
            loop.default_exception_handler(context)
        elif time.monotonic() - told >= _LOG_EVERY:
            told = time.monotonic()
            _LOG.error("connections cannot be accepted", extra={"reason": error.strerror})

    loop.set_exception_handler(handle)
