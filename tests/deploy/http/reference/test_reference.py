"""The API is described once, in short, and each example of the reference can be run."""

import ast
import html
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from lookalike.deploy.http.errors import PROBLEMS
from tests.fixtures.photos import make_home, photograph
from tests.fixtures.service import API, KEY, client_of

UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@pytest.fixture(scope="module")
def home(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = make_home(tmp_path_factory.mktemp("home"), tiny_model)
    (home / "you.jpg").write_bytes(photograph(1))
    return home


@pytest.fixture(scope="module")
def client(home: Path, tiny_model: Path) -> Iterator[httpx.Client]:
    with client_of(home, tiny_model, "faces", "denoise", key=KEY) as opened:
        yield opened


@pytest.fixture(scope="module")
def described(client: httpx.Client) -> dict[str, Any]:
    told = client.get(f"{API}/openapi.json")
    assert len(told.content) < 60_000
    values: dict[str, Any] = told.json()
    return values


@pytest.fixture(scope="module")
def page(client: httpx.Client) -> str:
    told = httpx.get(client.base_url.join("/reference"), trust_env=False)  # it needs no key
    assert told.headers["content-type"] == "text/html; charset=utf-8"
    assert len(told.content) < 60_000
    return told.text


def operations(described: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method, path, operation)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
        if method != "parameters"  # of all methods of the path
    ]


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (each for key, each in value.items() if key == "$ref")
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from references(each)


def test_there_is_one_schema_of_a_problem(described: dict[str, Any]) -> None:
    text = json.dumps(described)
    assert text.count('"request_id"') == 2  # a property, and required
    problem = described["components"]["schemas"]["Problem"]
    assert problem["properties"]["code"]["enum"] == sorted(PROBLEMS)
    for response in described["components"]["responses"].values():
        content = response["content"]["application/problem+json"]
        assert content == {"schema": {"$ref": "#/components/schemas/Problem"}}
    for _, _, operation in operations(described):
        assert {"401", "default"} <= operation["responses"].keys()
        for status, response in operation["responses"].items():
            assert ("$ref" in response) == (not status.startswith("2"))


def test_every_reference_leads_somewhere(described: dict[str, Any]) -> None:
    found = set(references(described))
    assert len(found) > 50
    for pointer in found:
        place: Any = described
        for part in pointer.removeprefix("#/").split("/"):
            place = place[part]


def parameters(described: dict[str, Any], path: str, operation: dict[str, Any]) -> list[dict[str, Any]]:
    """All parameters of an operation, as a program finds them."""
    every = described["paths"][path].get("parameters", []) + operation.get("parameters", [])
    shared = described["components"]["parameters"]
    return [shared[each["$ref"].rpartition("/")[2]] if "$ref" in each else each for each in every]


def test_parameters_are_said_once_and_are_all_there(described: dict[str, Any], page: str) -> None:
    found = []
    for _, path, operation in operations(described):
        known = parameters(described, path, operation)
        names = [each["name"] for each in known]
        assert len(set(names)) == len(names)
        assert set(re.findall(r"{(\w+)}", path)) == {each["name"] for each in known if each["in"] == "path"}
        article = page.partition(f'<article id="{operation["operationId"]}">')[2].partition("</article>")[0]
        assert all(f"<code>{name}</code>" in article for name in names)
        found += names
    assert len(found) > 15
    written = [
        json.dumps(each)
        for methods in described["paths"].values()
        for holder in (methods, *methods.values())
        if isinstance(holder, dict)
        for each in holder.get("parameters", [])
        if "$ref" not in each
    ]
    assert len(set(written)) == len(written)


def test_what_extends_another_answer_says_only_what_it_adds(described: dict[str, Any], page: str) -> None:
    detail = described["components"]["schemas"]["CollectionDetailJson"]
    assert detail["allOf"] == [{"$ref": "#/components/schemas/CollectionJson"}]
    assert set(detail["properties"]) == set(detail["required"]) == {"sample", "fields", "people"}
    article = page.partition('<article id="collection">')[2].partition("</article>")[0]
    assert all(f"<code>{name}</code>" in article for name in ("name", "roots", "people"))


