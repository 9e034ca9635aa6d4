"""Connections that only wait are closed, and never keep others out."""

import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from lookalike.deploy.http.connections import bounded_protocol
from lookalike.deploy.http.server import listen
from tests.fixtures.command import COMMAND

LIMIT = 8
SECONDS = 0.4
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """An application that answers with the length of the body."""
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    body = str(size).encode()
    head = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with listen("127.0.0.1", 0) as listener:
        config = uvicorn.Config(
            echo,
            http=bounded_protocol(LIMIT, SECONDS),
            lifespan="off",
            log_config=None,
            timeout_keep_alive=60,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        yield client


def answered(client: socket.socket) -> bytes:
    """Return the body, of one byte, of an answer."""
    answer = b""
    while not (found := re.search(rb"\r\n\r\n(.)", answer)):
        part = client.recv(4096)
        assert part, answer
        answer += part
    return found[1]


def read_to_the_end(client: socket.socket) -> bytes:
    parts = []
    while part := client.recv(4096):
        parts.append(part)
    return b"".join(parts)


BYTE, NEARLY = GET[:1], GET[:-2]


# Between two requests a connection may be silent for longer.
@pytest.mark.parametrize(("earlier", "begun"), [(0, b""), (0, BYTE), (0, NEARLY), (2, BYTE), (2, NEARLY)])
def test_a_header_that_never_ends_is_given_up(port: int, begun: bytes, earlier: int) -> None:
    with connected(port) as client:
        for _ in range(earlier):
            client.sendall(GET)
            assert answered(client) == b"0"
        client.sendall(begun)
        assert read_to_the_end(client).startswith(b"HTTP/1.1 408 ")


def test_a_trickle_wins_no_time(port: int) -> None:
    with connected(port) as client:
        client.settimeout(0.05)
        client.sendall(b"GET / HTTP/1.1\r\nX: ")
        for _ in range(200):
            try:
                answer = client.recv(4096)
                break
            except TimeoutError:
                client.sendall(b"a")
        assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_slow_body_is_not_a_slow_header(port: int) -> None:
    with connected(port) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n")
        for _ in range(3):
            time.sleep(SECONDS / 2)
            client.sendall(b"a")
        assert answered(client) == b"3"


@pytest.mark.parametrize("begun", [b"GET / HTTP/1.1\r\nX: ", b"GET /", b"GET / HTTP/1.1\r\nX", b"GE"])
@pytest.mark.parametrize("earlier", [0, 1])
def test_a_header_without_end_is_cut_off(port: int, begun: bytes, earlier: int) -> None:
    with connected(port) as client:
        for _ in range(earlier):
            client.sendall(GET)
            assert answered(client) == b"0"
        sent, answer = flood(client, begun, b"a" * 4096)
    assert re.match(rb"HTTP/1\.1 4(00|08|31) ", answer) or not answer  # the end may overtake the answer
    assert sent < 16 << 20


@pytest.mark.parametrize("more", [b"X: " + b"a" * 4096 + b"\r\n", b"a" * 4096])
def test_a_body_that_is_followed_by_fields_without_end_is_cut_off(port: int, more: bytes) -> None:
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: "
    with connected(port) as client:
        sent, _ = flood(client, head, more)
    assert sent < 16 << 20


def flood(client: socket.socket, begun: bytes, more: bytes) -> tuple[int, bytes]:
    """Send without end; return how many bytes were taken, and the answer."""
    sent, answer = 0, b""
    try:
        client.sendall(begun)
        while sent < 64 << 20:
            client.sendall(more)
            sent += len(more)
    except OSError:
        with suppress(OSError):
            answer = client.recv(4096)
    return sent, answer


def test_many_small_chunks_are_a_body(port: int) -> None:
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in [b"a" * 200] * 20_000)
    with connected(port) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.sendall(chunks + b"0\r\n\r\n")
        assert answered(client) == b"4"  # of 4,000,000


def test_those_who_wait_make_room(port: int) -> None:
    with ExitStack() as stack:
        waiting = [stack.enter_context(connected(port)) for _ in range(3 * LIMIT)]
        for client in waiting:
            client.sendall(GET[:-2])
        for _ in range(LIMIT):
            assert httpx.get(f"http://127.0.0.1:{port}/", trust_env=False).status_code == 200


def test_those_who_are_served_do_not(port: int) -> None:
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n"
    with ExitStack() as stack:
        served = [stack.enter_context(connected(port)) for _ in range(LIMIT)]
        for client in served:
            client.sendall(head)
        time.sleep(SECONDS / 4)  # until all have begun
        with connected(port) as late:
            assert late.recv(4096) == b""
        for client in served:
            client.sendall(b"a")
            assert answered(client) == b"1"


CHECK_LIMITS = """
import resource
from lookalike.deploy.http.connections import connection_limits
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
for most in (100_000, 1024, 256, 80):  # only ever lowered: to raise a hard limit takes a superuser
    hard = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(64, hard), hard))
    opened, waiting = connection_limits()
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert 1 <= opened <= 2048 and waiting >= 1, (opened, waiting)
    assert opened + waiting + 64 <= max(soft, 72), (opened, waiting, soft)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no limits to set")
def test_limits_leave_descriptors_for_files() -> None:
    done = subprocess.run([sys.executable, "-c", CHECK_LIMITS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="there are no limits to set")
def test_few_descriptors_and_many_connections_stop_nobody(tiny_model: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    words = f'ulimit -n 128; exec "{COMMAND}" serve --port 0 --model "{tiny_model}"'
    with log.open("w") as lines, ExitStack() as stack:
        service = stack.enter_context(subprocess.Popen(["sh", "-c", words], stderr=lines, cwd=tmp_path))
        stack.callback(service.terminate)
        found = None
        for _ in range(600):
            found = re.search(r"serving on http://127\.0\.0\.1:(\d+)", log.read_text())
            if found or service.poll() is not None:
                break
            time.sleep(0.05)
        assert found, log.read_text()
        port = int(found[1])
        crowd = [stack.enter_context(connected(port)) for _ in range(100)]
        for client in crowd:
            client.setblocking(False)
        for _ in range(20):
            assert (
                httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False, timeout=10).status_code == 200
            )
        assert len(log.read_bytes()) < 20_000
