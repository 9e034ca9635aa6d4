"""Layouts in the words of Qdrant's REST interface (``PUT`` and ``GET /collections/{name}``), and back.

``on_disk`` and ``always_ram``, not their successor ``memory``: a server of version 1.16 does not know that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lookalike.encoder.errors import InvalidArgumentError
from lookalike.indexer.store.layout import QUANTILE, Layout, Quantization, StorageConfig

EXACT_BELOW: Final = 100_000


def to_qdrant(layout: Layout, dimension: int, options: StorageConfig) -> dict[str, Any]:
    """Return the body that makes a collection.

    Segments below 100,000 vectors get no graph. One shard and one copy are only said when they were asked
    for: else it is the server's configuration that decides.
    """
    body: dict[str, Any] = {
        "vectors": {"size": dimension, "distance": "Cosine", "on_disk": layout.on_disk},
        "hnsw_config": {
            "m": layout.hnsw_m,
            "ef_construct": layout.hnsw_ef_construct,
            "payload_m": layout.hnsw_payload_m,
        },
        "optimizers_config": {"indexing_threshold": max(1, EXACT_BELOW * dimension * 4 // 1024)},
    }
    if layout.quantization == "int8":
        body["quantization_config"] = {"scalar": {"type": "int8", "quantile": QUANTILE, "always_ram": True}}
    elif layout.quantization == "binary":
        body["quantization_config"] = {"binary": {"always_ram": True}}
    for word, name in (("shard_number", "shards"), ("replication_factor", "replicas")):
        if (value := getattr(layout, name)) > 1 or name in options.explicit:
            body[word] = value
    return body


def from_qdrant(config: Mapping[str, Any]) -> Layout | None:
    """Return a configuration as the server tells it in our words; None when we have none for it."""
    params, graph, copies = config["params"], config["hnsw_config"], config.get("quantization_config")
    quantization: Quantization = "none"
    if copies is not None:
        if not {"scalar", "binary"} & copies.keys():
            return None
        quantization = "int8" if "scalar" in copies else "binary"
    edges = graph.get("payload_m")
    try:
        return Layout(
            shards=params.get("shard_number") or 1,
            replicas=params.get("replication_factor") or 1,
            quantization=quantization,
            on_disk=bool((params.get("vectors") or {}).get("on_disk")),
            hnsw_m=graph["m"],
            hnsw_ef_construct=graph["ef_construct"],
            hnsw_payload_m=graph["m"] if edges is None else edges,
        )
    except InvalidArgumentError:
        return None
