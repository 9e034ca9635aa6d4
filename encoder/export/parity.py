"""Whether an exported graph gives what its module gave: together, and each picture alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from lookalike.encoder.errors import ExportError

PARITY: Final = 1e-4
"""Largest allowed difference between torch and onnxruntime, on latents of about unit spread."""

Floats = NDArray[np.float32]


def session_of(graph: bytes) -> ort.InferenceSession:
    """Return a session on the CPU that says nothing."""
    options = ort.SessionOptions()
    options.log_severity_level = 3  # its ERROR level: nothing on stderr
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def run_all(session: ort.InferenceSession, *rows: NDArray[Any]) -> list[Floats]:
    """Return all outputs for all inputs, both in the order of the graph."""
    names = [feed.name for feed in session.get_inputs()]
    made: list[Floats] = session.run(None, dict(zip(names, rows, strict=True)))
    return made


def parity_of(
    name: str,
    graph: bytes,
    given: Sequence[NDArray[Any]],
    expected: Sequence[NDArray[Any]],
    shapes: Sequence[tuple[int, ...]],
) -> float:
    """Return the largest difference between what a graph gives and what is expected.

    Args:
        name: The graph's, for messages.
        graph: ONNX.
        given: Its inputs, each (N, ...).
        expected: What torch made of them, each (N, ...).
        shapes: What shapes these should have.

    Raises:
        ExportError: it is more than :data:`PARITY`, or the shapes are others.
    """
    found = [each.shape for each in expected]
    if found != list(shapes):
        raise ExportError(
            f"the {name} must make {_told(shapes)} of {given[0].shape}, it made {_told(found)}; "
            "nothing was written"
        )
    session = session_of(graph)
    together = run_all(session, *given)
    singles = (run_all(session, *(each[i : i + 1] for each in given)) for i in range(len(given[0])))
    alone = map(np.concatenate, zip(*singles, strict=True))
    apart = max(
        float(np.abs(each - wanted).max())
        for several in (together, alone)
        for each, wanted in zip(several, expected, strict=True)
    )
    if not apart <= PARITY:
        raise ExportError(
            f"ONNX and torch must agree to {PARITY:.0e}, the {name} is {apart:.1e} apart; nothing was written"
        )
    return apart


def _told(shapes: Sequence[tuple[int, ...]]) -> str:
    return " and ".join(str(tuple(shape)) for shape in shapes)
