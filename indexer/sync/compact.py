"""What a run keeps in memory of each of a million items: 16 bytes of an id, some tens of the rest."""

from __future__ import annotations

import pickle  # reads nothing but what this process wrote into its own memory
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Each = TypeVar("Each")
_TOGETHER: Final = 1024
_WIDE: Final = "S16"
_STEP: Final = 128
_PACE: Final = 4


class CompressedList(Generic[Each]):
    """A list that only grows. What lies in it is packed, and made anew whenever it is come to."""

    def __init__(self) -> None:
        self._packs: list[bytes] = []
        self._loose: list[Each] = []

    def __len__(self) -> int:
        return len(self._packs) * _TOGETHER + len(self._loose)

    def __iter__(self) -> Iterator[Each]:
        for pack in self._packs:
            yield from _unpacked(pack)
        yield from self._loose

    def append(self, each: Each) -> None:
        """Add one that can be pickled."""
        self._loose.append(each)
        if len(self._loose) == _TOGETHER:
            self._packs.append(_packed(self._loose))
            self._loose = []


def prefetch(each: Iterable[Each], on_total: Callable[[int], object]) -> Iterator[Each]:
    """Yield all that there is, and take four of them for each that is yielded: what waits is packed.

    So work begins with the first of a million, and how many they are is known long before the last.

    Args:
        each: What there is, in as many as fit into memory when they are packed; each can be pickled.
        on_total: Told how many there are, once that is known.
    """
    steps, waiting = _steps(each, on_total), deque[bytes]()
    while some := _unpacked(waiting.popleft()) if waiting else next(steps, []):
        yield from some
        waiting.extend(_packed(more) for more in islice(steps, _PACE))


def _steps(each: Iterable[Each], on_total: Callable[[int], object]) -> Iterator[list[Each]]:
    left, total = iter(each), 0
    while some := list(islice(left, _STEP)):
        total += len(some)
        yield some
    on_total(total)


def _packed(some: list[Any]) -> bytes:
    return zlib.compress(pickle.dumps(some, pickle.HIGHEST_PROTOCOL), level=1)


def _unpacked(pack: bytes) -> list[Any]:
    some: list[Any] = pickle.loads(zlib.decompress(pack))  # noqa: S301  # of our own
    return some


class IdSet:
    """A set of UUIDs as strings with dashes, that only grows. What is added counts once it is settled."""

    def __init__(self) -> None:
        self._settled: NDArray[np.bytes_] = np.empty(0, _WIDE)
        self._added = bytearray()

    def add(self, key: str) -> None:
        """Add an id that is not in the set."""
        self._added += _bytes(key)

    def settle(self) -> None:
        """Have :meth:`holding` know what was added."""
        if self._added:
            fresh = np.frombuffer(self._added, _WIDE)
            self._settled = np.concatenate([self._settled, fresh]) if self._settled.size else fresh
            self._settled.sort()  # where it lies: the first time there is no second copy
            self._added = bytearray()

    def contains(self, keys: Sequence[str]) -> NDArray[np.bool_]:
        """Return which of n ids are in the set, bool (n,)."""
        if not self._settled.size:
            return np.zeros(len(keys), np.bool_)
        wanted = np.frombuffer(b"".join(map(_bytes, keys)), _WIDE)
        places = np.searchsorted(self._settled, wanted).clip(max=self._settled.size - 1)
        return np.asarray(self._settled[places] == wanted)


def _bytes(key: str) -> bytes:
    return bytes.fromhex(key.replace("-", ""))
