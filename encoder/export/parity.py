"""Check that an exported graph agrees with its torch module, for a batch and for each image alone."""

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
    """Return a CPU session that logs nothing."""
    options = ort.SessionOptions()
    options.log_severity_level = 3  # its ERROR level: nothing on stderr
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def run_all(session: ort.InferenceSession, *rows: NDArray[Any]) -> list[Floats]:
    """Return all outputs, for inputs in the order of the graph."""
    names = [feed.name for feed in session.get_inputs()]
    outputs: list[Floats] = session.run(None, dict(zip(names, rows, strict=True)))
    return outputs


def parity_of(
    name: str,
    graph: bytes,
    inputs: Sequence[NDArray[Any]],
    expected: Sequence[NDArray[Any]],
    shapes: Sequence[tuple[int, ...]],
) -> float:
    """Return the largest difference between the outputs of a graph and the expected ones.

    Args:
        name: Name of the graph in messages.
        graph: ONNX.
        inputs: Each (N, ...).
        expected: Outputs of torch, each (N, ...).
        shapes: Required shapes of the outputs.

    Raises:
        ExportError: The difference is more than :data:`PARITY`, or a shape differs.
    """
    got = [each.shape for each in expected]
    if got != list(shapes):
        raise ExportError(
            f"the {name} must return {_text(shapes)} for {inputs[0].shape}, it returned {_text(got)}; "
            "nothing was written"
        )
    session = session_of(graph)
    together = run_all(session, *inputs)
    singles = (run_all(session, *(each[i : i + 1] for each in inputs)) for i in range(len(inputs[0])))
    alone = map(np.concatenate, zip(*singles, strict=True))
    difference = max(
        float(np.abs(each - reference).max())
        for several in (together, alone)
        for each, reference in zip(several, expected, strict=True)
    )
    if not difference <= PARITY:
        raise ExportError(
            f"ONNX and torch must agree to {PARITY:.0e}, the {name} differs by {difference:.1e}; nothing was "
            "written"
        )
    return difference


def _text(shapes: Sequence[tuple[int, ...]]) -> str:
    return " and ".join(str(tuple(shape)) for shape in shapes)
