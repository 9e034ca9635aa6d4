"""Everything that is measured on one set of pictures: the rows of a table.

Legend: N images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lookalike.deploy.evaluation.baselines import Baseline, training_images
from lookalike.deploy.evaluation.data import LabeledImages
from lookalike.deploy.evaluation.parquet import read_parquet_vectors
from lookalike.deploy.evaluation.squares import GrayImages
from lookalike.deploy.evaluation.vectors import (
    ImageVectors,
    Progress,
    embed_images,
    no_progress,
    stored_vectors,
)
from lookalike.encoder.errors import DataError, MissingExtraError
from lookalike.encoder.images.preprocess import LFW_CROP, Crop
from lookalike.encoder.runtime.model import Model
from lookalike.indexer.store.base import VectorStore

__all__ = ["EvaluationTable", "build_table"]


@dataclass(frozen=True, eq=False, slots=True)
class EvaluationTable:
    """The rows, in the order of the table.

    Attributes:
        rows: Models, collections and files as they were named, then the baselines.
        usable: Which images every model and baseline could read, bool (N,); only these are compared.
        failures: Why the others could not be, a line each.
        lacking: What was asked for and is left out, for a part that is not installed, a line each.
        remarks: Why there are no baselines, where there are none.
    """

    rows: tuple[ImageVectors, ...]
    usable: NDArray[np.bool_]
    failures: tuple[str, ...]
    lacking: tuple[str, ...]
    remarks: tuple[str, ...]

    def require(self, needed: NDArray[np.bool_], images: LabeledImages) -> None:
        """Do nothing when every row has a vector for each image that is needed, bool (N,), and usable.

        Raises:
            DataError: one has not.
        """
        for row in self.rows:
            row.require(needed & self.usable, images)


def build_table(
    images: LabeledImages,
    held: frozenset[str],
    *,
    models: Sequence[Model] = (),
    collections: Sequence[tuple[VectorStore, str]] = (),
    files: Sequence[Path] = (),
    baselines: Sequence[Baseline] = (),
    crop: Crop | None = None,
    steps: Progress = no_progress,
) -> EvaluationTable:
    """Get the vectors of everything that is named.

    Args:
        images: The pictures.
        held: People whose pictures no baseline may be fitted to.
        models: These embed the pictures.
        collections: Their vectors are taken as they are stored.
        files: Parquet files of vectors.
        baselines: These are fitted and computed, or read from the cache.
        crop: How the pictures are framed; None: for a model as it was trained, for baselines as the data are
            known to be framed, else as the first model has it.
        steps: Told of the progress.

    Raises:
        LookalikeError: as what it calls does; what an optional part would be needed for is left out instead.
    """
    rows = [embed_images(model, images, crop=crop, steps=steps) for model in models]
    rows += [stored_vectors(store, name, images) for store, name in collections]
    lacking: list[str] = []
    for file in files:
        try:
            rows.append(read_parquet_vectors(file, images))
        except MissingExtraError as error:
            lacking.append(str(error))
    framing = crop or images.crop or next((model.bundle.spec.image.crop for model in models), LFW_CROP)
    remarks: list[str] = []
    try:
        rows += _baselines(baselines, images, held, framing, steps)
    except (MissingExtraError, DataError) as error:
        remarks.append(f"baselines left out: {error}")
    usable = np.ones(len(images), np.bool_)
    for row in rows:
        if row.kind in ("model", "baseline"):
            usable &= row.there
    failures = dict.fromkeys(failure for row in rows for failure in row.failures)
    return EvaluationTable(
        tuple(replace(row, there=row.there & usable) for row in rows),
        usable,
        tuple(failures),
        tuple(lacking),
        tuple(remarks),
    )


def _baselines(
    baselines: Sequence[Baseline], images: LabeledImages, held: frozenset[str], crop: Crop, steps: Progress
) -> list[ImageVectors]:
    squares = GrayImages(images, crop=crop, steps=steps)
    training = training_images(images, held)
    return [baseline.vectors(squares, training) for baseline in baselines]
