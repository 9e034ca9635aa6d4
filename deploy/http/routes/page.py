"""The web page, which is the files of ``deploy/page``, and the API reference.

The page names its files with a digest of their bytes (``page/search.1a2b3c4d5e.js``), so that a browser keeps
them for good and still gets every change; the plain names lead to the same bytes. All addresses of the page
are relative, so that it works below any path.
"""

from __future__ import annotations

import hashlib
import re
from importlib.resources import files
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from lookalike.deploy.http.errors import ApiError
from lookalike.deploy.http.reference import STYLE, reference_page
from lookalike.deploy.http.representation import has_current
from lookalike.deploy.http.state import State

router: Final = APIRouter(include_in_schema=False)
_MEDIA_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}
_HOST: Final = re.compile(r"[A-Za-z0-9._\[\]:-]+")
_INDEX: Final = "index.html"
_ADDRESS: Final = re.compile(rb"(?<=[\"'])/?page/([\w.-]+)(?=[\"'])")
_CHECKED: Final = "no-cache"
_FOR_GOOD: Final = "public, max-age=31536000, immutable"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _hashed(name: str, content: bytes) -> str:
    """Return a file's name with a digest of its bytes."""
    stem, _, suffix = name.rpartition(".")
    return f"{stem}.{_digest(content)[:10]}.{suffix}"


def _with_hashed_names(index: bytes, names: dict[str, str]) -> bytes:
    """Return the page with relative addresses of its files, under their hashed names."""

    def address(found: re.Match[bytes]) -> bytes:
        name = found[1].decode()
        return b"page/" + names.get(name, name).encode()

    return _ADDRESS.sub(address, index)


_FILES: Final = {
    file.name: file.read_bytes()
    for file in (files("lookalike.deploy") / "page").iterdir()
    if file.name.rpartition(".")[2] in _MEDIA_TYPES
}
_FILES["reference.css"] = STYLE
HASHED_NAMES: Final = {name: _hashed(name, content) for name, content in _FILES.items() if name != _INDEX}
"""The name under which a browser keeps a file of the page for good, by its plain name."""
_FILES[_INDEX] = _with_hashed_names(_FILES[_INDEX], HASHED_NAMES)
_PLAIN_NAMES: Final = {hashed: name for name, hashed in HASHED_NAMES.items()}


@router.get("/")
async def page(request: Request) -> Response:
    """Send the page."""
    return _send(request, _INDEX)


@router.get("/reference")
async def reference(request: Request, state: State) -> Response:
    """Send the API reference, with the address under which it was asked for in its examples."""
    settings = state.settings
    host = request.headers.get("host", "")
    own = f"http://{host if _HOST.fullmatch(host) else '127.0.0.1:8000'}"
    content = reference_page(
        request.app.openapi(),
        base=(settings.origins[0] if settings.origins else own) + settings.root_path,
        style=f"page/{HASHED_NAMES['reference.css']}",
        key=settings.key is not None,
    ).encode()
    return _respond(request, content, "html", _CHECKED)


@router.get("/favicon.ico")
async def icon(request: Request) -> Response:
    """Send the icon."""
    return _send(request, "icon.svg")


@router.get("/page/{name}")
async def part(request: Request, name: str) -> Response:
    """Send a script, style or image of the page."""
    return _send(request, name)


def _send(request: Request, name: str) -> Response:
    cache = _FOR_GOOD if name in _PLAIN_NAMES else _CHECKED
    name = _PLAIN_NAMES.get(name, name)
    if name not in _FILES:
        raise ApiError("not-found", "the page has no such file")
    return _respond(request, _FILES[name], name.rpartition(".")[2], cache)


def _respond(request: Request, content: bytes, kind: str, cache: str) -> Response:
    tag = f'W/"{_digest(content)[:32]}"'  # weak: the same compressed and not
    headers = {"ETag": tag, "Cache-Control": cache}
    if has_current(request, tag):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=_MEDIA_TYPES[kind], headers=headers)
