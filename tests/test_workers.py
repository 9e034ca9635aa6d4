"""Processes that embed: what threads give, and gone with whoever started them."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from encoder.bundle import Bundle
from encoder.errors import BundleError, EmbeddingError
from encoder.images import encode_png
from encoder.model import Model
from encoder.stream import Embedded, embed_files
from encoder.workers import Processes
from tests.models import SIZE, pictures

MANY = 2048
INDEX = "from deploy.cli import main; main()"


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Model:
    return Model.open(tiny_model, threads=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many pictures as processes are taken for; one of them is none."""
    root = tmp_path_factory.mktemp("many")
    data = [encode_png(pixels) for pixels in pictures(20, size=SIZE, seed=3)]
    for number in range(MANY + 60):
        (root / f"{number:04}.png").write_bytes(data[number % 20])
    (root / "0777.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture")
    return root


def keyed(folder: Path) -> list[tuple[str, Path]]:
    return [(path.name, path) for path in sorted(folder.iterdir())]


def children() -> list[int]:
    return [child.pid for child in multiprocessing.active_children() if child.pid is not None]


def gone(there: Callable[[], object], *, seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while there():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def below(parent: int) -> list[int]:
    """The processes that a process has started, but for multiprocessing's own keeper of resources."""
    said = subprocess.run(["pgrep", "-P", str(parent), "-f", "spawn_main"], capture_output=True, text=True)
    return [int(pid) for pid in said.stdout.split()]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_processes_give_what_threads_give(model: Model, folder: Path) -> None:
    apart = list(embed_files(model, keyed(folder), threads=2, processes=True))
    here = list(embed_files(model, keyed(folder), threads=2))
    assert not children()
    for one, other in zip(apart, here, strict=True):
        assert (one.keys, one.facts, one.failures) == (other.keys, other.facts, other.failures)
        np.testing.assert_array_equal(one.embeddings, other.embeddings)
    assert [key for batch in apart for key, _ in batch.failures] == ["0777.png"]


def test_few_pictures_start_no_process(model: Model, folder: Path) -> None:
    stream = embed_files(model, keyed(folder)[: MANY - 1], threads=2, processes=True)
    next(stream)
    assert not children()
    stream.close()


def test_closing_early_ends_the_processes(model: Model, folder: Path) -> None:
    stream = embed_files(model, keyed(folder), threads=2, processes=True)
    next(stream)
    assert len(children()) == 2
    stream.close()
    assert not children()


def test_process_that_is_killed_ends_the_run_with_one_line(model: Model, folder: Path) -> None:
    stream = embed_files(model, keyed(folder), threads=2, processes=True)
    next(stream)
    for pid in children():
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(EmbeddingError, match=r"ended from outside.*run it again"):
        list[Embedded[str]](stream)
    assert not children()


def test_model_that_is_replaced_underway_is_refused(model: Model, folder: Path) -> None:
    class Other:
        bundle: Bundle = model.bundle
        model_id = "f" * 64

    workers = Processes(Other(), 1, crop=None, max_pixels=10**6)  # type: ignore[arg-type]  # enough of a model
    try:
        future = workers.submit([folder / "0000.png"])
        with pytest.raises(BundleError, match="was replaced"):
            workers.result(future)
    finally:
        workers.close()


def test_matrix_products_keep_to_one_thread_while_it_runs(model: Model, folder: Path) -> None:
    def most() -> int:
        return max(int(info["num_threads"]) for info in threadpool_info() if info["user_api"] == "blas")

    before = most()
    stream = embed_files(model, keyed(folder)[:300], threads=2)
    next(stream)
    assert most() == 1
    stream.close()
    assert most() == before


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_processes_end_with_their_parent(
    tiny_model: Path, folder: Path, tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    words = ["index", str(folder), "--model", str(tiny_model), "--collection", "a", "--store", str(tmp_path)]
    # In a group of its own, which is signalled as a terminal signals it.
    run = subprocess.Popen(
        [sys.executable, "-c", INDEX, *words], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert gone(lambda: run.poll() is None and len(below(run.pid)) < 2)
    started = below(run.pid)
    assert started, run.communicate()
    if sent == signal.SIGINT:
        os.killpg(run.pid, sent)
    else:
        os.kill(run.pid, sent)
    _, said = run.communicate(timeout=30)
    assert run.returncode == code
    assert "Traceback" not in said
    assert gone(lambda: any(map(alive, started)))
