"""How much may be asked, and what every answer carries."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from lookalike.deploy.http import middleware as guard
from lookalike.deploy.http.routes.search import SearchRequest
from tests.fixtures.photos import NAME, make_home, photograph
from tests.fixtures.service import API, client_of, problem
from tests.indexer.sync.test_bad_input import png_of_size


@pytest.fixture(scope="module")
def home(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("home"), tiny_model)


@pytest.fixture(scope="module")
def free_home(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same again, whose store nobody holds."""
    return make_home(tmp_path_factory.mktemp("free"), tiny_model)


@pytest.fixture(scope="module")
def client(home: Path, tiny_model: Path) -> Iterator[httpx.Client]:
    """Small limits, no key."""
    with client_of(home, tiny_model, body_bytes=200_000, seconds=2.0) as opened:
        yield opened


def test_every_answer_has_the_headers_and_an_id(client: httpx.Client) -> None:
    for path in ("/", "/healthz", f"{API}/models", "/nothing", "/page/style.css"):
        response = client.get(path)
        for name, value in guard.HEADERS.items():
            assert response.headers[name] == value, (path, name)
        assert len(response.headers["x-request-id"]) == 16
        assert "server" not in response.headers
    assert client.get("/healthz", headers={"X-Request-ID": "abc-1"}).headers["x-request-id"] == "abc-1"
    assert client.get("/healthz", headers={"X-Request-ID": "a b"}).headers["x-request-id"] != "a b"


def test_too_much_is_refused_said_before_or_not(client: httpx.Client) -> None:
    large = {"image": ("a.jpg", bytes(300_000))}
    problem(client.post(f"{API}/search", data={"collection": NAME}, files=large), 413, "body-too-large")

    def pieces() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * 10_000

    json_kind = {"Content-Type": "application/json"}
    # No Content-Length: it is counted. What is still being sent is read off, so that the answer is seen.
    problem(client.post(f"{API}/search", content=pieces(), headers=json_kind), 413, "body-too-large")


def test_who_sends_without_end_is_cut_off(client: httpx.Client) -> None:
    sent = 0

    def pieces() -> Iterator[bytes]:
        nonlocal sent
        while sent < 100_000_000:
            yield b" " * 100_000
            sent += 100_000

    with suppress(httpx.WriteError, httpx.ReadError):
        response = client.post(
            f"{API}/search", content=pieces(), headers={"Content-Type": "application/json"}
        )
        problem(response, 413, "body-too-large")
    assert sent < 50_000_000


def many_keys(count: int) -> bytes:
    return json.dumps({"collection": "photos", **{f"k{number}": 0 for number in range(count)}}).encode()


