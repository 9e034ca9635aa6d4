"""One vector for each labeled image: from a model, a collection, or a Parquet file.

Legend: N images, M given vectors, E embedding size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lookalike.deploy.evaluation.data import LabeledImages, item_path
from lookalike.deploy.evaluation.labeled_faces import rows_of_labeled_faces
from lookalike.encoder.detect import QUERY_THRESHOLD, Faces, face_finder
from lookalike.encoder.embed import embed_files
from lookalike.encoder.errors import DataError, MissingExtraError, VectorError, printable
from lookalike.encoder.images import Crop
from lookalike.encoder.runtime import Model
from lookalike.indexer.store import VectorStore
from lookalike.indexer.sync import DEGENERATE

Kind = Literal["model", "collection", "vectors", "baseline"]
Progress = Callable[[str, int], AbstractContextManager[Callable[[int], object]]]
"""Called with the name of a task and its number of steps; gives a callback for steps that are done."""


def no_progress(_task: str, _total: int) -> AbstractContextManager[Callable[[int], object]]:
    """Show no progress."""
    advance: Callable[[int], object] = lambda _: None  # noqa: E731  # typed where it is made
    return nullcontext(advance)


@dataclass(frozen=True, eq=False, slots=True)
class ImageVectors:
    """One vector for each of N images: a row of the table.

    Attributes:
        name: Of the row.
        rows: float32 (N, E), unit length; zero where there is none.
        present: Which images have one, bool (N,).
        failures: Why an image has none, a line each, where the image was at fault.
        kind: Where the vectors come from.
        without_face: How many images were framed as they are, as no face was found in them; None: none was
            looked for.
    """

    name: str
    rows: NDArray[np.float32]
    present: NDArray[np.bool_]
    failures: tuple[str, ...] = ()
    kind: Kind = "model"
    without_face: int | None = None

    def require(self, needed: NDArray[np.bool_], images: LabeledImages) -> None:
        """Check that every image of ``needed``, bool (N,), has a vector.

        Raises:
            DataError: one has none.
        """
        missing = np.flatnonzero(needed & ~self.present)
        if missing.size:
            raise DataError(
                f"{self.name} must have a vector for each of the {int(needed.sum())} images of "
                f"{images.name} that are compared, {missing.size} have none, the first is "
                f"{printable(images.paths[missing[0]])}; add them or name the data with --data"
            )


@dataclass(frozen=True, eq=False, slots=True)
class EvaluationTable:
    """The rows that are evaluated on the same images, in the order of the table.

    Attributes:
        rows: Their vectors.
        usable: Which images every model could read, bool (N,); only these are compared.
        failures: Why the others could not be read, a line each.
    """

    rows: tuple[ImageVectors, ...]
    usable: NDArray[np.bool_]
    failures: tuple[str, ...]

    @classmethod
    def from_rows(cls, rows: Sequence[ImageVectors], count: int) -> EvaluationTable:
        """Return the table of these rows of N images."""
        usable = np.ones(count, np.bool_)
        for row in rows:
            if row.kind in ("model", "baseline"):
                usable &= row.present
        failures = dict.fromkeys(failure for row in rows for failure in row.failures)
        return cls(tuple(replace(row, present=row.present & usable) for row in rows), usable, tuple(failures))

    def require(self, needed: NDArray[np.bool_], images: LabeledImages) -> None:
        """Check that every row has a vector for each usable image that is needed, bool (N,).

        Raises:
            DataError: one has not.
        """
        for row in self.rows:
            row.require(needed & self.usable, images)


def embed_images(
    model: Model,
    images: LabeledImages,
    *,
    crop: Crop | None = None,
    faces: bool = False,
    progress: Progress = no_progress,
) -> ImageVectors:
    """Embed images as the indexer would. One that cannot be read gets no vector and is named.

    Args:
        model: The model.
        images: The images.
        crop: How they are framed; None: as the model was trained.
        faces: The face that an image is named after is found and turned upright; see
            :func:`~lookalike.deploy.evaluation.labeled_faces.labeled_face`. An image without a face is framed
            as if this were not set.
        progress: Shows the progress.

    Raises:
        MissingExtraError: Faces are to be found, and the extra ``faces`` is not installed.
        InvalidArgumentError: They are, and the model does not say where it has them.
    """
    if faces:
        _ = model.bundle.face_frame, face_finder()  # raise before anything is read
    rows = np.zeros((len(images), model.bundle.spec.embedding), np.float32)
    failures: list[str] = []
    without: list[int] = []
    with progress(model.bundle.name, len(images)) as advance:

        def keep(keys: list[int], embeddings: NDArray[np.float32], failed: list[tuple[int, str]]) -> None:
            nonlocal failures
            finite = np.isfinite(embeddings).all(axis=1)
            rows[np.array(keys, np.int64)[finite]] = embeddings[finite]
            failures += [reason for _, reason in failed]
            advance(len(keys) + len(failed))
            empty: list[bool] = np.logical_not(rows[keys].any(axis=1)).tolist()
            failures += [
                f"{printable(str(images.files[key]))}: {DEGENERATE}"
                for key, is_empty in zip(keys, empty, strict=True)
                if is_empty
            ]

        if faces:
            for batch in embed_files(model, enumerate(images.files), crop=Faces(QUERY_THRESHOLD)):
                keys, embeddings, none = rows_of_labeled_faces(batch, centered=images.lfw is not None)
                without += none
                keep(keys, embeddings, batch.failures)
        left: Sequence[int] = without if faces else range(len(images))
        for batch in embed_files(model, ((key, images.files[key]) for key in left), crop=crop):
            keep(batch.keys, batch.embeddings, batch.failures)
    return ImageVectors(
        model.bundle.name,
        rows,
        np.asarray(rows.any(axis=1)),
        tuple(failures),
        without_face=len(without) if faces else None,
    )


def stored_vectors(store: VectorStore, name: str, images: LabeledImages) -> ImageVectors:
    """Return the vectors of a collection as they are stored, for the images that its paths name.

    Raises:
        CollectionNotFoundError: there is no such collection.
        DataError: two of its items are the same image.
    """
    spec = store.info(name)
    records = list(store.scroll(name, with_vectors=True))
    rows = [record.vector for record in records if record.vector is not None]
    vectors = np.stack(rows) if rows else np.zeros((0, spec.dimension), np.float32)
    paths = [item_path(record, spec) for record in records]
    return assign_vectors(name, paths, vectors, images, kind="collection")


def assign_vectors(
    name: str, paths: Sequence[str], vectors: NDArray[np.float32], images: LabeledImages, *, kind: Kind
) -> ImageVectors:
    """Give M vectors, float32 (M, E), to the images that their paths name; others are left out.

    Raises:
        VectorError: one is not finite, or zero.
        DataError: two are for one image, or none is for any.
    """
    index = match_paths(paths, images)
    named = np.flatnonzero(index >= 0)
    if not named.size:
        first = f", the first is '{printable(paths[0])}'" if paths else ""
        raise DataError(
            f"{name} must name images of {images.name} by their paths, as in '{printable(images.paths[0])}'; "
            f"none of its {len(paths)} do{first}"
        )
    (duplicate, times), *_ = Counter(index[named].tolist()).most_common(1)
    if times > 1:
        raise DataError(
            f"{name} must have one vector for an image, it has {times} for "
            f"{printable(images.paths[duplicate])}; leave all but one out"
        )
    rows = np.zeros((len(images), vectors.shape[1]), np.float32)
    rows[index[named]] = unit_length(vectors[named], name, [paths[place] for place in named.tolist()])
    present = np.zeros(len(images), np.bool_)
    present[index[named]] = True
    return ImageVectors(name, rows, present, kind=kind)


def match_paths(paths: Sequence[str], images: LabeledImages) -> NDArray[np.int64]:
    """Return for each of M paths the index of the image it names, int64 (M,), or -1.

    A path names the image of the same path below the data's root; else the only one whose path has the same
    last two parts (``Person/Person_0001.jpg``); else the only one of the same file name.
    """
    by_path = {path: index for index, path in enumerate(images.paths)}
    by_last_two, by_name = (_unique_index(map(key, images.paths)) for key in (_last_two, _last))
    found = []
    for path in (path.replace("\\", "/") if path not in by_path else path for path in paths):
        candidates = (by_path.get(path), by_last_two.get(_last_two(path)), by_name.get(_last(path)))
        found.append(next((index for index in candidates if index is not None), -1))
    return np.array(found, np.int64)


def unit_length(vectors: NDArray[np.float32], name: str, paths: Sequence[str]) -> NDArray[np.float32]:
    """Return float32 (M, E) scaled to unit length.

    Raises:
        VectorError: one is not finite, or zero.
    """
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1) | ~vectors.any(axis=1))
    if bad.size:
        raise VectorError(
            f"{name}: vectors must be finite and not zero, that of {printable(paths[int(bad[0])])} "
            f"({bad.size} in all) is not; leave these rows out"
        )
    exact = vectors.astype(np.float64)
    unit: NDArray[np.float32] = (exact / np.linalg.norm(exact, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _last_two(path: str) -> str:
    return "/".join(path.split("/")[-2:])


def _unique_index(names: Iterable[str]) -> dict[str, int]:
    """Return the index of each name that occurs once."""
    listed = list(names)
    counts = Counter(listed)
    return {name: index for index, name in enumerate(listed) if counts[name] == 1}


def read_parquet_vectors(file: Path, images: LabeledImages) -> ImageVectors:
    """Read the columns ``path`` (text) and ``vector`` (lists of numbers, equally long) of a Parquet file.

    Paths name images as :func:`match_paths` says. A column ``person``, where there is one, must agree with
    the
    data: that guards against paths that name the wrong images.

    Raises:
        MissingExtraError: pyarrow is not installed.
        DataError: the file or a column is missing or of another kind, a path is missing or occurs twice, or a
            person disagrees with the data.
        VectorError: a vector is missing, not finite, zero, or of another length than the others.
    """
    name = printable(file.name)
    table = _read_table(file, name)
    column: list[str | None] = table.column("path").to_pylist()
    if None in column:
        raise DataError(
            f"{name}: every row must have a path, row {column.index(None)} has none; leave it out"
        )
    paths = [path for path in column if path is not None]
    _check_people(table, paths, name, images)
    return assign_vectors(name, paths, _vector_column(table, paths, name), images, kind="vectors")


def _read_table(file: Path, name: str) -> Any:
    """Return the table, with its two columns checked."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError(
            f"{name}: reading Parquet needs pyarrow; pip install 'lookalike[parquet]'"
        ) from error
    try:
        table = pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{printable(str(file))} must be a readable Parquet file, but: {reason}") from error
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    text = (pa.types.is_string, pa.types.is_large_string)
    for column, checks, content in (("path", text, "text"), ("vector", lists, "lists of numbers")):
        if table.column_names.count(column) != 1:
            raise DataError(
                f"{name} must have one column {column} of {content}; it has: {', '.join(table.column_names)}"
            )
        kind = table.schema.field(column).type
        value = getattr(kind, "value_type", None)
        numeric = value is not None and (pa.types.is_floating(value) or pa.types.is_integer(value))
        if not any(check(kind) for check in checks) or not (numeric or column == "path"):
            raise DataError(f"{name}: the column {column} must hold {content}, not {kind}; write it so")
    if not table.num_rows:
        raise DataError(f"{name} must hold a row for each image, it has none")
    return table


