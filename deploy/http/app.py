"""The service: the same answers as the commands', over HTTP, with a page.

One process holds the store and the models. Everything that blocks is done on a bounded pool of threads
(``deploy/http/executor.py``); errors become problem details in ``deploy/http/errors.py`` alone.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any, Final, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from lookalike.deploy.http.errors import MEDIA_TYPE, PROBLEMS, ApiError, responded
from lookalike.deploy.http.middleware import Middleware
from lookalike.deploy.http.routes import collections as service_collections
from lookalike.deploy.http.routes import denoise as service_cleaning
from lookalike.deploy.http.routes import draw as service_drawing
from lookalike.deploy.http.routes import edit as service_editing
from lookalike.deploy.http.routes import items as service_items
from lookalike.deploy.http.routes import jobs as service_jobs
from lookalike.deploy.http.routes import page as service_page
from lookalike.deploy.http.routes import search as service_search
from lookalike.deploy.http.settings import Settings
from lookalike.deploy.http.state import AppState
from lookalike.encoder.errors import LookalikeError
from lookalike.encoder.text import printable
from lookalike.indexer.store.base import VectorStore

__all__ = ["create_app"]

_LOG: Final = logging.getLogger("lookalike.service")
_OF_STATUS: Final = {400: "malformed", 404: "not-found", 405: "method-not-allowed", 413: "body-too-large"}
_ROUTERS: Final = (
    service_search.router,
    service_drawing.router,
    service_editing.router,
    service_cleaning.router,
    service_collections.router,
    service_items.router,
    service_jobs.router,
)


def create_app(settings: Settings, *, store: VectorStore) -> FastAPI:
    """Return the ASGI application; its models are open, and it closes the store when it ends.

    Args:
        settings: How it is set up.
        store: Opened from ``settings.store``.

    Raises:
        BundleError: a model that was named cannot be used.
        StoreError: the store cannot say what it holds.
    """
    desk = AppState.open(settings, store)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        served = [*desk.holdings.models, *desk.holdings.cleaners]
        _LOG.info("serving", extra={"models": served, "workers": settings.workers})
        try:
            yield
        finally:
            desk.close()
            _LOG.info("ended")

    app = FastAPI(
        title="lookalike",
        version=version("lookalike"),
        summary="Similar-image search that trains its own encoder.",
        description="Likeness is no proof of identity: scores say how alike pictures are to a small model.",
        lifespan=lifespan,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
        responses=_problem_responses(),
    )
    app.state.desk = desk
    for router in _ROUTERS:
        app.include_router(router)
    app.include_router(service_collections.state_router)
    app.include_router(service_page.router)
    for kind in (LookalikeError, ApiError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, _answer_error)
    app.add_middleware(cast("Any", Middleware), settings=settings, metrics=desk.metrics)
    return app


async def _answer_error(request: Request, error: Exception) -> Response:
    """Return the problem of whatever was raised while a request was answered."""
    request_id = request.scope.get("state", {}).get("request_id", "")
    if isinstance(error, HTTPException):
        code = _OF_STATUS.get(error.status_code, "malformed")
        headers = dict(error.headers or {})
        error = ApiError(
            code, PROBLEMS[code].title if code != "malformed" else str(error.detail), headers=headers
        )
    elif isinstance(error, RequestValidationError):
        found = error.errors()[0]
        where = printable(".".join(str(part) for part in found["loc"][1:]))
        error = ApiError("invalid-request", f"{where}: {found['msg']}")
    response = responded(error, request_id=request_id)
    if response.status_code >= 500 and not isinstance(error, ApiError):
        _LOG.error(
            "problem", extra={"request": request_id, "error": str(error), "kind": type(error).__name__}
        )
    return response


def _problem_responses() -> dict[int | str, dict[str, Any]]:
    """Return what OpenAPI says of answers that are problems: the same for every path."""
    schema = {
        "type": "object",
        "required": ["type", "title", "status", "detail", "code", "request_id"],
        "properties": {
            "type": {"type": "string", "format": "uri-reference"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "code": {"type": "string", "enum": sorted(PROBLEMS)},
            "request_id": {"type": "string"},
        },
    }
    statuses = sorted({problem.status for problem in PROBLEMS.values()})
    return {
        status: {
            "description": "; ".join(each.title for each in PROBLEMS.values() if each.status == status),
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
        for status in statuses
    }
