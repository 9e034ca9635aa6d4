"""Images with known people or attributes, encoded by a model: what calibrations and attributes are fitted to.

Legend: N images, D latent size, E embedding size, H, W, C of an image.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lookalike.deploy.evaluation.data import LabeledImages, open_labeled
from lookalike.encoder.bundle import reconstruction_errors
from lookalike.encoder.datasets import find_lfw, person_from_folder, read_scores, validation_people
from lookalike.encoder.detect import QUERY_THRESHOLD, Faces, face_finder, labeled_face, read_faces
from lookalike.encoder.errors import DataError, ImageError, InvalidArgumentError, printable
from lookalike.encoder.files import read_bounded
from lookalike.encoder.images import Crop, find_images
from lookalike.encoder.runtime import Model
from lookalike.indexer.sources import read_payload
from lookalike.searcher.generation import read_all
from lookalike.trainer.fitting import Examples

_Pixels: TypeAlias = tuple[list[Path], NDArray[np.uint8], list[str]]
"""Files that were read, their pixels uint8 (n, H, W, C), and a reason for each other file."""
_BATCH: Final = 64
_MAX_BYSTANDERS: Final = 4000
_TEST_SHARE: Final = 0.2


@dataclass(frozen=True, eq=False, slots=True)
class ScoredImages:
    """Images, and the scores of their attributes.

    Attributes:
        images: N images.
        scores: Attribute to float64 (N,): over 0 it is present, under 0 absent, NaN unknown.
        tested: bool (N,): images of test people, whom nothing is fitted to.
    """

    images: LabeledImages
    scores: dict[str, NDArray[np.float64]]
    tested: NDArray[np.bool_]

    def only(self, names: tuple[str, ...]) -> ScoredImages:
        """Return it with these attributes alone.

        Raises:
            InvalidArgumentError: one does not exist.
        """
        missing = [name for name in names if name not in self.scores]
        if missing:
            raise InvalidArgumentError(
                f"no attribute '{printable(missing[0])}'; there are {', '.join(sorted(self.scores))}"
            )
        return replace(self, scores={name: self.scores[name] for name in names}) if names else self


def read_scored_images(source: str, table: Path | None) -> ScoredImages:
    """Return the images of ``lfw`` or a folder with the scores of a table.

    Test people are those of LFW that no shipped model saw; of a folder, one in five by name.

    Args:
        source: ``lfw`` or a folder.
        table: In the form of ``lfw_attributes.txt``, or CSV or JSON lines with a column ``path`` and numbers;
            None: the file of that name beside LFW.

    Raises:
        DataError: a file is missing or malformed, or names none of the images.
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
    numbers = [
        {name: value for name, value in rows.get(path, {}).items() if _is_number(value)}
        for path in images.paths
    ]
    names = sorted({name for row in numbers for name in row})
    if not names:
        raise DataError(
            f"a table must score images of {images.name} by their path, {printable(str(table))} has no "
            "number for any of them; name the images with --data"
        )
    scores = {name: np.array([row.get(name, np.nan) for row in numbers], np.float64) for name in names}
    if images.lfw is not None:
        held_out = images.lfw.held_out_people()
        return ScoredImages(images, scores, np.array([person in held_out for person in images.people]))
    return ScoredImages(images, scores, _test_rows(images))


def scored_folders(name: str, positive: Path, negative: Path) -> ScoredImages:
    """Return the images of two folders: with an attribute, and without it. One person in five is tested.

    Raises:
        DataError: a folder is missing or holds no image.
    """
    present, absent = open_labeled(str(positive)), open_labeled(str(negative))
    images = LabeledImages(
        name,
        (*present.files, *absent.files),
        (*(f"with/{path}" for path in present.paths), *(f"without/{path}" for path in absent.paths)),
        (*present.people, *absent.people),
    )
    scores = np.r_[np.ones(len(present)), -np.ones(len(absent))]
    return ScoredImages(images, {name: scores}, _test_rows(images))


