"""Layouts as the bodies of Qdrant's REST API (``PUT`` and ``GET /collections/{name}``), and back.

They use ``on_disk`` and ``always_ram``, not the newer ``memory``, which a server of version 1.16 does not
know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from lookalike.encoder.errors import InvalidArgumentError
from lookalike.indexer.server.upload import BATCH
from lookalike.indexer.store import EF_SEARCH, QUANTILE, Layout, Quantization, StorageConfig

EXACT_BELOW: Final = 100_000
SEGMENTS: Final = 8
"""Segments of a shard at most, as a rule: a server makes one for each of two to eight processor cores."""


DEFERRED: Final = "lookalike.deferred"
"""Key of the metadata with the graph that a collection is to have: ``m`` and ``payload_m``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a request may ask for where a collection is in strict mode; else as much as we ever ask for.

    Attributes:
        upsert: Points that are written together.
        batch: Queries that are asked together.
        hits: Points that are returned for a query, or as a page.
        condition: Ids in one condition.
        ef: Width of a search in the graph.
        oversampling: Candidates that are rescored for each hit.
    """

    upsert: int = BATCH
    batch: int = 1 << 16
    hits: int = 1 << 16
    condition: int = 1000
    ef: int = EF_SEARCH
    oversampling: float = 1000.0

    @classmethod
    def of(cls, strict_mode: Mapping[str, Any] | None) -> Self:
        """Return the limits in the ``strict_mode_config`` of a collection."""
        if not strict_mode or not strict_mode.get("enabled"):
            return cls()
        usual = cls()
        found = {
            name: min(getattr(usual, name), strict_mode[key])
            for name, key in _STRICT.items()
            if strict_mode.get(key) is not None
        }
        return cls(**found)


_STRICT: Final = {
    "upsert": "upsert_max_batchsize",
    "batch": "search_max_batchsize",
    "hits": "max_query_limit",
    "condition": "condition_max_size",
    "ef": "search_max_hnsw_ef",
    "oversampling": "search_max_oversampling",
}


def segment_threshold(dimension: int, shards: int) -> int:
    """Return the kilobytes of vectors above which a segment gets a graph.

    The server compares each segment by itself. With this, a collection of 100,000 vectors or more gets graphs
    whether its shards have two segments or eight; a small one is searched exactly.
    """
    return max(1, EXACT_BELOW * dimension * 4 // 1024 // (shards * SEGMENTS))


def to_qdrant(layout: Layout, dimension: int, storage: StorageConfig) -> dict[str, Any]:
    """Return the body of the request that creates a collection.

    Small segments get no graph, see :func:`segment_threshold`. One shard and one replica are only sent when
    they were requested: otherwise the server's own configuration decides. A deferred graph has no edges yet,
    see :func:`deferred_graph`.
    """
    body: dict[str, Any] = {
        "vectors": {"size": dimension, "distance": "Cosine", "on_disk": layout.on_disk},
        "hnsw_config": {
            "m": layout.hnsw_m,
            "ef_construct": layout.hnsw_ef_construct,
            "payload_m": layout.hnsw_payload_m,
        },
        "optimizers_config": {"indexing_threshold": segment_threshold(dimension, layout.shards)},
    }
    if storage.defer_index:
        body["hnsw_config"] |= {"m": 0, "payload_m": 0}
    if layout.quantization == "int8":
        body["quantization_config"] = {"scalar": {"type": "int8", "quantile": QUANTILE, "always_ram": True}}
    elif layout.quantization == "binary":
        body["quantization_config"] = {"binary": {"always_ram": True}}
    for key, name in (("shard_number", "shards"), ("replication_factor", "replicas")):
        if (value := getattr(layout, name)) > 1 or name in storage.explicit:
            body[key] = value
    return body


def deferred_graph(layout: Layout, storage: StorageConfig) -> dict[str, Any]:
    """Return the metadata that remembers the graph of a layout until it is built; empty if not deferred."""
    if not storage.defer_index:
        return {}
    return {DEFERRED: {"m": layout.hnsw_m, "payload_m": layout.hnsw_payload_m}}


def from_qdrant(config: Mapping[str, Any]) -> Layout | None:
    """Return a server's configuration as a layout, as it will be when nothing is deferred.

    None: it cannot be expressed as one.
    """
    params, hnsw, quantized = config["params"], config["hnsw_config"], config.get("quantization_config")
    hnsw = hnsw | ((config.get("metadata") or {}).get(DEFERRED) or {})
    quantization: Quantization = "none"
    if quantized is not None:
        if not {"scalar", "binary"} & quantized.keys():
            return None
        quantization = "int8" if "scalar" in quantized else "binary"
    payload_m = hnsw.get("payload_m")
    try:
        return Layout(
            shards=params.get("shard_number") or 1,
            replicas=params.get("replication_factor") or 1,
            quantization=quantization,
            on_disk=bool((params.get("vectors") or {}).get("on_disk")),
            hnsw_m=hnsw["m"],
            hnsw_ef_construct=hnsw["ef_construct"],
            hnsw_payload_m=hnsw["m"] if payload_m is None else payload_m,
        )
    except InvalidArgumentError:
        return None
