"""One client for several peers of a cluster: what one does not answer is asked of the next."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any


class Failover:
    """Passes each call on to the client of one URL, and to the next one where that does not answer.

    A request may so be done twice: the store looks first whether one that makes something was done already.

    Args:
        urls: The URLs, one or more; the first is asked first.
        open_client: Makes the client of a URL, when it is first needed.
        is_down: Whether an exception says that this peer does not answer, or fails now.
    """

    def __init__(
        self, urls: Sequence[str], open_client: Callable[[str], Any], is_down: Callable[[Exception], bool]
    ) -> None:
        self._urls = list(urls)
        self._open_client = open_client
        self._is_down = is_down
        self._clients: dict[str, Any] = {}
        self._place = 0
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            for left in reversed(range(len(self._urls))):
                place = self._place
                try:
                    return getattr(self._client(self._urls[place]), name)(*args, **options)
                except Exception as error:
                    if not self._is_down(error):
                        raise
                    self._place = (place + 1) % len(self._urls)  # also for the calls after this one
                    if not left:
                        raise
            raise AssertionError("the last try returns or raises")

        return call

    def close(self) -> None:
        """Close all clients."""
        with self._lock:
            while self._clients:
                self._clients.popitem()[1].close()

    def _client(self, url: str) -> Any:
        with self._lock:
            if url not in self._clients:
                self._clients[url] = self._open_client(url)
            return self._clients[url]


def split_urls(address: str) -> list[str]:
    """Return the URLs in an address, which are separated by commas."""
    return [url.strip() for url in address.split(",") if url.strip()]
