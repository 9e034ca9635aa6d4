"""ProcessEmbedder that embed: what threads give, and gone with whoever started them."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from lookalike.encoder.bundle import Bundle
from lookalike.encoder.embed import EmbeddedBatch, embed_files
from lookalike.encoder.embed.processes import _interrupts_blocked
from lookalike.encoder.embed.workers import ProcessEmbedder
from lookalike.encoder.errors import BundleError, WorkerDiedError
from lookalike.encoder.images import encode_png
from lookalike.encoder.runtime import Model
from lookalike.indexer.open import open_store
from tests.fixtures.tiny_models import SIZE, pictures

MANY = 2048
INDEX = "from lookalike.deploy.cli.main import main; main()"
ATTENDED = "import threading, time; threading.Thread(target=time.sleep, args=(600,), daemon=True).start(); "
"""With a thread beside it, a process forks no workers: they are spawned."""
MAY_FORK = """
import sys
from lookalike.encoder.runtime.model import Model
from lookalike.encoder.embed.processes import may_fork
def main():
    model = Model.open(sys.argv[1], threads={threads})
    {first}
    print(may_fork(model))
main()
"""


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
    said = subprocess.run(["pgrep", "-P", str(parent), "-a"], capture_output=True, text=True)
    lines = [line for line in said.stdout.splitlines() if "resource_tracker" not in line]
    return [int(line.split()[0]) for line in lines]


def spawned(pid: int) -> bool:
    return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()


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
    with pytest.raises(WorkerDiedError, match=r"killed.*run it again"):
        list[EmbeddedBatch[str]](stream)
    assert not children()


def test_model_that_is_replaced_underway_is_refused(model: Model, folder: Path) -> None:
    class Other:
        bundle: Bundle = model.bundle
        model_id = "f" * 64

    workers = ProcessEmbedder(Other(), 1, crop=None, max_pixels=10**6)  # type: ignore[arg-type]  # enough of a model
    try:
        future = workers.submit([folder / "0000.png"], None)
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
@pytest.mark.parametrize("beside", ["", ATTENDED], ids=["forked", "spawned"])
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_processes_end_with_their_parent(
    tiny_model: Path, folder: Path, tmp_path: Path, sent: signal.Signals, code: int, beside: str
) -> None:
    run, started = running(tiny_model, folder, tmp_path, beside)
    assert gone(lambda: any(spawned(pid) != bool(beside) for pid in started))  # it takes a moment to be one
    if sent == signal.SIGINT:
        os.killpg(run.pid, sent)
    else:
        os.kill(run.pid, sent)
    _, said = run.communicate(timeout=30)
    assert run.returncode == code
    assert "Traceback" not in said
    assert gone(lambda: any(map(alive, started)))


def running(
    tiny_model: Path, folder: Path, store: Path, beside: str
) -> tuple["subprocess.Popen[str]", list[int]]:
    """The command at work on the folder, and its workers."""
    words = ["index", str(folder), "--model", str(tiny_model), "--collection", "a", "--store", str(store)]
    # In a group of its own, which is signalled as a terminal signals it.
    run = subprocess.Popen(
        [sys.executable, "-c", beside + INDEX, *words],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert gone(lambda: run.poll() is None and len(below(run.pid)) < 2)
    started = below(run.pid)
    assert started, run.communicate()
    return run, started


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("beside", ["", ATTENDED], ids=["forked", "spawned"])
def test_workers_that_are_killed_end_the_command_with_one_line(
    tiny_model: Path, folder: Path, tmp_path: Path, beside: str
) -> None:
    run, started = running(tiny_model, folder, tmp_path, beside)
    for pid in started:
        os.kill(pid, signal.SIGKILL)
    _, said = run.communicate(timeout=30)
    assert run.returncode == 1
    assert said.splitlines() == [
        "lookalike: an embedding process was killed (out of memory?); run it again to continue"
    ]
    assert subprocess.run(list(run.args), capture_output=True).returncode == 3  # type: ignore[arg-type]
    with open_store(str(tmp_path)) as store:
        assert store.count("a") == MANY + 59  # one of them is no picture


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")
@pytest.mark.parametrize(
    ("first", "threads", "told"),
    [
        ("pass", 1, True),
        ("import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()", 1, False),
        ("import faulthandler; faulthandler.dump_traceback_later(600)", 1, False),
        ("pass", 3, False),
        (
            "from lookalike.indexer.embedded.store import EdgeStore; from lookalike.indexer.store.layout "
            "import CollectionSpec; global store; "
            "store = EdgeStore(sys.argv[2]); "
            "store.create('a', CollectionSpec(model_id='0' * 64, model_name='m', dimension=2, crop='full')); "
            "store.count('a')",
            1,
            False,
        ),
    ],
    ids=["alone", "thread", "native thread", "onnxruntime's threads", "open store"],
)
def test_only_a_process_without_other_threads_may_fork(
    tiny_model: Path, tmp_path: Path, first: str, threads: int, told: bool
) -> None:
    code = MAY_FORK.format(threads=threads, first=first)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny_model), str(tmp_path / "store")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(told)]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")
def test_forked_processes_give_what_threads_give(tiny_model: Path, folder: Path) -> None:
    code = """
import sys, warnings
from pathlib import Path
import numpy as np
from lookalike.encoder.runtime.model import Model
from lookalike.encoder.embed.pipeline import embed_files, fork_workers
warnings.simplefilter("error")
model = Model.open(sys.argv[1], threads=1)
files = [(path.name, str(path)) for path in sorted(Path(sys.argv[2]).iterdir())]
workers = fork_workers(model)
assert workers is not None
apart = list(embed_files(model, files, workers=workers))
here = list(embed_files(model, files))
for one, other in zip(apart, here, strict=True):
    assert (one.keys, one.facts, one.failures) == (other.keys, other.facts, other.failures)
    np.testing.assert_array_equal(one.embeddings, other.embeddings)
print(sum(len(batch.keys) for batch in apart))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny_model), str(folder)], capture_output=True, text=True
    )
    assert done.stdout.split() == [str(MANY + 59)], done.stderr
    assert done.stderr == ""


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="Windows has no masks")
def test_an_interrupt_that_another_thread_receives_waits_for_the_start_of_a_process() -> None:
    passed: list[int] = []

    def interrupted() -> None:
        with _interrupts_blocked():
            os.kill(os.getpid(), signal.SIGINT)
            passed.extend(range(1000))  # Python looks for signals between instructions
            passed.append(1000)

    waiting = threading.Event()
    other = threading.Thread(target=waiting.wait)  # its mask does not block the signal
    other.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted()
    finally:
        waiting.set()
        other.join()
    assert len(passed) == 1001
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
