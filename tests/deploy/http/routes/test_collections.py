"""Collections, items and aliases over HTTP: looked at by all, changed by those who may."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from lookalike.deploy.http.settings import MAX_DENOISED_PIXELS
from lookalike.encoder.runtime import Model
from lookalike.indexer.open import open_store
from lookalike.indexer.store import summarize
from tests.fixtures.photos import NAME, PEOPLE, index, make_home
from tests.fixtures.service import API, KEY, client_of, problem

MANY = "many"
SPARE, OTHER = "spare", "other"


@pytest.fixture(scope="module")
def home(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = make_home(tmp_path_factory.mktemp("home"), tiny_model)
    with open_store(str(home / ".lookalike")) as store:
        index(store, Model.open(tiny_model), home / "photos", name=SPARE)
        index(store, Model.open(tiny_model), home / "photos", name=OTHER)
    fill(home)
    return home


@pytest.fixture(scope="module")
def free_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an empty store that nobody holds."""
    return tmp_path_factory.mktemp("free")


@pytest.fixture(scope="module")
def client(home: Path, tiny_model: Path) -> Iterator[httpx.Client]:
    with client_of(home, tiny_model) as opened:
        yield opened


def fill(home: Path) -> None:
    """A collection of 1,500 items with fields of all kinds."""
    rng = np.random.default_rng(0)
    with open_store(str(home / ".lookalike")) as store:
        spec = store.info(NAME)
        own = {"root": "photos", "path": "x", "sha256": "x", "size": 1, "mtime_ns": 1}
        payloads = [
            {
                **own,
                "person": f"person-{number % 60}",
                "camera": ("old", "new", "new")[number % 3],
                "serial": f"s-{number}",
                "year": 1900 + number % 100,
                "flag": True,
                "nested": {"a": 1},
            }
            for number in range(1500)
        ]
        ids = [f"{number:032x}" for number in range(1500)]
        store.create(MANY, spec)
        vectors = rng.standard_normal((1500, spec.dimension)).astype(np.float32)
        store.upsert(MANY, ids, vectors, payloads)
        found = summarize(store, MANY)
    assert found.looked_at == 1500
    assert found.people is not None
    assert len(found.people) == 50


def test_a_collection_is_told_with_its_fields_and_people(client: httpx.Client) -> None:
    rows = {each["name"]: each for each in client.get(f"{API}/collections").json()["collections"]}
    told = client.get(f"{API}/collections/{NAME}").json()
    assert told | rows[NAME] == told
    assert len(set(told["sample"])) == 9
    for item in told["sample"]:
        assert client.get(f"{API}/items/{item}?collection={NAME}").status_code == 200
    assert told["people"] == [{"value": person, "count": 3} for person in sorted(PEOPLE)]
    assert told["fields"] == []
    many = client.get(f"{API}/collections/{MANY}").json()
    assert (many["count"], len(many["sample"]), len(many["people"])) == (1500, 12, 50)
    camera, serial, year = many["fields"]
    assert camera == {
        "name": "camera",
        "kind": "text",
        "values": [{"value": "new", "count": 1000}, {"value": "old", "count": 500}],
    }
    assert serial == {"name": "serial", "kind": "text"}
    assert year == {"name": "year", "kind": "number", "min": 1900, "max": 1999}
    problem(client.get(f"{API}/collections/none"), 404, "collection-not-found")
    problem(client.get(f"{API}/collections/{'x' * 65}"), 422, "invalid-request")


def test_a_collection_is_deleted_once_and_not_under_an_alias(client: httpx.Client, home: Path) -> None:
    assert client.put(f"{API}/aliases/family", json={"collection": SPARE}).json() == {
        "alias": "family",
        "collection": SPARE,
    }
    assert client.get(f"{API}/collections/family").json()["aliases"] == ["family"]
    told = problem(client.delete(f"{API}/collections/{SPARE}"), 409, "collection-in-use")
    assert "DELETE /api/v1/aliases/family" in told["detail"]
    problem(client.delete(f"{API}/collections/family"), 409, "collection-in-use")
    assert client.delete(f"{API}/aliases/family").status_code == 204
    problem(client.delete(f"{API}/aliases/family"), 404, "alias-not-found")
    gone = client.delete(f"{API}/collections/{SPARE}")
    assert (gone.status_code, gone.content) == (204, b"")
    problem(client.delete(f"{API}/collections/{SPARE}"), 404, "collection-not-found")
    names = [each["name"] for each in client.get(f"{API}/collections").json()["collections"]]
    assert SPARE not in names
    assert NAME in names
    assert len(list((home / "photos").rglob("*.jpg"))) == 9


