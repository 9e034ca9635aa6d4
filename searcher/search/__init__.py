"""Searching a collection."""

from lookalike.searcher.search.query_denoiser import QueryDenoiser
from lookalike.searcher.search.results import QueryResult, SearchHit
from lookalike.searcher.search.retrieval import SearchParams
from lookalike.searcher.search.searcher import Searcher, Timer

__all__ = ["QueryDenoiser", "QueryResult", "SearchHit", "SearchParams", "Searcher", "Timer"]
