"""The web page: the files of ``deploy/page``, sent as they are."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from lookalike.deploy.http.errors import ApiError

router: Final = APIRouter(include_in_schema=False)
_MEDIA_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}
_FILES: Final = {
    file.name: file.read_bytes()
    for file in (files("lookalike.deploy") / "page").iterdir()
    if file.name.rpartition(".")[2] in _MEDIA_TYPES
}


@router.get("/")
async def page(request: Request) -> Response:
    """Send the page."""
    return _send(request, "index.html")


@router.get("/favicon.ico")
async def icon(request: Request) -> Response:
    """Send the icon."""
    return _send(request, "icon.svg")


@router.get("/page/{name}")
async def part(request: Request, name: str) -> Response:
    """Send a script, style or image of the page."""
    return _send(request, name)


def _send(request: Request, name: str) -> Response:
    if name not in _FILES:
        raise ApiError("not-found", "the page has no such file")
    content = _FILES[name]
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=_MEDIA_TYPES[name.rpartition(".")[2]], headers=headers)