@pytest.mark.parametrize(
    ("alias", "body", "status", "code"),
    [
        ("family", {"collection": "none"}, 404, "collection-not-found"),
        (NAME, {"collection": NAME}, 409, "collection-exists"),
        ("a%20b", {"collection": NAME}, 422, "invalid-request"),
        ("family", {}, 422, "invalid-request"),
        ("family", {"collection": NAME, "more": 1}, 422, "invalid-request"),
    ],
)
def test_an_alias_that_cannot_be_is_said(
    client: httpx.Client, alias: str, body: dict[str, object], status: int, code: str
) -> None:
    problem(client.put(f"{API}/aliases/{alias}", json=body), status, code)


def test_an_item_is_deleted_and_the_others_stay(client: httpx.Client, home: Path) -> None:
    item, *others = client.get(f"{API}/collections/{OTHER}").json()["sample"]
    assert client.delete(f"{API}/items/{item}?collection={OTHER}").status_code == 204
    problem(client.delete(f"{API}/items/{item}?collection={OTHER}"), 404, "item-not-found")
    problem(client.delete(f"{API}/items/{item}?collection=none"), 404, "collection-not-found")
    assert client.get(f"{API}/collections/{OTHER}").json()["sample"] == others
    (answer,) = client.post(f"{API}/search", json={"collection": OTHER, "item": others[0]}).json()["answers"]
    assert {each["id"] for each in answer["results"]} == set(others[1:])
    assert len(list((home / "photos").rglob("*.jpg"))) == 9


def test_a_job_keeps_its_collection(client: httpx.Client, home: Path) -> None:
    body = {"source": str(home / "photos"), "collection": "new", "model": "tiny"}
    job = client.post(f"{API}/index", json=body).json()["id"]
    told = client.delete(f"{API}/collections/new")
    # Too early, too late, or just then: never is a job left without its collection.
    assert told.status_code in (404, 409, 204), told.text
    if told.status_code == 409:
        assert "cancel the job" in problem(told, 409, "collection-in-use")["detail"]
    client.delete(f"{API}/jobs/{job}")


def test_without_key_and_index_root_nothing_is_changed(free_home: Path, tiny_model: Path) -> None:
    for key, allowed in ((None, False), (KEY, True)):
        with client_of(free_home, tiny_model, key=key, roots=()) as client:
            told = client.get(f"{API}/service").json()
            assert told["can_write"] == allowed
            assert told["roots"] == []
            status = 404 if allowed else 403
            for method, path in (
                ("DELETE", "collections/none"),
                ("DELETE", "aliases/none"),
                ("DELETE", f"items/{'0' * 32}?collection=none"),
            ):
                response = client.request(method, f"{API}/{path}")
                assert response.status_code == status, response.text
                assert allowed or problem(response, 403, "not-allowed")
            assert client.put(f"{API}/aliases/a", json={"collection": "none"}).status_code == status


def test_the_service_tells_what_it_takes(free_home: Path, tiny_model: Path) -> None:
    options = {"key": KEY, "read_key": KEY[::-1], "root_path": "/lookalike", "seconds": 12.5}
    with client_of(free_home, tiny_model, **options) as client:
        told = client.get(f"{API}/service").json()
        assert told == {
            "version": told["version"],
            "can_write": True,
            "roots": [str(free_home.resolve())],
            "max_pixels_denoise": MAX_DENOISED_PIXELS,
            "body_bytes": 16 << 20,
            "seconds": 12.5,
            "root_path": "/lookalike",
        }
        read = client.get(f"{API}/service", headers={"Authorization": f"Bearer {KEY[::-1]}"}).json()
        assert (read["can_write"], read["roots"]) == (False, [])
