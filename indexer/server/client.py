"""A Qdrant server or cluster: what is asked of it, in our words. The one module that names ``qdrant_client``.

What a collection remembers lies in the collection's metadata under the key ``lookalike``, so it travels with
snapshots and replicas; metadata needs server 1.16.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from json import JSONDecodeError
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from lookalike.encoder.errors import (
    CollectionNotFoundError,
    LookalikeError,
    StoreError,
    StoreUnavailableError,
)
from lookalike.indexer.server.config import from_qdrant
from lookalike.indexer.server.errors import (
    check_key,
    check_version,
    collection_not_found,
    error_from_status,
    error_text,
    filter_to_json,
    one_line,
)
from lookalike.indexer.store.filters import Filter
from lookalike.indexer.store.layout import EF_SEARCH, Layout, oversampling
from lookalike.indexer.store.points import Hit, Record

KEY: Final = "lookalike"
PROBE_SECONDS: Final = 5
TIMEOUT_SECONDS: Final = 60
PAGE: Final = 1000
_NOBODY: Final = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, kw_only=True, slots=True)
class CollectionInfo:
    """What the server says of a collection.

    Attributes:
        metadata: What lookalike wrote about it; None when it is another's.
        layout: How it lies there; None when that is none of ours.
        indexed: Vectors in HNSW graphs.
        optimizing: Whether it is at work on them, or about to be.
        failed: Whether it could not.
    """

    metadata: dict[str, Any] | None
    layout: Layout | None
    indexed: int
    optimizing: bool
    failed: bool


class Server:
    """A server by its address. Every method raises a StoreError of one line where it fails.

    Args:
        client: The client; closed by :meth:`close`.
        address: What to call the server in messages, the URL that opens it again.
        in_memory: It is the client's own engine, which has one peer, no indexes, and is for one thread.
    """

    def __init__(self, client: QdrantClient, address: str, *, in_memory: bool = False) -> None:
        self._client = client
        self.address = address
        self.in_memory = in_memory

    @classmethod
    def connect(cls, url: str, api_key: str | None = None) -> Self:
        """Open the server at ``url``, once it has answered.

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
            return cls(_client(url, key, timeout=TIMEOUT_SECONDS), url)

    def close(self) -> None:
        """Let it go."""
        with _mapped(self.address):
            self._client.close()

    def peers(self) -> int:
        """Return how many peers the cluster has; 1: it is none."""
        if self.in_memory:
            return 1
        with _mapped(self.address):
            status = self._client.cluster_status()
        return max(1, len(status.peers)) if isinstance(status, models.ClusterStatusOneOf1) else 1

    def list_collections(self) -> list[str]:
        """Return the names of all collections, other programs' too."""
        with _mapped(self.address):
            return [each.name for each in self._client.get_collections().collections]

    def aliases(self) -> dict[str, str]:
        """Return all aliases, each with its collection."""
        with _mapped(self.address):
            return {each.alias_name: each.collection_name for each in self._client.get_aliases().aliases}

    def set_alias(self, alias: str, name: str | None, *, exists: bool) -> None:
        """Point an alias to a collection, in one step, or remove it (None); ``exists``: there is such an alias now."""
        steps: list[Any] = []
        if exists:
            steps.append(models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)))
        if name is not None:
            make = models.CreateAlias(collection_name=name, alias_name=alias)
            steps.append(models.CreateAliasOperation(create_alias=make))
        with _mapped(self.address, name):
            self._client.update_collection_aliases(change_aliases_operations=steps)

    def get_info(self, name: str) -> CollectionInfo | None:
        """Return what the server says of a collection; None when it is not there, or gone meanwhile."""
        try:
            with _mapped(self.address, name):
                info = self._client.get_collection(name)
        except CollectionNotFoundError:
            return None
        value = (info.config.metadata or {}).get(KEY)
        status = models.CollectionStatus
        return CollectionInfo(
            metadata=value if isinstance(value, dict) else None,
            layout=from_qdrant(info.config.model_dump(exclude_none=True)),
            indexed=info.indexed_vectors_count or 0,
            optimizing=info.status in (status.YELLOW, status.GREY),
            failed=info.status == status.RED,
        )

    def create(self, name: str, configured: Mapping[str, Any], remembered: dict[str, Any]) -> None:
        """Make a collection, by :func:`configuration`, that remembers this."""
        with _mapped(self.address, name):
            body = models.CreateCollection.model_validate({**configured, "metadata": {KEY: remembered}})
            self._client.create_collection(
                name,
                vectors_config=body.vectors,
                shard_number=body.shard_number,
                replication_factor=body.replication_factor,
                optimizers_config=body.optimizers_config,
                hnsw_config=body.hnsw_config,
                quantization_config=body.quantization_config,
                metadata=body.metadata,
            )

    def set_metadata(self, name: str, values: dict[str, Any]) -> None:
        """Write anew what a collection remembers."""
        with _mapped(self.address, name):
            # Metadata is merged key by key, one level deep: our one key is replaced whole.
            self._client.update_collection(name, metadata={KEY: values})

    def create_payload_indexes(self, name: str, words: Sequence[str], numbers: Sequence[str]) -> None:
        """Have payload fields indexed, given as Qdrant's paths; doing it again changes nothing."""
        if self.in_memory:
            return
        kinds = models.PayloadSchemaType
        with _mapped(self.address, name):
            for fields, kind in ((words, kinds.KEYWORD), (numbers, kinds.FLOAT)):
                for field in fields:
                    self._client.create_payload_index(name, field, kind, wait=True)

    def delete_collection(self, name: str) -> None:
        """Delete a collection."""
        with _mapped(self.address, name):
            self._client.delete_collection(name)

    def upsert(
        self, name: str, keys: Sequence[str], rows: NDArray[np.float32], payloads: Sequence[dict[str, Any]]
    ) -> None:
        """Insert or replace N points; acknowledged, they are in its log but not yet seen: :meth:`settle`."""
        points = [
            models.PointStruct(id=key, vector=row, payload=payload)
            for key, row, payload in zip(keys, rows.tolist(), payloads, strict=True)
        ]
        with _mapped(self.address, name):
            self._client.upsert(name, points, wait=False)

    def wait_applied(self, name: str, keys: Sequence[str]) -> None:
        """Return once all that was acknowledged is applied in every shard, and N different points are there.

        Raises:
            StoreUnavailableError: that has not happened yet.
        """
        nobody = models.Filter(must=[models.HasIdCondition(has_id=[_NOBODY])])
        these = models.Filter(must=[models.HasIdCondition(has_id=list(keys))])
        with _mapped(self.address, name):
            # A shard applies its log in order; what names points by a filter goes into that of each.
            self._applied(self._client.delete(name, models.FilterSelector(filter=nobody), wait=True))
            there = self._client.count(name, these, exact=True).count
        if there < len(keys):
            raise StoreUnavailableError(
                f"{self.address} holds {there} of {len(keys)} points that it acknowledged; see its log"
            )

    def delete(self, name: str, keys: Sequence[str]) -> None:
        """Delete points; it is done once it returns."""
        with _mapped(self.address, name):
            self._applied(self._client.delete(name, models.PointIdsList(points=[*keys]), wait=True))

    def _applied(self, result: models.UpdateResult) -> None:
        if result.status != models.UpdateStatus.COMPLETED:
            raise StoreUnavailableError(f"{self.address} took too long ({result.status})")

    def get(self, name: str, keys: Sequence[str], *, with_vectors: bool) -> list[Record]:
        """Return those of these points that are there."""
        with _mapped(self.address, name):
            points = self._client.retrieve(name, list(keys), with_vectors=with_vectors)
        return [Record.from_point(point, with_vector=with_vectors) for point in points]

    def query(
        self, name: str, rows: list[list[float]], *, limit: int, where: Filter | None, layout: Layout | None
    ) -> list[list[Hit]]:
        """Return for each row at most ``limit`` hits, best first, rescored where copies are quantized."""
        more = oversampling(None if layout is None else layout.quantization)
        copies = None if more is None else models.QuantizationSearchParams(rescore=True, oversampling=more)
        detour = models.AcornSearchParams(enable=True, max_selectivity=1.0)
        params = models.SearchParams(
            hnsw_ef=EF_SEARCH,
            quantization=copies,
            acorn=detour if where is not None and where.conditions else None,
        )
        condition = _filter(where)
        requests = [
            models.QueryRequest(
                query=row,
                limit=limit,
                filter=condition,
                with_payload=True,
                params=None if self.in_memory else params,
            )
            for row in rows
        ]
        with _mapped(self.address, name):
            answers = self._client.query_batch_points(name, requests)
        return [[Hit(str(p.id), p.score, p.payload or {}) for p in each.points] for each in answers]

    def scroll_page(
        self, name: str, offset: Any, *, where: Filter | None, with_vectors: bool
    ) -> tuple[list[Record], Any]:
        """Return records from ``offset`` on (None: the first) in the order of ids, and the next offset."""
        with _mapped(self.address, name):
            points, following = self._client.scroll(
                name, _filter(where), limit=PAGE, offset=offset, with_payload=True, with_vectors=with_vectors
            )
        return [Record.from_point(point, with_vector=with_vectors) for point in points], following

    def count(self, name: str, where: Filter | None) -> int:
        """Return exactly how many points pass."""
        with _mapped(self.address, name):
            return self._client.count(name, _filter(where), exact=True).count

    def index_all_segments(self, name: str) -> None:
        """Have small segments indexed too."""
        with _mapped(self.address, name):
            small = models.OptimizersConfigDiff(indexing_threshold=1)
            self._client.update_collection(name, optimizers_config=small)


