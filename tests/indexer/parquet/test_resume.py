"""A run that is killed, stopped or out of room is gone on with, and ends where one clean run ends."""

import fcntl
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lookalike.encoder.errors import DataError, InvalidArgumentError
from lookalike.encoder.runtime import Model
from lookalike.indexer.parquet.file import LatentsFile
from tests.fixtures.command import COMMAND, lookalike, one_line
from tests.fixtures.embedding import assert_same, assert_same_as_clean, run
from tests.fixtures.photos import photograph, write_many, write_photos
from tests.fixtures.tiny_models import make_bundle


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Model:
    return Model.open(tiny_model)


def test_two_runs_at_once_do_not_mix(model: Model, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    write_photos(photos)
    part = tmp_path / "latents.parquet.part"
    part.mkdir()
    with (part / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="is being written by another process; wait until it ends"):
            run(model, tmp_path / "latents.parquet", photos)
    assert run(model, tmp_path / "latents.parquet", photos).rows == 9


def stop_after(count: int, error: type[BaseException]) -> Callable[[int], object]:
    """Raise once so many pictures are done."""
    left = [count]

    def progress(done: int) -> None:
        left[0] -= done
        if left[0] <= 0:
            raise error

    return progress


def test_what_an_interrupted_run_did_is_not_done_again(model: Model, tmp_path: Path) -> None:
    write_many(tmp_path / "photos", 1000)
    out = tmp_path / "latents.parquet"
    with pytest.raises(KeyboardInterrupt):
        run(model, out, tmp_path / "photos", on_progress=stop_after(300, KeyboardInterrupt))
    (part,) = tmp_path.glob("*.part/*.parquet")
    with LatentsFile.open(part) as opened:
        kept = opened.count
    assert kept == 384  # three batches
    assert not out.exists()
    (tmp_path / "photos" / "00000.jpg").write_bytes(
        photograph(3)
    )  # written again: a row that no longer holds
    told: list[int] = []
    report = run(model, out, tmp_path / "photos", on_total=told.append)
    # All that link to it have changed with it.
    changed = len([number for number in range(kept) if number % 16 == 0])
    assert told == [report.embedded] == [1000 - kept + changed]
    assert (report.rows, report.kept, report.dropped) == (1000, kept - changed, changed)
    assert_same_as_clean(model, out, tmp_path / "photos")


def test_a_slow_models_rows_are_kept_by_the_clock(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lookalike.indexer.parquet.export._PART_SECONDS", 0.0)
    write_many(tmp_path / "photos", 500)
    with pytest.raises(KeyboardInterrupt):
        run(
            model,
            tmp_path / "latents.parquet",
            tmp_path / "photos",
            on_progress=stop_after(300, KeyboardInterrupt),
        )
    assert len(list(tmp_path.glob("*.part/*.parquet"))) == 3  # one for each batch


def test_pieces_that_are_damaged_or_half_written_are_thrown_away(model: Model, tmp_path: Path) -> None:
    write_many(tmp_path / "photos", 700)
    out = tmp_path / "latents.parquet"
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(model, out, tmp_path / "photos", on_progress=stop_after(128, KeyboardInterrupt))
    first, second = sorted(tmp_path.glob("*.part/*.parquet"))
    data = bytearray(first.read_bytes())
    data[300] ^= 1
    first.write_bytes(data)
    (first.parent / "part.new").write_bytes(second.read_bytes()[:1000])
    report = run(model, out, tmp_path / "photos")
    assert (report.kept, report.embedded) == (128, 700 - 128)
    assert_same_as_clean(model, out, tmp_path / "photos")


def test_pieces_of_another_model_are_not_mixed_in(model: Model, tmp_path: Path) -> None:
    write_many(tmp_path / "photos", 300)
    out = tmp_path / "latents.parquet"
    with pytest.raises(KeyboardInterrupt):
        run(model, out, tmp_path / "photos", on_progress=stop_after(128, KeyboardInterrupt))
    other = Model(make_bundle(tmp_path / "other", seed=1))
    with pytest.raises(
        InvalidArgumentError, match=r"latents.parquet.part holds parts of a run with model .*; finish"
    ):
        run(other, out, tmp_path / "photos")
    assert run(model, out, tmp_path / "photos").kept == 128


@pytest.mark.slow
def test_killed_anywhere_and_run_again_equals_once(tiny_model: Path, model: Model, tmp_path: Path) -> None:
    write_many(tmp_path / "photos", 6000)
    words = ["embed", "photos", "--model", str(tiny_model), "--out", "latents.parquet"]
    rng = random.Random(os.getpid())
    for _ in range(4):
        with subprocess.Popen([COMMAND, *words], cwd=tmp_path, stderr=subprocess.DEVNULL) as running:
            time.sleep(rng.uniform(0.5, 4.0))
            running.send_signal(signal.SIGKILL)
    done = lookalike(*words, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == 6000
    assert_same_as_clean(model, tmp_path / "latents.parquet", tmp_path / "photos")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", ["000001.parquet", "000002.parquet", "latents.parquet"])
def test_killed_at_each_step_and_run_again_equals_once(
    tiny_model: Path, model: Model, tmp_path: Path, name: str, when: str
) -> None:
    """Killed when a file takes its place: the first piece, the second, the whole; written, or in place."""
    write_many(tmp_path / "photos", 300)
    words = ["embed", "photos", "--model", str(tiny_model), "--out", "latents.parquet"]
    killed = subprocess.run(small_pieces(*words, kill=(name, when)), cwd=tmp_path, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    pieces = len(list((tmp_path / "latents.parquet.part").glob("0*.parquet")))
    assert pieces == {"000001.parquet": 0, "000002.parquet": 1, "latents.parquet": 3}[name] + (
        when == "after" and name != "latents.parquet"
    )
    assert (tmp_path / "latents.parquet").exists() == (name == "latents.parquet" and when == "after")
    done = lookalike(*words, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["rows"] == 300
    assert report["embedded"] <= 300 - min(128 * pieces, 300)  # what was durable was not embedded again
    assert_same_as_clean(model, tmp_path / "latents.parquet", tmp_path / "photos")


SMALL = """
import os, signal, sys, threading
from lookalike.deploy.cli.main import main
from lookalike.encoder.embed import pipeline
from lookalike.indexer.parquet import export, file, resume
pipeline._BATCH = 32
file.ROWS = export.ROWS = resume.ROWS = resume.regroup.__kwdefaults__["count"] = 128
name, when = sys.argv[1:3]
reached = None  # the thread that has begun to put the file in place: what it does next comes afterwards
def watch(event, arguments):
    global reached
    if event == "os.kill":
        return
    if reached == threading.get_ident():
        os.kill(os.getpid(), signal.SIGKILL)
    if event == "os.rename" and str(arguments[1]).endswith(name):
        reached = threading.get_ident()
        if when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
if name:
    sys.addaudithook(watch)
sys.argv[1:] = sys.argv[3:]
main()
"""


def small_pieces(*words: str, kill: tuple[str, str] = ("", "")) -> list[str]:
    """The command with pieces of 128 rows, killed before or after a file is renamed to a name."""
    return [sys.executable, "-c", SMALL, *kill, *words]


def test_an_interrupt_exits_130_and_the_next_run_goes_on(tiny_model: Path, tmp_path: Path) -> None:
    write_many(tmp_path / "photos", 1500)
    words = ["embed", "photos", "--model", str(tiny_model), "--out", "latents.parquet"]
    with subprocess.Popen(small_pieces(*words), cwd=tmp_path, stderr=subprocess.PIPE, text=True) as running:
        while not list(tmp_path.glob("*.part/0*.parquet")) and running.poll() is None:
            time.sleep(0.001)
        running.send_signal(signal.SIGINT)
        assert running.stderr is not None
        said = running.stderr.read()
    assert running.returncode == 130
    assert said.split("\n") == ["", "lookalike: interrupted; run it again to continue", ""]  # "" ends ^C
    done = lookalike(*words, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["rows"] == 1500
    assert report["kept"] >= 128


def test_a_full_disk_is_one_line_and_the_next_run_goes_on(
    tiny_model: Path, model: Model, tmp_path: Path
) -> None:
    """The system's limit on the size of a file stands for the disk: a piece fits, the whole does not."""
    write_many(tmp_path / "photos", 1000)
    words = ["embed", "photos", "--model", str(tiny_model), "--out", "latents.parquet"]
    run(model, tmp_path / "clean.parquet", tmp_path / "photos")
    limit = (tmp_path / "clean.parquet").stat().st_size * 3 // 4
    done = subprocess.run(
        small_pieces(*words),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 1
    assert "cannot be written (File too large); make room or name another place" in one_line(done)
    assert not (tmp_path / "latents.parquet").exists()
    again = lookalike(*words, "--json", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    report = json.loads(again.stdout)
    assert (report["rows"], report["kept"] >= 128) == (1000, True)
    assert_same(tmp_path / "latents.parquet", tmp_path / "clean.parquet")
