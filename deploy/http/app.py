"""The ASGI application: the same results as the commands', over HTTP, with a web page.

One process holds the store and the models. Everything that blocks runs on a bounded pool of threads
(``executor.py``); exceptions become problem details in ``errors.py`` alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any, Final, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match, Route

from lookalike.deploy.http.connections import quiet_accept_errors
from lookalike.deploy.http.errors import PROBLEMS, ApiError, error_code, problem_response
from lookalike.deploy.http.middleware import Middleware
from lookalike.deploy.http.reference import describe
from lookalike.deploy.http.representation import Compression
from lookalike.deploy.http.routes import (
    collections,
    compare,
    denoise,
    edit,
    embed,
    faces,
    generate,
    health,
    items,
    jobs,
    page,
    search,
)
from lookalike.deploy.http.settings import Settings
from lookalike.deploy.http.state import AppState
from lookalike.encoder.errors import LookalikeError, printable
from lookalike.indexer.store import VectorStore

_LOG: Final = logging.getLogger("lookalike.service")
_STATUS_CODES: Final = {400: "malformed", 404: "not-found", 405: "method-not-allowed", 413: "body-too-large"}
_DESCRIPTION: Final = (
    "Similarity is no proof of identity: scores say how similar images are to a small model.\n\n"
    "Every answer has the header X-Request-ID: the request's id, also in the service's log; one that you "
    "send is kept. Where there is GET, there is HEAD."
)
_RESOURCES: Final = (
    search,
    embed,
    compare,
    faces,
    generate,
    edit,
    denoise,
    collections,
    items,
    jobs,
    health,
    page,
)


class _Service(FastAPI):
    """The application, with the description of its API that ``reference`` makes."""

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI description."""
        if self.openapi_schema is None:
            self.openapi_schema = describe(self, self.state.lookalike.settings)
        return self.openapi_schema


def create_app(settings: Settings, *, store: VectorStore) -> FastAPI:
    """Return the ASGI application, its models loaded; it closes the store when it ends.

    Args:
        settings: The settings.
        store: Opened from ``settings.store``.

    Raises:
        BundleError: a model cannot be loaded.
        StoreError: the collections cannot be listed.
    """
    state = AppState.open(settings, store)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        quiet_accept_errors(asyncio.get_running_loop())
        models = [*state.registry.models, *state.registry.denoisers]
        _LOG.info("serving", extra={"models": models, "workers": settings.workers})
        try:
            yield
        finally:
            state.close()
            _LOG.info("ended")

    app = _Service(
        title="lookalike",
        version=version("lookalike"),
        summary="Similar-image search that trains its own encoder.",
        description=_DESCRIPTION,
        lifespan=lifespan,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # these load scripts from other sites
        redoc_url=None,
        redirect_slashes=False,  # to an address made of the Host header, which a proxy may have changed
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.lookalike = state
    for resource in _RESOURCES:
        app.include_router(resource.router)
    for kind in (LookalikeError, ApiError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, _handle_error)
    app.add_middleware(cast("Any", Compression))
    app.add_middleware(cast("Any", Middleware), settings=settings, metrics=state.metrics)
    return app


async def _handle_error(request: Request, error: Exception) -> Response:
    """Return the problem for an exception of a handler, and log it if it is the service's fault."""
    request_id = request.scope.get("state", {}).get("request_id", "")
    if isinstance(error, HTTPException):
        code = _STATUS_CODES.get(error.status_code, "malformed")
        detail = PROBLEMS[code].title if code != "malformed" else str(error.detail)
        allowed = {"Allow": _allowed_methods(request)} if code == "method-not-allowed" else {}
        error = ApiError(code, detail, headers={**(error.headers or {}), **allowed})
    elif isinstance(error, RequestValidationError):
        first = error.errors()[0]
        field = printable(".".join(str(part) for part in first["loc"][1:]))
        error = ApiError("invalid-request", f"{field}: {first['msg']}")
    request.scope.setdefault("state", {})["problem"] = error_code(error)
    root_path = request.app.state.lookalike.settings.root_path
    response = problem_response(error, request_id=request_id, root_path=root_path)
    if response.status_code >= 500 and not isinstance(error, ApiError):
        _LOG.error(
            "problem", extra={"request": request_id, "error": str(error), "kind": type(error).__name__}
        )
    return response


def _allowed_methods(request: Request) -> str:
    """Return the methods of a path, of all its routes; wherever GET is, HEAD is."""
    methods: set[str] = set()
    for route in [*request.app.routes, *(route for each in _RESOURCES for route in each.router.routes)]:
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            methods |= route.methods or set()
    return ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))
