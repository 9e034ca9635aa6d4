"""A Qdrant server or cluster as the store. The one module that names ``qdrant_client``.

What a collection remembers (CollectionSpec) lies in the collection's metadata under the key ``lookalike``, so
it travels with snapshots and replicas; metadata needs server 1.16. Collections without it are another's: they
are not listed and not touched. Segments are searched exactly below 100,000 vectors, above through HNSW.
"""

from __future__ import annotations

import ipaddress
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from json import JSONDecodeError
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from encoder.errors import (
    CollectionExistsError,
    CollectionNotFoundError,
    LookalikeError,
    OptionError,
    StoreError,
    StoreUnreachableError,
)
from indexer.store import (
    CollectionSpec,
    Filter,
    Hit,
    Payload,
    Record,
    check_ids,
    check_name,
    check_points,
    check_vectors,
    is_name,
    rank,
)

__all__ = ["ServerStore"]

KEY: Final = "lookalike"
NEEDED: Final = (1, 16)
PROBE_SECONDS: Final = 5
TIMEOUT_SECONDS: Final = 60
BATCH: Final = 256
QUERIES: Final = 64
PAGE: Final = 1000
EXACT_BELOW: Final = 100_000


class ServerStore:
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
        if key and urlsplit(url).scheme == "http" and not _is_private(url):
            raise StoreUnreachableError(
                f"an API key is not sent to {url} in clear text; use https://, or unset QDRANT_API_KEY"
            )
        with _mapped(url):
            probe = _client(url, key, timeout=PROBE_SECONDS)
            try:
                version = probe.info().version
                probe.get_collections()
            finally:
                probe.close()
            if not _is_recent(version):
                raise StoreUnreachableError(
                    f"the Qdrant server at {url} has version {version}; upgrade it to 1.16 or later"
                )
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
                # The client's own in-memory engine warns that it has no indexes.
                warnings.simplefilter("ignore")
                self._client.create_payload_index(name, "person", models.PayloadSchemaType.KEYWORD, wait=True)

    def describe(self, name: str) -> CollectionSpec:
        """See :meth:`VectorStore.describe`.

        Raises:
            StoreError: the collection was not made by lookalike.
        """
        with self._call(name):
            if not self._client.collection_exists(name):
                raise _missing(self._address, name)
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
                raise _missing(self._address, name)
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

    def search(
        self, name: str, queries: NDArray[np.float32], *, k: int, where: Filter | None = None
    ) -> list[list[Hit]]:
        """See :meth:`VectorStore.search`."""
        dimension = self._dimension(name)
        if k < 1:
            raise OptionError(f"k must be at least 1, {k} is not; ask for one hit or more")
        rows = check_vectors(queries, dimension=dimension).tolist()
        condition = _filter(where)

        def ask(asked: list[list[float]], limit: int) -> list[list[Hit]]:
            requests = [
                models.QueryRequest(query=row, limit=limit, filter=condition, with_payload=True)
                for row in asked
            ]
            with self._call(name):
                answers = self._client.query_batch_points(name, requests)
            return [[Hit(str(p.id), p.score, p.payload or {}) for p in each.points] for each in answers]

        def rest(row: list[float], first: list[Hit]) -> list[Hit]:
            return rank(first, k=k, fetch=lambda limit: ask([row], limit)[0])

        hits: list[list[Hit]] = []
        for start in range(0, len(rows), QUERIES):
            part = rows[start : start + QUERIES]
            hits += [rest(row, first) for row, first in zip(part, ask(part, k + 1), strict=True)]
        return hits

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
            for point in points:
                vector = np.array(point.vector, dtype=np.float32) if with_vectors else None
                yield Record(str(point.id), point.payload or {}, vector)
            if offset is None:
                return

    def count(self, name: str, *, where: Filter | None = None) -> int:
        """See :meth:`VectorStore.count`."""
        self._dimension(name)
        with self._call(name):
            return self._client.count(name, _filter(where), exact=True).count

    def flush(self, name: str) -> None:
        """See :meth:`VectorStore.flush`. The server has acknowledged every write already."""
        self._dimension(name)

    def close(self) -> None:
        """See :meth:`VectorStore.close`."""
        if not self._closed:
            self._closed = True
            with _mapped(self._address):
                self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _call(self, name: str | None = None) -> Iterator[None]:
        if self._closed:
            raise StoreError(f"store {self._address} is closed; open it again")
        if name is not None and not is_name(name):
            raise _missing(self._address, name)
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


