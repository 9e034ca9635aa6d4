"""Many points to a server: in batches, on several streams at once, each again where the server fails.

What is written is the same however often it is sent, so a batch of which no answer came is sent again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Final, TypeVar

from lookalike.encoder.errors import StoreUnavailableError

BATCH: Final = 256
STREAMS: Final = 4
PAUSES: Final[Sequence[float]] = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds before each further try."""
_LONGEST: Final = 60.0

T = TypeVar("T")


def last_of_each(keys: Sequence[str]) -> list[int]:
    """Return the places of n ids of which none is twice: of one that is, its last."""
    places = {key: place for place, key in enumerate(keys)}
    return sorted(places.values())


def retry(
    ask: Callable[[], T],
    what: str,
    *,
    pauses: Sequence[float] | None = None,
    stopped: threading.Event | None = None,
) -> T:
    """Return what a request answers, asked again after longer and longer pauses while the server fails.

    Args:
        ask: Makes the request; it raises StoreUnavailableError where the same again may succeed.
        what: Names it in the message, a subject in the plural.
        pauses: Seconds before each further try; None: :data:`PAUSES`. A server that says how long to wait
            is given that, up to a minute.
        stopped: Once it is set, there is no further try.

    Raises:
        StoreUnavailableError: after the last try, with ``what`` and how many there were.
    """
    stopped = stopped or threading.Event()
    tries = 0
    for pause in (*(PAUSES if pauses is None else pauses), None):
        try:
            tries += 1
            return ask()
        except StoreUnavailableError as error:
            if pause is None or stopped.wait(min(max(pause, error.wait), _LONGEST)):
                raise StoreUnavailableError(
                    f"{what} were not taken in {tries} tries ({error}); what was acknowledged stays, "
                    "run it again and it goes on"
                ) from error
    raise AssertionError("the last try returns or raises")


def upload(count: int, put: Callable[[slice], None], name: Callable[[slice], str], *, streams: int) -> None:
    """Send n points in batches; return when every one of them was acknowledged.

    Args:
        count: n.
        put: Sends those of a batch; called from several threads.
        name: Names a batch in a message, a subject in the plural.
        streams: Threads; of one, this one.

    Raises:
        StoreUnavailableError: a batch was refused to the last; the message names it. None is begun after that.
    """
    parts = [slice(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]
    if streams == 1 or len(parts) == 1:
        for part in parts:
            retry(lambda part=part: put(part), name(part))  # type: ignore[misc]  # bound now, not later
        return
    stopped = threading.Event()
    with ThreadPoolExecutor(min(streams, len(parts)), thread_name_prefix="upload") as pool:
        try:
            sent = [
                pool.submit(retry, lambda part=part: put(part), name(part), stopped=stopped) for part in parts
            ]
            wait(sent, return_when=FIRST_EXCEPTION)
            for each in sent:
                if each.done() and (error := each.exception()) is not None:
                    raise error
        finally:  # also when this thread is interrupted: those that wait for their next try give up
            stopped.set()
            pool.shutdown(cancel_futures=True)
