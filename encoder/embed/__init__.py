"""Files to embeddings, in parallel and in bounded memory."""

from lookalike.encoder.embed.pipeline import PROCESSES_FROM, EmbeddedBatch, embed_files, fork_workers
from lookalike.encoder.embed.processes import OnProvider, Processes, exit_with_parent, may_fork
from lookalike.encoder.embed.workers import (
    FileInfo,
    Readable,
    Workers,
    file_info,
    keep_model,
    read_source,
    worker_model,
)

__all__ = [
    "PROCESSES_FROM",
    "EmbeddedBatch",
    "FileInfo",
    "OnProvider",
    "Processes",
    "Readable",
    "Workers",
    "embed_files",
    "exit_with_parent",
    "file_info",
    "fork_workers",
    "keep_model",
    "may_fork",
    "read_source",
    "worker_model",
]
