"""A service with a real store and model: within the test, or as the command in a process. Not a test."""

import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import uvicorn

from lookalike.deploy.http.app import create_app
from lookalike.deploy.http.server import listening
from lookalike.deploy.http.settings import Settings
from lookalike.indexer.store.base import open_store
from tests.photos import COMMAND, NAME

API: Final = "/api/v1"
KEY: Final = "0123456789abcdef0123456789abcdef"


@contextmanager
def client_of(home: Path, model: Path, *others: str | Path, **options: Any) -> Iterator[httpx.Client]:
    """The real application, on a real socket, with the store of what tests.photos.make_home has filled."""
    models = (str(model), "digits", *map(str, others))
    settings = Settings(store=str(home / ".lookalike"), models=models, roots=(home.resolve(),), **options)
    headers = {} if settings.key is None else {"Authorization": f"Bearer {settings.key}"}
    with open_store(settings.store) as store, listening("127.0.0.1", 0) as listener:
        app = create_app(settings, store=store)
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=60,  # the client lets go first: no request meets a closing door
                lifespan="on",
            )
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()


@dataclass
class Running:
    """The command in a process of its own."""

    process: subprocess.Popen[str]
    url: str
    log: Path

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, trust_env=False, **options)

    def stop(self, kind: int = signal.SIGTERM) -> int:
        self.process.send_signal(kind)
        return self.process.wait(60)


@contextmanager
def running(home: Path, model: Path, *words: str, env: Mapping[str, str] | None = None) -> Iterator[Running]:
    """Start `lookalike serve` in a folder, and have it gone in the end."""
    log = home / "service.log"
    with log.open("w") as lines:
        process = subprocess.Popen(
            [COMMAND, "serve", "--port", "0", "--model", model, "--model", "digits", "--allow", home, *words],
            cwd=home,
            env={**os.environ, **(env or {})},
            stderr=lines,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        try:
            yield Running(process, _address(process, log), log)
        finally:
            process.kill()
            process.wait()


def _address(process: subprocess.Popen[str], log: Path) -> str:
    """Wait until it answers."""
    for _ in range(600):
        found = re.search(r"serving on (http://\S+?)/?\n", log.read_text())
        if found:
            try:
                httpx.get(f"{found[1]}/healthz", trust_env=False)
            except httpx.TransportError:
                pass
            else:
                return found[1]
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
        break
    raise AssertionError(f"the service did not start: {log.read_text()}")


def problem(response: Any, status: int, code: str) -> dict[str, Any]:
    """Assert that an answer is this problem, whole and without traceback, and return it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    values: dict[str, Any] = response.json()
    assert values.keys() == {"type", "title", "status", "detail", "code", "request_id"}
    assert (values["status"], values["code"]) == (status, code), values
    assert values["request_id"] == response.headers["x-request-id"]
    assert "\n" not in values["detail"]
    assert "Traceback" not in response.text
    return values


def collection_url(path: str, **query: str) -> str:
    return str(httpx.URL(f"{API}/{path}", params={"collection": NAME, **query}))
