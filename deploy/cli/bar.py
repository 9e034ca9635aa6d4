"""How far a load is, on stderr where that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

__all__ = ["Bar", "progress_bar"]


@dataclass(frozen=True, slots=True)
class Bar:
    """What is told to a load."""

    shown: Any

    def on_total(self, count: int) -> None:
        """Be told how many there are; those that are done count."""
        self.shown.reset(count) if not self.shown.n else setattr(self.shown, "total", count)

    def log(self, line: str) -> None:
        """Print a line on stderr, above the bar."""
        self.shown.write(line, file=sys.stderr)

    def on_progress(self, count: int) -> None:
        """Be told that so many more are done."""
        self.shown.update(count)


@contextmanager
def progress_bar(description: str | None = None) -> Iterator[Bar]:
    """Show a bar until the end of the block.

    It has no thread that watches it: processes that embed are forked only where there is none.
    """
    from tqdm import tqdm

    tqdm.monitor_interval = 0
    with tqdm(desc=description, unit="image", miniters=1, disable=None, leave=False) as bar:
        yield Bar(bar)
