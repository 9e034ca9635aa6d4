"""How a collection is to lie in its store: one rule, by size and peers, and what may be asked instead."""

import json
from typing import Any, get_args

import pytest

from lookalike.encoder.errors import InvalidArgumentError
from lookalike.indexer.server.config import from_qdrant, to_qdrant
from lookalike.indexer.store import Layout, Quantization, StorageConfig, differing_options, oversampling
from lookalike.indexer.store.layout import recommended_layout

MILLION = 1_000_000


@pytest.mark.parametrize(
    ("count", "dimension", "peers", "expected"),
    [
        (0, 512, 1, Layout()),
        (10 * MILLION, 512, 1, Layout()),
        (10 * MILLION + 1, 512, 1, Layout(quantization="int8", on_disk=True)),
        (0, 512, 2, Layout(shards=4, replicas=2)),
        (13_233, 512, 3, Layout(shards=6, replicas=2)),
        (50 * MILLION, 128, 3, Layout(shards=6, replicas=2, quantization="int8", on_disk=True)),
        (50 * MILLION, 42, 1, Layout()),  # 126 bytes saved of a vector, 128 of edges stay
        (50 * MILLION, 43, 1, Layout(quantization="int8", on_disk=True)),
    ],
)
def test_the_rule(count: int, dimension: int, peers: int, expected: Layout) -> None:
    assert recommended_layout(count, dimension, peers) == expected


@pytest.mark.parametrize("peers", range(2, 9))
def test_a_cluster_has_two_copies_and_two_shards_a_peer(peers: int) -> None:
    layout = recommended_layout(1000, 512, peers)
    assert layout.replicas == 2
    assert layout.shards >= 2 * peers


@pytest.mark.parametrize(("count", "dimension", "peers"), [(-1, 512, 1), (1, 0, 1), (1, 512, 0)])
def test_there_is_no_rule_for_less_than_nothing(count: int, dimension: int, peers: int) -> None:
    with pytest.raises(InvalidArgumentError, match="not for"):
        recommended_layout(count, dimension, peers)


def test_memory_by_qdrants_rule() -> None:
    # qdrant.tech/documentation, Capacity Planning: a million vectors of 1,024 take 6,144,000,000 bytes.
    assert Layout().memory_bytes(MILLION, 1024) == 6_144_000_000
    assert Layout(replicas=2).memory_bytes(MILLION, 1024) == 2 * 6_144_000_000
    assert Layout(quantization="int8", on_disk=True).memory_bytes(MILLION, 1024) == 6_144_000_000 // 4
    assert Layout(quantization="int8").memory_bytes(MILLION, 1024) == 6_144_000_000 // 4 * 5
    assert Layout(quantization="binary", on_disk=True).memory_bytes(MILLION, 1024) == 6_144_000_000 // 32


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("shards", 0),
        ("replicas", 0),
        ("hnsw_m", 0),
        ("hnsw_ef_construct", 3),
        ("hnsw_payload_m", -1),
        ("quantization", "int4"),
    ],
)
def test_what_qdrant_does_not_take_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=f"{name.replace('_', '-')} .*is not") as caught:
        Layout(**{name: value})
    assert "\n" not in str(caught.value)


def test_a_layout_becomes_json_values_and_back() -> None:
    layout = Layout(shards=6, replicas=2, quantization="binary", on_disk=True, hnsw_m=32)
    assert Layout.from_json(json.loads(json.dumps(layout.to_json()))) == layout
    assert Layout.from_json({}) == Layout()
    with pytest.raises(InvalidArgumentError, match="later"):
        Layout.from_json({"later": 1})


def test_what_is_asked_goes_before_the_rule() -> None:
    asked = StorageConfig(expect=20 * MILLION, quantization="none", on_disk=False, hnsw_m=32)
    assert asked.resolve(512, peers=3) == Layout(shards=6, replicas=2, hnsw_m=32)
    assert StorageConfig().resolve(512, peers=3) == recommended_layout(0, 512, 3)
    assert StorageConfig().with_known(expect=20 * MILLION).resolve(512) == recommended_layout(
        20 * MILLION, 512
    )
    assert StorageConfig(expect=5).with_known(expect=20 * MILLION).expect == 5
    with pytest.raises(InvalidArgumentError, match="--replicas 4 needs as many peers, the cluster has 3"):
        StorageConfig(replicas=4).resolve(512, peers=3)


def test_an_embedded_store_is_one_part_on_one_machine() -> None:
    assert StorageConfig(shards=1, replicas=1, hnsw_m=8).resolve(512) == Layout(hnsw_m=8)
    for name in ("shards", "replicas"):
        with pytest.raises(
            InvalidArgumentError, match=f"--{name} is for a Qdrant server or cluster"
        ) as caught:
            StorageConfig(**{name: 2}).resolve(512)  # type: ignore[arg-type]  # each takes a number
        assert "\n" not in str(caught.value)


def test_what_differs_is_said_as_it_is_given() -> None:
    asked = StorageConfig(expect=5, shards=2, quantization="int8", on_disk=True, hnsw_m=16)
    assert differing_options(asked, Layout()) == {
        "--shards 2": "--shards 1",
        "--quantization int8": "--quantization none",
        "--on-disk": "--in-memory",
    }


def test_more_candidates_are_rescored_of_what_is_told_apart_less() -> None:
    of = {kind: oversampling(kind) for kind in (*get_args(Quantization), None)}
    assert of["none"] is None
    assert 1 < (of["int8"] or 0) < (of["binary"] or 0) == of[None]


@pytest.mark.parametrize("quantization", ["none", "int8", "binary"])
def test_qdrants_words_and_back(quantization: Any) -> None:
    layout = Layout(
        shards=6, replicas=2, quantization=quantization, on_disk=True, hnsw_m=24, hnsw_payload_m=8
    )
    body = to_qdrant(layout, 512, StorageConfig())
    assert body["vectors"] == {"size": 512, "distance": "Cosine", "on_disk": True}
    assert body["optimizers_config"] == {"indexing_threshold": 200_000 // 48}  # KiB: 100,000 vectors in 6 x 8
    told = {
        "params": {key: body[key] for key in ("vectors", "shard_number", "replication_factor")},
        "hnsw_config": body["hnsw_config"],
        "quantization_config": body.get("quantization_config"),
    }
    assert from_qdrant(told) == layout
    del told["hnsw_config"]["payload_m"]
    assert from_qdrant(told) == Layout(**layout.to_json() | {"hnsw_payload_m": 24})  # Qdrant's: as m
    assert from_qdrant(told | {"quantization_config": {"product": {"compression": "x16"}}}) is None


def test_one_shard_and_one_copy_are_the_servers_to_choose_unless_asked_for() -> None:
    assert not {"shard_number", "replication_factor"} & to_qdrant(Layout(), 8, StorageConfig()).keys()
    asked = to_qdrant(Layout(), 8, StorageConfig(shards=1, replicas=1))
    assert (asked["shard_number"], asked["replication_factor"]) == (1, 1)