def _vector_column(table: Any, paths: list[str], name: str) -> NDArray[np.float32]:
    """Return float32 (M, E) of a column of lists.

    Raises:
        VectorError: one is missing, or is of another length than the first.
    """
    import pyarrow.compute as pc

    column = table.column("vector").combine_chunks()
    lengths = pc.list_value_length(column).fill_null(-1).to_numpy(zero_copy_only=False)
    size = int(lengths[0])
    wrong = np.flatnonzero((lengths != size) | (lengths < 1))
    if wrong.size:
        row = int(wrong[0])
        length = "none" if lengths[row] < 1 else f"{lengths[row]}"
        raise VectorError(
            f"{name}: vectors must all have as many numbers, the first has {max(size, 0)} and that of "
            f"{printable(paths[row])} has {length}; leave these rows out"
        )
    flat = column.flatten().to_numpy(zero_copy_only=False)  # a missing number becomes NaN
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
        values: NDArray[np.float32] = flat.astype(np.float32).reshape(len(lengths), size)
    return values


def _check_people(table: Any, paths: list[str], name: str, images: LabeledImages) -> None:
    if "person" not in table.column_names:
        return
    people = table.column("person").to_pylist()
    for path, index, person in zip(paths, match_paths(paths, images), people, strict=True):
        if index >= 0 and person is not None and person != images.people[index]:
            raise DataError(
                f"{name} must name people as {images.name} does, it has '{printable(str(person))}' for "
                f"{printable(path)}, which is of {images.people[index]}; fix the paths or leave person out"
            )
