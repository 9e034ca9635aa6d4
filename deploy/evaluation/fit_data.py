"""Pictures that are known to have an attribute or not, measured by a model: what attributes are fitted to.

Legend: N images, D latent size, E embedding size.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lookalike.deploy.evaluation.data import LabeledImages, open_labeled
from lookalike.encoder.datasets.lfw import read_scores
from lookalike.encoder.errors import DataError, InvalidArgumentError
from lookalike.encoder.images.preprocess import Crop
from lookalike.encoder.runtime.model import Model
from lookalike.encoder.text import printable
from lookalike.indexer.sources.payload_tables import read_payload
from lookalike.searcher.generation.sample import read_all
from lookalike.trainer.fitting.attributes import Examples

__all__ = ["ScoredImages", "encode_examples", "read_scored_images", "scored_folders"]

_TOGETHER: Final = 64
_LEFT_OUT: Final = 0.2


@dataclass(frozen=True, eq=False, slots=True)
class ScoredImages:
    """Pictures, and what is known of each.

    Attributes:
        images: N pictures.
        scores: Attribute to float64 (N,): over 0 it is there, under 0 it is not, NaN unknown.
        tested: bool (N,): of people nothing is fitted to.
    """

    images: LabeledImages
    scores: dict[str, NDArray[np.float64]]
    tested: NDArray[np.bool_]

    def only(self, names: tuple[str, ...]) -> ScoredImages:
        """Return it with these attributes alone.

        Raises:
            InvalidArgumentError: one is not there.
        """
        missing = [name for name in names if name not in self.scores]
        if missing:
            raise InvalidArgumentError(
                f"no attribute '{printable(missing[0])}' there, but {', '.join(sorted(self.scores))}"
            )
        return replace(self, scores={name: self.scores[name] for name in names}) if names else self


def read_scored_images(source: str, table: Path | None) -> ScoredImages:
    """Return the pictures of ``lfw`` or a folder with what a table says of them.

    People left out of the fit are those of LFW that no shipped model saw, of a folder one in five by name.

    Args:
        source: ``lfw`` or a folder.
        table: In the form of ``lfw_attributes.txt``, or CSV or JSON lines with a column ``path`` and numbers;
            None: the file of that name beside LFW.

    Raises:
        DataError: a file is missing or malformed, or names none of the pictures.
        InvalidArgumentError: no table, and the source is not LFW.
    """
    images = open_labeled(source, progress=True)
    rows: Mapping[str, Mapping[str, Any]]
    if table is None:
        if images.lfw is None:
            raise InvalidArgumentError(
                "attributes are fitted to --table, or to --positive and --negative; name them"
            )
        rows = images.lfw.attributes()
    elif table.suffix.lower() in {".csv", ".jsonl", ".ndjson"}:
        rows = read_payload(table)
    else:
        rows = read_scores(table)
    found = [rows.get(path, {}) for path in images.paths]
    numbers = [{name: value for name, value in row.items() if _is_score(value)} for row in found]
    names = sorted({name for row in numbers for name in row})
    if not names:
        raise DataError(
            f"a table must score pictures of {images.name} by their path, {printable(str(table))} has no number "
            "of any of them; name the pictures with --data"
        )
    scores = {name: np.array([row.get(name, np.nan) for row in numbers], np.float64) for name in names}
    if images.lfw is not None:
        held = images.lfw.held_out_people()
        return ScoredImages(images, scores, np.array([person in held for person in images.people]))
    return ScoredImages(images, scores, _left_out(images))


def scored_folders(name: str, positive: Path, negative: Path) -> ScoredImages:
    """Return the pictures of two folders: with an attribute, and without it. One in five is left out.

    Raises:
        DataError: a folder is missing or holds no picture.
    """
    has, lacks = open_labeled(str(positive)), open_labeled(str(negative))
    images = LabeledImages(
        name,
        (*has.files, *lacks.files),
        (*(f"with/{path}" for path in has.paths), *(f"without/{path}" for path in lacks.paths)),
        (*has.people, *lacks.people),
    )
    scores = np.r_[np.ones(len(has)), -np.ones(len(lacks))]
    return ScoredImages(images, {name: scores}, _left_out(images))


def encode_examples(
    model: Model,
    scored: ScoredImages,
    *,
    crop: Crop | None = None,
    on_progress: Callable[[int], object] = lambda _: None,
    on_pixels: Callable[[NDArray[np.uint8]], object] = lambda _: None,
) -> tuple[Examples, list[str]]:
    """Read and encode the pictures; return what attributes are fitted to, and why others cannot be read.

    Args:
        model: What encodes.
        scored: The pictures.
        crop: How they are framed, if otherwise.
        on_progress: Told how many more are done.
        on_pixels: Given the pixels of those that were read, uint8 (n, H, W, C), in the order of the examples.

    Raises:
        DataError: no picture could be read.
    """
    files = scored.images.files
    parts = [range(start, min(start + _TOGETHER, len(files))) for start in range(0, len(files), _TOGETHER)]
    latents: list[NDArray[np.float32]] = []
    colours: list[NDArray[np.float64]] = []
    rows: list[int] = []
    failures: list[str] = []
    with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decode") as pool:
        read = pool.map(lambda part: read_all(model, [files[row] for row in part], crop=crop), parts)
        for part, (good, pixels, failed) in zip(parts, read, strict=True):
            place = {files[row]: row for row in part}
            rows += [place[file] for file in good]
            failures += failed
            latents.append(model.mean_latents(pixels))
            colours.append(pixels.mean(axis=(1, 2)))
            on_pixels(pixels)
            on_progress(len(part))
    if not rows:
        raise DataError(f"attributes need pictures, none of {len(files)} could be read ({failures[:1]})")
    made = np.concatenate(latents)
    people = _people(scored.images)
    return Examples(
        made,
        model.bundle.affine(made),
        {name: scores[rows] for name, scores in scored.scores.items()},
        [people[row] for row in rows],
        scored.tested[rows],
        np.concatenate(colours),
    ), failures


def _is_score(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _people(images: LabeledImages) -> list[str]:
    """Return whose each picture is; one of nobody stands for itself."""
    return [person or f"/{path}" for person, path in zip(images.people, images.paths, strict=True)]


def _left_out(images: LabeledImages) -> NDArray[np.bool_]:
    """Return one in five by the name, bool (N,), the same on every machine."""
    digests = [
        hashlib.sha256(f"tested {person}".encode(errors="surrogateescape")).digest()
        for person in _people(images)
    ]
    return np.array([int.from_bytes(digest[:8]) / 2**64 < _LEFT_OUT for digest in digests], np.bool_)
