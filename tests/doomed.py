"""A load that dies at a given moment, in a process of its own. Not a test."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from numpy.typing import NDArray

import lookalike.encoder.embed.pipeline
import lookalike.indexer.sync.sync
from lookalike.encoder.runtime.model import Model
from lookalike.indexer.embedded.store import EdgeStore
from lookalike.indexer.store.base import LayoutOptions, Payload
from lookalike.indexer.store.spec import CollectionSpec
from tests.photos import index

BATCH: Final = 16
TOGETHER: Final = 48
"""So that some hundred pictures are several batches and several writes."""


@contextmanager
def small_batches() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lookalike.encoder.embed.pipeline, "_BATCH", BATCH)
        patch.setattr(lookalike.indexer.sync.sync, "_DURABLE_TOGETHER", TOGETHER)
        yield


class DoomedStore(EdgeStore):
    """The real store, whose process is killed before or after its n-th write, or never (None)."""

    def __init__(self, address: str, moment: int | None) -> None:
        super().__init__(address)
        self.moments = 0
        self._last = moment

    @contextmanager
    def _write(self) -> Iterator[None]:
        self._pass()
        yield
        self._pass()

    def _pass(self) -> None:
        if self.moments == self._last:
            os.kill(os.getpid(), signal.SIGKILL)
        self.moments += 1

    def create(self, name: str, spec: CollectionSpec, options: LayoutOptions | None = None) -> None:
        with self._write():
            super().create(name, spec, options)

    def redescribe(self, name: str, spec: CollectionSpec) -> None:
        with self._write():
            super().redescribe(name, spec)

    def upsert(
        self, name: str, ids: Sequence[str], vectors: NDArray[np.float32], payloads: Sequence[Payload]
    ) -> None:
        with self._write():
            super().upsert(name, ids, vectors, payloads)

    def delete(self, name: str, ids: Sequence[str]) -> None:
        with self._write():
            super().delete(name, ids)

    def flush(self, name: str) -> None:
        with self._write():
            super().flush(name)


def load_and_die(store: Path, bundle: Path, photos: Path, moment: int | None, started: Connection) -> None:
    """Index as the command does; tell when it begins; at the end, how many moments there were."""
    model = Model.open(bundle, threads=1)
    started.send(None)
    with small_batches(), DoomedStore(str(store), moment) as opened:
        index(opened, model, photos, prune=True)
    started.send(opened.moments)
