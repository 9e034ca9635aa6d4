"""Aliases of an embedded store: a file each, whole at every moment, seen by all who have the store open."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lookalike.encoder.errors import StoreError
from lookalike.indexer.embedded import EdgeStore
from lookalike.indexer.embedded.files import read_aliases
from lookalike.indexer.store import resolve_alias
from tests.fixtures.processes import child_env
from tests.fixtures.stores import SPEC, fill, random_vectors

ROOT = Path(__file__).parents[3]
SWITCHER = """
import sys
from lookalike.indexer.embedded.store import EdgeStore
with EdgeStore(sys.argv[1]) as store:
    print("began", flush=True)
    while True:
        for name in ("c", "d"):
            store.set_alias("alias", name)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store with collections `c` and `d` of 3 and 4 points."""
    with EdgeStore(str(tmp_path / "store")) as store:
        for name, count in (("c", 3), ("d", 4)):
            store.create(name, SPEC)
            fill(store, name, count)
    return tmp_path / "store"


def test_another_process_switches_while_this_one_searches(folder: Path) -> None:
    with EdgeStore(str(folder)) as store:
        store.set_alias("alias", "c")
        environment = child_env()
        child = subprocess.Popen(
            [sys.executable, "-c", SWITCHER, str(folder)], stdout=subprocess.PIPE, env=environment
        )
        assert child.stdout is not None
        child.stdout.readline()
        seen = set()
        for _ in range(5000):
            seen.add(len(store.search("alias", random_vectors(1), k=9)[0]))
            if len(seen) == 2:
                break
        child.kill()
        child.communicate()
        assert seen == {3, 4}  # the one or the other, never neither
        assert store.aliases() in ({"alias": "c"}, {"alias": "d"})
        store.set_alias("alias", "d")
        assert store.count("alias") == 4


def test_aliases_do_not_lose_one_another(folder: Path) -> None:
    with EdgeStore(str(folder)) as store:
        names = [f"alias-{n}" for n in range(20)]
        threads = [threading.Thread(target=store.set_alias, args=(name, "c")) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store.aliases() == dict.fromkeys(sorted(names), "c")
        assert resolve_alias(store, "alias-3") == "c"
        assert resolve_alias(store, "d") == "d"


def test_names_that_could_be_taken_for_our_files(folder: Path) -> None:
    with EdgeStore(str(folder)) as store:
        for alias in ("x", "x.new", "x.alias", "x.alias.new"):
            store.set_alias(alias, "c")
        store.set_alias("x", "d")
        assert store.aliases() == {"x": "d", "x.alias": "c", "x.alias.new": "c", "x.new": "c"}
        assert store.list_collections() == ["c", "d"]


def test_a_damaged_file_is_said_and_can_be_written_anew(folder: Path) -> None:
    with EdgeStore(str(folder)) as store:
        store.set_alias("alias", "c")
        (file,) = (folder / ".aliases").iterdir()
        file.write_text("../elsewhere\n")
        for call in (store.aliases, lambda: store.count("alias")):
            with pytest.raises(StoreError, match="is damaged; set the alias 'alias' again"):
                call()
        store.set_alias("alias", "d")
        assert store.count("alias") == 4


def test_an_alias_whose_collection_is_gone_is_none(folder: Path) -> None:
    with EdgeStore(str(folder)) as store:
        store.set_alias("alias", "c")
        (folder / "c").rename(folder.parent / "elsewhere")
        with pytest.raises(StoreError, match="no collection 'alias'"):
            store.count("alias")


def test_a_store_that_is_not_there_has_none(tmp_path: Path) -> None:
    assert read_aliases(tmp_path / "none") == {}
    assert not (tmp_path / "none").exists()