def _client(url: str, key: str | None, *, timeout: int) -> QdrantClient:
    # As a header: given api_key=, the client warns of any plain http address, this machine's too. Its own
    # compatibility check warns from a thread; connect() looks at the version instead.
    headers = {"api-key": key} if key else None
    return QdrantClient(url=url, headers=headers, timeout=timeout, check_compatibility=False)


def _filter(where: Filter | None) -> models.Filter | None:
    return None if where is None else models.Filter.model_validate(filter_to_json(where, models))


@contextmanager
def _mapped(address: str, name: str | None = None) -> Iterator[None]:
    """The boundary: whatever the client raises leaves as a StoreError of one line."""
    try:
        yield
    except LookalikeError:
        raise
    except UnexpectedResponse as error:
        reason = one_line(error_text(error.content, instead=error.reason_phrase))
        raise error_from_status(error.status_code or 0, reason, address=address, name=name) from error
    except (ResponseHandlingException, JSONDecodeError) as error:
        reason = one_line(getattr(error, "source", error))
        raise StoreUnavailableError(
            f"no Qdrant server answers at {address} ({reason}); check the address and that it runs"
        ) from error
    except ResourceExhaustedResponse as error:
        busy = StoreUnavailableError(
            f"{address} is overloaded ({one_line(error)}); try again in {error.retry_after_s} s"
        )
        busy.wait = float(error.retry_after_s)
        raise busy from error
    except (ApiException, QdrantException) as error:
        raise StoreError(f"the server at {address} failed ({one_line(error)}); see its log") from error
    except Exception as error:
        # The in-memory engine and the client's own checks raise plain ValueError and the like.
        reason = one_line(error)
        if name is not None and reason == f"Collection {name} not found":
            raise collection_not_found(address, name) from error
        raise StoreError(f"the Qdrant client refused a request to {address} ({reason})") from error
