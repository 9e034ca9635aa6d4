"""Searching a collection."""

from lookalike.searcher.search.comparison import Comparison, compare
from lookalike.searcher.search.query_denoiser import QueryDenoiser
from lookalike.searcher.search.query_images import (
    QueryFace,
    QueryFaces,
    StoredItem,
    TextQuery,
    Timer,
    is_found,
    read_located,
    same_picture,
    stored_face,
    stored_file,
)
from lookalike.searcher.search.query_vectors import QueryEmbedder, no_vector
from lookalike.searcher.search.results import (
    NEAR_COPY,
    QueryResult,
    SearchHit,
    SearchParams,
    format_probability,
    format_score,
)
from lookalike.searcher.search.searcher import Searcher

__all__ = [
    "NEAR_COPY",
    "Comparison",
    "QueryDenoiser",
    "QueryEmbedder",
    "QueryFace",
    "QueryFaces",
    "QueryResult",
    "SearchHit",
    "SearchParams",
    "Searcher",
    "StoredItem",
    "TextQuery",
    "Timer",
    "compare",
    "format_probability",
    "format_score",
    "is_found",
    "no_vector",
    "read_located",
    "same_picture",
    "stored_face",
    "stored_file",
]
