"""Embeddings that no store takes."""

from __future__ import annotations

from typing import Final, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.embed import EmbeddedBatch

DEGENERATE: Final = "the model sees nothing in it that could be compared; leave it out"


class Named(Protocol):
    """What is embedded."""

    @property
    def name(self) -> str:
        """What it is called in messages."""
        ...


Key = TypeVar("Key", bound=Named)


def drop_degenerate(batch: EmbeddedBatch[Key]) -> EmbeddedBatch[Key]:
    """Move images whose embedding is zero or not finite to the failures: no store takes them."""
    rows = batch.embeddings
    finite: NDArray[np.bool_] = np.logical_and(np.isfinite(rows).all(axis=1), rows.any(axis=1))
    if finite.all():
        return batch
    counts = np.ones(len(batch.keys), np.int64) if batch.faces is None else np.array([*map(len, batch.faces)])
    of = np.repeat(np.arange(len(batch.keys)), counts)
    good = np.ones(len(batch.keys), np.bool_)
    good[of[~finite]] = False  # a picture with such a face is not stored in part
    keep, dropped = np.flatnonzero(good), [batch.keys[row] for row in np.flatnonzero(~good)]
    return EmbeddedBatch(
        [batch.keys[row] for row in keep],
        [batch.facts[row] for row in keep],
        rows[good[of]],
        batch.failures + [(entry, f"{entry.name}: {DEGENERATE}") for entry in dropped],
        batch.skipped,
        None if batch.faces is None else [batch.faces[row] for row in keep],
    )