def encode_examples(
    model: Model,
    scored: ScoredImages,
    *,
    crop: Crop | None = None,
    on_progress: Callable[[int], object] = lambda _: None,
    on_pixels: Callable[[NDArray[np.uint8]], object] = lambda _: None,
) -> tuple[Examples, list[str]]:
    """Read and encode the images; return the examples, and why other images cannot be read.

    Args:
        model: The model.
        scored: The images.
        crop: How they are framed, if otherwise.
        on_progress: Called with how many more are done.
        on_pixels: Called with the pixels of those that were read, uint8 (n, H, W, C), in their order.

    Raises:
        DataError: no image could be read.
    """
    latents: list[NDArray[np.float32]] = []
    colors: list[NDArray[np.float64]] = []
    rows: list[int] = []
    failures: list[str] = []
    for good, pixels, failed, count in _read_batches(
        scored.images.files, partial(read_all, model, crop=crop)
    ):
        rows += good
        failures += failed
        latents.append(model.mean_latents(pixels))
        colors.append(pixels.mean(axis=(1, 2)))
        on_pixels(pixels)
        on_progress(count)
    if not rows:
        total = len(scored.images)
        raise DataError(f"attributes need images, none of {total} could be read ({failures[:1]})")
    stacked = np.concatenate(latents)
    people = _people(scored.images)
    return Examples(
        stacked,
        model.bundle.affine(stacked),
        {name: scores[rows] for name, scores in scored.scores.items()},
        [people[row] for row in rows],
        scored.tested[rows],
        np.concatenate(colors),
    ), failures


@dataclass(frozen=True, slots=True)
class MeasuredPeople:
    """Images of people as a model sees them.

    Attributes:
        embeddings: float32 (N, E), unit length.
        people: N names.
        errors: float64 (N, 2), see :func:`picture_errors`; None for a model without a decoder.
        off_axis: float64 (N,), see :meth:`Model.off_axis`; None for a model without a decoder.
        failures: A one-line reason for each image that could not be read.
    """

    embeddings: NDArray[np.float32]
    people: list[str]
    errors: NDArray[np.float64] | None
    off_axis: NDArray[np.float64] | None
    failures: list[str]


def find_people(source: str, model: Model) -> list[tuple[Path, str]]:
    """Return images and the person in each, of a folder of person folders or of ``lfw``.

    Of LFW, people of View 1's test split who are in no pair of View 2's folds 1 to 5: our figures are
    reported on those, and nothing is ever fitted to them. A model that was trained on LFW's names separates
    most of these people better than others, so the calibration would be overconfident: for it they are the
    people whom its training left out to choose the best weights.

    Raises:
        DataError: the folder does not exist or holds no person.
        InvalidArgumentError: LFW, the model was trained on its names, and it is not known who was left out.
    """
    if source == "lfw":
        lfw = find_lfw(progress=True)
        held_out, spec = lfw.held_out_people(), model.bundle.spec
        knows_names = spec.labels == "person" and spec.training.get("data") == "lfw"
        if knows_names:
            people = validation_people({lfw.person_of(path) for path in lfw.images()} - held_out)
        else:
            pairs = [path for pair in lfw.view1("test") for path in (pair.first, pair.second)]
            people = frozenset(lfw.person_of(path) for path in pairs) - held_out
        named = [(path, lfw.person_of(path)) for path in lfw.images() if lfw.person_of(path) in people]
        if knows_names:
            _require_left_out(model, named)
        return named
    root = Path(source)
    if not root.is_dir():
        raise DataError(
            f"calibration needs lfw or a folder of person folders, {printable(source)} is neither"
        )
    files = [root / path for path in find_images(root)]
    named = [(file, person) for file in files if (person := person_from_folder(file, root)) is not None]
    if not named:
        raise DataError(
            f"calibration needs images in folders named by person, {printable(source)} has none; "
            "put each person's in a folder of their own"
        )
    return named


def find_bystanders(named: Sequence[tuple[Path, str]]) -> list[tuple[Path, str]]:
    """Return at most 4,000 images of LFW's other people, and their names: no figure is reported on them.

    They fill the galleries that the others are searched for in, so the model may have seen them.

    Args:
        named: What :func:`find_people` returned for ``lfw``.
    """
    lfw = find_lfw(progress=True)
    left_out = lfw.held_out_people() | {person for _, person in named}
    others = [path for path in lfw.images() if lfw.person_of(path) not in left_out]
    chosen = np.random.default_rng(0).permutation(len(others))[:_MAX_BYSTANDERS]
    return [(others[place], lfw.person_of(others[place])) for place in sorted(chosen.tolist())]


def _require_left_out(model: Model, named: Sequence[tuple[Path, str]]) -> None:
    counts = model.bundle.spec.training.get("images")
    if not isinstance(counts, dict) or counts.get("validation") != len(named):
        raise InvalidArgumentError(
            f"model {printable(model.bundle.name)} was trained on the names of LFW's people and does not "
            "say whom of them its training left out, a calibration on the others would be overconfident; "
            "name a folder of people it has never seen"
        )


