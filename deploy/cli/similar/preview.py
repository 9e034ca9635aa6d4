"""Pictures on terminals that show them: a PNG file in an escape sequence of kitty or of iTerm2.

https://sw.kovidgoyal.net/kitty/graphics-protocol and https://iterm2.com/documentation-images.html
"""

from __future__ import annotations

import base64
import os
import shutil
import sys
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

Protocol = Literal["kitty", "iterm2"]

TERMINALS: Final = "kitty, Ghostty, iTerm2, WezTerm and mintty"
_KITTY: Final = ("xterm-kitty", "xterm-ghostty", "ghostty")
_ITERM2: Final = ("iTerm.app", "WezTerm", "mintty")
_CHUNK: Final = 4096
"""Characters that the protocol of kitty allows in one sequence."""
_CELL: Final = 9
"""Pixels of a picture for each column, so that it is about as large as in a window."""


def protocol(environment: Mapping[str, str] = os.environ) -> Protocol | None:
    """Return how pictures are shown on the terminal that stdout is; None: it is none, or shows none.

    tmux and screen do not let the sequences through.
    """
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if not sys.stdout.isatty() or "TMUX" in environment or term.startswith(("screen", "tmux", "dumb")):
        return None
    if term in _KITTY or program in _KITTY or "KITTY_WINDOW_ID" in environment:
        return "kitty"
    return "iterm2" if program in _ITERM2 or environment.get("LC_TERMINAL") == "iTerm2" else None


def sequences(pixels: NDArray[np.uint8], by: Protocol, *, columns: int | None = None) -> str:
    """Return what shows an image uint8 (H, W, 3) on a terminal, no wider than it is.

    Args:
        pixels: The image.
        by: The protocol.
        columns: Width of the terminal; None: as it is.
    """
    from lookalike.encoder.images import encode_png

    columns = shutil.get_terminal_size().columns if columns is None else columns
    width = min(columns, -(-pixels.shape[1] // _CELL))
    png = encode_png(pixels)
    text = base64.b64encode(png).decode()
    if by == "iterm2":
        return f"\x1b]1337;File=inline=1;size={len(png)};width={width}:{text}\x07\n"
    chunks = [text[start : start + _CHUNK] for start in range(0, len(text), _CHUNK)]
    heads = [f"a=T,f=100,c={width},", *[""] * (len(chunks) - 1)]
    parts = [
        f"\x1b_G{head}m={int(number < len(chunks))};{chunk}\x1b\\"
        for number, (head, chunk) in enumerate(zip(heads, chunks, strict=True), 1)
    ]
    return "".join(parts) + "\n"
