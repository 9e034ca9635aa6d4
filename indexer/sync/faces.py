"""Points of pictures whose faces are the items of a collection: one for each, payload field ``face``.

The first face has the id of the picture itself. A picture without a face has a point too, so that it is not
read again: its vector means nothing, its face has number 0, and no search returns it.

Legend: n points of a picture, E embedding size.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.detect import Face
from lookalike.indexer.sources import item_id
from lookalike.indexer.store import FACE, Payload, Record, VectorStore


def face_id(root_name: str, path: str, number: int) -> str:
    """Return the id of a face's point, from the number of the face in its picture."""
    return item_id(root_name, path if number < 2 else f"{path}\0{number}")


def face_number(payload: Payload) -> int:
    """Return the number of a point's face, from 1; 0: the picture has none. 1 where pictures are items."""
    face = payload.get(FACE)
    return int(face["number"]) if isinstance(face, Mapping) else 1


def face_count(payload: Payload) -> int | None:
    """Return how many faces the picture of a point has; None where pictures are items."""
    face = payload.get(FACE)
    return int(face["count"]) if isinstance(face, Mapping) else None


def face_payloads(
    payload: Payload, faces: Sequence[Face], *, folder_person: str | None
) -> list[dict[str, Any]]:
    """Return the payloads of a picture's points, at least one.

    Args:
        payload: What the picture would have.
        faces: Its faces, from left to right.
        folder_person: The person that a folder names: of several faces nobody knows whose it is.
    """
    own = dict(payload)
    if len(faces) != 1 and folder_person is not None and own.get("person") == folder_person:
        del own["person"]
    if not faces:
        return [{**own, FACE: {"number": 0, "count": 0}}]
    return [
        {**own, FACE: {"number": number, "count": len(faces), **face.to_json()}}
        for number, face in enumerate(faces, 1)
    ]


def face_vectors(embeddings: NDArray[np.float32], faces: Sequence[Face]) -> NDArray[np.float32]:
    """Return the vectors of a picture's points, of the embeddings (len(faces), E) of its faces."""
    return embeddings if faces else np.eye(1, embeddings.shape[1], dtype=np.float32)


def more_ids(payload: Payload, *, kept: int = 1) -> list[str]:
    """Return the ids of a picture's points after the first ``kept``, from the payload of one."""
    root, path = str(payload["root"]), str(payload["path"])
    return [face_id(root, path, number) for number in range(kept + 1, (face_count(payload) or 1) + 1)]


def with_more(
    store: VectorStore, name: str, first: Mapping[str, Record], *, with_vectors: bool = False
) -> dict[str, list[Record]]:
    """Return all points of each picture, by the id of its first, which is given."""
    wanted = [each for record in first.values() for each in more_ids(record.payload)]
    more = store.get(name, wanted, with_vectors=with_vectors) if wanted else {}
    return {
        key: [record, *(more[each] for each in more_ids(record.payload) if each in more)]
        for key, record in first.items()
    }


def points_in(payloads: Iterable[Payload]) -> int:
    """Return how many points the pictures of these first points have."""
    return sum(max(1, face_count(payload) or 1) for payload in payloads)
