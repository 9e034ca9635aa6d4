"""Batches of embeddings on their way into a store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.embed.pipeline import EmbeddedBatch
from lookalike.encoder.text import printable
from lookalike.indexer.sync.plan import Work

__all__ = ["NOTHING_SEEN", "coalesce", "count", "drop_degenerate"]

NOTHING_SEEN: Final = "the model sees nothing in it that could be compared; leave it out"


def drop_degenerate(batch: EmbeddedBatch[Work]) -> EmbeddedBatch[Work]:
    """Move pictures whose embedding has no direction to the failures: no store takes them."""
    rows = batch.embeddings
    good: NDArray[np.bool_] = np.logical_and(np.isfinite(rows).all(axis=1), rows.any(axis=1))
    if good.all():
        return batch
    blank = [key for key, fine in zip(batch.keys, good, strict=True) if not fine]
    return EmbeddedBatch(
        [key for key, fine in zip(batch.keys, good, strict=True) if fine],
        [facts for facts, fine in zip(batch.facts, good, strict=True) if fine],
        rows[good],
        batch.failures + [(key, f"{printable(str(key.item.file))}: {NOTHING_SEEN}") for key in blank],
        batch.skipped,
    )


def coalesce(stream: Iterator[EmbeddedBatch[Work]], together: int) -> Iterator[EmbeddedBatch[Work]]:
    """Join batches: what a store does to make one durable costs the same for a few as for a thousand."""
    held: list[EmbeddedBatch[Work]] = []
    for batch in stream:
        held.append(batch)
        if sum(map(count, held)) >= together:
            yield _joined(held)
            held = []
    if held:
        yield _joined(held)


def _joined(batches: Sequence[EmbeddedBatch[Work]]) -> EmbeddedBatch[Work]:
    return EmbeddedBatch(
        [key for batch in batches for key in batch.keys],
        [facts for batch in batches for facts in batch.facts],
        np.concatenate([batch.embeddings for batch in batches]),
        [failure for batch in batches for failure in batch.failures],
        [skipped for batch in batches for skipped in batch.skipped],
    )


def count(batch: EmbeddedBatch[Work]) -> int:
    """Return how many pictures a batch speaks of."""
    return len(batch.keys) + len(batch.failures) + len(batch.skipped)
