"""Opening a vector store by its address."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from lookalike.encoder.errors import InvalidArgumentError, printable
from lookalike.indexer.store import VectorStore

PROJECT_STORE: Final = ".lookalike"
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_HOST_AND_PORT: Final = re.compile(r"(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]):[0-9]+/?")


def default_store() -> str:
    """Return the store that is meant where none is named.

    It is that of the project: the folder ``.lookalike`` in the working folder or the next one above that has
    it. Where none has, it is that of this user, in the platform's folder for programs' data
    (``platformdirs.user_data_path``; on Linux ``~/.local/share/lookalike/store``).
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / PROJECT_STORE).is_dir():
            return PROJECT_STORE if folder == here else str(folder / PROJECT_STORE)
    import platformdirs

    return str(platformdirs.user_data_path("lookalike", appauthor=False) / "store")


def open_store(address: str | os.PathLike[str] | None = None, *, api_key: str | None = None) -> VectorStore:
    """Open the store in a folder (created when missing) or of a Qdrant server (``http(s)://`` URL).

    Each engine is imported only when it is used: the client of a Qdrant server takes a second to load.

    Args:
        address: Folder or URL, or the URLs of several peers of one cluster, separated by commas: where one
            does not answer, the next is asked. None: :func:`default_store`. A folder whose name looks like
            the address of a server is written ``./NAME``.
        api_key: API key of a server; None: ``QDRANT_API_KEY`` of the environment.

    Raises:
        InvalidArgumentError: the address has another scheme, or is that of a server without a scheme.
        StoreUnreachableError: the server does not answer or refuses the key.
    """
    address = default_store() if address is None else os.fspath(address)
    if address.startswith(("http://", "https://")):
        if not all(url.strip().startswith(("http://", "https://")) for url in address.split(",")):
            raise InvalidArgumentError(
                "the URLs of a cluster are separated by commas, and each begins with http:// or https://; "
                f"{printable(address)} has another part"
            )
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
