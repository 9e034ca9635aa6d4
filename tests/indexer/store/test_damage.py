"""What a store could not read back is refused at every door; one damaged collection hides no other."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lookalike.encoder.errors import DataError, StoreError
from lookalike.encoder.files import parse_json
from lookalike.indexer.embedded.shard import Shard, current_shard
from lookalike.indexer.open import open_store
from lookalike.indexer.sources import read_payload
from lookalike.indexer.store import Layout, VectorStore, opening_error
from tests.fixtures import stores
from tests.fixtures.command import lookalike, one_line
from tests.fixtures.photos import NAME, copy_sparse, make_home
from tests.fixtures.service import API, client_of
from tests.fixtures.stores import fill, point_ids, random_vectors, unit

store, name = stores.store, stores.name


def nested(depth: int, *, objects: bool = False) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value} if objects else [value]
    return value


def nested_text(depth: int) -> str:
    return "[" * depth + "1" + "]" * depth


@pytest.mark.parametrize("objects", [False, True])
def test_a_payload_is_stored_up_to_32_deep_and_refused_from_33_on(
    store: VectorStore, name: str, objects: bool
) -> None:
    store.upsert(name, point_ids(1), random_vectors(1), [{"x": nested(32, objects=objects)}])
    for depth in (33, 124, 400, 5000):
        with pytest.raises(StoreError, match="field 'x' is nested more than 32") as caught:
            store.upsert(name, point_ids(2), random_vectors(2), [{}, {"x": nested(depth, objects=objects)}])
        assert "\n" not in str(caught.value)
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(StoreError, match="nested"):
        store.upsert(name, point_ids(2), random_vectors(2), [{}, {"x": endless}])
    (record,) = store.scroll(name)
    assert record.payload == {"x": nested(32, objects=objects)}
    assert opening_error(store, name) is None


@pytest.mark.parametrize("depth", [33, 124, 400, 10_000, 200_000])
def test_a_table_names_file_row_and_field_of_a_deep_value(tmp_path: Path, depth: int) -> None:
    file = tmp_path / "table.jsonl"
    file.write_text(
        f'{{"path": "b.jpg", "ok": {nested_text(32)}}}\n{{"path": "a.jpg", "x": {nested_text(depth)}}}\n'
    )
    with pytest.raises(
        DataError, match=r"table.jsonl:2 .*(field 'x' is nested more than 32|nested too deeply)"
    ) as caught:
        read_payload(file)
    assert "\n" not in str(caught.value)


def test_nothing_is_written_when_a_table_holds_a_deep_value(tmp_path: Path, tiny_model: Path) -> None:
    home = make_home(tmp_path, tiny_model)
    before = [p.name for p in (home / ".lookalike").iterdir()]
    (home / "t.jsonl").write_text(f'{{"path": "a.jpg", "x": {nested_text(124)}}}\n')
    words = ("index", "photos", "--model", tiny_model, "--collection", "new", "--payload", "t.jsonl")
    done = lookalike(*words, cwd=home)
    assert done.returncode == 1
    assert "t.jsonl:1" in one_line(done)
    assert "field 'x'" in done.stderr
    assert [p.name for p in (home / ".lookalike").iterdir()] == before


def test_json_of_any_depth_is_read_or_refused() -> None:
    for depth in (10, 500, 990, 1100, 100_000):
        try:
            assert parse_json(nested_text(depth)) is not None
        except ValueError as error:
            assert str(error) == "it is nested too deeply"  # noqa: PT017  # smaller depths are read


def _deep_payload(folder: Path) -> None:
    shard = Shard.load(current_shard(folder), Layout())
    shard.upsert(point_ids(1), unit(random_vectors(1)), [{"x": nested(124)}])
    shard.close()


def _write(name: str, content: str) -> Any:
    return lambda folder: (folder / name).write_text(content)


DAMAGES = {
    "deep payload": _deep_payload,
    "garbled shard": _write("shard/edge_config.json", "{"),
    "garbled spec": _write("collection.json", "{"),
    "deep spec": _write("collection.json", nested_text(100_000)),
    "spec of lists": _write("collection.json", json.dumps({"format": 1, "roots": []})),
    "roots are a list": lambda folder: (folder / "collection.json").write_text(
        json.dumps(json.loads((folder / "collection.json").read_text()) | {"roots": ["a"]})
    ),
}


@pytest.fixture(scope="module")
def home(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a second collection, called ``bad``, that is still good. Leave it as it is."""
    folder = make_home(tmp_path_factory.mktemp("home"), tiny_model)
    with open_store(str(folder / ".lookalike")) as store:
        store.create("bad", stores.SPEC)
        fill(store, "bad", 5)
    return folder


@pytest.fixture
def own(home: Path, tmp_path: Path) -> Path:
    """The same, to be damaged."""
    return Path(shutil.copytree(home, tmp_path / "home", copy_function=copy_sparse))


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_list_shows_a_damaged_collection_and_all_others(own: Path, damage: str) -> None:
    DAMAGES[damage](own / ".lookalike" / "bad")
    done = lookalike("collections", "list", cwd=own)
    assert (done.returncode, done.stderr) == (3, "")
    bad, good = done.stdout.splitlines()
    assert bad.split()[:2] == ["bad", "damaged"]
    assert len(bad.split()) > 4
    assert good.split()[:2] == [NAME, "9"]
    rows = json.loads(lookalike("collections", "list", "--json", cwd=own).stdout)
    assert [row["name"] for row in rows] == ["bad", NAME]
    assert rows[0]["damaged"]
    assert rows[1]["count"] == 9
    assert "damaged" not in rows[1]


@pytest.mark.parametrize("damage", ["deep payload", "garbled spec"])
def test_the_service_shows_it_too_and_answers_for_the_others(
    own: Path, tiny_model: Path, damage: str
) -> None:
    DAMAGES[damage](own / ".lookalike" / "bad")
    with client_of(own, tiny_model) as client:
        listed = client.get(f"{API}/collections").json()
        assert [each["name"] for each in listed["collections"]] == [NAME]
        (bad,) = listed["damaged"]
        assert bad["name"] == "bad"
        assert bad["reason"]
        assert str(own) not in bad["reason"]
        ready = client.get("/readyz").json()
        assert (ready["status"], ready["damaged"]) == ("degraded", 1)
        picture = (own / "me.jpg").read_bytes()
        found = client.post(f"{API}/search", data={"collection": NAME}, files={"image": picture})
        assert found.status_code == 200


def test_deep_bodies_and_conditions_are_the_clients_fault(home: Path, tiny_model: Path) -> None:
    with client_of(home, tiny_model) as client:
        for depth in (33, 300, 20_000):
            for route in ("search", "index", "generate"):
                body = f'{{"collection": {nested_text(depth)}}}'
                answer = client.post(
                    f"{API}/{route}", content=body, headers={"Content-Type": "application/json"}
                )
                assert 400 <= answer.status_code < 500
        deep = {"collection": NAME, "where": ".".join("a" * 900) + "=1"}
        assert client.get(f"{API}/facets", params=deep).status_code < 500
