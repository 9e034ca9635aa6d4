"""Checkpoints: written completely or not at all, and read without executing anything."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lookalike.encoder.errors import TrainingError
from lookalike.encoder.text import one_line, printable


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors, numbers, strings and containers of them; a kill leaves the old file or the new one."""
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        torch.save(dict(state), file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def load(path: Path) -> dict[str, Any]:
    """Read a file of :func:`save`, onto the CPU.

    Raises:
        TrainingError: the file is damaged or holds anything but plain values and tensors.
    """
    try:
        state: dict[str, Any] = dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # torch, zipfile and pickle each raise their own
        # torch's own message advises to load objects anyway, which would execute them.
        holds_objects = isinstance(error, pickle.UnpicklingError)
        reason = "it holds more than tensors and plain values" if holds_objects else one_line(error)[:200]
        raise TrainingError(
            f"checkpoint {printable(str(path))} cannot be read ({reason}); remove its folder and train again"
        ) from error
    return state
