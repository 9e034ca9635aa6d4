"""Standard streams as they may be: closed, of few characters, or no longer read."""

import os
import subprocess
from pathlib import Path

import pytest

from lookalike.indexer.open import open_store
from tests.fixtures.command import COMMAND, lookalike
from tests.fixtures.photos import photograph

NAMES = ("山田", "Анна", "Ñandú")

pytestmark = pytest.mark.skipif(os.name == "nt", reason="streams are closed by a shell")


@pytest.fixture(scope="module")
def home(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photographs in folders of foreign names, indexed. Leave it as it is."""
    home = tmp_path_factory.mktemp("home")
    for number, name in enumerate(NAMES):
        (home / "photos" / name).mkdir(parents=True)
        (home / "photos" / name / f"{name}.png").write_bytes(photograph(number))
    done = lookalike("index", "photos", "--model", tiny_model, "--collection", "people", cwd=home)
    assert done.returncode == 0, done.stderr
    return home


@pytest.mark.parametrize("encoding", ["iso-8859-1", "cp1251"])
def test_characters_that_an_encoding_lacks_are_escaped(home: Path, encoding: str) -> None:
    query = f"photos/{NAMES[0]}/{NAMES[0]}.png"
    done = subprocess.run(
        [COMMAND, "search", query, "--collection", "people"],
        cwd=home,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
    )
    said = done.stdout.decode(encoding)
    assert done.returncode == 0, done.stderr
    assert r"\u5c71\u7530" in said
    assert (NAMES[2] if encoding == "iso-8859-1" else NAMES[1]) in said


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_stops_no_work(tiny_model: Path, home: Path, tmp_path: Path, closed: str) -> None:
    store = str(tmp_path / "store")
    words = f'"{COMMAND}" index photos --model "{tiny_model}" --collection people --store "{store}"'
    assert subprocess.run(["sh", "-c", f"{words} {closed}"], cwd=home, check=False).returncode == 0
    with open_store(store) as opened:
        assert opened.count("people") == len(NAMES)


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["table", "json"])
def test_a_reader_that_has_enough_ends_the_command_quietly(home: Path, form: tuple[str, ...]) -> None:
    queries = [f"photos/{NAMES[2]}/{NAMES[2]}.png"] * 400  # more than a pipe holds
    with subprocess.Popen(
        [COMMAND, "search", *queries, "--collection", "people", *form],
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 0
    assert not [line for line in said.splitlines() if "unlike what the model was trained on" not in line]
