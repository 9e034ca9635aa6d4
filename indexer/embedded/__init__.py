"""The embedded store: Qdrant Edge shards in a folder."""
