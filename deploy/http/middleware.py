"""The middleware around every request: its id and log line, limits, root path, and response headers."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lookalike.deploy.http.access import AccessChecks
from lookalike.deploy.http.errors import ApiError, error_code, problem_response
from lookalike.deploy.http.metrics import Metrics
from lookalike.deploy.http.representation import without_body
from lookalike.deploy.http.settings import Settings

_LOG: Final = logging.getLogger("lookalike.service")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DRAIN_BODIES: Final = 4
_DRAIN_SECONDS: Final = 5.0
"""Of a refused body at most so many times the largest allowed body is read, for at most so many seconds."""

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
_RAW_HEADERS: Final = [
    (name.lower().encode(), value.encode())
    for name, value in {**HEADERS, "Cache-Control": "no-store"}.items()
]
"""As ASGI has them, for answers that do not have their own."""


class Middleware:
    """ASGI middleware around the whole service.

    Args:
        app: The application.
        settings: The limits, keys, origins and root path.
        metrics: Where requests are counted.
    """

    def __init__(self, app: ASGIApp, *, settings: Settings, metrics: Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics
        self._access = AccessChecks(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; an exception becomes a problem."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, start = Headers(scope=scope), time.perf_counter()
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        method = scope["method"]
        scope = self._inner(scope)
        status, complete = 0, False

        async def send_with_headers(message: Message) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
                _add_headers(message, request_id, self._settings.root_path)
            await send(message)
            complete = message["type"] == "http.response.body" and not message.get("more_body", False)

        if method == "HEAD":
            send = without_body(send)
        try:
            await self._check(scope, headers, receive)
            await self._answer(scope, self._limit(receive), send_with_headers)
        except Exception as error:
            if not isinstance(error, ApiError):
                _LOG.exception("failed", extra={"request": request_id})
            if status and not complete:  # too late for a problem: the connection is cut
                raise
            if not status:
                root_path = self._settings.root_path
                scope["state"]["problem"] = error_code(error)
                response = problem_response(error, request_id=request_id, root_path=root_path)
                await response(scope, receive, send_with_headers)
        finally:
            self._record(scope, method, request_id, status, time.perf_counter() - start)

    def _inner(self, scope: Scope) -> Scope:
        """Return a request as the application sees it: without the root path, and HEAD as GET.

        A proxy may have taken the root path off already, or not.
        """
        root, path = self._settings.root_path, scope["path"]
        if root and f"{path}/".startswith(f"{root}/"):
            path = path.removeprefix(root)
        return {**scope, "path": path, "method": "GET" if scope["method"] == "HEAD" else scope["method"]}

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"]:
            await self._app(scope, receive, send)
        else:  # the page's addresses are relative to the path with the slash
            await Response(status_code=308, headers={"Location": "/"})(scope, receive, send)

    def _record(self, scope: Scope, method: str, request_id: str, status: int, seconds: float) -> None:
        """Count the request and log it, without anything of its contents."""
        route = getattr(scope.get("route"), "path", "none")
        problem = scope["state"].get("problem")
        self._metrics.observe_request(method, route, status, seconds, problem=problem)
        _LOG.info(
            "request",
            extra={
                "request": request_id,
                "method": method,
                "path": scope["path"],
                "status": status,
                "ms": round(seconds * 1000, 1),
                **({} if problem is None else {"problem": problem}),
            },
        )

    async def _check(self, scope: Scope, headers: Headers, receive: Receive) -> None:
        """Refuse a request by its headers; what of its body is on the way is read first.

        Raises:
            ApiError: the host, origin or key is wrong, or the body is too large.
        """
        refused = await self._refusal(scope, headers)
        if refused is None:
            return
        if "expect" not in headers:  # with it, the client waits for us before it sends
            await self._drain(receive)
        raise refused

    async def _refusal(self, scope: Scope, headers: Headers) -> ApiError | None:
        if refused := await self._access.refusal(scope, headers):
            return refused
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._settings.body_bytes:
            return self._too_large()
        return None

    async def _drain(self, receive: Receive) -> None:
        """Read and discard the rest of a body, a bounded amount for a bounded time.

        A connection that is closed with unread bytes is reset, and the client never sees the response (RFC
        9112, 9.6).
        """
        left, due = _DRAIN_BODIES * self._settings.body_bytes, time.monotonic() + _DRAIN_SECONDS
        while left > 0:
            try:
                message = await asyncio.wait_for(receive(), max(0.0, due - time.monotonic()))
            except TimeoutError:
                return
            left -= len(message.get("body", b""))
            if not message.get("more_body", False):
                return

    def _limit(self, receive: Receive) -> Receive:
        """Return a ``receive`` that stops at the largest body and the longest time."""
        left, due = self._settings.body_bytes, time.monotonic() + self._settings.seconds
        complete = False

        async def limited() -> Message:
            nonlocal left, complete
            if complete:
                return await receive()  # returns when the client disconnects
            try:
                async with asyncio.timeout(max(0.0, due - time.monotonic())):  # wait_for would start a task
                    message = await receive()
            except TimeoutError:
                raise ApiError(
                    "request-timeout",
                    f"the body did not arrive within {self._settings.seconds:g} s",
                    headers={"Connection": "close"},
                ) from None
            left -= len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if left < 0:
                if not complete:
                    await self._drain(receive)
                raise self._too_large()
            return message

        return limited

    def _too_large(self) -> ApiError:
        return ApiError(
            "body-too-large",
            f"a request has at most {self._settings.body_bytes:,} bytes; send smaller or fewer images",
            headers={"Connection": "close"},
        )


def _add_headers(message: Message, request_id: str, root_path: str) -> None:
    given = {name for name, _ in message["headers"]}
    message["headers"] = [
        *message["headers"],
        *(header for header in _RAW_HEADERS if header[0] not in given),
        (b"x-request-id", request_id.encode()),
    ]
    if b"location" in given:
        headers = MutableHeaders(scope=message)
        if headers["location"].startswith("/"):
            headers["Location"] = root_path + headers["location"]
