"""Who may ask: the full key, the read-only key, and no key; whoever tries many keys waits."""

import hmac
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.datastructures import Headers

from lookalike.deploy.http import Settings
from lookalike.deploy.http.access import is_key
from lookalike.deploy.http.access.wrong_keys import WrongKeys
from lookalike.deploy.http.settings import is_loopback
from lookalike.encoder.errors import InvalidArgumentError
from tests.fixtures.photos import NAME, make_home, photograph
from tests.fixtures.service import API, KEY, client_of, problem

PATHS = ["collections", "models", "items/random?collection=photos", "jobs", "openapi.json", "problems"]
READ_KEY = "fedcba9876543210"


@pytest.fixture(scope="module")
def home(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("home"), tiny_model)


@pytest.fixture(scope="module")
def client(home: Path, tiny_model: Path) -> Iterator[httpx.Client]:
    """With the full key."""
    with client_of(home, tiny_model, "denoise", key=KEY, read_key=READ_KEY, host="0.0.0.0") as opened:
        yield opened


@pytest.fixture
def bare(client: httpx.Client) -> Iterator[httpx.Client]:
    """Without a key."""
    with httpx.Client(base_url=client.base_url, timeout=60, trust_env=False) as opened:
        yield opened


def test_with_a_key_nothing_stored_is_told_without_it(client: httpx.Client, bare: httpx.Client) -> None:
    for path in PATHS:
        assert client.get(f"{API}/{path}").status_code == 200
        told = bare.get(f"{API}/{path}")
        problem(told, 401, "unauthorized")
        assert told.headers["www-authenticate"] == "Bearer"
    problem(bare.get("/metrics"), 401, "unauthorized")
    problem(bare.post(f"{API}/search", json={}), 401, "unauthorized")
    for path in ("/healthz", "/readyz", "/", "/page/icon.svg"):
        assert bare.get(path).status_code == 200
    for headers in (
        {"Authorization": f"Bearer {KEY[:-1]}"},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": KEY},
        {"Authorization": "Bearer"},
        {"X-API-Key": KEY.upper()},
        {"Cookie": f"key={KEY}"},
    ):
        problem(bare.get(f"{API}/models", headers=headers), 401, "unauthorized")
    problem(bare.get(f"{API}/models?key={KEY}"), 401, "unauthorized")
    assert bare.get(f"{API}/models", headers={"X-API-Key": KEY}).status_code == 200
    assert bare.get(f"{API}/models", headers={"Authorization": f"bearer {KEY}"}).status_code == 200


def test_keys_are_compared_as_digests_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, two: bytes) -> bool:
        compared.append((one, two))
        return one == two

    monkeypatch.setattr(hmac, "compare_digest", compare)
    for given in (KEY, "", "x" * 10_000, "ü\udcff"):
        assert is_key(Headers({"x-api-key": given.encode("latin-1", "replace").decode("latin-1")}), KEY) == (
            given == KEY
        )
    assert len(compared) == 4
    assert {len(digest) for pair in compared for digest in pair} == {32}


def test_the_host_decides_whether_a_key_is_needed() -> None:
    for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost"):
        assert is_loopback(host)
        assert Settings(host=host).key is None
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.com", ""):
        assert not is_loopback(host)
        with pytest.raises(InvalidArgumentError, match="LOOKALIKE_API_KEY"):
            Settings(host=host)
        assert Settings(host=host, key=KEY).key == KEY
    with pytest.raises(InvalidArgumentError, match="16 ASCII characters"):
        Settings(key="short")
    assert KEY not in repr(Settings(key=KEY))


def reading(home: Path) -> list[tuple[str, str, dict[str, object]]]:
    """Requests that change nothing."""
    image: dict[str, object] = {"files": {"image": ("me.jpg", photograph(4))}}
    return [
        ("GET", "collections", {}),
        ("HEAD", "models", {}),
        ("GET", "jobs", {}),
        ("POST", "search", {"data": {"collection": NAME}, **image}),
        ("POST", "generate", {"json": {"model": "digits", "n": 1}}),
        ("POST", "denoise", image),
    ]


CHANGING = [
    ("POST", "index"),
    ("DELETE", "jobs/00000000-0000-0000-0000-000000000000"),
    ("DELETE", f"collections/{NAME}"),
    ("DELETE", f"items/00000000-0000-0000-0000-000000000000?collection={NAME}"),
    ("PUT", "aliases/family"),
    ("DELETE", "aliases/family"),
    ("POST", "whatever-comes-later"),
    ("PATCH", "search"),
]


def test_a_read_only_key_looks_and_changes_nothing(
    home: Path, client: httpx.Client, bare: httpx.Client
) -> None:
    key = {"Authorization": f"Bearer {READ_KEY}"}
    for method, path, sent in reading(home):
        for headers in (key, {"X-API-Key": READ_KEY}):
            response = bare.request(method, f"{API}/{path}", headers=headers, **sent)  # type: ignore[arg-type]
            assert response.status_code == 200, response.text
    before = client.get(f"{API}/collections").json()
    for method, path in CHANGING:
        told = problem(bare.request(method, f"{API}/{path}", headers=key), 403, "read-only")
        assert f"{method} {API}/{path.partition('?')[0]} needs the full key" in told["detail"]
    assert client.get(f"{API}/collections").json() == before


def test_the_read_only_key_is_a_second_one() -> None:
    for key, other in ((None, READ_KEY), (KEY, KEY)):
        with pytest.raises(InvalidArgumentError, match="LOOKALIKE_READ_KEY is a second key"):
            Settings(key=key, read_key=other)
    with pytest.raises(InvalidArgumentError, match="LOOKALIKE_READ_KEY must have 16 ASCII characters"):
        Settings(key=KEY, read_key="short")
    assert READ_KEY not in repr(Settings(key=KEY, read_key=READ_KEY))


def test_wrong_keys_in_a_row_are_answered_later_and_right_ones_at_once(
    client: httpx.Client, bare: httpx.Client
) -> None:
    def seconds(key: str | None) -> float:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        began = time.monotonic()
        assert bare.get(f"{API}/models", headers=headers).status_code == (200 if key == KEY else 401)
        return time.monotonic() - began

    seconds(KEY)
    for number in range(10):
        seconds(f"wrong-{number}")
    times = [seconds(f"wrong-{number}") for number in range(3)]
    for took, least in zip(times, (0.1, 0.2, 0.4), strict=True):
        assert took >= least
    assert seconds(None) < 0.8  # who sends no key tries none
    assert seconds(KEY) < 0.8
    assert seconds("wrong") < 0.8  # the row has ended: it was counted as the first of a new one


def test_delays_grow_to_a_bound_and_so_does_what_is_remembered() -> None:
    keys = WrongKeys()
    delays = [keys.delay("192.0.2.1") for _ in range(200)]
    assert delays[:10] == [0.0] * 10
    assert all(a < b for a, b in itertools.pairwise(delays[9:16]))
    assert set(delays[17:]) == {5.0}
    assert keys.delay("192.0.2.2") == 0
    assert keys.delay("::ffff:192.0.2.1") == 5.0
    assert keys.delay("::ffff:192.0.2.3") == 0
    keys.forget("192.0.2.1")
    assert keys.delay("192.0.2.1") == 0
    for number in range(12):  # one customer's addresses
        last = keys.delay(f"2001:db8::{number:x}")
    assert last > 0
    for number in range(3000):
        keys.delay(f"2001:db8:{number // 256:x}:{number % 256:x}::1")
        keys.delay(f"no-address-{number}" * 100)
    assert len(keys) == 4096
