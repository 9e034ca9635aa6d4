"""A load killed at any moment and run again ends where one whole run ends."""

import multiprocessing
import random
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from lookalike.encoder.runtime import Model
from lookalike.indexer.open import open_store
from lookalike.indexer.sources import SourceFilter, SourceList
from lookalike.indexer.sync import sync
from tests.fixtures.killed_load import load_and_die, small_batches
from tests.fixtures.photos import NAME, Stored, copy_sparse, index, photograph, stored, write_many

COUNT = 90
MOVED = 12
KILLS = 25
"""At any time, from nothing and from an earlier run."""


@dataclass(frozen=True)
class Scene:
    """Photographs, what an earlier run stored of other ones, and what a clean run stores of these."""

    model: Path
    photos: Path
    earlier: Path
    clean: Stored
    notes: list[tuple[str, str]]
    """What the earlier run was told of the pictures that have moved since: SHA-256 and note, sorted."""


@pytest.fixture(scope="module", autouse=True)
def batches() -> Iterator[None]:
    with small_batches():
        yield


@pytest.fixture(scope="module")
def scene(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    folder = tmp_path_factory.mktemp("scene")
    photos, model = folder / "photos", Model.open(tiny_model, threads=1)
    write_many(photos, COUNT)
    files = sorted(photos.iterdir())
    notes = {file.name: {"note": f"once {file.name}"} for file in files[:MOVED]}
    sources = SourceList(sources=[photos], filter=SourceFilter(payload=notes))
    with open_store(str(folder / "earlier")) as store:
        sync(store, NAME, model, sources)
        noted = notes_in(stored(store))
    for file in files[:MOVED]:
        file.rename(file.with_name(f"moved-{file.name}"))
    for number, file in enumerate(files[MOVED:36]):
        file.unlink()  # first: its bytes may be those of twenty others
        file.write_bytes(photograph((number + 7) % 16))
    for file in files[36:42]:
        file.unlink()
    for number in range(18):
        (photos / f"new-{number}.jpg").write_bytes(photograph(number % 16))
    with open_store(str(folder / "clean")) as store:
        report = index(store, model, photos)
        assert (report.added, report.failed) == (COUNT + 12, [])
        return Scene(tiny_model, photos, folder / "earlier", stored(store), noted)


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Processes that start with everything imported and nothing opened."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.fixtures.killed_load"])
    return context


def run(
    processes: ForkServerContext, scene: Scene, store: Path, *, moment: int | None, seconds: float | None
) -> tuple[int, float, int | None]:
    """Load in a process that is killed; its exit, how long it lived, and how many moments it saw, if all."""
    here, there = processes.Pipe()
    child = processes.Process(target=load_and_die, args=(store, scene.model, scene.photos, moment, there))
    child.start()
    there.close()
    here.recv()
    began = time.monotonic()
    if seconds is not None:
        time.sleep(seconds)
        child.kill()
    child.join(60)
    took = time.monotonic() - began
    moments = here.recv() if child.exitcode == 0 else None
    code = child.exitcode
    child.close()
    assert code in (0, -signal.SIGKILL)
    return code, took, moments


def notes_in(found: Stored) -> list[tuple[str, str]]:
    return sorted((each["sha256"], each["note"]) for each in found.payloads.values() if "note" in each)


def assert_next_run_completes(scene: Scene, store: Path, from_nothing: bool) -> None:
    with open_store(str(store)) as opened:
        report = index(opened, Model.open(scene.model, threads=1), scene.photos, prune=True)
        assert report.failed == []
        found = stored(opened)
        assert notes_in(found) == ([] if from_nothing else scene.notes)
        for payload in found.payloads.values():
            payload.pop("note", None)
        assert found == scene.clean
    assert [each.name for each in store.iterdir() if not each.name.startswith(".")] == ["photos"]


@pytest.mark.parametrize("from_nothing", [True, False], ids=["from-nothing", "from-an-earlier-run"])
def test_killed_at_any_write_and_run_again_equals_once(
    processes: ForkServerContext, scene: Scene, tmp_path: Path, from_nothing: bool
) -> None:
    store = tmp_path / "store"
    begin(scene, store, from_nothing)
    code, _, moments = run(processes, scene, store, moment=None, seconds=None)
    assert code == 0
    assert moments is not None
    assert_next_run_completes(scene, store, from_nothing)
    for moment in range(moments):
        begin(scene, store, from_nothing)
        code, _, _ = run(processes, scene, store, moment=moment, seconds=None)
        assert code == -signal.SIGKILL
        assert_next_run_completes(scene, store, from_nothing)


@pytest.mark.slow
@pytest.mark.parametrize("from_nothing", [True, False], ids=["from-nothing", "from-an-earlier-run"])
def test_killed_at_any_time_and_run_again_equals_once(
    processes: ForkServerContext, scene: Scene, tmp_path: Path, from_nothing: bool
) -> None:
    store = tmp_path / "store"
    begin(scene, store, from_nothing)
    code, whole, _ = run(processes, scene, store, moment=None, seconds=None)
    assert code == 0
    rng = random.Random(f"{COUNT} {from_nothing}")
    killed = 0
    for _ in range(KILLS):
        begin(scene, store, from_nothing)
        code, _, _ = run(processes, scene, store, moment=None, seconds=rng.uniform(0, whole))
        killed += code == -signal.SIGKILL
        assert_next_run_completes(scene, store, from_nothing)
    assert killed >= KILLS // 2  # a load may end before its time comes, most do not


def begin(scene: Scene, store: Path, from_nothing: bool) -> None:
    shutil.rmtree(store, ignore_errors=True)
    if not from_nothing:
        shutil.copytree(scene.earlier, store, copy_function=copy_sparse)
