"""The rows of the README's table of faces: models, and baselines on the same images.

Legend: N images.
"""

from __future__ import annotations

from collections.abc import Sequence

from lookalike.deploy.evaluation import EvaluationTable, LabeledImages, embed_images
from lookalike.deploy.evaluation.vectors import Progress, no_progress
from lookalike.encoder.images import LFW_CROP, Crop
from lookalike.encoder.runtime import Model
from tests.benchmarks.baselines import BASELINES, Baseline, GrayImages, training_images


def build_table(
    images: LabeledImages,
    held_out: frozenset[str],
    *,
    models: Sequence[Model] = (),
    baselines: Sequence[Baseline] = BASELINES,
    crop: Crop | None = None,
    progress: Progress = no_progress,
) -> EvaluationTable:
    """Get the vectors of models, then of baselines.

    Args:
        images: N images.
        held_out: People to whom no baseline may be fitted.
        models: These embed the images.
        baselines: These are fitted and computed, or read from the cache.
        crop: How the images are framed; None: for a model as it was trained, for baselines as the data are
            known to be framed, else as the first model has it.
        progress: Shows the progress.
    """
    rows = [embed_images(model, images, crop=crop, progress=progress) for model in models]
    framing = crop or images.crop or next((model.bundle.spec.image.crop for model in models), LFW_CROP)
    gray = GrayImages(images, crop=framing, progress=progress)
    training = training_images(images, held_out)
    rows += [baseline.vectors(gray, training) for baseline in baselines]
    return EvaluationTable.from_rows(rows, len(images))
