"""``lookalike index --watch``: a collection follows its folder, until an interrupt."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fixtures.command import lookalike, one_line
from tests.fixtures.photos import photograph
from tests.fixtures.processes import child_env

PROGRAM = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"  # it may be ignored here
    "from lookalike.deploy.cli.main import main; main()"
)
WORDS = ("index", "photos", "--crop", "full", "-c", "c", "--store", "photos/store", "--watch")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(photograph(0))
    return tmp_path


@pytest.fixture
def watching(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (home / "errors").open("wb") as errors:
        running = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *WORDS, "--prune", "--json"],
            cwd=home, env=child_env(), stdout=subprocess.PIPE, stderr=errors,
        )  # fmt: skip
        yield running
        running.kill()
        running.communicate()


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_collection_follows_its_folder(home: Path, watching: subprocess.Popen[bytes]) -> None:
    photos, errors = home / "photos", home / "errors"
    until(lambda: "watching " in errors.read_text())
    (photos / "new").mkdir()
    (photos / "new" / "b.jpg").write_bytes(photograph(1))
    (photos / "bad.jpg").write_bytes(b"no picture")
    until(lambda: "failed: bad.jpg" in errors.read_text().replace(f"{photos}/", ""))
    (photos / "bad.jpg").unlink()
    (photos / "a.jpg").unlink()
    until(lambda: "1 missing and removed, 0 failed" in errors.read_text())
    seen = errors.read_text()
    time.sleep(2)  # what is as it was is no news, nor what is written into the store
    assert errors.read_text() == seen
    watching.send_signal(signal.SIGINT)
    assert watching.wait(30) == 0
    assert errors.read_text().endswith("no longer watched\n")
    assert watching.stdout is not None
    reports = [json.loads(line) for line in watching.stdout.read().splitlines()]
    assert [report["added"] for report in reports].count(1) >= 2
    listed = lookalike("facets", "path", "--store", "photos/store", "--json", cwd=home)
    assert [row["value"] for row in json.loads(listed.stdout)] == ["new/b.jpg"]
    again = lookalike(*WORDS[:-1], "--prune", cwd=home)
    assert "c: 0 added, 0 changed, 1 unchanged, 0 missing and removed, 0 failed" in again.stderr


@pytest.mark.parametrize(
    "words", [("lfw", "--watch"), ("--files-from", "list", "--watch"), ("photos", "--watch", "--dry-run")]
)
def test_what_cannot_be_watched_is_refused(home: Path, words: tuple[str, ...]) -> None:
    (home / "list").write_text("photos/a.jpg\n")
    done = lookalike("index", *words, "-c", "c", cwd=home)
    assert done.returncode == 2
    assert not (home / ".lookalike").exists()


def test_the_extra_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    done = lookalike("index", "photos", "-c", "c", "--watch", cwd=home)
    assert "pip install 'lookalike[watch]'" in one_line(done)
