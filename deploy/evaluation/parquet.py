"""Anybody's vectors in a Parquet file. The one module of the searcher that names pyarrow.

Legend: M rows of the file, E embedding size.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lookalike.deploy.evaluation.data import LabeledImages
from lookalike.deploy.evaluation.vectors import ImageVectors, assign_vectors, match_paths
from lookalike.encoder.errors import DataError, MissingExtraError, VectorError
from lookalike.encoder.text import printable

__all__ = ["read_parquet_vectors"]


def read_parquet_vectors(file: Path, images: LabeledImages) -> ImageVectors:
    """Read the columns ``path`` (text) and ``vector`` (a list of as many numbers in each row).

    Paths name pictures as :func:`match_paths` says. Where there is a column ``person``, it must
    say what the data say: that guards against paths that name other pictures than was meant.

    Raises:
        MissingExtraError: pyarrow is not installed.
        DataError: the file or a column is missing or of another kind, a path is missing or there twice, or a
            person is another one than the data's.
        VectorError: a vector is missing, not finite, zero, or of another length than the others.
    """
    name = printable(file.name)
    table = _table(file, name)
    paths: list[str | None] = table.column("path").to_pylist()
    for row, path in enumerate(paths):
        if path is None:
            raise DataError(f"{name}: every row must have a path, row {row} has none; leave it out")
    called = [path for path in paths if path is not None]
    _check_people(table, called, name, images)
    return assign_vectors(name, called, _rows(table, called, name), images, kind="vectors")


def _table(file: Path, name: str) -> Any:
    """Return the table, its columns checked for being there and of the right kind."""
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
    for column, kinds, told in (("path", text, "text"), ("vector", lists, "lists of numbers")):
        if table.column_names.count(column) != 1:
            raise DataError(
                f"{name} must have one column {column} of {told}; it has: {', '.join(table.column_names)}"
            )
        kind = table.schema.field(column).type
        numbers = column == "path" or (hasattr(kind, "value_type") and _is_number(pa, kind.value_type))
        if not any(check(kind) for check in kinds) or not numbers:
            raise DataError(f"{name}: the column {column} must hold {told}, not {kind}; write it so")
    if not table.num_rows:
        raise DataError(f"{name} must hold a row for each picture, it has none")
    return table


def _is_number(pa: Any, kind: Any) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _rows(table: Any, paths: list[str], name: str) -> NDArray[np.float32]:
    """Return float32 (M, E) of a column of lists.

    Raises:
        VectorError: one is missing, or is of another length than the first.
    """
    import pyarrow.compute as pc

    column = table.column("vector").combine_chunks()
    lengths = pc.list_value_length(column).fill_null(-1).to_numpy(zero_copy_only=False)
    size = int(lengths[0])
    other = np.flatnonzero((lengths != size) | (lengths < 1))
    if other.size:
        row = int(other[0])
        told = "none" if lengths[row] < 1 else f"{lengths[row]}"
        raise VectorError(
            f"{name}: vectors must all have as many numbers, the first has {max(size, 0)} and that of "
            f"{printable(paths[row])} has {told}; leave these rows out"
        )
    flat = column.flatten().to_numpy(zero_copy_only=False)  # a number that is missing becomes NaN
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
                f"{printable(path)}, which is of {images.people[index]}; mend the paths or leave person out"
            )
