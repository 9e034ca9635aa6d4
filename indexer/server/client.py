"""The client of a Qdrant server or cluster. The one module that imports ``qdrant_client``.

The spec of a collection is stored in its metadata, so it is part of snapshots and replicas; metadata needs
server 1.16.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from json import JSONDecodeError
from typing import Any, Final, Self, cast

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
from lookalike.indexer.server.config import DEFERRED, Limits, from_qdrant
from lookalike.indexer.server.errors import (
    SUBSTRING_VERSION,
    check_key,
    check_version,
    collection_not_found,
    error_from_status,
    error_text,
    one_line,
    parse_version,
    version_warning,
)
from lookalike.indexer.server.failover import Failover, split_urls
from lookalike.indexer.server.payload_indexes import Kind
from lookalike.indexer.server.replicas import Step
from lookalike.indexer.store import (
    MOST_VALUES,
    NO_ID,
    Filter,
    Hit,
    Layout,
    Record,
    ShardCopies,
    facet_of_text,
    oversampling,
)

PROBE_SECONDS: Final = 5
TIMEOUT_SECONDS: Final = 60
PAGE: Final = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class CollectionInfo:
    """State of a collection on the server.

    Attributes:
        metadata: Its metadata, see ``lookalike.indexer.server.metadata``.
        layout: Its layout; None when it cannot be expressed as a :class:`Layout`.
        limits: What a request may ask for.
        indexed: Vectors in HNSW graphs.
        threshold: Kilobytes of vectors above which a segment gets a graph; None: the server's own.
        fields: The indexed payload fields, as Qdrant paths.
        texts: Those of them that are indexed as text.
        optimizing: Whether the server is building graphs, or will.
        failed: Whether building them failed.
        deferred: The graph that is not built yet, see :data:`lookalike.indexer.server.config.DEFERRED`; None:
            nothing is deferred.
    """

    metadata: dict[str, Any]
    layout: Layout | None
    limits: Limits
    indexed: int
    threshold: int | None
    fields: frozenset[str]
    texts: frozenset[str]
    optimizing: bool
    failed: bool
    deferred: dict[str, int] | None = None


class Server:
    """A server or cluster. Every method raises a StoreError with a one-line message when it fails.

    Args:
        client: The client; closed by :meth:`close`.
        address: The URL or URLs that open it again, also for messages.
        in_memory: Whether it is the client's own engine, which has one peer, no indexes, and one thread.
        version: Version of the server; None: that of the client.
    """

    def __init__(
        self, client: QdrantClient, address: str, *, in_memory: bool = False, version: str | None = None
    ) -> None:
        self._client = client
        self.address = address
        self.in_memory = in_memory
        own = installed_version("qdrant-client")
        numbers = parse_version(version or own)
        self.has_substrings = hasattr(models, "MatchSubstring") and (
            numbers is None or numbers >= SUBSTRING_VERSION
        )
        self.warning = version_warning(address, version or own, own)

    @classmethod
    def connect(cls, address: str, api_key: str | None = None) -> Self:
        """Connect to the server at a URL, or to the first of several that answers.

        Raises:
            StoreUnreachableError: no answer, not Qdrant, older than 1.16, or the key is refused.
        """
        key = api_key if api_key is not None else os.environ.get("QDRANT_API_KEY")
        urls = split_urls(address) or [address]
        for url in urls:
            check_key(url, key)
        probes = Failover(urls, lambda url: _client(url, key, timeout=PROBE_SECONDS), _is_down)
        with _map_errors(address):
            probe = cast(QdrantClient, probes)
            try:
                version = probe.info().version
                probe.get_collections()
            finally:
                probes.close()
            check_version(address, version)
            clients = Failover(urls, lambda url: _client(url, key, timeout=TIMEOUT_SECONDS), _is_down)
            return cls(cast(QdrantClient, clients), address, version=version)

    def close(self) -> None:
        """Close the client."""
        with _map_errors(self.address):
            self._client.close()

    def peers(self) -> dict[int, bool] | None:
        """Return the peers of the cluster and whether each answers the others; None for a single server."""
        if self.in_memory:
            return None
        with _map_errors(self.address):
            status = self._client.cluster_status()
        if not isinstance(status, models.ClusterStatusOneOf1):
            return None
        silent = {uri.rstrip("/") for uri in status.message_send_failures}
        return {int(peer): info.uri.rstrip("/") not in silent for peer, info in status.peers.items()}

    def copies(self, name: str) -> tuple[list[ShardCopies], set[int]]:
        """Return the copies of each shard of a collection, and the shards that are being transferred."""
        with _map_errors(self.address, name):
            info = self._client.collection_cluster_info(name)
        states: dict[int, dict[int, str]] = {}
        for local in info.local_shards:
            states.setdefault(local.shard_id, {})[info.peer_id] = str(local.state)
        for remote in info.remote_shards:
            states.setdefault(remote.shard_id, {})[remote.peer_id] = str(remote.state)
        shards = [ShardCopies(shard, states[shard]) for shard in sorted(states)]
        return shards, {each.shard_id for each in info.shard_transfers}

    def begin_step(self, name: str, step: Step) -> None:
        """Have the cluster begin to copy, move or drop a shard."""
        operation: models.ClusterOperations
        place: dict[str, Any] = {
            "shard_id": step.shard,
            "from_peer_id": step.source,
            "to_peer_id": step.target,
        }
        match step.kind:
            case "replicate":
                operation = models.ReplicateShardOperation(replicate_shard=models.ReplicateShard(**place))
            case "move":
                operation = models.MoveShardOperation(move_shard=models.MoveShard(**place))
            case "drop":
                replica = models.Replica(shard_id=step.shard, peer_id=step.target)
                operation = models.DropReplicaOperation(drop_replica=replica)
        with _map_errors(self.address, name, write=True):
            self._client.cluster_collection_update(name, operation)

    def set_replicas(self, name: str, replicas: int) -> None:
        """Have a collection keep so many copies of each shard; none is made by that."""
        with _map_errors(self.address, name, write=True):
            params = models.CollectionParamsDiff(replication_factor=replicas)
            self._client.update_collection(name, collection_params=params)

    def list_collections(self) -> list[str]:
        """Return the names of all collections, including those of other programs."""
        with _map_errors(self.address):
            return [each.name for each in self._client.get_collections().collections]

    def aliases(self) -> dict[str, str]:
        """Return all aliases, alias to collection."""
        with _map_errors(self.address):
            return {each.alias_name: each.collection_name for each in self._client.get_aliases().aliases}

    def set_alias(self, alias: str, name: str | None, *, exists: bool) -> None:
        """Point an alias to a collection atomically, or remove it (None); ``exists``: there is one now."""
        steps: list[Any] = []
        if exists:
            steps.append(models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)))
        if name is not None:
            create = models.CreateAlias(collection_name=name, alias_name=alias)
            steps.append(models.CreateAliasOperation(create_alias=create))
        with _map_errors(self.address, name, write=True):
            self._client.update_collection_aliases(change_aliases_operations=steps)

    def get_info(self, name: str) -> CollectionInfo | None:
        """Return the state of a collection; None when it does not exist."""
        try:
            with _map_errors(self.address, name):
                info = self._client.get_collection(name)
        except CollectionNotFoundError:
            return None
        config = info.config.model_dump(exclude_none=True)
        status, text = models.CollectionStatus, models.PayloadSchemaType.KEYWORD
        return CollectionInfo(
            metadata=dict(info.config.metadata or {}),
            layout=from_qdrant(config),
            limits=Limits.of(config.get("strict_mode_config")),
            indexed=info.indexed_vectors_count or 0,
            threshold=info.config.optimizer_config.indexing_threshold,
            fields=frozenset(info.payload_schema),
            texts=frozenset(path for path, index in info.payload_schema.items() if index.data_type == text),
            optimizing=info.status in (status.YELLOW, status.GREY),
            failed=info.status == status.RED,
            deferred=(info.config.metadata or {}).get(DEFERRED),
        )

    def create(self, name: str, config: Mapping[str, Any], metadata: dict[str, Any]) -> None:
        """Create a collection with a body of :func:`to_qdrant` and metadata."""
        with _map_errors(self.address, name, write=True):
            body = models.CreateCollection.model_validate({**config, "metadata": metadata})
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

    def merge_metadata(self, name: str, values: dict[str, Any]) -> None:
        """Merge into the metadata of a collection, key by key; a key with None is removed."""
        with _map_errors(self.address, name, write=True):
            self._client.update_collection(name, metadata=values)

    def create_payload_index(self, name: str, field: str, kind: Kind) -> None:
        """Index a payload field, given as a Qdrant path; doing it again changes nothing."""
        if self.in_memory:
            return
        on_disk = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, on_disk=True)
        schema = on_disk if kind == "unique" else models.PayloadSchemaType(kind)
        with _map_errors(self.address, name, write=True):
            self._client.create_payload_index(name, field, schema, wait=True)

    def delete_collection(self, name: str) -> None:
        """Delete a collection."""
        with _map_errors(self.address, name, write=True):
            self._client.delete_collection(name)

    def upsert(
        self, name: str, keys: Sequence[str], rows: NDArray[np.float32], payloads: Sequence[dict[str, Any]]
    ) -> None:
        """Insert or replace N points; they are in the server's log, visible after :meth:`wait_applied`."""
        points = [
            models.PointStruct(id=key, vector=row, payload=payload)
            for key, row, payload in zip(keys, rows.tolist(), payloads, strict=True)
        ]
        with _map_errors(self.address, name, write=True):
            self._client.upsert(name, points, wait=False)

    def wait_applied(self, name: str) -> None:
        """Return when everything acknowledged is applied in all shards.

        Raises:
            StoreUnavailableError: it takes too long.
        """
        no_point = models.Filter(must=[models.HasIdCondition(has_id=[NO_ID])])
        with _map_errors(self.address, name, write=True):
            # A shard applies its log in order, and a deletion by filter goes into the log of every shard.
            self._applied(self._client.delete(name, models.FilterSelector(filter=no_point), wait=True))

    def check_stored(self, name: str, keys: Sequence[str]) -> None:
        """Check that N points exist.

        Raises:
            StoreUnavailableError: they do not exist yet.
        """
        these = models.Filter(must=[models.HasIdCondition(has_id=list(keys))])
        with _map_errors(self.address, name):
            stored = self._client.count(name, these, exact=True).count
        if stored < len(keys):
            raise StoreUnavailableError(
                f"{self.address} has {stored} of {len(keys)} points that it acknowledged; see its log"
            )

    def delete(self, name: str, keys: Sequence[str]) -> None:
        """Delete points; they are gone when this returns."""
        with _map_errors(self.address, name, write=True):
            self._applied(self._client.delete(name, models.PointIdsList(points=[*keys]), wait=True))

    def _applied(self, result: models.UpdateResult) -> None:
        if result.status != models.UpdateStatus.COMPLETED:
            raise StoreUnavailableError(f"{self.address} took too long ({result.status})")

    def get(self, name: str, keys: Sequence[str], *, with_vectors: bool) -> list[Record]:
        """Return the points that exist among these ids."""
        with _map_errors(self.address, name):
            points = self._client.retrieve(name, list(keys), with_vectors=with_vectors)
        return [Record.from_point(point, with_vector=with_vectors) for point in points]

    def query(
        self,
        name: str,
        rows: list[list[float]],
        *,
        limit: int,
        where: Filter | None,
        layout: Layout | None,
        limits: Limits,
    ) -> list[list[Hit]]:
        """Return for each row at most ``limit`` hits, best first, rescored if vectors are quantized."""
        factor = oversampling(None if layout is None else layout.quantization)
        rescore = None
        if factor is not None:
            candidates = min(factor, limits.oversampling)
            rescore = models.QuantizationSearchParams(rescore=True, oversampling=candidates)
        acorn = models.AcornSearchParams(enable=True, max_selectivity=1.0)
        params = models.SearchParams(
            hnsw_ef=limits.ef,
            quantization=rescore,
            acorn=acorn if where is not None and where.conditions else None,
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
        parts = [requests[at : at + limits.batch] for at in range(0, len(requests), limits.batch)]
        with _map_errors(self.address, name):
            answers = [each for part in parts for each in self._client.query_batch_points(name, part)]
        return [[Hit.from_point(p) for p in each.points] for each in answers]

    def scroll_page(
        self, name: str, offset: Any, *, where: Filter | None, with_vectors: bool, most: int
    ) -> tuple[list[Record], Any]:
        """Return a page of records ordered by id from ``offset`` (None: the first), and the next offset."""
        page: dict[str, Any] = {"limit": min(PAGE, most), "offset": offset}
        with _map_errors(self.address, name):
            points, next_offset = self._client.scroll(
                name, _filter(where), **page, with_payload=True, with_vectors=with_vectors
            )
        return [Record.from_point(point, with_vector=with_vectors) for point in points], next_offset

    def count(self, name: str, where: Filter | None) -> int:
        """Return the exact number of points that pass the filter."""
        with _map_errors(self.address, name):
            return self._client.count(name, _filter(where), exact=True).count

    def facet(self, name: str, path: str, where: Filter | None, *, most: int) -> dict[str, int] | None:
        """Count the values of an indexed field; see :meth:`VectorStore.facet`."""
        passing = models.Filter.model_validate((where or Filter()).to_json())
        empty = models.IsEmptyCondition(is_empty=models.PayloadField(key=path))
        several = models.FieldCondition(key=path, values_count=models.ValuesCount(gt=1))
        has = models.Filter(must=[passing], must_not=[empty])
        have_several = models.Filter(must=[passing, several])
        with _map_errors(self.address, name):
            found = self._client.facet(name, path, passing, limit=min(MOST_VALUES, most), exact=True)
            return facet_of_text(
                ((hit.value, hit.count) for hit in found.hits),
                points=self._client.count(name, has, exact=True).count,
                with_several=self._client.count(name, have_several, exact=True).count,
            )

    def set_graph(self, name: str, graph: dict[str, int]) -> None:
        """Have the server build graphs with these edges from now on: ``m`` and ``payload_m``."""
        with _map_errors(self.address, name, write=True):
            self._client.update_collection(name, hnsw_config=models.HnswConfigDiff.model_validate(graph))

    def set_threshold(self, name: str, kilobytes: int) -> None:
        """Have the server build graphs of segments with more than so many kilobytes of vectors."""
        with _map_errors(self.address, name, write=True):
            config = models.OptimizersConfigDiff(indexing_threshold=kilobytes)
            self._client.update_collection(name, optimizers_config=config)


def _client(url: str, key: str | None, *, timeout: int) -> QdrantClient:
    # As a header: with api_key=, the client warns of any plain http address, also of this machine. Its own
    # compatibility check warns from a thread; connect() checks the version instead.
    headers = {"api-key": key} if key else None
    return QdrantClient(url=url, headers=headers, timeout=timeout, check_compatibility=False)


def _filter(where: Filter | None) -> models.Filter | None:
    return None if where is None else models.Filter.model_validate(where.to_json())


def _is_down(error: Exception) -> bool:
    """Whether another peer may answer what this one did not."""
    if isinstance(error, UnexpectedResponse):
        return (error.status_code or 0) >= 500
    return isinstance(error, ResponseHandlingException) and not isinstance(error.source, ValueError)


@contextmanager
def _map_errors(address: str, name: str | None = None, *, write: bool = False) -> Iterator[None]:
    """Turn whatever the client raises into a StoreError with a one-line message."""
    try:
        yield
    except LookalikeError:
        raise
    except UnexpectedResponse as error:
        reason = one_line(error_text(error.content, default=error.reason_phrase))
        status = error.status_code or 0
        raise error_from_status(status, reason, address=address, name=name, write=write) from error
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
    except (MemoryError, RecursionError):
        raise  # they say nothing of the input
    except Exception as error:
        # The in-memory engine and the client's own checks raise plain ValueError and the like.
        reason = one_line(error)
        if name is not None and reason == f"Collection {name} not found":
            raise collection_not_found(address, name) from error
        raise StoreError(f"the Qdrant client refused a request to {address} ({reason})") from error
