"""``lookalike collections create`` and ``switch``, and layouts and aliases in the other commands."""

import json
import shutil
from pathlib import Path

import pytest

from lookalike.encoder.runtime import Model
from lookalike.indexer.open import open_store
from tests.fixtures.command import lookalike, one_line
from tests.fixtures.photos import NAME, index, make_home
from tests.fixtures.qdrant_stub import serving
from tests.fixtures.tiny_models import make_bundle


@pytest.fixture
def own(tiny_model: Path, tmp_path: Path) -> Path:
    """A folder with indexed photographs, to be changed."""
    return make_home(tmp_path, tiny_model)


def test_create_settles_a_layout_that_index_fills(tiny_model: Path, own: Path) -> None:
    words = ["collections", "create", "new", "--model", str(tiny_model), "--expect", "20000000"]
    made = lookalike(*words, "--json", cwd=own)
    assert made.returncode == 0, made.stderr
    told = json.loads(made.stdout)
    dimension = told["dimension"]
    small = 3 * dimension <= 128  # the rule: int8 saves less than the graph takes
    assert told["layout"]["quantization"] == ("none" if small else "int8")
    assert told["memory_bytes"] == round(20_000_000 * dimension * (4 if small else 1) * 1.5)
    again = lookalike(*words, cwd=own)
    assert (again.returncode, "already" in one_line(again)) == (1, True)
    filled = lookalike("index", "photos", "--model", str(tiny_model), "--collection", "new", cwd=own)
    assert filled.returncode == 0
    assert len(filled.stderr.splitlines()) == 1
    assert json.loads(lookalike("collections", "show", "new", "--json", cwd=own).stdout)["count"] == 9


def test_index_makes_what_is_asked_and_says_what_it_cannot_change(tiny_model: Path, own: Path) -> None:
    words = ["index", "photos", "--model", str(tiny_model), "--collection", "new"]
    assert lookalike(*words, "--quantization", "int8", "--hnsw-m", "24", cwd=own).returncode == 0
    shown = json.loads(lookalike("collections", "show", "new", "--json", cwd=own).stdout)
    assert (shown["layout"]["quantization"], shown["layout"]["hnsw_m"]) == ("int8", 24)
    same = lookalike(*words, "--quantization", "int8", cwd=own)
    assert len(same.stderr.splitlines()) == 1
    other = lookalike(*words, "--quantization", "none", "--on-disk", cwd=own)
    assert other.returncode == 0
    assert other.stderr.splitlines()[0] == (
        "new was made with --quantization int8, --in-memory and stays so; for --quantization none, --on-disk "
        "copy it (lookalike collections copy), or index into a new one"
    )
    copied = lookalike("collections", "copy", "new", "newer", "--quantization", "none", "--on-disk", cwd=own)
    assert copied.returncode == 0, copied.stderr
    shown = json.loads(lookalike("collections", "show", "newer", "--json", cwd=own).stdout)
    assert (shown["layout"]["quantization"], shown["layout"]["on_disk"]) == ("none", True)


@pytest.mark.parametrize("named", [True, False])
def test_index_takes_the_model_of_the_collection(tiny_model: Path, own: Path, named: bool) -> None:
    (own / "more").mkdir()
    (own / "more" / "one.jpg").write_bytes((own / "me.jpg").read_bytes())
    words = ["--collection", NAME] if named else []
    filled = lookalike("index", "more", *words, "--json", cwd=own)
    assert filled.returncode == 0, filled.stderr
    assert json.loads(filled.stdout)["added"] == 1
    assert lookalike("collections", "switch", "album", NAME, cwd=own).returncode == 0
    again = lookalike("index", "more", "--collection", "album", "--json", cwd=own)
    assert json.loads(again.stdout)["unchanged"] == 1
    with open_store(str(own / ".lookalike")) as store:
        assert store.info(NAME).model_id == Model.open(tiny_model).model_id


def test_index_refuses_another_model_only_where_it_is_named(own: Path, tmp_path: Path) -> None:
    other = make_bundle(tmp_path / "another", seed=1)
    refused = lookalike("index", "photos", "--model", str(other.folder), "--collection", NAME, cwd=own)
    assert refused.returncode == 1
    assert "holds vectors of model" in one_line(refused)


def test_index_says_where_the_model_of_the_collection_went(own: Path, tmp_path: Path) -> None:
    with open_store(str(own / ".lookalike")) as store:
        index(store, Model.open(make_bundle(tmp_path / "gone").folder), own / "photos", name="lost")
    shutil.rmtree(tmp_path / "gone")
    refused = lookalike("index", "photos", "--collection", "lost", cwd=own)
    assert refused.returncode == 1
    assert "pass --model with the folder it is in" in one_line(refused)
    assert "gone" in refused.stderr


