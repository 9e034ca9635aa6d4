"""Opening a vector store by its address."""

from __future__ import annotations

import re
from typing import Final

from lookalike.encoder.errors import InvalidArgumentError, printable
from lookalike.indexer.store import VectorStore

DEFAULT_STORE: Final = ".lookalike"
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_HOST_AND_PORT: Final = re.compile(r"(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]):[0-9]+/?")


def open_store(address: str = DEFAULT_STORE, *, api_key: str | None = None) -> VectorStore:
    """Open the store in a folder (created when missing) or of a Qdrant server (``http(s)://`` URL).

    Each engine is imported only when it is used: the client of a Qdrant server takes a second to load.

    Args:
        address: Folder or URL. A folder whose name looks like the address of a server is written ``./NAME``.
        api_key: API key of a server; None: ``QDRANT_API_KEY`` of the environment.

    Raises:
        InvalidArgumentError: the address has another scheme, or is that of a server without a scheme.
        StoreUnreachableError: the server does not answer or refuses the key.
    """
    if address.startswith(("http://", "https://")):
        from lookalike.indexer.server import ServerStore

        return ServerStore.connect(address, api_key=api_key)
    if _SCHEME.match(address):
        raise InvalidArgumentError(
            f"a store is a folder or an http:// or https:// URL, not {printable(address)}; name one of these"
        )
    if _HOST_AND_PORT.fullmatch(address):
        raise InvalidArgumentError(
            f"store {printable(address)} could be a server or a folder; write http://{printable(address)} or "
            f"./{printable(address)}"
        )
    from lookalike.indexer.embedded import EdgeStore

    return EdgeStore(address)
