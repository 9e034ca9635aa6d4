"""The server process: its socket, its signals, its log."""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
import webbrowser
from collections.abc import Callable
from typing import Any, Final, Literal, cast

import uvicorn
from fastapi import FastAPI

from lookalike.deploy.http.connections import bounded_protocol, connection_limits
from lookalike.deploy.http.state import AppState
from lookalike.encoder.errors import InvalidArgumentError, printable

_LOG: Final = logging.getLogger("lookalike.service")
_KEEP_ALIVE_SECONDS: Final = 15
_SHUTDOWN_SECONDS: Final = 30
_HEADER_SECONDS: Final = 10
_M_MMAP_THRESHOLD: Final = -3
"""Of malloc.h: the smallest block that is mapped by itself; once set, it does not grow."""
_MAPPED_FROM: Final = 1 << 20
"""Bytes of such a block."""
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "color_message",
    "taskName",
}


_TO_JSON: Final = json.JSONEncoder(default=str)
LogFormat = Literal["json", "plain"]


class JsonLines(logging.Formatter):
    """A log record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return time, level, event, and the extra fields of the record."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        values: dict[str, Any] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        values |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            values["traceback"] = self.formatException(record.exc_info)
        return _TO_JSON.encode(values)


class PlainLines(logging.Formatter):
    """A log record as a line for people: the time, then the request and its status, or what happened."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; characters that a terminal would obey are escaped."""
        fields = {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.getMessage() == "request":
            text = f"{fields['method']} {fields['path']} {fields['status']} {fields['ms']:.0f} ms"
        else:
            level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
            more = ", ".join(
                f"{key} {_plain(value)}" for key, value in fields.items() if value not in ([], "")
            )
            text = f"{level}{record.getMessage()}" + (f": {more}" if more else "")
        line = f"{time.strftime('%H:%M:%S', time.localtime(record.created))} {printable(text)}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def run(
    app: FastAPI,
    *,
    host: str,
    port: int,
    log: Callable[[str], object],
    log_format: LogFormat = "json",
    on_url: Callable[[str], object] = lambda _: None,
    open_browser: bool = False,
) -> None:
    """Serve until a signal; running requests are finished, for half a minute at most.

    Args:
        app: The service.
        host: Address to listen on.
        port: Port to listen on; 0: any free port.
        log: Called with a line that has the URL, once it accepts connections.
        log_format: How requests and events are written to stderr: as JSON, or in words.
        on_url: Called with the URL before it accepts connections.
        open_browser: Whether to open the page in the web browser of this machine.

    Raises:
        InvalidArgumentError: it cannot listen there.
    """
    _log_to_stderr(log_format)
    _give_memory_back()
    limit, backlog = connection_limits()
    listener = listen(host, port, backlog=backlog)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        http=bounded_protocol(limit, _HEADER_SECONDS),
        backlog=backlog,
        lifespan="on",
    )
    name = f"[{host}]" if ":" in host else host
    url = f"http://{name}:{listener.getsockname()[1]}/"

    def on_started() -> None:
        log(f"serving on {url}")
        if open_browser:
            threading.Thread(target=_open_page, args=[url, log], daemon=True).start()

    state = cast("AppState", app.state.lookalike)
    try:
        with listener:
            on_url(url)
            if os.getpid() == 1:  # uvicorn raises SIGTERM again after a clean end; now it is dropped
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
            _Server(config, state, on_started).run(sockets=[listener])
    finally:
        state.close()  # after a second Ctrl-C nobody else has


class _Server(uvicorn.Server):
    """Uvicorn's server, which says when it has started and, told to stop, what it waits for."""

    def __init__(self, config: uvicorn.Config, state: AppState, on_started: Callable[[], object]) -> None:
        super().__init__(config)
        self._state, self._on_started = state, on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        requests, jobs = len(self.server_state.tasks), self._state.jobs.open
        waits = [
            f"{count} {what}{'s' * (count != 1)}{limit}"
            for count, what, limit in (
                (requests, "request", f" ({_SHUTDOWN_SECONDS} s at most)"),
                (jobs, "job", " (to the end of a batch)"),
            )
            if count
        ]
        if waits:
            _LOG.info("stopping, waiting for %s; Ctrl-C again stops at once", " and ".join(waits))
        else:
            _LOG.info("stopping")
        self._state.jobs.stop()
        await super().shutdown(sockets=sockets)


def _give_memory_back() -> None:
    """Have the C library give large blocks back to the system as soon as they are free.

    Once an array of 20 MB has been freed, glibc takes blocks up to that size from heaps of its threads, which
    keep what is freed between others: 230 MB after a few images of 7 million pixels, more with each thread.
    """
    if sys.platform == "linux":
        with contextlib.suppress(
            OSError, AttributeError
        ):  # other C libraries have no such setting, nor need it
            ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM)


def _open_page(url: str, log: Callable[[str], object]) -> None:
    """Open the page in a browser of this machine; where it has none, say so."""
    page = url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
    try:
        opened = webbrowser.open(page)
    except (OSError, webbrowser.Error):
        opened = False
    if not opened:
        log(f"no web browser was found; open {page} in one")


def listen(host: str, port: int, *, backlog: int = 128) -> socket.socket:
    """Return a listening socket, at which ``backlog`` connections may wait to be accepted.

    Raises:
        InvalidArgumentError: it cannot listen there.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        created = socket.create_server((host, port), family=family, backlog=backlog)
    except OSError as error:
        raise InvalidArgumentError(
            f"the service cannot listen on {host}:{port} ({error.strerror or error}); choose another --port"
        ) from error
    # asyncio turns Nagle's algorithm off only if the socket says that it is TCP; with it, a response on an
    # open
    # connection waits 40 ms for the client's delayed acknowledgement.
    return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=created.detach())


def _log_to_stderr(log_format: LogFormat) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if log_format == "json" else PlainLines())
    for name in ("lookalike.service", "uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        # Uvicorn also tells of each step of its start and end, which is of no use to people.
        logger.setLevel(logging.WARNING if log_format == "plain" and "uvicorn" in name else logging.INFO)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # its warnings quote the body
