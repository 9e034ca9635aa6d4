"""Where a row of the table goes wrong, as a contact sheet.

Legend: H, W = height and width of a sheet.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from lookalike.deploy.evaluation.data import LabeledImages
from lookalike.deploy.evaluation.pairs import Fold
from lookalike.deploy.evaluation.retrieval import Query
from lookalike.deploy.evaluation.verification import fold_thresholds, pair_similarity
from lookalike.encoder.errors import ImageError
from lookalike.encoder.images.contact_sheet import Tile, contact_sheet
from lookalike.encoder.images.preprocess import LFW_CROP, Crop, ImageSpec, read_pixels

__all__ = ["FailureSheet"]

Wrong = TypeVar("Wrong")
_SIDE: Final = 128
_DOWN: Final = 6
_WIDER: Final = 1.5  # people are shown with a little more around them than models see


class FailureSheet:
    """Draws the worst mistakes on some pictures.

    Args:
        images: The pictures.
        crop: How they are framed; None: as the data are known to be.
    """

    def __init__(self, images: LabeledImages, *, crop: Crop | None = None) -> None:
        self._images = images
        self._crop = (crop or images.crop or LFW_CROP).widened(_WIDER)
        self._files = dict(zip(images.paths, images.files, strict=True))

    def pairs(
        self, name: str, vectors: NDArray[np.float32], folds: Sequence[Fold]
    ) -> NDArray[np.uint8] | None:
        """Draw matched pairs taken for two people, least alike first, beside mismatched ones taken for one.

        Args:
            name: Of the row.
            vectors: float32 (N, E), unit length.
            folds: Two or more; the threshold of each is the best of the others.

        Returns:
            uint8 (H, W, 3), or None where every pair is told rightly.
        """
        scores = [pair_similarity(vectors, fold) for fold in folds]
        thresholds = fold_thresholds(scores, [fold.same for fold in folds])
        told = [
            (float(score), int(first), int(second), bool(same), bool(score >= threshold))
            for fold, each, threshold in zip(folds, scores, thresholds, strict=True)
            for score, first, second, same in zip(each, fold.first, fold.second, fold.same, strict=True)
        ]
        missed = sorted(each for each in told if each[3] and not each[4])
        mistaken = sorted((each for each in told if each[4] and not each[3]), reverse=True)
        if not missed and not mistaken:
            return None
        blocks = [
            ("Missed: one person", f"by {name}", missed),
            ("Mistaken: two people", f"by {name}", mistaken),
        ]
        return _beside(
            [
                contact_sheet([self._pair(each) for each in part], title=more if start else title, side=_SIDE)
                for title, more, wrong in blocks
                for start, part in _columns(wrong)
            ]
        )

    def queries(self, name: str, queries: Sequence[Query]) -> NDArray[np.uint8] | None:
        """Draw queries whose first hit is of somebody else, most alike first: query, hit, best right image.

        It is uint8 (H, W, 3), or None where every first hit is right.
        """
        wrong = [query for query in queries if query.hits and not query.among(1)]
        wrong.sort(key=lambda query: -query.hits[0].score)
        if not wrong:
            return None
        title, more = f"{name}: wrong first hits", "and the best right ones"
        return _beside(
            [
                contact_sheet(
                    [self._query(each) for each in part], title=more if start else title, side=_SIDE
                )
                for start, part in _columns(wrong)
            ]
        )

    def _pair(self, told: tuple[float, int, int, bool, bool]) -> list[Tile]:
        score, *indices, _, _ = told
        return [
            Tile(
                pixels=self._picture(self._images.files[index]),
                caption=_spoken(self._images.people[index], self._images.paths[index]),
                subcaption=text,
            )
            for index, text in zip(indices, (f"likeness {score:.3f}", ""), strict=True)
        ]

    def _query(self, query: Query) -> list[Tile]:
        hit = query.hits[0]
        shown = (
            (query.record.payload, "query", True),
            (hit.payload, f"first, {hit.score:.3f}", False),
            (query.right.payload, f"place {query.best:,}, {query.right_score:.3f}", False),
        )
        return [
            Tile(
                pixels=self._picture(self._files.get(str(payload.get("path")))),
                caption=_spoken(payload.get("person"), str(payload.get("path"))),
                subcaption=text,
                accent=accent,
            )
            for payload, text, accent in shown
        ]

    def _picture(self, file: Path | None) -> NDArray[np.uint8] | None:
        """Return uint8 (side, side, 3), or None when the file is gone or cannot be read."""
        if file is None:
            return None
        try:
            return read_pixels(file.read_bytes(), ImageSpec(size=_SIDE, crop=self._crop), name=str(file))
        except (ImageError, OSError, ValueError):  # ValueError: a null byte in the path
            return None


def _spoken(person: str | None, path: str) -> str:
    return (person or Path(path).stem).replace("_", " ")


def _columns(wrong: Sequence[Wrong]) -> list[tuple[int, Sequence[Wrong]]]:
    return [(start, wrong[start : start + _DOWN]) for start in range(0, min(len(wrong), 2 * _DOWN), _DOWN)]


def _beside(sheets: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Lay sheets side by side on white, uint8 (H, W, 3)."""
    height = max(len(sheet) for sheet in sheets)
    return np.concatenate(
        [np.pad(sheet, ((0, height - len(sheet)), (0, 0), (0, 0)), constant_values=255) for sheet in sheets],
        axis=1,
    )
