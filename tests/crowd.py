"""Clients that cost next to nothing, so that what is timed is the server. Not a test.

Requests are made beforehand, whole, as bytes; connections stay open; one thread watches all of them, and
reads of an answer no more than its head. What that takes of the processor is measured with it.
"""

from __future__ import annotations

import math
import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count as counting
from typing import Final
from urllib.parse import urlsplit

__all__ = ["Answer", "Crowd", "Load", "form"]

_BOUNDARY: Final = "4f2a9c81d0b7"
_BUFFER: Final = 1 << 20
_PATIENCE: Final = 60.0
_TICK: Final = 0.25


def form(path: str, fields: Mapping[str, str], image: bytes) -> bytes:
    """Return a whole request: a form with a picture, for a service on this machine."""
    parts = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    file = 'name="image"; filename="query.jpg"\r\nContent-Type: image/jpeg'
    parts.append(f"--{_BOUNDARY}\r\nContent-Disposition: form-data; {file}\r\n\r\n")
    body = "".join(parts).encode() + image + f"\r\n--{_BOUNDARY}--\r\n".encode()
    kind = f"Content-Type: multipart/form-data; boundary={_BOUNDARY}\r\nContent-Length: {len(body)}"
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{kind}\r\n\r\n".encode() + body


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, its head in lower case, and when it was asked for and had, in ``time.perf_counter``."""

    head: bytes
    body: bytes
    asked: float
    ended: float

    @property
    def status(self) -> int:
        """Of HTTP."""
        return int(self.head[9:12])

    @property
    def last(self) -> bool:
        """Whether the server ends the connection after it."""
        return b"\r\nconnection: close" in self.head


@dataclass(slots=True)
class Load:
    """What came of some requests.

    Attributes:
        latencies: Seconds of each that was answered, from the first byte sent to the last received.
        statuses: How many answers had each status.
        lost: When those were sent whose connection ended without an answer.
        seconds: From the first request to the last answer.
        client_seconds: Processor time of the clients.
    """

    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    lost: list[float] = field(default_factory=list)
    seconds: float = 0.0
    client_seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Answers per second."""
        return len(self.latencies) / self.seconds


@dataclass(slots=True)
class _Client:
    connection: socket.socket
    asked: float = 0.0
    received: bytearray = field(default_factory=bytearray)

    def ask(self, request: bytes) -> None:
        self.received.clear()
        self.asked = time.perf_counter()
        self.connection.sendall(request)  # the buffer takes it whole: no other client waits meanwhile

    def answer(self) -> Answer | None:
        """Receive what is there, and return the answer when that is all of it.

        Raises:
            OSError: the server has ended the connection.
        """
        piece = self.connection.recv(_BUFFER)
        if not piece:
            raise ConnectionResetError
        self.received += piece
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = bytes(self.received[:end]).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(self.received) < end + 4 + length:
            return None
        return Answer(head, bytes(self.received[end + 4 :]), self.asked, time.perf_counter())


class Crowd:
    """Clients of one service, each of which asks again when it has been answered.

    Args:
        url: Of the service.
        requests: Sent in turn, over and over.
        on_answer: Called with each answer.
        on_tick: Called some four times a second.
    """

    def __init__(
        self,
        url: str,
        requests: Sequence[bytes],
        *,
        on_answer: Callable[[Answer], object] = lambda _: None,
        on_tick: Callable[[], object] = lambda: None,
    ) -> None:
        parts = urlsplit(url)
        self._address = (str(parts.hostname), parts.port or 80)
        self._requests, self._on_answer, self._on_tick = requests, on_answer, on_tick
        self._turns = counting()

    def drive(
        self, clients: int, *, count: int, seconds: float = math.inf, stop: threading.Event | None = None
    ) -> Load:
        """Have some clients send so many requests in all; all that are sent are waited for.

        Args:
            clients: How many.
            count: Requests.
            seconds: Later none is sent.
            stop: Once it is set none is sent.

        Raises:
            TimeoutError: the service does not answer any more.
        """
        load = Load()
        with ExitStack() as stack, selectors.DefaultSelector() as watched:
            for _ in range(min(clients, count)):
                connection = stack.enter_context(socket.create_connection(self._address, timeout=_PATIENCE))
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                watched.register(connection, selectors.EVENT_READ, _Client(connection))
            began, busy = time.perf_counter(), time.thread_time()
            self._drive(watched, self._some(count, began + seconds, stop or threading.Event()), load)
            load.seconds, load.client_seconds = time.perf_counter() - began, time.thread_time() - busy
        return load

    def _some(self, count: int, until: float, stop: threading.Event) -> Iterator[bytes]:
        for _ in range(count):
            if time.perf_counter() >= until or stop.is_set():
                return
            yield self._requests[next(self._turns) % len(self._requests)]

    def _drive(self, watched: selectors.BaseSelector, requests: Iterator[bytes], load: Load) -> None:
        for key in list(watched.get_map().values()):
            request = next(requests, None)
            if request is None:
                watched.unregister(key.fileobj)
            else:
                key.data.ask(request)
        tick = 0.0
        while watched.get_map():
            ready = watched.select(_PATIENCE)
            if not ready:
                raise TimeoutError(f"no answer came for {_PATIENCE:g} s")
            for key, _ in ready:
                if not self._goes_on(key.data, requests, load):
                    watched.unregister(key.fileobj)
            if time.perf_counter() >= tick:
                tick = time.perf_counter() + _TICK
                self._on_tick()

    def _goes_on(self, client: _Client, requests: Iterator[bytes], load: Load) -> bool:
        """Receive what has come, have the client ask again, and return whether it waits for an answer."""
        try:
            answer = client.answer()
            if answer is None:
                return True
            load.latencies.append(answer.ended - answer.asked)
            load.statuses[answer.status] += 1
            self._on_answer(answer)
            request = None if answer.last else next(requests, None)
            if request is None:
                return False
            client.ask(request)
        except OSError:
            load.lost.append(client.asked)
            return False
        return True
