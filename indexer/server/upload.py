"""Uploading points to a server in batches on several threads, and patience with one that fails for a while.

Sending a batch twice stores the same, so a batch without an answer is sent again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Final, TypeVar

from lookalike.encoder.errors import StoreUnavailableError

BATCH: Final = 256
STREAMS: Final = 4
PAUSES: Final[Sequence[float]] = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds before each retry: a cluster chooses a leader within ten."""
IN_VAIN_SECONDS: Final = 30.0
"""How long reads are not repeated after it was no use."""
_MAX_PAUSE: Final = 60.0

T = TypeVar("T")


def last_of_each(keys: Sequence[str]) -> list[int]:
    """Return the positions of n ids without duplicates, keeping the last of each."""
    positions = {key: position for position, key in enumerate(keys)}
    return sorted(positions.values())


def retry(
    request: Callable[[], T],
    subject: str,
    *,
    pauses: Sequence[float] | None = None,
    stopped: threading.Event | None = None,
) -> T:
    """Return the result of a request, repeated with growing pauses while the server fails.

    Args:
        request: Makes the request; raises StoreUnavailableError when a retry may succeed.
        subject: Subject of the error message, in the plural.
        pauses: Seconds before each retry; None: :data:`PAUSES`. When the server says how long to wait, that
            is done, up to a minute.
        stopped: Once it is set, there is no further retry.

    Raises:
        StoreUnavailableError: the last try failed too; the message has ``subject`` and the number of tries.
    """
    stopped = stopped or threading.Event()
    tries = 0
    for pause in (*(PAUSES if pauses is None else pauses), None):
        try:
            tries += 1
            return request()
        except StoreUnavailableError as error:
            if pause is None or stopped.wait(min(max(pause, error.wait), _MAX_PAUSE)):
                raise StoreUnavailableError(
                    f"{subject} were not accepted in {tries} tries ({error}); what was acknowledged stays, "
                    "run it again to continue"
                ) from error
    raise AssertionError("the last try returns or raises")


class Patience:
    """Repeats reads for some 15 s, as writes are, while a server fails: a peer restarts, a leader is chosen.

    Where that was no use, reads of that collection are not repeated for half a minute, or until one succeeds:
    of many searches in a service, one waits so long. A read that took as long itself is not repeated.
    """

    def __init__(self) -> None:
        self._in_vain: dict[str, float] = {}

    def read(self, name: str, request: Callable[[], T]) -> T:
        """Return the result of a request.

        Args:
            name: The collection that it is about; empty: the server.
            request: Makes the request; raises StoreUnavailableError when a retry may succeed.

        Raises:
            StoreUnavailableError: as the last try says.
        """
        began, pauses = time.monotonic(), list(PAUSES)
        end = began + sum(pauses)
        while True:
            try:
                result = request()
            except StoreUnavailableError as error:
                now = time.monotonic()
                if not pauses or now >= end or now < self._no_use_until(name):
                    self._in_vain[name] = now + IN_VAIN_SECONDS
                    raise
                time.sleep(min(max(pauses.pop(0), error.wait), end - now))
            else:
                self._in_vain.pop(name, None)
                return result

    def _no_use_until(self, name: str) -> float:
        """Return until when reads are not repeated: what the server does not answer, no collection does."""
        found = (until for of, until in list(self._in_vain.items()) if of in ("", name) or not name)
        return max(found, default=0.0)


def upload(
    count: int,
    send: Callable[[slice], None],
    describe: Callable[[slice], str],
    *,
    streams: int,
    batch: int = BATCH,
) -> None:
    """Send n points in batches; return when all were acknowledged.

    Args:
        count: n.
        send: Sends one batch; called from several threads.
        describe: Returns the subject of an error message about a batch.
        streams: Number of threads; 1: the calling thread.
        batch: Points in a batch.

    Raises:
        StoreUnavailableError: a batch failed after all retries; the message names it. No batch is begun after
            that.
    """
    parts = [slice(start, min(start + batch, count)) for start in range(0, count, batch)]
    if streams == 1 or len(parts) == 1:
        for part in parts:
            retry(lambda part=part: send(part), describe(part))  # type: ignore[misc]  # bound now, not later
        return
    stopped = threading.Event()
    with ThreadPoolExecutor(min(streams, len(parts)), thread_name_prefix="upload") as pool:
        try:
            sent = [
                pool.submit(retry, lambda part=part: send(part), describe(part), stopped=stopped)
                for part in parts
            ]
            wait(sent, return_when=FIRST_EXCEPTION)
            for each in sent:
                if each.done() and (error := each.exception()) is not None:
                    raise error
        finally:  # also when this thread is interrupted: batches that wait for a retry give up
            stopped.set()
            pool.shutdown(cancel_futures=True)
