"""HEAD: the headers that GET would have, without the body."""

from __future__ import annotations

from starlette.types import Message, Send


def without_body(send: Send) -> Send:
    """Return a ``send`` that ends the response with its headers."""
    ended = False

    async def send_headers(message: Message) -> None:
        nonlocal ended
        if message["type"] != "http.response.body":
            await send(message)
        elif not ended:  # also of a stream without end
            ended = True
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    return send_headers