def many_items(field: str, count: int) -> bytes:
    return json.dumps({"collection": "photos", field: [0] * count}).encode()


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (many_keys(15_000), "k0: there is no such field"),
        (many_items("images", 20_000), "the body holds more than 10,000 values"),
    ],
)
def test_one_error_of_very_many_is_looked_for(
    client: httpx.Client, body: bytes, detail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def validate(*_: object, **__: object) -> None:
        raise AssertionError("all of it is validated")

    monkeypatch.setattr(SearchRequest, "model_validate_json", validate)
    response = client.post(f"{API}/search", content=body, headers={"Content-Type": "application/json"})
    assert problem(response, 422, "invalid-request")["detail"] == detail


def test_who_sends_slowly_is_not_waited_for(client: httpx.Client) -> None:
    with socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=20) as slow:
        head = f"POST {API}/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        slow.sendall(f"{head}Content-Length: 1000\r\n\r\n{{".encode())
        began = time.monotonic()
        told = slow.recv(65_536)
        assert time.monotonic() - began < 15
    assert told.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    ("content", "kind", "status", "code"),
    [
        (b"{", "application/json", 400, "malformed"),
        (b"\xff\xfe", "application/json", 400, "malformed"),
        (b"[" * 100_000, "application/json", 400, "malformed"),
        (b"[]", "application/json", 422, "invalid-request"),
        (b"{}", "application/json", 422, "invalid-request"),
        (b'{"collection": "photos", "k": "5"}', "application/json", 422, "invalid-request"),
        (b'{"collection": "photos", "k": 1e999}', "application/json", 422, "invalid-request"),
        (b'{"collection": "photos", "prior": NaN}', "application/json", 422, "invalid-request"),
        (b'{"collection": "photos", "unheard": 1}', "application/json", 422, "invalid-request"),
        (b'{"collection": "photos"}', "application/json", 422, "invalid-request"),
        (b'{"collection": "photos", "images": ["%"]}', "application/json", 422, "invalid-request"),
        (b'{"collection": "photos", "images": [""]}', "application/json", 422, "image-unreadable"),
        (b'{"collection": "photos", "images": ["AAAA"]}', "application/json", 422, "image-unreadable"),
        (b'{"collection": "../x", "images": ["AAAA"]}', "application/json", 404, "collection-not-found"),
        (b'{"collection": "none", "images": ["AAAA"]}', "application/json", 404, "collection-not-found"),
        (b"collection=photos", "application/x-www-form-urlencoded", 415, "media-type"),
        (b"{}", "text/plain", 415, "media-type"),
        (b"{}", "", 415, "media-type"),
        (many_keys(15_000), "application/json", 422, "invalid-request"),
        (many_items("images", 20_000), "application/json", 422, "invalid-request"),
        (many_items("add", 20_000), "application/json", 422, "invalid-request"),
        (b"x", "multipart/form-data", 400, "malformed"),
        (b"x", "multipart/form-data; boundary=y", 400, "malformed"),
    ],
)
def test_bad_requests_are_told_apart(
    client: httpx.Client, content: bytes, kind: str, status: int, code: str
) -> None:
    problem(client.post(f"{API}/search", content=content, headers={"Content-Type": kind}), status, code)


@pytest.mark.parametrize(
    ("data", "files", "status", "code"),
    [
        ({"collection": NAME}, {"picture": b"x"}, 422, "invalid-request"),
        ({"collection": NAME, "k": "0"}, {"image": b"x"}, 422, "invalid-request"),
        ({"collection": NAME, "k": "1001"}, {"image": b"x"}, 422, "invalid-request"),
        ({"collection": NAME, "k": ["1", "2"]}, {"image": b"x"}, 422, "invalid-request"),
        ({"collection": NAME, "images": "AAAA"}, {"image": b"x"}, 422, "invalid-request"),
        ({"collection": NAME, "crop": "middle"}, {"image": photograph(0)}, 422, "invalid-request"),
        ({"collection": NAME, "prior": "0.5"}, {"image": photograph(0)}, 422, "invalid-request"),
        ({"collection": NAME, "item": "1"}, {"image": photograph(0)}, 422, "invalid-request"),
        ({"collection": NAME, "item": "0" * 32}, {"image": photograph(0)}, 422, "invalid-request"),
        ({"collection": NAME, "item": "0" * 32}, {}, 415, "media-type"),
        ({"collection": NAME}, [("image", b"x")] * 17, 400, "malformed"),
        ({"collection": NAME}, [("image", b"x")] * 2, 422, "image-unreadable"),
    ],
)
def test_bad_forms_are_told_apart(
    client: httpx.Client, data: dict[str, Any], files: Any, status: int, code: str
) -> None:
    problem(client.post(f"{API}/search", data=data, files=files), status, code)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "search", 405, "method-not-allowed"),
        ("DELETE", "collections", 405, "method-not-allowed"),
        ("OPTIONS", "search", 405, "method-not-allowed"),
        ("GET", "nothing", 404, "not-found"),
        ("GET", "jobs/00000000-0000-0000-0000-000000000000", 404, "job-not-found"),
        ("GET", "jobs/x", 422, "invalid-request"),
        ("GET", "items/x?collection=photos", 422, "invalid-request"),
        ("GET", "items/00000000-0000-0000-0000-000000000000?collection=photos", 404, "item-not-found"),
        ("GET", "items/00000000-0000-0000-0000-000000000000?collection=none", 404, "collection-not-found"),
        ("GET", "items/random", 422, "invalid-request"),
        ("GET", "items/random?collection=%2e%2e%2fphotos", 404, "collection-not-found"),
    ],
)
def test_what_is_not_there(client: httpx.Client, method: str, path: str, status: int, code: str) -> None:
    problem(client.request(method, f"{API}/{path}"), status, code)


def test_a_picture_of_too_many_pixels_is_not_decoded(client: httpx.Client) -> None:
    bomb = {"image": ("b.png", png_of_size(60_000, 60_000))}
    problem(client.post(f"{API}/search", data={"collection": NAME}, files=bomb), 413, "image-too-large")


def test_no_message_tells_where_things_lie(client: httpx.Client, home: Path) -> None:
    for response in (
        client.post(f"{API}/search", json={"collection": "none", "images": ["AAAA"]}),
        client.get(f"{API}/items/random?collection=none"),
        client.get(f"{API}/collections"),
        client.post(f"{API}/generate", json={"model": str(home)}),
        client.post(f"{API}/generate", json={"model": "../../etc"}),
    ):
        assert str(home) not in response.text.replace(json.dumps(str(home)), "")


def test_a_model_is_named_and_no_path(client: httpx.Client, tiny_model: Path) -> None:
    for name in (str(tiny_model), f"./{tiny_model.name}", "", "faces/../digits"):
        problem(client.post(f"{API}/generate", json={"model": name}), 404, "model-not-found")


def test_when_all_wait_more_are_told_to_come_later(free_home: Path, tiny_model: Path) -> None:
    with client_of(free_home, tiny_model, workers=1, queue_size=1) as client:
        body = {"model": "digits", "n": 10, "class": "all"}
        found: list[httpx.Response] = []
        threads = [
            threading.Thread(target=lambda: found.append(client.post(f"{API}/generate", json=body)))
            for _ in range(12)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        refused = [response for response in found if response.status_code != 200]
        assert len(refused) < len(found) == 12
        for response in refused:
            problem(response, 503, "busy")
            assert response.headers["retry-after"] == "1"
        assert client.get("/readyz").status_code == 200
        assert client.post(f"{API}/generate", json={**body, "n": 1}).status_code == 200
