"""The server process: its socket, its signals, its log."""

from __future__ import annotations

import json
import logging
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import uvicorn
from fastapi import FastAPI

from lookalike.deploy.http.connections import bounded_protocol, connection_limits
from lookalike.encoder.errors import InvalidArgumentError

_KEEP_ALIVE_SECONDS: Final = 15
_SHUTDOWN_SECONDS: Final = 30
_HEADER_SECONDS: Final = 10
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "color_message",
    "taskName",
}


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
        return json.dumps(values, default=str)


def run(app: FastAPI, *, host: str, port: int, log: Callable[[str], object]) -> None:
    """Serve until a signal; running requests are finished, for half a minute at most.

    Args:
        app: The service.
        host: Address to listen on.
        port: Port to listen on; 0: any free port.
        log: Called with a line that has the URL, once it accepts connections.

    Raises:
        InvalidArgumentError: it cannot listen there.
    """
    _log_to_stderr()
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
    log(f"serving on http://{name}:{listener.getsockname()[1]}/")
    with listener:
        uvicorn.Server(config).run(sockets=[listener])


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


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in ("lookalike.service", "uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(logging.INFO)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # its warnings quote the body
