"""Helping processes end with the one that started them, also while they hand over results."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

EXTRACT = """
import numpy as np
from lookalike.deploy.evaluation.attributes import feature_pool, hog_features
def main():
    pictures = np.random.default_rng(0).integers(0, 256, (64, 64, 64), np.uint8)
    with feature_pool(10_000) as extract:
        for number in range(10_000):
            waiting = [extract(hog_features, pictures) for _ in range(4)]  # fills the pipe
            for parts in waiting:
                list(parts)
            print(number, flush=True)
if __name__ == "__main__":
    main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_extractors_end_with_their_parent(tmp_path: Path, sent: signal.Signals) -> None:
    script = tmp_path / "extract.py"
    script.write_text(EXTRACT)
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=Path.cwd()
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"0\n"
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        assert len(children) >= 2
        run.send_signal(sent)
        assert run.wait(30) == -sent
    due = time.monotonic() + 30
    while any(map(_alive, children)):
        assert time.monotonic() < due
        time.sleep(0.05)


def _alive(pid: str) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
