"""One face of each labeled image: that of the person whom it is named after.

Legend: n faces in an image, E embedding size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.detect import Face, labeled_face
from lookalike.encoder.embed import EmbeddedBatch

Key = TypeVar("Key")


def rows_of_labeled_faces(
    batch: EmbeddedBatch[Key], *, centered: bool
) -> tuple[list[Key], NDArray[np.float32], list[Key]]:
    """Keep of each file of a batch of faces the one that it is named after.

    Returns:
        The keys of m files, float32 (m, E) of their faces, and the keys of files without a face.
    """
    keys: list[Key] = []
    without: list[Key] = []
    rows: list[int] = []
    for key, faces, start in _starts(batch):
        place = labeled_face(faces, centered=centered)
        if place is None:
            without.append(key)
        else:
            keys.append(key)
            rows.append(start + place)
    return keys, batch.embeddings[rows], without


def _starts(batch: EmbeddedBatch[Key]) -> Iterator[tuple[Key, list[Face], int]]:
    """Yield of each file its key, its faces and the row of the first of them."""
    start = 0
    for key, faces in zip(batch.keys, batch.faces or [], strict=True):
        yield key, faces, start
        start += len(faces)
