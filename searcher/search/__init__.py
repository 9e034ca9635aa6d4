"""Searching a collection."""

from lookalike.searcher.search.query_denoiser import QueryDenoiser
from lookalike.searcher.search.query_images import QueryFace, QueryFaces, StoredItem, Timer, stored_face
from lookalike.searcher.search.results import (
    QueryResult,
    SearchHit,
    SearchParams,
    format_probability,
    format_score,
)
from lookalike.searcher.search.searcher import Searcher

__all__ = [
    "QueryDenoiser",
    "QueryFace",
    "QueryFaces",
    "QueryResult",
    "SearchHit",
    "SearchParams",
    "Searcher",
    "StoredItem",
    "Timer",
    "format_probability",
    "format_score",
    "stored_face",
]
