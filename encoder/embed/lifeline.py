"""What a process that was started to help does first, so that it never outlives who started it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading

from threadpoolctl import threadpool_limits

__all__ = ["exit_with_parent"]


def exit_with_parent() -> None:
    """Leave an interrupt to the parent, end when it has ended, and take one core for numpy's products.

    For the ``initializer`` of a pool. Without it a parent that is killed leaves behind workers that wait for
    ever to hand over their results.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threadpool_limits(limits=1, user_api="blas")
    parent = multiprocessing.parent_process()

    def end() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()
