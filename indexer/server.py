"""A Qdrant server or cluster as the store. The one module that names ``qdrant_client``.

What a collection remembers (CollectionSpec) lies in the collection's metadata under the key ``lookalike``, so
it travels with snapshots and replicas; metadata needs server 1.16. Collections without it are another's: they
are not listed and not touched. Segments are searched exactly below 100,000 vectors, above through HNSW.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from json import JSONDecodeError
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from encoder.errors import (
    CollectionExistsError,
    CollectionNotFoundError,
    LookalikeError,
    StoreError,
    StoreUnreachableError,
)
from indexer.connection import check_key, check_version, missing, one_line, refused, said, written
from indexer.filters import Filter
from indexer.points import Hit, Payload, Record, best_hits, check_ids, check_points
from indexer.spec import CollectionSpec, check_name, is_name
from indexer.store import IndexState, VectorStore

__all__ = ["ServerStore"]

KEY: Final = "lookalike"
PROBE_SECONDS: Final = 5
TIMEOUT_SECONDS: Final = 60
BATCH: Final = 256
PAGE: Final = 1000
POLL_SECONDS: Final = 1
EXACT_BELOW: Final = 100_000


class ServerStore(VectorStore):
    """A :class:`~indexer.store.VectorStore` on a Qdrant server.

    Args:
        client: The client; closed by :meth:`close`.
        address: What to call the server in messages, the URL that opens it again.
    """

    def __init__(self, client: QdrantClient, *, address: str) -> None:
        self._client = client
        self._address = address
        self._dimensions: dict[str, int] = {}
        self._closed = False

    @classmethod
    def connect(cls, url: str, api_key: str | None = None) -> Self:
        """Open the server at ``url``, once it has answered.

        Args:
            url: ``http(s)://host[:port][/prefix]``; port 6333 when none is given.
            api_key: When None, ``QDRANT_API_KEY`` of the environment. Over plain http it is sent only to this
                machine and private networks.

        Raises:
            StoreUnreachableError: no answer, no Qdrant, one older than 1.16, or the key is refused.
        """
        key = api_key if api_key is not None else os.environ.get("QDRANT_API_KEY")
        check_key(url, key)
        with _mapped(url):
            probe = _client(url, key, timeout=PROBE_SECONDS)
            try:
                version = probe.info().version
                probe.get_collections()
            finally:
                probe.close()
            check_version(url, version)
            return cls(_client(url, key, timeout=TIMEOUT_SECONDS), address=url)

    @property
    def address(self) -> str:
        """The URL."""
        return self._address

    def names(self) -> list[str]:
        """See :meth:`VectorStore.names`."""
        with self._call():
            found = [each.name for each in self._client.get_collections().collections]
        return sorted(name for name in found if self._metadata(name) is not None)

    def create(self, name: str, spec: CollectionSpec) -> None:
        """See :meth:`VectorStore.create`."""
        with self._call(check_name(name)):
            if self._client.collection_exists(name):
                raise CollectionExistsError(
                    f"collection {name!r} is on {self._address} already; choose another name or delete it"
                )
            kilobytes = EXACT_BELOW * spec.dimension * 4 // 1024
            self._client.create_collection(
                name,
                vectors_config=models.VectorParams(size=spec.dimension, distance=models.Distance.COSINE),
                optimizers_config=models.OptimizersConfigDiff(indexing_threshold=max(1, kilobytes)),
                metadata={KEY: spec.to_json()},
            )
            if self._metadata(name) is None:
                self._client.delete_collection(name)
                raise StoreError(f"the server at {self._address} keeps no metadata; upgrade Qdrant to 1.16")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the client's in-memory engine warns that it has no indexes
                self._client.create_payload_index(name, "person", models.PayloadSchemaType.KEYWORD, wait=True)

    def describe(self, name: str) -> CollectionSpec:
        """See :meth:`VectorStore.describe`.

        Raises:
            StoreError: the collection was not made by lookalike.
        """
        with self._call(name):
            if not self._client.collection_exists(name):
                raise missing(self._address, name)
        where = f"collection {name!r} on {self._address}"
        value = self._metadata(name)
        if value is None:
            raise StoreError(f"{where} is not a lookalike collection; index into another name")
        spec = CollectionSpec.from_json(value, where=where)
        self._dimensions[name] = spec.dimension
        return spec

    def redescribe(self, name: str, spec: CollectionSpec) -> None:
        """See :meth:`VectorStore.redescribe`."""
        self.describe(name).check_successor(name, spec)
        with self._call(name):
            # Metadata is merged key by key, one level deep: our one key is replaced whole.
            self._client.update_collection(name, metadata={KEY: spec.to_json()})

    def drop(self, name: str) -> None:
        """See :meth:`VectorStore.drop`. Collections that lookalike did not make are refused."""
        with self._call(name):
            if not self._client.collection_exists(name):
                raise missing(self._address, name)
            if self._metadata(name) is None:
                raise StoreError(
                    f"collection {name!r} on {self._address} is not a lookalike collection; "
                    "delete it with Qdrant's own tools"
                )
            self._client.delete_collection(name)
            self._dimensions.pop(name, None)

    def upsert(
        self, name: str, ids: Sequence[str], vectors: NDArray[np.float32], payloads: Sequence[Payload]
    ) -> None:
        """See :meth:`VectorStore.upsert`."""
        keys, rows, fields = check_points(ids, vectors, payloads, dimension=self._dimension(name))
        with self._call(name):
            for start in range(0, len(keys), BATCH):
                part = slice(start, start + BATCH)
                points = [
                    models.PointStruct(id=key, vector=row, payload=payload)
                    for key, row, payload in zip(keys[part], rows[part].tolist(), fields[part], strict=True)
                ]
                self._client.upsert(name, points, wait=True)

    def delete(self, name: str, ids: Sequence[str]) -> None:
        """See :meth:`VectorStore.delete`."""
        self._dimension(name)
        keys = check_ids(ids)
        with self._call(name):
            for start in range(0, len(keys), PAGE):
                self._client.delete(
                    name, models.PointIdsList(points=[*keys[start : start + PAGE]]), wait=True
                )

    def fetch(self, name: str, ids: Sequence[str], *, with_vectors: bool = False) -> dict[str, Record]:
        """See :meth:`VectorStore.fetch`."""
        self._dimension(name)
        with self._call(name):
            points = self._client.retrieve(name, check_ids(ids), with_vectors=with_vectors)
        return {str(point.id): Record.of(point, with_vector=with_vectors) for point in points}

    def search(
        self, name: str, queries: NDArray[np.float32], *, k: int, where: Filter | None = None
    ) -> list[list[Hit]]:
        """See :meth:`VectorStore.search`."""
        dimension = self._dimension(name)
        condition = _filter(where)

        def ask(asked: list[list[float]], limit: int) -> list[list[Hit]]:
            requests = [
                models.QueryRequest(query=row, limit=limit, filter=condition, with_payload=True)
                for row in asked
            ]
            with self._call(name):
                answers = self._client.query_batch_points(name, requests)
            return [[Hit(str(p.id), p.score, p.payload or {}) for p in each.points] for each in answers]

        return best_hits(ask, queries, k=k, dimension=dimension)

    def scroll(
        self, name: str, *, where: Filter | None = None, with_vectors: bool = False
    ) -> Iterator[Record]:
        """See :meth:`VectorStore.scroll`."""
        self._dimension(name)
        return self._pages(name, _filter(where), with_vectors=with_vectors)

    def _pages(self, name: str, where: models.Filter | None, *, with_vectors: bool) -> Iterator[Record]:
        offset: Any = None
        while True:
            with self._call(name):
                points, offset = self._client.scroll(
                    name, where, limit=PAGE, offset=offset, with_payload=True, with_vectors=with_vectors
                )
            yield from (Record.of(point, with_vector=with_vectors) for point in points)
            if offset is None:
                return

    def count(self, name: str, *, where: Filter | None = None) -> int:
        """See :meth:`VectorStore.count`."""
        self._dimension(name)
        with self._call(name):
            return self._client.count(name, _filter(where), exact=True).count

    def index_state(self, name: str) -> IndexState:
        """See :meth:`VectorStore.index_state`; a server does not tell what it takes on disk."""
        points = self.count(name)
        with self._call(name):
            return IndexState(points, self._client.get_collection(name).indexed_vectors_count or 0)

    def build_index(self, name: str) -> None:
        """See :meth:`VectorStore.build_index`: the server is told to index small segments too, and builds."""
        self._dimension(name)
        with self._call(name):
            small = models.OptimizersConfigDiff(indexing_threshold=1)
            self._client.update_collection(name, optimizers_config=small)
            status = models.CollectionStatus
            now = status.YELLOW
            while now in (status.YELLOW, status.GREY):
                time.sleep(POLL_SECONDS)  # before the first look too: it begins only after it has answered
                now = self._client.get_collection(name).status
            if now == status.RED:
                raise StoreError(f"the server at {self._address} could not build {name}; see its log")

    def flush(self, name: str) -> None:
        """See :meth:`VectorStore.flush`. The server has acknowledged every write already."""
        self._dimension(name)

    def close(self) -> None:
        """See :meth:`VectorStore.close`."""
        if not self._closed:
            self._closed = True
            with _mapped(self._address):
                self._client.close()

    @contextmanager
    def _call(self, name: str | None = None) -> Iterator[None]:
        if self._closed:
            raise StoreError(f"store {self._address} is closed; open it again")
        if name is not None and not is_name(name):
            raise missing(self._address, name)
        with _mapped(self._address, name):
            yield

    def _metadata(self, name: str) -> dict[str, Any] | None:
        """Return what lookalike wrote about a collection; None when it is another's, or gone meanwhile."""
        try:
            with self._call(name):
                metadata = self._client.get_collection(name).config.metadata or {}
        except CollectionNotFoundError:
            return None
        value = metadata.get(KEY)
        return value if isinstance(value, dict) else None

    def _dimension(self, name: str) -> int:
        if self._closed or name not in self._dimensions:
            self.describe(name)
        return self._dimensions[name]


