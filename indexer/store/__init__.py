"""The protocol of a vector store and its values; names no engine."""

from lookalike.indexer.store.aliases import (
    alias_conflict,
    aliased_collection,
    check_unaliased,
    missing_alias,
    resolve_alias,
)
from lookalike.indexer.store.base import IndexState, VectorStore
from lookalike.indexer.store.facets import value_counts
from lookalike.indexer.store.filters import Condition, Filter
from lookalike.indexer.store.layout import (
    EF_SEARCH,
    QUANTILE,
    Layout,
    Quantization,
    StorageConfig,
    differing_options,
    oversampling,
)
from lookalike.indexer.store.points import (
    PREDICTED,
    RESERVED,
    Hit,
    Payload,
    Record,
    best_hits,
    check_ids,
    check_points,
    is_text,
    known_payload,
    scroll_pages,
)
from lookalike.indexer.store.spec import CollectionSpec, check_name, is_name
from lookalike.indexer.store.where import parse_where

__all__ = [
    "EF_SEARCH",
    "PREDICTED",
    "QUANTILE",
    "RESERVED",
    "CollectionSpec",
    "Condition",
    "Filter",
    "Hit",
    "IndexState",
    "Layout",
    "Payload",
    "Quantization",
    "Record",
    "StorageConfig",
    "VectorStore",
    "alias_conflict",
    "aliased_collection",
    "best_hits",
    "check_ids",
    "check_name",
    "check_points",
    "check_unaliased",
    "differing_options",
    "is_name",
    "is_text",
    "known_payload",
    "missing_alias",
    "oversampling",
    "parse_where",
    "resolve_alias",
    "scroll_pages",
    "value_counts",
]
