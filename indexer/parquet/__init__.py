"""Latents in Parquet files: export, and load into a collection."""

from lookalike.indexer.parquet.export import export_latents, rows_of
from lookalike.indexer.parquet.file import (
    ROWS,
    Entry,
    LatentsFile,
    Rows,
    is_latents,
    latents_files,
    require_pyarrow,
    write_rows,
)
from lookalike.indexer.parquet.load import LatentsOf, Loading, is_stored, load_latents, store_rows, whole_part
from lookalike.indexer.parquet.resume import concatenate, regroup

__all__ = [
    "ROWS",
    "Entry",
    "LatentsFile",
    "LatentsOf",
    "Loading",
    "Rows",
    "concatenate",
    "export_latents",
    "is_latents",
    "is_stored",
    "latents_files",
    "load_latents",
    "regroup",
    "require_pyarrow",
    "rows_of",
    "store_rows",
    "whole_part",
    "write_rows",
]
