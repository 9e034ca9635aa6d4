"""Names that lead here, and whose pages may ask: alone, and behind the proxies of docs/howto/service.md."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from lookalike.deploy.http import Settings
from lookalike.deploy.http.settings import parse_origin
from lookalike.encoder.errors import InvalidArgumentError
from tests.deploy.http.test_jobs import ended
from tests.fixtures.photos import NAME, make_home, photograph
from tests.fixtures.service import API, KEY, client_of, problem

DOCS: Final = (Path(__file__).parents[4] / "docs" / "howto" / "service.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def home(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("home"), tiny_model)


@pytest.fixture(scope="module")
def client(home: Path, tiny_model: Path) -> Iterator[httpx.Client]:
    """Without a key."""
    with client_of(home, tiny_model) as opened:
        yield opened


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "[::2]",
        "a b",
        "",
        "user@localhost",
        "user:word@localhost:80",
        "localhost/x",
        "localhost?x",
        "localhost#x",
        "localhost:80:80",
    ],
)
def test_a_name_that_leads_here_from_elsewhere_is_refused(client: httpx.Client, host: str) -> None:
    problem(client.get(f"{API}/models", headers={"Host": host}), 400, "host-not-allowed")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "Cross-Site"},
    ],
)
def test_pages_of_other_sites_may_not_ask(client: httpx.Client, headers: dict[str, str]) -> None:
    for response in (
        client.get(f"{API}/models", headers=headers),
        client.post(f"{API}/search", data={"collection": NAME}, files={"image": b"x"}, headers=headers),
    ):
        problem(response, 403, "cross-origin")
        assert not any(name.startswith("access-control") for name in response.headers)


def test_the_own_page_may(client: httpx.Client) -> None:
    own = {"Origin": str(client.base_url).rstrip("/"), "Sec-Fetch-Site": "same-origin"}
    assert client.get(f"{API}/models", headers=own).status_code == 200


def test_a_refusal_names_what_came_and_what_is_allowed(client: httpx.Client) -> None:
    told = problem(client.get(f"{API}/models", headers={"Host": "photos.example"}), 400, "host-not-allowed")
    assert "the Host header is photos.example;" in told["detail"]
    assert "localhost, 127.0.0.1, [::1]" in told["detail"]
    headers = {"Host": "127.0.0.1:8000", "Origin": "https://photos.example"}
    told = problem(client.get(f"{API}/models", headers=headers), 403, "cross-origin")
    assert "the Origin header is https://photos.example;" in told["detail"]
    assert "allowed are http://127.0.0.1:8000, https://127.0.0.1:8000" in told["detail"]
    for detail in (told["detail"],):
        assert "--origin" in detail
    long = problem(client.get(f"{API}/models", headers={"Origin": "x" * 9000}), 403, "cross-origin")
    assert len(long["detail"]) < 400


def test_a_link_on_another_site_leads_to_the_page_and_to_nothing_stored(client: httpx.Client) -> None:
    linked = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert client.get("/", headers=linked).status_code == 200
    problem(client.get(f"{API}/models", headers=linked), 403, "cross-origin")
    problem(client.get("/", headers={**linked, "Origin": "https://evil.example"}), 403, "cross-origin")


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://photos.example.org", "https://photos.example.org"),
        ("HTTPS://Photos.Example.org:443/", "https://photos.example.org"),
        ("http://photos.example.org:443", "http://photos.example.org:443"),
        ("http://[2001:DB8::1]:80", "http://[2001:db8::1]"),
    ],
)
def test_origins_have_one_form(text: str, origin: str) -> None:
    assert parse_origin(text) == origin


@pytest.mark.parametrize(
    "text", ["", "*", "photos.example.org", "https://a/b", "ftp://a", "https://u@a", "null"]
)
def test_what_is_no_origin_is_said(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="an origin is a scheme and a host"):
        Settings(origins=(text,))


@pytest.mark.parametrize("text", ["lookalike", "/a b", "/a//b", "/api", "/page/x", "/../x", "/a?b", "/<x>"])
def test_what_is_no_root_path_is_said(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="a root path is a path such as /lookalike"):
        Settings(root_path=text)
    assert Settings(root_path="/").root_path == ""
    assert Settings(root_path="/photos/faces/").root_path == "/photos/faces"


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", DOCS, flags=re.DOTALL)
    return str(found)


def options_of_the_page() -> dict[str, Any]:
    """What docs/howto/service.md has the service started with."""
    (line,) = [line for line in DOCS.splitlines() if line.startswith("lookalike serve --origin")]
    words = shlex.split(line)[2:]
    given = dict(zip(words[::2], words[1::2], strict=True))
    return {"origins": (given["--origin"],), "root_path": given["--root-path"]}


def through_nginx(path: str) -> tuple[str, dict[str, str]]:
    """The path and headers that nginx passes on: it replaces Host, unless told otherwise."""
    text = block("nginx")
    location, target = (
        re.search(r"location (\S+) ", text),
        re.search(r"proxy_pass http://([^/;]+)(/?);", text),
    )
    assert location is not None
    assert target is not None
    assert path.startswith(location[1])
    named = re.search(r"proxy_set_header Host (\S+);", text)
    host = target[1] if named is None else named[1].replace("$host", "photos.example.org")
    return (f"/{path.removeprefix(location[1])}" if target[2] else path), {
        "Host": host,
        "Connection": "close",
    }


def through_caddy(path: str) -> tuple[str, dict[str, str]]:
    """The path and headers that Caddy passes on: it keeps Host; handle_path takes its part off the path."""
    text = block("caddy")
    site, taken_off = re.search(r"^(\S+) \{", text, re.MULTILINE), re.search(r"handle_path (\S+)/\*", text)
    assert site is not None
    assert taken_off is not None
    headers = {"Host": site[1], "X-Forwarded-Host": site[1], "X-Forwarded-Proto": "https"}
    return path.removeprefix(taken_off[1]), headers


@pytest.mark.parametrize(
    ("proxy", "key"), [(through_nginx, None), (through_nginx, KEY), (through_caddy, None)]
)
def test_behind_a_proxy_the_page_and_its_requests_are_answered(
    home: Path, tiny_model: Path, proxy: Any, key: str | None
) -> None:
    options = options_of_the_page()
    origin, root = options["origins"][0], options["root_path"]
    with client_of(home, tiny_model, **options, key=key) as client:

        def ask(method: str, path: str, **sent: Any) -> httpx.Response:
            inner, headers = proxy(path)
            headers |= {"Origin": origin, "Sec-Fetch-Site": "same-origin"} if method == "POST" else {}
            headers |= sent.pop("headers", {})
            return client.request(method, inner, headers=headers, **sent)

        page = ask("GET", f"{root}/")
        assert page.status_code == 200
        addresses = re.findall(r'(?:href|src)="([^"#]+)"', page.text)
        assert len(addresses) > 5
        for address in addresses:
            found = ask("GET", httpx.URL(f"{origin}{root}/").join(address).raw_path.decode())
            assert found.status_code == 200, address
        image = {"image": ("me.jpg", photograph(4))}
        answer = ask("POST", f"{root}{API}/search", data={"collection": NAME}, files=image)
        assert answer.status_code == 200, answer.text
        if key is None and proxy is through_caddy:
            body = {"source": str(home / "photos"), "collection": "new", "model": "tiny"}
            started = ask("POST", f"{root}{API}/index", json=body)
            assert started.headers["location"].startswith(f"{root}{API}/jobs/")
            assert ask("GET", started.headers["location"]).status_code == 200
            assert ask("DELETE", started.headers["location"]).status_code in (202, 409)
            failed = ask("POST", f"{root}{API}/index", json=body | {"collection": NAME, "crop": "center:0.1"})
            job = ended(client, failed.json())
            told = ask("GET", job["problem"]["type"].partition("#")[0]).json()
            assert told[job["problem"]["code"]]["status"] == 409
        elsewhere = {"headers": {"Origin": "https://evil.example"}}
        told = problem(ask("POST", f"{root}{API}/search", **elsewhere), 403, "cross-origin")
        assert origin in told["detail"]
        missing = problem(ask("GET", f"{root}{API}/collections/none"), 404, "collection-not-found")
        for each in (told, missing):
            address, _, code = each["type"].partition("#")
            assert ask("GET", address).json()[code]["status"] == each["status"]
        assert client.get(root, headers=proxy(f"{root}/")[1]).headers["location"] == f"{root}/"
        servers = ask("GET", f"{root}{API}/openapi.json").json()["servers"]
        assert servers == [{"url": f"{origin}{root}"}]
