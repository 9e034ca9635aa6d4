"""What every test stands on: no network beyond this machine, a temporary cache, the real data sets."""

import ipaddress
import os
import re
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NoReturn

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # one thread a worker: numpy and torch read these as they are loaded
    for _library in ("OMP", "OPENBLAS", "MKL"):
        os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

from lookalike.encoder.bundle import Bundle
from lookalike.encoder.datasets import LFW, MNIST, find_lfw, find_mnist

pytest.register_assert_rewrite(
    "tests.fixtures.browser",
    "tests.fixtures.command",
    "tests.fixtures.digit_files",
    "tests.fixtures.embedding",
    "tests.fixtures.handmade_models",
    "tests.fixtures.tiny_models",
    "tests.fixtures.likelihood_models",
    "tests.fixtures.people",
    "tests.fixtures.photos",
    "tests.fixtures.service",
    "tests.fixtures.shards",
    "tests.fixtures.stores",
)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The user's cache, store, models and mirrors stay out of the tests and of what they start."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOKALIKE_STORE", ".lookalike")  # that of the folder a test works in
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        patch.delenv("LOOKALIKE_COLLECTION", raising=False)
        patch.setenv("LOOKALIKE_CACHE", str(cache))
        patch.setenv("LOOKALIKE_MODELS", str(cache / "own-models"))
        patch.delenv("LOOKALIKE_MIRRORS", raising=False)
        patch.setenv("NO_PROXY", "127.0.0.1,localhost")
        yield cache


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Commands that tests interrupt hear it, also where a shell has started the tests in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def only_loopback() -> Iterator[None]:
    """A test that reaches for the network fails, and is not merely slow or lucky."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex", "sendto"):
            patch.setattr(socket.socket, name, _guarded(getattr(socket.socket, name)))
        patch.setattr(socket, "getaddrinfo", _guarded_lookup(socket.getaddrinfo))
        yield


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder LOOKALIKE_DATA names."""
    root = os.environ.get("LOOKALIKE_DATA")
    if not root or not Path(root).is_dir():
        _no_data(f"LOOKALIKE_DATA must name the folder of the data sets, not {root!r}")
    return Path(root)


@pytest.fixture(scope="session")
def lfw_folder(data_root: Path) -> Path:
    """`lfw` in there; tests that use it are marked `lfw`."""
    folder = data_root / "lfw"
    if not folder.is_dir():
        _no_data(f"Labeled Faces in the Wild must lie at {folder}")
    return folder


@pytest.fixture(scope="session")
def lfw(lfw_folder: Path) -> LFW:
    """The real data set."""
    return find_lfw(download=False)


@pytest.fixture(scope="session")
def mnist(data_root: Path) -> MNIST:
    """The real digits; tests that use them are marked `mnist`."""
    folder = data_root / "MNIST" / "raw"
    if not folder.is_dir():
        _no_data(f"MNIST must lie at {folder}")
    return find_mnist(download=False)


@dataclass
class FileServer:
    """A server on 127.0.0.1 with switches for all that goes wrong with downloads.

    `served` is what went out: path asked for, status, bytes of the body handed to the socket.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True  # whether it heeds Range
    cut_after: int | None = None  # bytes of each answer before the connection is dropped
    wait: float = 0.0  # seconds before each answer
    pace: float = 0.0  # seconds before each piece of 16 KiB
    encoding: str | None = None  # the Content-Encoding it claims
    served: list[tuple[str, int, int]] = field(default_factory=list)
    url: str = ""

    @property
    def bytes_served(self) -> int:
        return sum(count for _, _, count in self.served)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        time.sleep(self.wait)
        name, content = request.path.lstrip("/"), self.files.get(request.path.lstrip("/"), b"")
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", "")) if self.ranges else None
        start = int(asked[1]) if asked else 0
        status = 404 if name not in self.files else 200 if not asked else 206 if start < len(content) else 416
        body = content[start:] if status < 400 else b""
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        if status == 206:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.encoding:
            request.send_header("Content-Encoding", self.encoding)
        request.end_headers()
        self.served.append((name, status, 0))
        turn = len(self.served) - 1
        for piece in range(0, len(body[: self.cut_after]), 1 << 14):
            time.sleep(self.pace)
            self.served[turn] = (name, status, len(body[: self.cut_after][: piece + (1 << 14)]))
            request.wfile.write(body[: self.cut_after][piece : piece + (1 << 14)])


@pytest.fixture
def server() -> Iterator[FileServer]:
    """A running `FileServer` with nothing on it yet."""
    shelf = FileServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                shelf.answer(self)
            except OSError:  # the client was killed
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name is inherited)
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        listener.daemon_threads = True
        shelf.url = f"http://127.0.0.1:{listener.server_port}"
        threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield shelf
        listener.shutdown()


def _no_data(reason: str) -> NoReturn:
    # Where everything is provided, a test that cannot run is a failure.
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def _is_here(host: object) -> bool:
    """Whether a host is this machine; so is the unspecified address (0.0.0.0)."""
    if host in (None, "", "localhost", b"localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.decode() if isinstance(host, bytes) else str(host))
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _guarded(method: Callable[..., Any]) -> Callable[..., Any]:
    def guard(self: socket.socket, *args: Any) -> Any:
        # The address is the last argument of all three; those of Unix sockets are no tuples.
        if isinstance(args[-1], tuple) and not _is_here(args[-1][0]):
            # Not an OSError: code that tries again or elsewhere must not swallow it.
            raise AssertionError(f"a test must reach no machine but this one, not {args[-1]}")
        return method(self, *args)

    return guard


def _guarded_lookup(lookup: Callable[..., Any]) -> Callable[..., Any]:
    def guard(host: object, *args: Any, **options: Any) -> Any:
        if not _is_here(host):
            raise AssertionError(f"a test must look up no machine but this one, not {host!r}")
        return lookup(host, *args, **options)

    return guard


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny bundle (tests/fixtures/tiny_models.py). Tests share it: never change it."""
    from tests.fixtures.tiny_models import make_bundle  # here: its asserts are to be rewritten first

    return make_bundle(tmp_path_factory.mktemp("model") / "tiny").folder


@pytest.fixture(scope="module")
def tiny(tiny_model: Path) -> Bundle:
    """It, opened."""
    return Bundle.open(tiny_model)


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    """A bundle to spoil."""
    return Path(shutil.copytree(tiny_model, tmp_path / "faces"))