def measure_people(
    model: Model,
    named: Sequence[tuple[Path, str]],
    *,
    crop: Crop | None = None,
    faces: Literal["centered", "prominent"] | None = None,
    reconstruct: bool = True,
    on_progress: Callable[[int], object] = lambda _: None,
) -> MeasuredPeople:
    """Read and embed images and, where the model has a decoder, reconstruct them. Unreadable ones fail alone.

    Args:
        model: The model.
        named: Files and the person in each.
        crop: How they are framed; None: as the model was trained.
        faces: Find the faces, and take of each image the one nearest to the middle or the most prominent
            one, upright; images without a face fail. None: images are taken as they are.
        reconstruct: Whether errors of reconstruction are wanted; where only embeddings are, it is quicker.
        on_progress: Called with how many more are done.

    Raises:
        DataError: no image could be read.
        MissingExtraError: Faces are to be found, and the extra ``faces`` is not installed.
        InvalidArgumentError: They are, and the model does not say where it has them.
    """
    read: Callable[[Sequence[Path]], _Pixels]
    if faces is None:
        read = partial(read_all, model, crop=crop)
    else:
        _ = model.bundle.face_frame, face_finder()  # raise before anything is read
        read = partial(_read_labeled_faces, model, centered=faces == "centered")
    embeddings: list[NDArray[np.float32]] = []
    errors: list[NDArray[np.float64]] = []
    off_axis: list[NDArray[np.float64]] = []
    people: list[str] = []
    failures: list[str] = []
    for rows, pixels, failed, count in _read_batches([file for file, _ in named], read):
        people += [named[row][1] for row in rows]
        failures += failed
        embeddings.append(model.embed(pixels))
        if reconstruct and model.has_decoder:
            latents = model.encode(pixels)
            errors.append(reconstruction_errors(pixels, model.decode(latents)))
            off_axis.append(model.off_axis(latents))
        on_progress(count)
    if not people:
        raise DataError(f"calibration needs images, none of {len(named)} could be read ({failures[:1]})")
    return MeasuredPeople(
        np.concatenate(embeddings),
        people,
        np.concatenate(errors) if errors else None,
        np.concatenate(off_axis) if off_axis else None,
        failures,
    )


def _read_batches(
    files: Sequence[Path], read: Callable[[Sequence[Path]], _Pixels]
) -> Iterator[tuple[list[int], NDArray[np.uint8], list[str], int]]:
    """Yield of each batch: rows of the files that were read, pixels, reasons for the others, files in all."""
    batches = [range(start, min(start + _BATCH, len(files))) for start in range(0, len(files), _BATCH)]
    with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decode") as pool:
        results = pool.map(lambda batch: read([files[row] for row in batch]), batches)
        for batch, (good, pixels, failed) in zip(batches, results, strict=True):
            row_of = {files[row]: row for row in batch}
            yield [row_of[file] for file in good], pixels, failed, len(batch)


def _read_labeled_faces(model: Model, files: Sequence[Path], *, centered: bool) -> _Pixels:
    """Return the same as :func:`read_all`, of the face that each image is named after."""
    spec, frame = model.bundle.spec.image, model.bundle.face_frame
    good: list[Path] = []
    pixels: list[NDArray[np.uint8]] = []
    failed: list[str] = []
    for file in files:
        try:
            data = read_bounded(file, pipe=True)
            faces, cut = read_faces(data, spec, frame, Faces(QUERY_THRESHOLD), name=str(file))
        except ImageError as error:
            failed.append(str(error))
        except OSError as error:
            failed.append(f"{printable(str(file))}: cannot be read ({error.strerror})")
        else:
            place = labeled_face(faces, centered=centered)
            if place is None:
                failed.append(f"{printable(str(file))}: no face was found")
            else:
                good.append(file)
                pixels.append(cut[place])
    return good, np.array(pixels, np.uint8).reshape(-1, *spec.shape), failed


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _people(images: LabeledImages) -> list[str]:
    """Return the person in each image; an image of nobody counts as a person of its own."""
    return [person or f"/{path}" for person, path in zip(images.people, images.paths, strict=True)]


def _test_rows(images: LabeledImages) -> NDArray[np.bool_]:
    """Return the images of one person in five, bool (N,), chosen by name and so the same on every machine."""
    digests = [
        hashlib.sha256(f"tested {person}".encode(errors="surrogateescape")).digest()
        for person in _people(images)
    ]
    return np.array([int.from_bytes(digest[:8]) / 2**64 < _TEST_SHARE for digest in digests], np.bool_)
