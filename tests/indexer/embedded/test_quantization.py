"""Quantized copies in the embedded store: nothing worth telling is lost by them, for hits are rescored."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lookalike.encoder.errors import InvalidArgumentError, StoreError
from lookalike.indexer.embedded import EdgeStore
from lookalike.indexer.store import Condition, Filter, Layout, StorageConfig
from tests.benchmarks.million_vectors import People
from tests.fixtures.stores import SPEC, fill, point_ids

INT8 = StorageConfig(quantization="int8", on_disk=True, hnsw_m=24)


@pytest.mark.parametrize("quantization", ["int8", "binary"])
def test_nothing_worth_telling_is_lost(tmp_path: Path, quantization: Any) -> None:
    people = People(1500, 512)
    vectors = np.concatenate([rows.vectors for rows in people.rows()])
    ids, queries = point_ids(len(vectors)), people.queries(100)[0]
    options = StorageConfig(quantization=quantization, on_disk=True, hnsw_m=24, hnsw_payload_m=8)
    with EdgeStore(str(tmp_path)) as store:
        store.create("c", replace(SPEC, dimension=512), options)
        store.upsert("c", ids, vectors, [{"tenth": n % 10} for n in range(len(ids))])
        store.build_index("c")
        best = [{ids[n] for n in np.argsort(-row)[:10]} for row in queries @ vectors.T]
        found = store.search("c", queries, k=10)
        recall = np.mean(
            [len({hit.id for hit in hits} & b) / 10 for hits, b in zip(found, best, strict=True)]
        )
        assert recall >= {"int8": 0.995, "binary": 0.95}[quantization]
        for hits, query in zip(found, queries, strict=True):  # scores are of the vectors, not of the copies
            exact = [float(query @ vectors[ids.index(hit.id)]) for hit in hits[:3]]
            np.testing.assert_allclose([hit.score for hit in hits[:3]], exact, atol=1e-5)
        tenth = Filter((Condition("tenth", "=", 0),))
        assert all(
            hit.payload["tenth"] == 0
            for hits in store.search("c", queries, k=10, where=tenth)
            for hit in hits
        )


def test_without_rescoring_it_would_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    people = People(1500, 512)
    vectors = np.concatenate([rows.vectors for rows in people.rows()])
    ids, queries = point_ids(len(vectors)), people.queries(100)[0]
    best = [{ids[n] for n in np.argsort(-row)[:10]} for row in queries @ vectors.T]
    monkeypatch.setattr("lookalike.indexer.embedded.shard.oversampling", lambda kind: 1.0)
    with EdgeStore(str(tmp_path)) as store:
        store.create("c", replace(SPEC, dimension=512), StorageConfig(quantization="binary"))
        store.upsert("c", ids, vectors, [{}] * len(ids))
        found = store.search("c", queries, k=10)
        recall = [len({hit.id for hit in hits} & b) / 10 for hits, b in zip(found, best, strict=True)]
        assert np.mean(recall) < 0.9


def test_the_layout_is_remembered_and_built_with(tmp_path: Path) -> None:
    with EdgeStore(str(tmp_path)) as store:
        store.create("c", SPEC, INT8)
        fill(store, "c", 2000)
        store.build_index("c")
    with EdgeStore(str(tmp_path)) as store:
        state = store.index_state("c")
        assert (state.layout, state.indexed) == (INT8.resolve(8), 2000)
        assert state.to_json()["layout"]["quantization"] == "int8"
    (shard,) = (path for path in (tmp_path / "c").iterdir() if path.is_dir())
    engine = json.loads((shard / "edge_config.json").read_text())  # what Qdrant Edge itself goes by
    assert engine["hnsw_config"]["m"] == 24
    assert engine["vectors"][""]["memory"] == "cold"
    assert engine["quantization_config"]["scalar"] == {"type": "int8", "quantile": 0.99, "memory": "pinned"}


def test_a_collection_from_before_there_were_layouts_is_as_it_was(tmp_path: Path) -> None:
    with EdgeStore(str(tmp_path)) as store:
        store.create("c", SPEC)
        ids, vectors = fill(store, "c", 300)
    (tmp_path / "c" / "layout.json").unlink()
    with EdgeStore(str(tmp_path)) as store:
        store.build_index("c")
        assert store.index_state("c").layout == Layout()
        assert store.search("c", vectors[:1], k=1)[0][0].id == ids[0]


@pytest.mark.parametrize("content", ["", "[]", '{"later": 1}', '{"quantization": "int3"}', '{"hnsw_m": 0}'])
def test_a_damaged_layout_is_said_in_one_line(tmp_path: Path, content: str) -> None:
    with EdgeStore(str(tmp_path)) as store:
        store.create("c", SPEC)
    (tmp_path / "c" / "layout.json").write_text(content)
    with EdgeStore(str(tmp_path)) as store:
        with pytest.raises(StoreError, match=r"layout\.json") as caught:
            store.count("c")
        assert "\n" not in str(caught.value)
        store.delete_collection("c")


@pytest.mark.parametrize("options", [StorageConfig(shards=2), StorageConfig(replicas=2)])
def test_what_is_for_servers_is_refused_and_makes_nothing(tmp_path: Path, options: StorageConfig) -> None:
    with EdgeStore(str(tmp_path / "store")) as store:
        with pytest.raises(InvalidArgumentError, match="is for a Qdrant server or cluster"):
            store.create("c", SPEC, options)
        assert store.list_collections() == []
    assert not (tmp_path / "store").exists()
