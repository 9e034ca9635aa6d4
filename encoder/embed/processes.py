"""Worker processes: forked where that is safe, ended with their parent, and never left by Ctrl-C."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, TypeVar, final

from threadpoolctl import threadpool_info, threadpool_limits

from lookalike.encoder.errors import WorkerDiedError

Result = TypeVar("Result")


@final
class Processes:
    """``count`` worker processes.

    Args:
        count: Number of processes.
        forked: Fork them, which takes no time; only if :func:`may_fork` allows it. Otherwise each imports the
            modules of what it is given to do.
        begin: Called in each before anything else; picklable, unless they are forked.
    """

    def __init__(self, count: int, *, forked: bool, begin: Callable[[], object] | None = None) -> None:
        self._pool = ProcessPoolExecutor(
            count,
            mp_context=multiprocessing.get_context("fork" if forked else "spawn"),
            initializer=_begin,
            initargs=(begin,),
        )

    def start(self) -> None:
        """Start the processes now, not with the first task."""
        try:
            with _interrupts_blocked():
                self._pool.submit(os.getpid)
        except BaseException:  # an interrupt that was held back: nobody else would close the pool
            self.close()
            raise

    def submit(self, function: Callable[..., Result], *arguments: Any) -> Future[Result]:
        """Queue a call.

        Raises:
            WorkerDiedError: A process died.
        """
        try:
            with _interrupts_blocked():  # the first call starts the processes
                return self._pool.submit(function, *arguments)
        except BrokenProcessPool as error:
            raise _worker_died() from error

    def result(self, future: Future[Result]) -> Result:
        """Wait for a call.

        Raises:
            WorkerDiedError: A process died.
        """
        try:
            return future.result()
        except BrokenProcessPool as error:
            raise _worker_died() from error

    def close(self) -> None:
        """Cancel what has not started, and wait for the rest."""
        # Interrupted here, the pool's thread would still be closing its pipe when the interpreter's exit
        # writes to it: "Bad file descriptor" and a traceback.
        with _interrupts_blocked():
            self._pool.shutdown(wait=True, cancel_futures=True)

    def kill(self) -> None:
        """End the processes in the middle of what they do, and wait for that."""
        for process in list((self._pool._processes or {}).values()):  # public from Python 3.14 on
            process.kill()
        self.close()


def _begin(begin: Callable[[], object] | None) -> None:
    """Initialize a worker process."""
    exit_with_parent()
    if begin is not None:
        begin()


class OnProvider(Protocol):
    """A model that runs somewhere."""

    @property
    def provider(self) -> str:
        """The execution provider in use, as onnxruntime names it."""
        ...


def may_fork(model: OnProvider) -> bool:
    """Whether it is safe to fork: this process has no other thread whose locks a child could inherit.

    Only on Linux. OpenBLAS threads, which numpy starts, do not count: OpenBLAS stops them before a fork and
    starts them again. An open embedded store, onnxruntime on several threads or a GPU, and a service have
    threads.
    """
    if sys.platform != "linux" or model.provider != "CPUExecutionProvider" or threading.active_count() > 1:
        return False
    expected = 1 + sum(
        int(pool["num_threads"]) - 1
        for pool in threadpool_info()
        if pool["internal_api"] == "openblas" and pool.get("threading_layer") == "pthreads"
    )
    try:
        names = [Path(task, "comm").read_bytes() for task in Path("/proc/self/task").iterdir()]
    except OSError:
        return False
    return len(names) <= expected and len(set(names)) == 1


def exit_with_parent() -> None:
    """Ignore Ctrl-C, exit when the parent process ends, and use one core for numpy's products.

    For the ``initializer`` of a pool. Without it, workers of a killed parent would wait forever to hand over
    their results.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threadpool_limits(limits=1, user_api="blas")
    parent = multiprocessing.parent_process()

    def exit_after_parent() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=exit_after_parent, daemon=True).start()


def _worker_died() -> WorkerDiedError:
    return WorkerDiedError("an embedding process was killed (out of memory?); run it again to continue")


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Hold Ctrl-C back until the end of the block; child processes that start in it inherit a blocked signal.

    Blocking is not enough here: another thread may receive the signal, and Python then raises
    KeyboardInterrupt in the main thread all the same, which would leave a child half started.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    handler = signal.getsignal(signal.SIGINT)
    replaced = callable(handler) and threading.current_thread() is threading.main_thread()
    held: list[tuple[int, FrameType | None]] = []
    if replaced:
        signal.signal(signal.SIGINT, lambda number, frame: held.append((number, frame)))
    try:
        yield
    finally:
        if replaced:
            signal.signal(signal.SIGINT, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        if held and callable(handler):
            handler(*held[0])
