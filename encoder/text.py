"""Text for messages: one line, without control characters."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return ``text`` on one line: control characters and lone surrogates as backslash escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def one_line(error: BaseException) -> str:
    """Return the message of an exception on one line, or the name of its class when it has none."""
    return printable(" ".join(str(error).split())) or type(error).__name__
