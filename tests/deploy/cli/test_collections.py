"""``lookalike collections`` as people meet it."""

import json
import os
import pty
import shutil
import subprocess
import termios
from pathlib import Path

import pytest
from click.testing import CliRunner

from lookalike.deploy.cli.main import group
from lookalike.encoder.runtime import Model
from lookalike.indexer.open import open_store
from tests.fixtures.command import COMMAND, lookalike, one_line
from tests.fixtures.photos import NAME, index, make_home, photograph, write_many
from tests.fixtures.tiny_models import make_bundle


@pytest.fixture(scope="module")
def home(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with indexed photographs. Leave it as it is."""
    return make_home(tmp_path_factory.mktemp("home"), tiny_model)


@pytest.fixture
def own(tiny_model: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return make_home(tmp_path, tiny_model)


def test_show_tells_what_is_stored_and_how_it_is_searched(home: Path, tiny_model: Path) -> None:
    told = json.loads(lookalike("collections", "show", NAME, "--json", cwd=home).stdout)
    assert (told["name"], told["count"], told["model_name"]) == (NAME, 9, str(tiny_model))
    assert told["index"] == {"search": "exact", "indexed": 0}
    assert 10_000 < told["disk_bytes"] < 10_000_000
    lines = lookalike("collections", "show", NAME, cwd=home).stdout.splitlines()
    assert "count        9" in lines
    assert "index        none, search is exact" in lines
    assert any(line.startswith("disk         ") and line.endswith(" MB") for line in lines)


def test_copy_and_copy_again(own: Path, tmp_path: Path) -> None:
    words = ["collections", "copy", NAME, "family", "--to-store", str(tmp_path / "other")]
    first = lookalike(*words, cwd=own)
    assert first.returncode == 0
    assert one_line(first).startswith("family: 9 copied, 0 already there, 9 items now; ")
    again = lookalike(*words, "--json", cwd=own)
    assert "0 copied, 9 already there, 9 items now" in again.stderr
    report = json.loads(again.stdout)
    assert report.pop("seconds") >= 0
    assert report == {"source": NAME, "target": "family", "copied": 0, "unchanged": 9, "count": 9}
    found = lookalike("search", "me.jpg", "--collection", "family", "--store", tmp_path / "other", cwd=own)
    assert found.returncode == 0, found.stderr
    assert lookalike("collections", "copy", NAME, "second", cwd=own).returncode == 0
    listed = lookalike("collections", "list", cwd=own).stdout.splitlines()
    assert [line.split()[:2] for line in listed] == [[NAME, "9"], ["second", "9"]]


def test_copy_refuses_itself_and_another_models_collection(own: Path, tmp_path: Path) -> None:
    itself = lookalike("collections", "copy", NAME, NAME, "--to-store", f"{own}/.lookalike", cwd=own)
    assert itself.returncode == 2
    assert "not onto itself" in one_line(itself)
    with open_store(str(own / ".lookalike")) as store:
        index(store, Model(make_bundle(tmp_path / "bundle", seed=1)), own / "photos", name="others")
    refused = lookalike("collections", "copy", NAME, "others", cwd=own)
    assert refused.returncode == 1
    assert "copy to another name" in one_line(refused)
    unreachable = lookalike("collections", "copy", NAME, "x", "--to-store", "http://127.0.0.1:9", cwd=own)
    assert (unreachable.returncode, "no Qdrant server answers" in one_line(unreachable)) == (1, True)


def test_verify_is_silent_about_what_is_well(home: Path) -> None:
    done = lookalike("collections", "verify", NAME, cwd=home)
    assert done.returncode == 0
    assert one_line(done) == (
        "photos: 9 items, 9 embedded again; 0 missing, 0 extra, 0 changed, 0 unreadable, 0 vector, "
        "0 duplicate, 0 differing"
    )
    assert lookalike("collections", "verify", NAME, "--checksum", "--sample", "2", cwd=home).returncode == 0


def test_verify_names_what_is_not_and_ends_with_3(own: Path) -> None:
    (own / "photos" / "Hypatia" / "0.jpg").unlink()
    (own / "photos" / "Hypatia" / "1.jpg").write_bytes(photograph(15))
    (own / "photos" / "Hypatia" / "line\nbreak.jpg").write_bytes(photograph(14))
    done = lookalike("collections", "verify", NAME, "--seed", "7", cwd=own)
    assert done.returncode == 3
    assert sorted(done.stdout.splitlines()) == [
        "changed    photos/Hypatia/1.jpg: other size or time",
        "extra      photos/Hypatia/line\\nbreak.jpg: not stored",
        "missing    photos/Hypatia/0.jpg: not on disk",
    ]
    (summary,) = done.stderr.splitlines()
    assert summary.startswith("photos: 9 items, 7 embedded again; 1 missing, 1 extra, 1 changed, ")
    as_json = lookalike("collections", "verify", NAME, "--json", cwd=own)
    assert as_json.returncode == 3
    report = json.loads(as_json.stdout)
    assert (report["collection"], report["items"], report["counts"]["extra"]) == (NAME, 9, 1)
    assert {"kind": "missing", "path": "photos/Hypatia/0.jpg", "reason": "not on disk"} in report["findings"]


def test_verify_without_the_model_at_hand(tiny_model: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_model, bundle)
    make_home(tmp_path, bundle)
    bundle.rename(tmp_path / "moved")
    lost = lookalike("collections", "verify", NAME, cwd=tmp_path)
    assert lost.returncode == 1
    assert "pass --model with the folder it is in, or --sample 0" in one_line(lost)
    assert lookalike("collections", "verify", NAME, "--sample", "0", cwd=tmp_path).returncode == 0
    assert lookalike("collections", "verify", NAME, "--model", "moved", cwd=tmp_path).returncode == 0


def test_optimize_says_what_it_does_and_when_it_is_not_worth_it(tiny_model: Path, tmp_path: Path) -> None:
    write_many(tmp_path / "photos", 200)
    with open_store(str(tmp_path / ".lookalike")) as store:
        index(store, Model.open(tiny_model), tmp_path / "photos")
    small = lookalike("collections", "optimize", NAME, cwd=tmp_path)
    assert (small.returncode, one_line(small)) == (0, "photos: none, search is exact")
    done = lookalike("collections", "optimize", NAME, "--above", "199", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines() == [
        "photos: building the search index of 200 vectors",
        "photos: HNSW over 200 vectors",
    ]
    told = json.loads(lookalike("collections", "show", NAME, "--json", cwd=tmp_path).stdout)
    assert told["index"] == {"search": "hnsw", "indexed": 200}
    assert lookalike("collections", "verify", NAME, cwd=tmp_path).returncode == 0
    assert lookalike("search", "photos/00001.jpg", "--collection", NAME, cwd=tmp_path).returncode == 0


def test_index_and_copy_build_it_where_it_is_worth_it(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_many(tmp_path / "photos", 200)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lookalike.indexer.sync.collection.INDEX_ABOVE", 199)
    words = ["index", "photos", "--model", str(tiny_model), "--collection", NAME]
    for said in (["photos: building the search index of 200 vectors"], []):
        done = CliRunner().invoke(group, words)
        assert done.exit_code == 0, done.stderr
        assert done.stderr.splitlines()[:-1] == said
    copied = CliRunner().invoke(group, ["collections", "copy", NAME, "copy"])
    assert copied.stderr.splitlines()[0] == "copy: building the search index of 200 vectors"
    with open_store(".lookalike") as store:
        assert [store.index_state(name).indexed for name in (NAME, "copy")] == [200, 200]


@pytest.mark.parametrize("words", ["copy photos copy", "verify photos"])
def test_a_terminal_gets_a_bar_that_is_wiped_at_the_end(own: Path, words: str) -> None:
    main, side = pty.openpty()
    termios.tcsetwinsize(side, (24, 100))
    command = [str(COMMAND), "collections", *words.split()]
    done = subprocess.run(command, cwd=own, stderr=side, stdout=subprocess.PIPE, check=True)
    os.close(side)
    said = os.read(main, 1 << 16).decode()
    os.close(main)
    assert done.stdout == b""
    assert "ing 0/9" in said
    assert "photos: 9 items" in said or "9 items now" in said
