"""HEAD wherever GET is, compression of text, conditional requests, and names that are cached for good."""

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fixtures.photos import NAME, make_home, photograph
from tests.fixtures.service import API, client_of, collection_url, problem

PAGE = Path(__file__).parents[4] / "deploy" / "page"


@pytest.fixture(scope="module")
def client(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    home = make_home(tmp_path_factory.mktemp("home"), tiny_model)
    with client_of(home, tiny_model) as opened:
        yield opened


def paths(client: httpx.Client) -> Iterator[str]:
    """Every path that GET has, with values for its parameters."""
    item = client.get(collection_url("items/random")).json()["id"]
    job = client.post(f"{API}/index", json={"source": "/", "collection": "x"}).json().get("id", item)
    for path, methods in client.get(f"{API}/openapi.json").json()["paths"].items():
        if "get" in methods:
            filled = path.format(item=item, name=NAME, job=job, alias=NAME)
            yield filled + f"?collection={NAME}" * ("items" in path or "facets" in path)
    yield from ("/", "/reference", "/favicon.ico", "/page/style.css", f"{API}/openapi.json")


def test_head_is_get_without_a_body(client: httpx.Client) -> None:
    varying = {"date", "x-request-id", "content-length", "content-encoding", "vary"}  # of what is random
    for path in paths(client):
        got, head = client.get(path), client.head(path)
        assert head.status_code == got.status_code, path
        assert head.content == b""
        assert head.headers.keys() - varying == got.headers.keys() - varying, path
        if "random" not in path and "metrics" not in path:
            assert head.headers["content-length"] == got.headers["content-length"], path
    assert client.head(f"{API}/nothing").status_code == 404
    refused = client.head(f"{API}/search")
    assert refused.status_code == 405
    assert client.get("/healthz").status_code == 200  # on the same connection


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "search", "POST"),
        ("PATCH", "collections/photos", "DELETE, GET, HEAD"),
        ("POST", "models", "GET, HEAD"),
        ("GET", "aliases/x", "DELETE, PUT"),
    ],
)
def test_a_wrong_method_is_told_all_right_ones(
    client: httpx.Client, method: str, path: str, allowed: str
) -> None:
    told = client.request(method, f"{API}/{path}")
    problem(told, 405, "method-not-allowed")
    assert told.headers["allow"] == allowed


def raw(client: httpx.Client, method: str, path: str, **sent: Any) -> tuple[httpx.Response, bytes]:
    """An answer, and its bytes as they came."""
    with client.stream(method, path, **sent) as response:
        return response, b"".join(response.iter_raw())


def test_text_is_compressed_for_those_who_take_it_and_images_are_not(client: httpx.Client) -> None:
    for path in ("/", "/page/style.css", "/reference", f"{API}/openapi.json", f"{API}/models"):
        packed, data = raw(client, "GET", path, headers={"Accept-Encoding": "gzip"})
        plain, whole = raw(client, "GET", path, headers={"Accept-Encoding": "identity"})
        assert packed.headers["content-encoding"] == "gzip"
        assert "content-encoding" not in plain.headers
        assert gzip.decompress(data) == whole
        assert len(data) < 0.6 * len(whole) or len(whole) < 3000
        assert packed.headers["vary"] == "Accept-Encoding"
    item = client.get(collection_url("items/random")).json()["id"]
    sent: dict[str, Any] = {"data": {"model": "tiny"}, "files": {"image": photograph(0)}}
    for method, path, more in (
        ("GET", collection_url(f"items/{item}/thumbnail"), {}),
        ("GET", collection_url(f"items/{item}/image"), {}),
        ("POST", f"{API}/reconstruct", sent),  # Base64 of images
    ):
        response, _ = raw(client, method, path, headers={"Accept-Encoding": "gzip"}, **more)
        assert response.status_code == 200
        assert "content-encoding" not in response.headers


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ("{tag}", 304),
        ("{strong}", 304),
        ("W/{strong}", 304),
        ('"other", {tag}', 304),
        ('W/"a,b",{strong} , "c"', 304),
        ("*", 304),
        ('"other"', 200),
        ("", 200),
        ("{bare}", 200),
        ('"x{bare}"', 200),
    ],
)
def test_tags_are_found_in_lists_weak_or_strong(client: httpx.Client, given: str, status: int) -> None:
    item = client.get(collection_url("items/random")).json()["id"]
    for path in ("/", "/page/page.js", "/reference", collection_url(f"items/{item}/thumbnail")):
        tag = client.get(path).headers["etag"]
        strong = tag.removeprefix("W/")
        header = given.format(tag=tag, strong=strong, bare=strong.strip('"'))
        told = client.get(path, headers={"If-None-Match": header})
        assert told.status_code == status, (path, header)
        assert told.headers["etag"] == tag


def test_files_of_the_page_have_names_that_are_cached_for_good(client: httpx.Client) -> None:
    page = client.get("/")
    assert page.headers["cache-control"] == "no-cache"
    names = re.findall(r'(?:src|href)="(page/[^"]+)"', page.text)
    assert len(names) > 5
    assert not re.search(r'(?:src|href)="/', page.text)  # it works below any path
    for name in set(names):
        stem, digest, suffix = name.removeprefix("page/").rsplit(".", 2)
        assert re.fullmatch("[0-9a-f]{10}", digest)
        hashed, plain = client.get(f"/{name}"), client.get(f"/page/{stem}.{suffix}")
        assert hashed.content == plain.content == (PAGE / f"{stem}.{suffix}").read_bytes()
        assert hashed.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert plain.headers["cache-control"] == "no-cache"
        assert client.get(f"/page/{stem}.0123456789.{suffix}").status_code == 404


def test_an_answer_is_json_whatever_the_encoding(client: httpx.Client) -> None:
    data: dict[str, Any] = {"data": {"collection": NAME}, "files": {"image": photograph(0)}}
    _, packed = raw(client, "POST", f"{API}/search", headers={"Accept-Encoding": "gzip"}, **data)
    _, plain = raw(client, "POST", f"{API}/search", headers={"Accept-Encoding": "identity"}, **data)
    found = [json.loads(each)["answers"][0]["results"] for each in (gzip.decompress(packed), plain)]
    assert found[0] == found[1]
