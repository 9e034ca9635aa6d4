"""Having a server build the graphs of a collection, also those of small segments."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from lookalike.encoder.errors import StoreError
from lookalike.indexer.server.config import segment_threshold
from lookalike.indexer.server.upload import retry

if TYPE_CHECKING:
    from lookalike.indexer.server.client import CollectionInfo

POLL_SECONDS: Final = 1.0


def build_graphs(
    set_threshold: Callable[[int], object],
    get_state: Callable[[], CollectionInfo],
    *,
    dimension: int,
    collection: str,
) -> None:
    """Have the graphs of all segments built, wait for them, and set the threshold back.

    Args:
        set_threshold: Sets the kilobytes of vectors above which a segment gets a graph.
        get_state: Returns the state of the collection.
        dimension: D of its vectors.
        collection: Name and address, for messages.

    Raises:
        StoreError: the server could not build them.
    """
    state = retry(get_state, "questions after the index")
    usual = segment_threshold(dimension, 1 if state.layout is None else state.layout.shards)
    if state.threshold is not None and state.threshold > 1:  # 1: a build was killed, or of an earlier release
        usual = state.threshold
    retry(lambda: set_threshold(1), f"changes of {collection}")
    try:
        while True:
            time.sleep(POLL_SECONDS)  # also before the first look: the server begins after its answer
            state = retry(get_state, "questions after the index")
            if state.failed:
                raise StoreError(f"{collection} could not get its search index; see the server's log")
            if not state.optimizing:
                return
    finally:
        retry(lambda: set_threshold(usual), f"changes of {collection}")
