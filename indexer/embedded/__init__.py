"""The embedded store: Qdrant Edge shards in a folder."""

from lookalike.indexer.embedded.store import EdgeStore

__all__ = ["EdgeStore"]
