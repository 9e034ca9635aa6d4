"""Conditional requests: does the client have the current answer (RFC 9110, 13.1.2)?"""

from __future__ import annotations

import re
from typing import Final

from fastapi import Request

_TAG: Final = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')


def has_current(request: Request, tag: str) -> bool:
    """Whether a request's If-None-Match names a tag, alone or in a list, strong or weak, or is ``*``.

    Args:
        request: The request.
        tag: The entity tag of the current answer, with its quotes.
    """
    given = ", ".join(request.headers.getlist("if-none-match"))
    if given.strip() == "*":
        return True
    return tag.removeprefix("W/") in _TAG.findall(given)
