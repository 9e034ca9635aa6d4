"""The worst mistakes of a model, as a contact sheet.

Legend: H, W = height and width of a sheet.

"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from lookalike.deploy.evaluation import LabeledImages
from lookalike.deploy.evaluation.pairs import Fold
from lookalike.deploy.evaluation.retrieval import Query
from lookalike.deploy.evaluation.verification import fold_thresholds, pair_similarity
from lookalike.encoder.errors import ImageError
from lookalike.encoder.images import LFW_CROP, Crop, ImageSpec, Tile, contact_sheet, read_pixels

Wrong = TypeVar("Wrong")
_SIDE: Final = 128
_DOWN: Final = 6
_WIDER: Final = 1.5  # faces are shown with a little more around them than models see


class FailureSheet:
    """Shows the worst mistakes on a set of images.

    Args:
        images: The images.
        crop: How they are framed; None: as the data are known to be framed.
    """

    def __init__(self, images: LabeledImages, *, crop: Crop | None = None) -> None:
        self._images = images
        self._crop = (crop or images.crop or LFW_CROP).widened(_WIDER)
        self._files = dict(zip(images.paths, images.files, strict=True))

    def pairs(
        self, name: str, vectors: NDArray[np.float32], folds: Sequence[Fold]
    ) -> NDArray[np.uint8] | None:
        """Show matched pairs taken for two people, least similar first, and mismatched ones taken for one.

        Args:
            name: Of the row.
            vectors: float32 (N, E), unit length.
            folds: Two or more; the threshold of each is the best of the others.

        Returns:
            uint8 (H, W, 3), or None where every decision is right.
        """
        scores = [pair_similarity(vectors, fold) for fold in folds]
        thresholds = fold_thresholds(scores, [fold.same for fold in folds])
        decisions = [
            (float(score), int(first), int(second), bool(same), bool(score >= threshold))
            for fold, each, threshold in zip(folds, scores, thresholds, strict=True)
            for score, first, second, same in zip(each, fold.first, fold.second, fold.same, strict=True)
        ]
        missed = sorted(each for each in decisions if each[3] and not each[4])
        mistaken = sorted((each for each in decisions if each[4] and not each[3]), reverse=True)
        if not missed and not mistaken:
            return None
        blocks = [
            ("Missed: one person", f"by {name}", missed),
            ("Mistaken: two people", f"by {name}", mistaken),
        ]
        return _side_by_side(
            [
                contact_sheet([self._pair(each) for each in part], title=more if start else title, side=_SIDE)
                for title, more, wrong in blocks
                for start, part in _columns(wrong)
            ]
        )

    def queries(self, name: str, queries: Sequence[Query]) -> NDArray[np.uint8] | None:
        """Show queries whose first hit is of somebody else, most similar first: query, hit, best right image.

        It is uint8 (H, W, 3), or None where every first hit is right.
        """
        wrong = [query for query in queries if query.hits and not query.found_in_first(1)]
        wrong.sort(key=lambda query: -query.hits[0].score)
        if not wrong:
            return None
        title, more = f"{name}: wrong first hits", "and the best right ones"
        return _side_by_side(
            [
                contact_sheet(
                    [self._query(each) for each in part], title=more if start else title, side=_SIDE
                )
                for start, part in _columns(wrong)
            ]
        )

    def _pair(self, decision: tuple[float, int, int, bool, bool]) -> list[Tile]:
        score, *indices, _, _ = decision
        return [
            Tile(
                pixels=self._read(self._images.files[index]),
                caption=_name(self._images.people[index], self._images.paths[index]),
                subcaption=text,
            )
            for index, text in zip(indices, (f"cosine {score:.3f}", ""), strict=True)
        ]

    def _query(self, query: Query) -> list[Tile]:
        hit = query.hits[0]
        shown = (
            (query.record.payload, "query", True),
            (hit.payload, f"first, {hit.score:.3f}", False),
            (query.match.payload, f"rank {query.best:,}, {query.match_score:.3f}", False),
        )
        return [
            Tile(
                pixels=self._read(self._files.get(str(payload.get("path")))),
                caption=_name(payload.get("person"), str(payload.get("path"))),
                subcaption=text,
                accent=accent,
            )
            for payload, text, accent in shown
        ]

    def _read(self, file: Path | None) -> NDArray[np.uint8] | None:
        """Return uint8 (side, side, 3), or None when the file is gone or cannot be read."""
        if file is None:
            return None
        try:
            return read_pixels(file.read_bytes(), ImageSpec(size=_SIDE, crop=self._crop), name=str(file))
        except (ImageError, OSError, ValueError):  # ValueError: a null byte in the path
            return None


def _name(person: str | None, path: str) -> str:
    return (person or Path(path).stem).replace("_", " ")


def _columns(wrong: Sequence[Wrong]) -> list[tuple[int, Sequence[Wrong]]]:
    return [(start, wrong[start : start + _DOWN]) for start in range(0, min(len(wrong), 2 * _DOWN), _DOWN)]


def _side_by_side(sheets: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Lay sheets side by side on white, uint8 (H, W, 3)."""
    height = max(len(sheet) for sheet in sheets)
    return np.concatenate(
        [np.pad(sheet, ((0, height - len(sheet)), (0, 0), (0, 0)), constant_values=255) for sheet in sheets],
        axis=1,
    )
