"""The log of a unit of denoised images: a Parquet file with a row for each image, also for those that failed.

Its columns are those of ``lookalike denoise --json``, with sigma in 0..255 and PSNR in dB, and the size of
what was written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lookalike.encoder.errors import DataError, one_line, printable
from lookalike.indexer.parquet import require_pyarrow
from lookalike.indexer.units import Done, Folder


def write_log(folder: Folder, part: str, rows: Iterable[Mapping[str, Any]]) -> Done:
    """Write the log of a unit, whole or not at all, and return what became of the unit.

    Args:
        folder: The folder of logs.
        part: File name of the log.
        rows: Values by the names of the columns; what is missing is null.

    Raises:
        DataError: it cannot be written.
    """
    pa, pq = require_pyarrow(Path(part))
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=_schema(pa))
    with folder.writing(part) as file:
        pq.write_table(table, file, compression="zstd")
    return _summary(part, table)


def read_log(folder: Folder, part: str) -> Done:
    """Return what became of a unit, as its log tells.

    Raises:
        DataError: it cannot be read.
    """
    pa, pq = require_pyarrow(Path(part))
    try:
        with pq.ParquetFile(folder.open(part)) as file:
            return _summary(part, file.read(columns=["path", "status", "reason", "bytes"]))
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{printable(folder.join(part))} cannot be read ({one_line(error)[:300]}); remove it to denoise "
            "its images again"
        ) from error


def _schema(pa: Any) -> Any:
    kinds = {"path": pa.string(), "out": pa.string(), "status": pa.string()}
    kinds |= dict.fromkeys(("sigma", "sigma_p10", "sigma_p90", "changed", "psnr_to_input_db"), pa.float64())
    return pa.schema([*(kinds | {"reason": pa.string(), "bytes": pa.int64()}).items()])


def _summary(part: str, table: Any) -> Done:
    columns = (table[name].to_pylist() for name in ("path", "status", "reason", "bytes"))
    failed: list[tuple[str, str]] = []
    counts: Counter[str] = Counter()
    size = 0
    for path, status, reason, written in zip(*columns, strict=True):
        if status == "failed":
            failed.append((path, reason or ""))
            continue
        counts[reason if status == "clean" else status] += 1
        size += written
    return Done(part, counts.total(), tuple(failed), size, dict(counts))
