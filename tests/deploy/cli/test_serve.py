"""`lookalike serve`: who else has the store, what it writes to a terminal, how it stops."""

import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx
import pytest

from lookalike.indexer.embedded import EdgeStore
from tests.fixtures.command import COMMAND
from tests.fixtures.photos import NAME, make_home
from tests.fixtures.processes import child_env
from tests.fixtures.service import client_of, problem, running

HOLD: Final = """
import sys
from lookalike.indexer.open import open_store
with open_store(sys.argv[1]) as store:
    store.count("photos")
    print("open", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def home(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("home"), tiny_model)


def started(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Start a service, or another command, that is to end by itself."""
    return subprocess.run(
        [COMMAND, *words], cwd=home, env=child_env(), capture_output=True, text=True, timeout=60, check=False
    )


@contextmanager
def held(home: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the store open."""
    words = [sys.executable, "-c", HOLD, str(home / ".lookalike")]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=child_env()
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process
        process.kill()


def test_a_second_service_and_other_commands_are_told_who_serves_the_store(
    home: Path, tiny_model: Path
) -> None:
    with running(home, tiny_model) as service:
        pid, url = service.process.pid, service.url
        for words in (
            ["serve", "--port", "0", "--model", str(tiny_model)],
            ["search", "me.jpg", "--collection", NAME],
        ):
            done = started(home, *words)
            assert (done.returncode, done.stdout) == (1, "")
            (line,) = done.stderr.splitlines()
            assert f"in use by another process (pid {pid}, which serves it at {url}/); wait until" in line
        assert httpx.get(f"{url}/readyz", trust_env=False).json()["status"] == "ready"
        service.stop()
    with EdgeStore(str(home / ".lookalike")) as store:
        assert store.count(NAME) == 9
    assert list((home / ".lookalike").rglob("holder.json")) == []


def test_who_holds_the_store_without_serving_it_is_named_and_once_killed_is_not(
    home: Path, tiny_model: Path
) -> None:
    words = ["serve", "--port", "0", "--model", str(tiny_model)]
    with held(home) as process:
        done = started(home, *words)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert f"in use by another process (pid {process.pid}); wait until" in line
    # Killed, it left its file, which says nothing: nobody has the lock.
    assert list((home / ".lookalike").rglob("holder.json")) != []
    with running(home, tiny_model) as service:
        assert httpx.get(f"{service.url}/readyz", trust_env=False).json()["status"] == "ready"


def test_it_is_ready_only_if_collections_open(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    own = make_home(tmp_path, tiny_model)
    with EdgeStore(str(own / ".lookalike")) as other:
        other.create("second", other.info(NAME))
        other.count(NAME)
        with client_of(own, tiny_model) as client:
            ready = client.get("/readyz").json()
            assert (ready["status"], ready["damaged"], ready["held"]) == ("degraded", 0, 1)
        other.count("second")
        with client_of(own, tiny_model) as client:
            told = problem(client.get("/readyz"), 503, "not-ready")
            assert "0 are damaged, 0 do not answer, 2 are held by another process" in told["detail"]


class Terminal:
    """A service whose messages go to a terminal."""

    def __init__(self, home: Path, *words: str, **env: str) -> None:
        self.main, side = pty.openpty()
        self.process = subprocess.Popen(
            [COMMAND, "serve", "--port", "0", *words],
            cwd=home,
            env={**child_env(), **env},
            stderr=side,
            stdout=subprocess.DEVNULL,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
        )
        os.close(side)
        self.text = ""

    def until(self, pattern: str) -> re.Match[str]:
        """Read until a line matches."""
        due = time.monotonic() + 60
        while not (found := re.search(pattern, self.text)):
            assert time.monotonic() < due, self.text
            if select.select([self.main], [], [], 0.1)[0]:
                try:
                    self.text += os.read(self.main, 1 << 16).decode()
                except OSError:  # it has ended
                    assert re.search(pattern, self.text), self.text
        return found

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.main)


@pytest.fixture
def terminal(home: Path, tiny_model: Path, tmp_path: Path) -> Iterator[Terminal]:
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    browser.chmod(0o755)
    service = Terminal(home, "--model", str(tiny_model), "--open", BROWSER=f"{browser} %s")
    yield service
    service.end()


def test_a_terminal_gets_lines_for_people_and_what_a_stop_waits_for(
    terminal: Terminal, tmp_path: Path
) -> None:
    url = terminal.until(r"serving on (http://\S+)")[1]
    opened = tmp_path / "opened"
    due = time.monotonic() + 20
    while not (opened.exists() and opened.read_text()):
        assert time.monotonic() < due
        time.sleep(0.05)
    assert opened.read_text().strip() == url
    httpx.get(f"{url}healthz", trust_env=False)
    terminal.until(r"\n\d\d:\d\d:\d\d GET /healthz 200 \d+ ms\r\n")
    httpx.get(f"{url}no%1B[31mthing", trust_env=False)
    terminal.until(r"GET /no\\x1b\[31mthing 404 \d+ ms\r\n")
    assert '{"time"' not in terminal.text
    # A request whose body is still on the way.
    host, port = httpx.URL(url).host, httpx.URL(url).port
    with socket.create_connection((host, port or 80)) as connection:
        connection.sendall(
            b"POST /api/v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )
        time.sleep(0.3)
        terminal.process.send_signal(signal.SIGINT)
        terminal.until(r"stopping, waiting for 1 request \(30 s at most\); Ctrl-C again stops at once")
        assert terminal.process.poll() is None
        began = time.monotonic()
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.process.wait(20) in (130, -signal.SIGINT)
        assert time.monotonic() - began < 15


def test_without_a_terminal_lines_for_people_can_be_chosen(home: Path, tiny_model: Path) -> None:
    with running(home, tiny_model, "--log-format", "plain") as service:
        service.stop()
        lines = service.log.read_text().splitlines()
    assert any(re.fullmatch(r"\d\d:\d\d:\d\d GET /healthz 200 \d+ ms", line) for line in lines)
    assert any(line.endswith(" stopping") for line in lines)
    assert not any(line.startswith("{") for line in lines)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_large_arrays_that_are_freed_do_not_stay_with_the_service(tmp_path: Path) -> None:
    code = """
import threading
import numpy as np
from lookalike.deploy.http.server import _give_memory_back

def anonymous():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))

def work():
    for _ in range(4):
        arrays = []
        for _ in range(6):
            arrays.append(np.ones(10 << 20, np.uint8))
            kept.append(bytearray(100_000))

_give_memory_back()
kept, before = [], anonymous()
for _ in range(2):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
print(anonymous() - before)
"""
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=tmp_path, env=child_env(), capture_output=True, text=True, check=True)
    assert int(done.stdout) < 15_000  # kB, of which 4,800 are kept