def test_names_keys_enums_and_headers_are_described(described: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, _, operation in operations(described)]
    assert len(set(names)) == len(names)
    assert {"search", "embed", "facets", "delete_item", "set_alias"} <= set(names)
    assert all(re.fullmatch(r"[a-z_]+", name) for name in names)
    assert described["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    assert described["security"] == [{"bearer": []}]
    assert described["paths"]["/healthz"]["get"]["security"] == []
    thumbnail = described["paths"][f"{API}/items/{{item}}/thumbnail"]["get"]["responses"]["200"]
    assert "ETag" in thumbnail["headers"]
    assert "Location" in described["paths"][f"{API}/index"]["post"]["responses"]["202"]["headers"]
    assert "Retry-After" in described["components"]["responses"]["503"]["headers"]
    schemas = described["components"]["schemas"]
    assert schemas["IndexJson"]["properties"]["search"]["enum"] == ["exact", "hnsw"]
    assert schemas["EmbedRequest"]["properties"]["encoding"]["enum"] == ["float", "base64"]


def test_the_reference_has_each_route_and_asks_for_nothing_else(
    client: httpx.Client, described: dict[str, Any], page: str
) -> None:
    for _, _, operation in operations(described):
        assert page.count(f'<article id="{operation["operationId"]}">') == 1
    assert "<code></code>" not in page, "a default that is nothing"
    assert "``" not in page
    assert "<script" not in page
    assert "style=" not in page
    assert set(re.findall(r"https?://[^/\s\"']+", html.unescape(page))) == {str(client.base_url).rstrip("/")}
    (style,) = re.findall(r'<link rel="stylesheet" href="([^"]+)">', page)
    assert client.get(f"/{style}").headers["cache-control"].endswith("immutable")
    ids = set(re.findall(r' id="([^"]+)"', page))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= ids


@pytest.mark.parametrize("program", ["httpx", pytest.param("curl", marks=pytest.mark.slow)])
def test_each_line_can_be_run(
    client: httpx.Client, page: str, home: Path, tmp_path: Path, program: str
) -> None:
    """Those that delete last; most of what they name is not there."""
    assert client.put(f"{API}/aliases/family", json={"collection": "photos"}).status_code == 200
    for name in ("me.jpg", "you.jpg"):
        shutil.copy(home / name, tmp_path / name)
    item = client.get(f"{API}/items/random?collection=photos").json()["id"]
    lines = [html.unescape(line) for line in re.findall(r"<pre><code>([^<]*)</code></pre>", page)]
    lines = [line for line in lines if line.startswith(program)]
    assert len(lines) == page.count("<article ")
    expected = {
        f"DELETE {API}/collections/family": {409},  # an alias
        f"DELETE {API}/aliases/family": {204},
        f"PUT {API}/aliases/family": {404},  # there is no family-2
        f"POST {API}/index": {403},
        f"DELETE {API}/items/{item}": {204, 404},
    }
    deleting = [line for line in lines if "DELETE" in line or "httpx.delete" in line]
    for line in [line for line in lines if line not in deleting] + deleting:
        line = UUID.sub(item, line).replace("Bearer KEY", f"Bearer {KEY}")
        status, asked = (curl if line.startswith("curl") else python)(line, tmp_path)
        wanted = expected.get(asked, {404} if f"{API}/jobs/" in asked else {200})
        assert status in wanted, line


def python(line: str, folder: Path) -> tuple[int, str]:
    tree = ast.parse(line.replace('open("', f'open("{folder}/'), mode="eval")
    call = tree.body.value if isinstance(tree.body, ast.Attribute) else tree.body
    if isinstance(tree.body, ast.Call) and isinstance(tree.body.func, ast.Attribute):
        call = tree.body.func.value  # without .json()
    code = compile(ast.Expression(call), "reference", "eval")
    names = {"httpx": httpx, "open": lambda name, _: Path(name).read_bytes()}
    response = eval(code, names)  # noqa: S307  # our own page
    return response.status_code, f"{response.request.method} {response.request.url.path}"


def curl(line: str, folder: Path) -> tuple[int, str]:
    words = shlex.split(line)
    if shutil.which("curl") is None:
        pytest.skip("no curl")
    said = ["-s", "-w", "\n%{http_code} %{method} %{url_effective}"]
    done = subprocess.run([*words, *said], cwd=folder, capture_output=True, check=True)
    status, method, url = done.stdout.decode().splitlines()[-1].split()
    return int(status), f"{method} {httpx.URL(url).path}"
