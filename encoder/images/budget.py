"""A limit of the pixels that are decoded at the same time: of the memory that images take."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final


class PixelBudget:
    """A semaphore that counts the pixels of the images in progress. Who comes first is served first.

    Attributes:
        limit: Pixels in progress; an image with more runs alone. None: no limit.
    """

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self._used = 0
        self._turn = threading.Lock()
        self._change = threading.Condition()

    @contextmanager
    def acquire(self) -> Iterator[Callable[[int], None]]:
        """Give a function that waits for room for some pixels; they are released when the block ends.

        Called again, it gives back what it was given before: the image is decoded in another way.
        """
        acquired = 0

        def wait_for(pixels: int) -> None:
            nonlocal acquired
            release()
            with self._turn, self._change:  # a large image is not passed by small ones for ever
                self._change.wait_for(lambda: self._has_room(pixels))
                self._used += pixels
                acquired = pixels

        def release() -> None:
            nonlocal acquired
            with self._change:
                self._used -= acquired
                acquired = 0
                self._change.notify_all()

        try:
            yield wait_for
        finally:
            release()

    def _has_room(self, pixels: int) -> bool:
        return not self._used or self.limit is None or self._used + pixels <= self.limit


DECODING: Final = PixelBudget(None)
"""The images that this process is decoding; the HTTP service sets its limit. A pixel takes some 7 bytes."""
