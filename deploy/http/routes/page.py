"""The page: a few files beside this one, sent as they are."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from lookalike.deploy.http.errors import ApiError

__all__ = ["router"]

router: Final = APIRouter(include_in_schema=False)
_KINDS: Final = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}
_FILES: Final = {
    file.name: file.read_bytes()
    for file in (files("lookalike.deploy") / "page").iterdir()
    if file.name.rpartition(".")[2] in _KINDS
}


@router.get("/")
async def page(request: Request) -> Response:
    """Send the page."""
    return _sent(request, "index.html")


@router.get("/favicon.ico")
async def icon(request: Request) -> Response:
    """Send the icon."""
    return _sent(request, "icon.svg")


@router.get("/page/{name}")
async def part(request: Request, name: str) -> Response:
    """Send what the page is made of."""
    return _sent(request, name)


def _sent(request: Request, name: str) -> Response:
    if name not in _FILES:
        raise ApiError("not-found", "the page has no such part")
    content = _FILES[name]
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=_KINDS[name.rpartition(".")[2]], headers=headers)
