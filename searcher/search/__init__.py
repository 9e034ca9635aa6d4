"""Searching a collection."""

from lookalike.searcher.search.query_denoiser import QueryDenoiser
from lookalike.searcher.search.results import QueryResult, SearchHit, SearchParams, format_probability
from lookalike.searcher.search.searcher import Searcher, Timer

__all__ = [
    "QueryDenoiser",
    "QueryResult",
    "SearchHit",
    "SearchParams",
    "Searcher",
    "Timer",
    "format_probability",
]
