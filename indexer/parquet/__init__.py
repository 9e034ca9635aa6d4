"""Latents in Parquet files: export, and load into a collection."""

from lookalike.indexer.parquet.export import export_latents
from lookalike.indexer.parquet.file import is_latents, latents_files
from lookalike.indexer.parquet.load import load_latents

__all__ = ["export_latents", "is_latents", "latents_files", "load_latents"]
