"""The checks of a request by its headers, before its body is read; and what its sender may change.

Starlette's TrustedHostMiddleware and FastAPI's security dependencies do less: they answer in plain text, know
no IPv6 names, and check after the body was read or only where a route matches.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Final

from fastapi import Depends, Request
from starlette.datastructures import Headers
from starlette.types import Scope

from lookalike.deploy.http.access.keys import Role, has_key, only_reads, role_of
from lookalike.deploy.http.access.origins import host_refusal, origin_refusal
from lookalike.deploy.http.access.wrong_keys import WrongKeys
from lookalike.deploy.http.errors import ApiError
from lookalike.deploy.http.settings import Settings

PUBLIC_PATHS: Final = frozenset({"/healthz", "/readyz", "", "/", "/favicon.ico", "/reference"})
"""Paths that need no key, as those below /page/: they reveal nothing stored."""


class AccessChecks:
    """The access checks of a service.

    Args:
        settings: With the keys and origins.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._wrong_keys = WrongKeys()

    async def refusal(self, scope: Scope, headers: Headers) -> ApiError | None:
        """Return why a request is refused; None when it is allowed.

        After many wrong keys from one address each answer is delayed; a right key is answered at once.
        """
        settings, path = self._settings, scope["path"]
        if settings.key is None and (refused := host_refusal(headers.get("host", ""), settings.origins)):
            return refused
        public = path in PUBLIC_PATHS or path.startswith("/page/")
        if refused := origin_refusal(headers, settings.origins, navigates=public):
            return refused
        role = role_of(headers, key=settings.key, read_key=settings.read_key)
        scope["state"]["may_write"] = _may_write(settings, role)
        if role is None and not public:
            await self._slow_down(scope, headers)
            return ApiError("unauthorized", "send Authorization: Bearer KEY")
        if role is not None and settings.key is not None:
            self._wrong_keys.forget(_address(scope))
        if role == "read" and not only_reads(scope["method"], path):
            return ApiError(
                "read-only", f"this key may look and search; {scope['method']} {path} needs the full key"
            )
        return None

    async def _slow_down(self, scope: Scope, headers: Headers) -> None:
        if has_key(headers):  # a request without a key tries none
            await asyncio.sleep(self._wrong_keys.delay(_address(scope)))


def may_write(request: Request) -> bool:
    """Whether the sender of a request may change what is stored."""
    state: dict[str, Any] = request.scope.get("state", {})
    return bool(state.get("may_write", False))


async def _check_writing(request: Request) -> None:
    if not may_write(request):
        raise ApiError(
            "not-allowed",
            "without an API key nothing is changed, unless the service is started with --index-root",
        )


Writing = Annotated[None, Depends(_check_writing)]
"""The parameter of a handler that changes what is stored."""


def _may_write(settings: Settings, role: Role | None) -> bool:
    return role == "full" and (settings.key is not None or bool(settings.roots))


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""
