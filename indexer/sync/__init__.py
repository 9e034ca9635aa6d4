"""Bringing a collection up to date with its sources."""

from lookalike.indexer.sync.collection import (
    check_faces,
    ignored_options_warning,
    index_when_large,
    new_spec,
    open_model,
)
from lookalike.indexer.sync.degenerate import DEGENERATE, drop_degenerate
from lookalike.indexer.sync.faces import (
    face_count,
    face_id,
    face_number,
    face_payloads,
    face_vectors,
    more_ids,
)
from lookalike.indexer.sync.plan import ToEmbed, chunked, new_items
from lookalike.indexer.sync.report import SyncEvent, SyncReport
from lookalike.indexer.sync.sync import sync

__all__ = [
    "DEGENERATE",
    "SyncEvent",
    "SyncReport",
    "ToEmbed",
    "check_faces",
    "chunked",
    "drop_degenerate",
    "face_count",
    "face_id",
    "face_number",
    "face_payloads",
    "face_vectors",
    "ignored_options_warning",
    "index_when_large",
    "more_ids",
    "new_items",
    "new_spec",
    "open_model",
    "sync",
]
