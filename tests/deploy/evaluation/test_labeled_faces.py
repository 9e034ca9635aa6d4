"""Which face of several an image is named after."""

import numpy as np

from lookalike.deploy.evaluation.labeled_faces import rows_of_labeled_faces
from lookalike.encoder.detect import Face, labeled_face
from lookalike.encoder.embed import EmbeddedBatch

LANDMARKS = ((0.0, 0.0), (0.1, 0.0), (0.05, 0.05), (0.0, 0.1), (0.1, 0.1))
LARGE = Face((0.0, 0.0, 0.4, 0.5), LANDMARKS, 0.9, 100)
MIDDLE = Face((0.4, 0.4, 0.2, 0.2), LANDMARKS, 0.8, 50)


def test_the_middle_or_the_most_prominent_one() -> None:
    for faces in ([LARGE, MIDDLE], [MIDDLE, LARGE]):
        assert labeled_face(faces, centered=True) == faces.index(MIDDLE)
        assert labeled_face(faces, centered=False) == faces.index(LARGE)
    assert labeled_face([], centered=True) is labeled_face([], centered=False) is None


def test_rows_of_a_batch() -> None:
    faces = [[LARGE, MIDDLE], [], [MIDDLE], [MIDDLE, LARGE]]
    vectors = np.arange(5, dtype=np.float32)[:, None]
    batch = EmbeddedBatch(["a", "b", "c", "d"], [], vectors, [], faces=faces)
    keys, rows, without = rows_of_labeled_faces(batch, centered=True)
    assert (keys, rows.ravel().tolist(), without) == (["a", "c", "d"], [1, 2, 3], ["b"])
    keys, rows, without = rows_of_labeled_faces(batch, centered=False)
    assert (keys, rows.ravel().tolist(), without) == (["a", "c", "d"], [0, 2, 4], ["b"])