def _is_private(url: str) -> bool:
    """Whether the host is this machine or, by its name or number, one of a private network."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".local", ".internal", ".localhost"))


def _is_recent(version: str) -> bool:
    numbers = re.match(r"(\d+)\.(\d+)", version)
    return numbers is None or (int(numbers[1]), int(numbers[2])) >= NEEDED  # None: a development build


def _filter(where: Filter | None) -> models.Filter | None:
    if where is None:
        return None
    must: list[models.Condition] = []
    must_not: list[models.Condition] = []
    bounds = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}
    for condition in where.conditions:
        key = condition.path
        if condition.op in bounds:
            limits = models.Range.model_validate({bounds[condition.op]: condition.value})
            must.append(models.FieldCondition(key=key, range=limits))
        else:
            test = models.FieldCondition(
                key=key, match=models.MatchValue.model_validate({"value": condition.value})
            )
            (must if condition.op == "=" else must_not).append(test)
    if where.not_ids:
        must_not.append(models.HasIdCondition(has_id=[*check_ids(where.not_ids)]))
    return models.Filter(must=must, must_not=must_not)


def _missing(address: str, name: str | None) -> CollectionNotFoundError:
    return CollectionNotFoundError(f"no collection {name!r} on {address}; `lookalike collections` lists them")


@contextmanager
def _mapped(address: str, name: str | None = None) -> Iterator[None]:
    """The boundary: whatever the client raises leaves as a StoreError of one line."""
    try:
        yield
    except LookalikeError:
        raise
    except UnexpectedResponse as error:
        raise _answered(error, address, name) from error
    except (ResponseHandlingException, JSONDecodeError) as error:
        reason = _line(getattr(error, "source", error))
        raise StoreUnreachableError(
            f"no Qdrant server answers at {address} ({reason}); check the address and that it runs"
        ) from error
    except ResourceExhaustedResponse as error:
        raise StoreUnreachableError(
            f"the server at {address} is overloaded ({_line(error)}); try again in {error.retry_after_s} s"
        ) from error
    except (ApiException, QdrantException) as error:
        raise StoreError(f"the server at {address} failed ({_line(error)}); see its log") from error
    except Exception as error:
        # The in-memory engine and the client's own checks raise plain ValueError and the like.
        reason = _line(error)
        if name is not None and reason == f"Collection {name} not found":
            raise _missing(address, name) from error
        raise StoreError(f"the Qdrant client refused a request to {address} ({reason})") from error


def _answered(error: UnexpectedResponse, address: str, name: str | None) -> StoreError:
    """Return what an HTTP status that is no success means."""
    status, reason = error.status_code or 0, _line(_said(error))
    if status in (401, 403):
        return StoreUnreachableError(
            f"the server at {address} refuses the API key or its absence ({status}); set QDRANT_API_KEY"
        )
    if name is not None and status == 409:
        return CollectionExistsError(f"collection {name!r} is on {address} already; choose another name")
    if name is not None and status == 404 and name in reason:
        return _missing(address, name)
    if status == 404:
        return StoreUnreachableError(f"no Qdrant server at {address} (404); check the address and its port")
    if status >= 500:
        return StoreUnreachableError(f"the server at {address} failed ({status}: {reason}); see its log")
    return StoreError(f"the server at {address} refused a request ({status}: {reason}); see its log")


def _said(error: UnexpectedResponse) -> object:
    """Return the server's own words, or the status phrase when the answer is not Qdrant's."""
    try:
        return error.structured()["status"]["error"]
    except (ValueError, KeyError, TypeError):
        return error.reason_phrase


def _line(said: object) -> str:
    return (" ".join(str(said).split()) or type(said).__name__)[:200]