@pytest.mark.parametrize("words", ["collections create new", "index photos --collection new"])
def test_what_only_a_server_has_is_refused_in_one_line(tiny_model: Path, own: Path, words: str) -> None:
    refused = lookalike(*words.split(), "--model", str(tiny_model), "--replicas", "2", cwd=own)
    assert refused.returncode == 2
    assert "--replicas is for a Qdrant server or cluster, an embedded store is one folder" in one_line(
        refused
    )
    assert lookalike("collections", "show", "new", cwd=own).returncode == 1


def test_create_on_a_cluster(tiny_model: Path, tmp_path: Path) -> None:
    with serving(peers=3) as stub:
        words = ["collections", "create", "new", "--model", str(tiny_model), "--store", stub.url]
        made = lookalike(*words, cwd=tmp_path)
        assert made.returncode == 0, made.stderr
        assert "shards 6, replicas 2" in one_line(made)
        (asked,) = stub.of("/collections/new", "PUT")
        assert (asked.body["shard_number"], asked.body["replication_factor"]) == (6, 2)


def test_tables_have_their_numbers_indexed_before_the_upload(tiny_model: Path, own: Path) -> None:
    (own / "table.csv").write_text("path,year,place\nHypatia/0.jpg,415,Alexandria\n")
    with serving() as stub:
        words = ["index", "photos", "--model", str(tiny_model), "--collection", "new", "--store", stub.url]
        for _ in range(2):
            done = lookalike(*words, "--payload", "table.csv", cwd=own)
            assert done.returncode == 0, done.stderr
        indexed = [each.body["field_name"] for each in stub.of("/index", "PUT")]
        assert indexed == [*("root", "person", "path", "sha256", "size", "mtime_ns"), "year", "place"]
        begun = next(n for n, asked in enumerate(stub.asked) if asked.upserts)
        assert all(stub.asked.index(each) < begun for each in stub.of("/index", "PUT"))


def test_search_list_show_and_delete_know_aliases(tiny_model: Path, own: Path) -> None:
    switched = lookalike("collections", "switch", "family", NAME, cwd=own)
    assert (switched.returncode, one_line(switched)) == (0, f"family now points to {NAME}")
    found = json.loads(lookalike("search", "me.jpg", "--collection", "family", "--json", cwd=own).stdout)
    assert found
    (line,) = lookalike("collections", "list", cwd=own).stdout.splitlines()
    assert line.split()[0] == NAME
    assert line.endswith(", alias family")
    shown = lookalike("collections", "show", "family", cwd=own)
    assert shown.stderr == f"family is an alias of {NAME}\n"
    assert shown.stdout.splitlines()[0] == f"name         {NAME}"
    for name, way_out in ((NAME, "switch family OTHER"), ("family", "switch family --remove")):
        refused = lookalike("collections", "delete", name, "--yes", cwd=own)
        assert refused.returncode == 1
        assert way_out in one_line(refused)
    removed = lookalike("collections", "switch", "family", "--remove", cwd=own)
    assert one_line(removed) == f"removed alias family; collection {NAME} stays"
    assert lookalike("search", "me.jpg", "--collection", "family", cwd=own).returncode == 1
    assert lookalike("collections", "delete", NAME, "--yes", cwd=own).returncode == 0


def test_a_query_by_an_alias_uses_the_model_of_what_it_points_to(tiny_model: Path, own: Path) -> None:
    other = make_bundle(own / "other", seed=1).folder
    with open_store(str(own / ".lookalike")) as store:
        index(store, Model.open(other), own / "photos", name="second")
        store.set_alias("family", NAME)
    words = ["search", "me.jpg", "--collection", "family"]
    assert lookalike(*words, "--model", str(tiny_model), cwd=own).returncode == 0
    switched = lookalike("collections", "switch", "family", "second", cwd=own)
    assert one_line(switched) == f"family now points to second (before: {NAME})"
    refused = lookalike(*words, "--model", str(tiny_model), cwd=own)
    assert refused.returncode == 1
    assert "collection 'second' holds vectors of model" in one_line(refused)
    assert lookalike(*words, cwd=own).returncode == 0
    into = lookalike("index", "photos", "--model", str(tiny_model), "--collection", "family", cwd=own)
    assert into.returncode == 1


@pytest.mark.parametrize("words", ["family", f"family {NAME} --remove"])
def test_switch_takes_a_name_or_removes(own: Path, words: str) -> None:
    refused = lookalike("collections", "switch", *words.split(), cwd=own)
    assert refused.returncode == 2
    assert "or --remove without" in refused.stderr