def _client(url: str, key: str | None, *, timeout: int) -> QdrantClient:
    # As a header: given api_key=, the client warns of any plain http address, this machine's too. Its own
    # compatibility check warns from a thread; connect() looks at the version instead.
    headers = {"api-key": key} if key else None
    return QdrantClient(url=url, headers=headers, timeout=timeout, check_compatibility=False)


def _filter(where: Filter | None) -> models.Filter | None:
    return None if where is None else models.Filter.model_validate(written(where, models))


@contextmanager
def _mapped(address: str, name: str | None = None) -> Iterator[None]:
    """The boundary: whatever the client raises leaves as a StoreError of one line."""
    try:
        yield
    except LookalikeError:
        raise
    except UnexpectedResponse as error:
        reason = one_line(said(error.content, instead=error.reason_phrase))
        raise refused(error.status_code or 0, reason, address=address, name=name) from error
    except (ResponseHandlingException, JSONDecodeError) as error:
        reason = one_line(getattr(error, "source", error))
        raise StoreUnreachableError(
            f"no Qdrant server answers at {address} ({reason}); check the address and that it runs"
        ) from error
    except ResourceExhaustedResponse as error:
        wait = f"try again in {error.retry_after_s} s"
        raise StoreUnreachableError(f"{address} is overloaded ({one_line(error)}); {wait}") from error
    except (ApiException, QdrantException) as error:
        raise StoreError(f"the server at {address} failed ({one_line(error)}); see its log") from error
    except Exception as error:
        # The in-memory engine and the client's own checks raise plain ValueError and the like.
        reason = one_line(error)
        if name is not None and reason == f"Collection {name} not found":
            raise missing(address, name) from error
        raise StoreError(f"the Qdrant client refused a request to {address} ({reason})") from error
