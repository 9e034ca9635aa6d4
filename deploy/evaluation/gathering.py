"""Pictures of people who are named by their folders, measured by a model: what a calibration is fitted to.

Legend: N images, E embedding size.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.datasets.lfw import find_lfw, person_from_folder
from lookalike.encoder.errors import DataError, InvalidArgumentError
from lookalike.encoder.images.discover import find_images
from lookalike.encoder.images.preprocess import Crop
from lookalike.encoder.runtime.model import Model
from lookalike.encoder.text import printable
from lookalike.searcher.generation.sample import read_all

__all__ = ["MeasuredPeople", "find_people", "measure_people"]

_TOGETHER: Final = 64


@dataclass(frozen=True, slots=True)
class MeasuredPeople:
    """What a model makes of pictures.

    Attributes:
        embeddings: float32 (N, E), unit length.
        people: N names.
        errors: float64 (N, 2), see :func:`picture_errors`; None where a model does not draw.
        failures: A one-line reason for each picture that could not be read.
    """

    embeddings: NDArray[np.float32]
    people: list[str]
    errors: NDArray[np.float64] | None
    failures: list[str]


def find_people(source: str, model: Model) -> list[tuple[Path, str]]:
    """Return pictures and who is on them, of a folder of person folders or of ``lfw``.

    Of LFW, people of View 1's test split who are in no pair of View 2's folds 1 to 5: on those our figures
    are reported, and nothing is ever fitted to them. A model that learned LFW's names is refused: it knows
    these people better than it will ever know others, so what is fitted to them would be too sure.

    Raises:
        DataError: nothing is there.
        InvalidArgumentError: LFW, and the model has learned its names.
    """
    if source == "lfw":
        spec = model.bundle.spec
        if spec.labels == "person" and spec.training.get("data") == "lfw":
            raise InvalidArgumentError(
                f"model {printable(model.bundle.name)} has learned the names of LFW's people, what is fitted to "
                "them would be too sure; name a folder of people it has never seen"
            )
        lfw = find_lfw(progress=True)
        pairs = [path for pair in lfw.view1("test") for path in (pair.first, pair.second)]
        people = {lfw.person_of(path) for path in pairs} - lfw.held_out_people()
        return [(path, lfw.person_of(path)) for path in lfw.images() if lfw.person_of(path) in people]
    root = Path(source)
    if not root.is_dir():
        raise DataError(
            f"calibration needs lfw or a folder of person folders, {printable(source)} is neither"
        )
    files = [root / path for path in find_images(root)]
    named = [(file, person) for file in files if (person := person_from_folder(file, root)) is not None]
    if not named:
        raise DataError(
            f"calibration needs pictures in folders named by person, {printable(source)} has none; "
            "put each person's in a folder of their own"
        )
    return named


def measure_people(
    model: Model,
    named: Sequence[tuple[Path, str]],
    *,
    crop: Crop | None = None,
    on_progress: Callable[[int], object] = lambda _: None,
) -> MeasuredPeople:
    """Read, embed and, where the model draws, draw pictures again. One that cannot be read fails alone.

    Args:
        model: The model.
        named: Files and who is on them.
        crop: How they are framed; None: as the model was trained.
        on_progress: Told of each batch: pictures done.

    Raises:
        DataError: no picture could be read.
    """
    embeddings: list[NDArray[np.float32]] = []
    errors: list[NDArray[np.float64]] = []
    people: list[str] = []
    failures: list[str] = []
    batches = [named[start : start + _TOGETHER] for start in range(0, len(named), _TOGETHER)]
    with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decode") as pool:
        read = pool.map(lambda batch: read_all(model, [file for file, _ in batch], crop=crop), batches)
        for batch, (good, pixels, failed) in zip(batches, read, strict=True):
            who = dict(batch)
            people += [who[file] for file in good]
            failures += failed
            embeddings.append(model.embed(pixels))
            if model.has_decoder:
                errors.append(model.reconstruction_errors(pixels))
            on_progress(len(batch))
    if not people:
        raise DataError(f"calibration needs pictures, none of {len(named)} could be read ({failures[:1]})")
    return MeasuredPeople(
        np.concatenate(embeddings), people, np.concatenate(errors) if errors else None, failures
    )
