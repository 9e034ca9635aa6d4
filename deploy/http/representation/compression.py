"""Compressed answers, for clients that take them."""

from __future__ import annotations

import re
from typing import Final

from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

_MIN_BYTES: Final = 1000
_LEVEL: Final = 5
_IMAGES: Final = re.compile(
    r"/api/v1/(?:generate|edit|reconstruct|interpolate|denoise|(?:items|jobs)/[^/]+/(?:image|thumbnail))"
)


class Compression:
    """ASGI middleware that compresses with gzip what is not compressed yet.

    Images are, also as Base64 in JSON: compressing tens of megabytes of them again would take seconds of a
    core. Streams of events are sent as they are too (Starlette's default), so that each arrives at once.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._gzip = GZipMiddleware(app, minimum_size=_MIN_BYTES, compresslevel=_LEVEL)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        plain = scope["type"] != "http" or _IMAGES.fullmatch(scope["path"]) is not None
        await (self._app if plain else self._gzip)(scope, receive, send)
