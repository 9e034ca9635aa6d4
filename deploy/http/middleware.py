"""What stands before every request: its id and log line, limits, the API key, and the headers of answers."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
import secrets
import time
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lookalike.deploy.http.errors import ApiError, responded
from lookalike.deploy.http.metrics import Metrics
from lookalike.deploy.http.settings import Settings

__all__ = ["OPEN_PATHS", "Middleware", "is_key"]

_LOG: Final = logging.getLogger("lookalike.service")
_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HERE: Final = frozenset({"localhost", "127.0.0.1", "::1"})
OPEN_PATHS: Final = ("/healthz", "/readyz", "/", "/page/", "/favicon.ico")
"""Asked without a key: they tell nothing of what is stored. One that ends in a slash stands for all below."""

_READ_OFF: Final = 4
_READ_OFF_SECONDS: Final = 5.0
"""Of a body that is refused as much is read off as this many bodies may hold, for so long."""

HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}


class Middleware:
    """ASGI middleware around the whole service.

    Args:
        app: What is guarded.
        settings: The limits and the key.
        metrics: Told of every answer.
    """

    def __init__(self, app: ASGIApp, *, settings: Settings, metrics: Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; none leaves with a traceback."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, began = Headers(scope=scope), time.perf_counter()
        asked = headers.get("x-request-id", "")
        request_id = asked if _ID.fullmatch(asked) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        status, ended = 0, False

        async def sent(message: Message) -> None:
            nonlocal status, ended
            if message["type"] == "http.response.start":
                status = message["status"]
                _with_headers(message, request_id)
            await send(message)
            ended = message["type"] == "http.response.body" and not message.get("more_body", False)

        try:
            await self._checked(scope, headers, receive)
            await self._app(scope, self._limited(receive), sent)
        except Exception as error:
            if not isinstance(error, ApiError):
                _LOG.exception("failed", extra={"request": request_id})
            if status and not ended:  # it can only be cut off
                raise
            if not status:
                await responded(error, request_id=request_id)(scope, receive, sent)
        finally:
            self._note(scope, request_id, status, time.perf_counter() - began)

    def _note(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        """Count the request and write its line, which holds nothing of what was sent."""
        route = getattr(scope.get("route"), "path", "none")
        self._metrics.answered(scope["method"], route, status, seconds)
        _LOG.info(
            "request",
            extra={
                "request": request_id,
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "ms": round(seconds * 1000, 1),
            },
        )

    async def _checked(self, scope: Scope, headers: Headers, receive: Receive) -> None:
        """Refuse as :meth:`_check` does, once what is being sent has been read off."""
        try:
            self._check(scope, headers)
        except ApiError:
            if "expect" not in headers:  # who asks first has not begun to send
                await self._read_off(receive)
            raise

    async def _read_off(self, receive: Receive) -> None:
        """Read the rest of a body and forget it, a bounded amount for a bounded time.

        A connection that is closed on unread bytes is reset, and the client never sees why it was refused
        (RFC 9112, 9.6).
        """
        left, due = _READ_OFF * self._settings.body_bytes, time.monotonic() + _READ_OFF_SECONDS
        while left > 0:
            try:
                message = await asyncio.wait_for(receive(), max(0.0, due - time.monotonic()))
            except TimeoutError:
                return
            left -= len(message.get("body", b""))
            if not message.get("more_body", False):
                return

    def _check(self, scope: Scope, headers: Headers) -> None:
        """Refuse what need not be looked at further.

        Raises:
            ApiError: a browser on another site asks, the key is missing or wrong, or too much is sent.
        """
        host = headers.get("host", "")
        if self._settings.key is None and _name(host) not in _HERE:  # a page elsewhere whose name leads here
            raise ApiError("host-not-allowed", "without an API key the service is localhost alone")
        origin = headers.get("origin")
        if headers.get("sec-fetch-site") == "cross-site" or (
            origin is not None and origin.partition("://")[2] != host
        ):
            raise ApiError("cross-origin", "ask from the service's own page, or from no page")
        if not _is_open(scope["path"]) and not is_key(headers, self._settings.key):
            raise ApiError("unauthorized", "send Authorization: Bearer KEY")
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._settings.body_bytes:
            raise self._too_large()

    def _limited(self, receive: Receive) -> Receive:
        """Receive no more than may be sent, and wait no longer than may be waited."""
        left, due = self._settings.body_bytes, time.monotonic() + self._settings.seconds
        complete = False

        async def limited() -> Message:
            nonlocal left, complete
            if complete:
                return await receive()  # until the client has gone
            try:
                message = await asyncio.wait_for(receive(), max(0.0, due - time.monotonic()))
            except TimeoutError:
                raise ApiError(
                    "request-timeout",
                    f"the body was not here after {self._settings.seconds:g} s",
                    headers={"Connection": "close"},
                ) from None
            left -= len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if left < 0:
                if not complete:
                    await self._read_off(receive)
                raise self._too_large()
            return message

        return limited

    def _too_large(self) -> ApiError:
        return ApiError(
            "body-too-large",
            f"a request has {self._settings.body_bytes:,} bytes at most; send smaller or fewer pictures",
            headers={"Connection": "close"},
        )


def is_key(headers: Headers, key: str | None) -> bool:
    """Whether the request may ask. How long that takes tells nothing of the key."""
    if key is None:
        return True
    scheme, _, given = headers.get("authorization", "").partition(" ")
    said = given.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
    # Digests are of one length, whatever was sent.
    digests = (hashlib.sha256(text.encode("utf-8", "replace")).digest() for text in (said, key))
    return hmac.compare_digest(*digests)


def _is_open(path: str) -> bool:
    return any(
        path == each or (each.endswith("/") and each != "/" and path.startswith(each)) for each in OPEN_PATHS
    )


def _name(host: str) -> str:
    """Return the name in a Host header, without the port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _with_headers(message: Message, request_id: str) -> None:
    headers = MutableHeaders(scope=message)
    for name, value in HEADERS.items():
        headers.setdefault(name, value)
    headers.setdefault("Cache-Control", "no-store")
    headers["X-Request-ID"] = request_id
