"""Checkpoints: whole or not at all, and nothing in them is executed."""

import hashlib
import os
import pickle
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from lookalike.encoder.errors import TrainingError
from lookalike.trainer.loop.loop import load_checkpoint, save_checkpoint

STATE = {
    "identity": {"seed": 0, "hidden": [512, 256], "rate": 1e-3, "name": "lfw", "none": None},
    "network": {"weight": torch.arange(12.0).reshape(3, 4), "steps": torch.tensor(7)},
    "history": [[0.5, 20.0, 19.5]],
}

WRITER = """
import sys, torch
from pathlib import Path
from lookalike.trainer.loop.loop import load_checkpoint, save_checkpoint
step = 0
while True:
    save_checkpoint(Path(sys.argv[1]), {"step": step, "weights": torch.full((500_000,), float(step))})
    step += 1
    print(step, flush=True)
"""


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_state_comes_back_as_it_was(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", STATE)
    back = load_checkpoint(tmp_path / "a.pt")
    assert back.keys() == STATE.keys()
    assert back["identity"] == STATE["identity"]
    assert back["history"] == STATE["history"]
    for name, tensor in back["network"].items():
        assert torch.equal(tensor, STATE["network"][name])  # type: ignore[index]  # the values of STATE differ in type
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_later_state_replaces_the_earlier_one(tmp_path: Path) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path / "a.pt", {"step": step})
    assert load_checkpoint(tmp_path / "a.pt") == {"step": 2}


@pytest.mark.slow
def test_writer_that_is_killed_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    for turn in range(2):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            last = int(writer.stdout.readline())
            time.sleep(random.Random(turn).uniform(0.02, 0.3))
            writer.kill()
            last = max([last, *map(int, writer.stdout.read().split())])
        state = load_checkpoint(path)
        assert state["step"] in (last - 1, last)  # killed before or after the last one was put in place
        assert (state["weights"] == state["step"]).all()
        assert state["weights"].shape == (500_000,)


def test_writing_that_fails_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", {"step": 1})
    with pytest.raises(Exception, match="pickle"):
        save_checkpoint(tmp_path / "a.pt", {"big": torch.zeros(1000), "step": lambda: 2})
    assert load_checkpoint(tmp_path / "a.pt") == {"step": 1}


def seal(path: Path) -> None:
    """Add the digest that a stranger would add too."""
    data = path.read_bytes()
    path.write_bytes(data + hashlib.sha256(data).digest())


def test_any_flipped_bit_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(path, STATE)
    whole = path.read_bytes()
    for place in [*range(0, len(whole), 29), *range(len(whole) - 32, len(whole))]:
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        with pytest.raises(TrainingError, match=r"its bytes are not those .*; remove its folder"):
            load_checkpoint(path)


@pytest.mark.parametrize("way", ["torch", "pickle"])
def test_object_that_would_execute_code_is_refused_and_not_executed(tmp_path: Path, way: str) -> None:
    path, trap = tmp_path / "a.pt", tmp_path / "sprung"
    state = {"identity": {}, "network": Trap(trap)}
    if way == "torch":
        torch.save(state, path)
    else:
        path.write_bytes(pickle.dumps(state, protocol=2))
    seal(path)
    with pytest.raises(TrainingError, match="more than tensors and plain values") as caught:
        load_checkpoint(path)
    assert not trap.exists()
    assert len(str(caught.value).splitlines()) == 1
    assert "weights_only" not in str(caught.value)


def test_truncated_file_is_refused_at_every_length(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(path, STATE)
    whole = path.read_bytes()
    for length in [*range(40), *range(40, len(whole), 37), *range(len(whole) - 40, len(whole))]:
        path.write_bytes(whole[:length])
        with pytest.raises(TrainingError, match="cannot be read") as caught:
            load_checkpoint(path)
        assert len(str(caught.value).splitlines()) == 1


def test_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    for name, content in (("list.pt", [1, 2]), ("tensor.pt", torch.zeros(3))):
        torch.save(content, tmp_path / name)
        seal(tmp_path / name)
        with pytest.raises(TrainingError, match="cannot be read"):
            load_checkpoint(tmp_path / name)
    with pytest.raises(TrainingError, match="No such file"):
        load_checkpoint(tmp_path / "none.pt")
