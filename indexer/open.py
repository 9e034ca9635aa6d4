"""Opening a vector store by its address."""

from __future__ import annotations

from typing import Final

from lookalike.indexer.store import VectorStore

DEFAULT_STORE: Final = ".lookalike"


def open_store(address: str = DEFAULT_STORE, *, api_key: str | None = None) -> VectorStore:
    """Open the store in a folder (created when missing) or of a Qdrant server (``http(s)://`` URL).

    Each engine is imported only when it is used: the client of a Qdrant server takes a second to load.

    Args:
        address: Folder or URL.
        api_key: API key of a server; None: ``QDRANT_API_KEY`` of the environment.

    Raises:
        StoreUnreachableError: the server does not answer or refuses the key.
    """
    if address.startswith(("http://", "https://")):
        from lookalike.indexer.server import ServerStore

        return ServerStore.connect(address, api_key=api_key)
    from lookalike.indexer.embedded import EdgeStore

    return EdgeStore(address)
