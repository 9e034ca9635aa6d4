"""Compact containers: of each of a million items a run keeps 16 bytes of its id and some tens of the rest."""

from __future__ import annotations

import pickle  # reads nothing but what this process wrote into its own memory
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
_BLOCK: Final = 1024
_UUID: Final = "S16"
_STEP: Final = 128
_AHEAD: Final = 4


class CompressedList(Generic[T]):
    """A list that only grows, kept compressed; elements are made anew each time it is iterated."""

    def __init__(self) -> None:
        self._blocks: list[bytes] = []
        self._tail: list[T] = []

    def __len__(self) -> int:
        return len(self._blocks) * _BLOCK + len(self._tail)

    def __iter__(self) -> Iterator[T]:
        for block in self._blocks:
            yield from _decompress(block)
        yield from self._tail

    def append(self, element: T) -> None:
        """Add an element, which must be picklable."""
        self._tail.append(element)
        if len(self._tail) == _BLOCK:
            self._blocks.append(_compress(self._tail))
            self._tail = []


def prefetch(elements: Iterable[T], on_total: Callable[[int], object]) -> Iterator[T]:
    """Yield all elements, reading four from the input for each that is yielded; those waiting are compressed.

    So work begins with the first of a million, and the total is known long before the last.

    Args:
        elements: Picklable; all of them must fit into memory when compressed.
        on_total: Called with their number once it is known.
    """
    chunks, waiting = _counted_chunks(elements, on_total), deque[bytes]()
    while chunk := _decompress(waiting.popleft()) if waiting else next(chunks, []):
        yield from chunk
        waiting.extend(_compress(more) for more in islice(chunks, _AHEAD))


def _counted_chunks(elements: Iterable[T], on_total: Callable[[int], object]) -> Iterator[list[T]]:
    left, total = iter(elements), 0
    while chunk := list(islice(left, _STEP)):
        total += len(chunk)
        yield chunk
    on_total(total)


def _compress(elements: list[Any]) -> bytes:
    return zlib.compress(pickle.dumps(elements, pickle.HIGHEST_PROTOCOL), level=1)


def _decompress(block: bytes) -> list[Any]:
    elements: list[Any] = pickle.loads(zlib.decompress(block))  # noqa: S301  # of our own
    return elements


class IdSet:
    """A set of UUIDs (strings with dashes) that only grows; what was added counts after :meth:`settle`."""

    def __init__(self) -> None:
        self._sorted: NDArray[np.bytes_] = np.empty(0, _UUID)
        self._added = bytearray()

    def add(self, key: str) -> None:
        """Add an id that is not in the set."""
        self._added += _to_bytes(key)

    def settle(self) -> None:
        """Make the ids that were added visible to :meth:`contains`."""
        if self._added:
            new = np.frombuffer(self._added, _UUID)
            self._sorted = np.concatenate([self._sorted, new]) if self._sorted.size else new
            self._sorted.sort()  # in place: the first time there is no second copy
            self._added = bytearray()

    def contains(self, keys: Sequence[str]) -> NDArray[np.bool_]:
        """Return which of n ids are in the set, bool (n,)."""
        if not self._sorted.size:
            return np.zeros(len(keys), np.bool_)
        queries = np.frombuffer(b"".join(map(_to_bytes, keys)), _UUID)
        places = np.searchsorted(self._sorted, queries).clip(max=self._sorted.size - 1)
        return np.asarray(self._sorted[places] == queries)


def _to_bytes(key: str) -> bytes:
    return bytes.fromhex(key.replace("-", ""))
