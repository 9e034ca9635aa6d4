"""Files to embeddings, in parallel and in bounded memory."""

from lookalike.encoder.embed.pipeline import PROCESSES_FROM, EmbeddedBatch, embed_files, fork_workers
from lookalike.encoder.embed.workers import (
    FileInfo,
    Readable,
    Workers,
    exit_with_parent,
    file_info,
    read_source,
)

__all__ = [
    "PROCESSES_FROM",
    "EmbeddedBatch",
    "FileInfo",
    "Readable",
    "Workers",
    "embed_files",
    "exit_with_parent",
    "file_info",
    "fork_workers",
    "read_source",
]
