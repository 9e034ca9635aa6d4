"""Parquet files of image bytes, as Hugging Face's data sets are: which column, and its rows.

The column is a struct of ``bytes`` and ``path``, or one of bytes: called ``image``, ``bytes``, ``jpg``,
``jpeg``, ``png``, ``webp`` or ``content``, or the only one of bytes in the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from lookalike.encoder.errors import DataError, one_line, printable
from lookalike.indexer.parquet import require_pyarrow
from lookalike.indexer.units.folder import Folder

_NAMES: Final = ("image", "bytes", "jpg", "jpeg", "png", "webp", "content")
_ROWS: Final = 64


def find_image_groups(folder: Folder, name: str) -> list[int] | None:
    """Return the number of rows of each row group of a Parquet file; None: it has no column of images.

    Raises:
        DataError: it cannot be read.
    """
    pa, _ = require_pyarrow(Path(name))
    try:
        opened = _opened(folder, name)
    except OSError as error:
        raise DataError(
            f"{printable(folder.join(name))} cannot be read ({one_line(error)[:200]}); check the file, or "
            "leave it out with --exclude"
        ) from error
    with opened as file:
        if _image_column(pa, file.schema_arrow) is None:
            return None
        return [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]


def read_image_rows(folder: Folder, name: str, group: int) -> Iterator[tuple[str, bytes | None]]:
    """Yield the images of a row group: a name for each, from its row in the file, and its bytes.

    Raises:
        DataError: it is damaged.
        OSError: it cannot be read at the moment.
    """
    pa, _ = require_pyarrow(Path(name))
    with _opened(folder, name) as file:
        column = _image_column(pa, file.schema_arrow)
        if column is None:
            raise DataError(f"{printable(folder.join(name))} has no column of images any more; list it again")
        row = sum(file.metadata.row_group(each).num_rows for each in range(group))
        try:
            for batch in file.iter_batches(_ROWS, row_groups=[group], columns=[column]):
                for value in batch.column(0):
                    image = value.as_py()
                    fields = image if isinstance(image, dict) else {"bytes": image}
                    data, path = fields.get("bytes"), fields.get("path")
                    yield f"{row:08d}" + (f"/{path}" if path else ""), data
                    row += 1
        except (pa.ArrowException, ValueError) as error:
            raise _damaged(folder, name, error) from error


def _opened(folder: Folder, name: str) -> Any:
    pa, pq = require_pyarrow(Path(name))
    try:
        return pq.ParquetFile(folder.open(name), pre_buffer=True)
    except (pa.ArrowException, ValueError) as error:
        raise _damaged(folder, name, error) from error


def _image_column(pa: Any, schema: Any) -> str | None:
    plain: list[str] = []
    for column in schema:
        kind = column.type
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            return str(column.name)
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            plain.append(str(column.name))
    named = [each for each in _NAMES if each in plain]
    return named[0] if named else plain[0] if len(plain) == 1 else None


def _damaged(folder: Folder, name: str, error: Exception) -> DataError:
    return DataError(
        f"{printable(folder.join(name))} must be a whole Parquet file, but: "
        f"{one_line(error)[:200]}; fetch it again"
    )
