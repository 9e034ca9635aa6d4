"""Hosts and origins: which names lead here, and whose pages may ask.

A browser sends every page's requests to any address. Without a key, a page of another site must not be
answered: neither under its own name that leads to this machine (DNS rebinding, seen in ``Host``) nor under
another (seen in ``Origin`` and ``Sec-Fetch-Site``). A reverse proxy may change ``Host``, so the origins under
which it serves are named when the service is started.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from starlette.datastructures import Headers

from lookalike.deploy.http.errors import ApiError
from lookalike.encoder.errors import printable

_NAME: Final = r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)"
_HOST: Final = re.compile(rf"({_NAME})(?::[0-9]{{1,5}})?")
_LOCAL_NAMES: Final = ("localhost", "127.0.0.1", "[::1]")
_MAX_SHOWN: Final = 100


def host_refusal(host: str, origins: Sequence[str]) -> ApiError | None:
    """Return why a Host header is refused where there is no key; None when it is allowed."""
    found = _HOST.fullmatch(host)  # RFC 9110, 7.2
    names = [*_LOCAL_NAMES, *(origin.partition("://")[2] for origin in origins)]
    if found is not None and found[1].lower() in {_name(each) for each in names}:
        return None
    return ApiError(
        "host-not-allowed",
        f"the Host header is {_shown(host)}; without an API key the service answers to {', '.join(names)}; "
        "start it with --origin to allow another name",
    )


def origin_refusal(headers: Headers, origins: Sequence[str], *, navigates: bool) -> ApiError | None:
    """Return why a request from another site's page is refused; None when it is from no other.

    Args:
        headers: Of the request.
        origins: Those that are allowed, beside the one that the Host header names.
        navigates: Whether it asks for the page itself, so that a link on another site may lead here.
    """
    host, origin = headers.get("host", ""), headers.get("origin")
    allowed = [*dict.fromkeys([*origins, f"http://{_shown(host)}", f"https://{_shown(host)}"])]
    cross_site = headers.get("sec-fetch-site", "").lower() == "cross-site"
    if cross_site and navigates and headers.get("sec-fetch-mode", "").lower() == "navigate":
        cross_site = False
    known = origin is None or origin.partition("://")[2] == host or origin.lower() in origins
    if known and not cross_site:
        return None
    came = f"the Origin header is {_shown(origin)}" if origin is not None else "another site sent the request"
    return ApiError(
        "cross-origin",
        f"{came}; allowed are {', '.join(allowed)}; behind a reverse proxy, start the service with --origin",
    )


def _name(authority: str) -> str:
    found = _HOST.fullmatch(authority)
    return found[1].lower() if found else ""


def _shown(value: str) -> str:
    return printable(value[:_MAX_SHOWN]) or "empty"
