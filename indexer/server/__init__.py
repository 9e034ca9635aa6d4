"""The store on a Qdrant server or cluster."""

from lookalike.indexer.server.store import ServerStore

__all__ = ["ServerStore"]
