"""Building the HNSW graph of an embedded shard in a child process."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

from lookalike.encoder.errors import StoreError
from lookalike.indexer.embedded.shard import build_graph
from lookalike.indexer.store import Layout

_CHILD: Final = """
import sys
from lookalike.indexer.embedded.hnsw import build_in_child
build_in_child(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
"""


def build_in_subprocess(shard: Path, dimension: int, layout: Layout) -> None:
    """Build the graph of an embedded shard in a child process, and wait for it.

    Args:
        shard: Folder of the shard, which nobody may have open.
        dimension: D of its vectors.
        layout: Layout of its collection.

    Raises:
        StoreError: the process failed; the shard is unusable.
    """
    # -P: never import a folder called lookalike from the working directory.
    words = [str(shard), str(dimension), str(os.getpid()), json.dumps(layout.to_json())]
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", _CHILD, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        _, stderr = child.communicate()
    finally:
        child.kill()
        child.wait()
    if child.returncode:
        reason = stderr.decode(errors="replace").strip().rpartition("\n")[2][:200]
        raise StoreError(
            f"the index of {shard.parent} could not be built ({reason or f'exit {child.returncode}'}); "
            "it is searched without one; check the free disk space and try again"
        )


def build_in_child(shard: str, dimension: int, parent: int, layout: str) -> None:
    """Build the graph in the child process; on Linux it ends at once when its parent ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it had ended before
            return
    # Elsewhere it builds to the end. The parent is not looked at: in a virtual environment on Windows it is
    # the program that starts Python, which is not who asked.
    build_graph(Path(shard), dimension, Layout.from_json(json.loads(layout)))
