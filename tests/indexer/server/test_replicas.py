"""Copies of shards: what is there is told, what is missing is made, and too few peers are no cluster."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.encoder.errors import InvalidArgumentError, StoreError
from lookalike.indexer.open import open_store
from lookalike.indexer.server import ServerStore
from lookalike.indexer.server.replicas import Step, next_step
from lookalike.indexer.store import ShardCopies, StorageConfig
from tests.fixtures.command import lookalike
from tests.fixtures.qdrant_stub import Stub, serving
from tests.fixtures.stores import SPEC

States = dict[int, dict[int, str]]


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    monkeypatch.setattr("lookalike.indexer.server.replicas.POLL_SECONDS", 0.01)
    monkeypatch.setattr("lookalike.indexer.server.upload.PAUSES", (0.01,))
    with serving(peers=3) as made:
        yield made


@pytest.fixture
def store(stub: Stub) -> Iterator[ServerStore]:
    with ServerStore.connect(stub.url) as opened:
        yield opened


def copies_of(states: States) -> list[ShardCopies]:
    return [ShardCopies(shard, on) for shard, on in sorted(states.items())]


def carry_out(states: States, step: Step) -> States:
    """What the cluster does."""
    after = {shard: dict(on) for shard, on in states.items()}
    on = after[step.shard]
    if step.kind == "drop":
        del on[step.target]
        return after
    assert on[step.source] == "Active"
    assert step.target not in on
    on[step.target] = "Active"
    if step.kind == "move":
        del on[step.source]
    return after


clusters = st.integers(1, 6).flatmap(
    lambda peers: st.tuples(
        st.just(set(range(1, peers + 1))),
        st.integers(1, peers),
        st.dictionaries(
            st.integers(0, 11),
            st.dictionaries(
                st.integers(1, peers + 1), st.sampled_from(["Active", "Active", "Dead"]), min_size=1
            ),
            max_size=8,
        ),
    )
)


@settings(max_examples=40)
@given(clusters)
def test_steps_lead_to_as_many_copies_as_wanted_evenly_spread(cluster: tuple[set[int], int, States]) -> None:
    peers, replicas, states = cluster  # one peer more has copies, and does not answer
    states = {
        shard: on for shard, on in states.items() if any(on[peer] == "Active" for peer in on if peer in peers)
    }
    for _ in range(100):
        step = next_step(copies_of(states), peers, replicas)
        if step is None:
            break
        assert step.kind != "drop" or states[step.shard][step.target] == "Dead"
        assert step.source in peers
        states = carry_out(states, step)
        assert step.is_done(copies_of(states))
    else:
        pytest.fail("it came to no end")
    for shard, on in states.items():
        assert sum(on.get(peer) == "Active" for peer in peers) >= replicas, shard
        assert "Dead" not in on.values()
    load = [sum(peer in on for on in states.values()) for peer in peers]
    assert max(load) - min(load) <= 1 or all(
        sum(peer in on for peer in peers) == len(peers) for on in states.values()
    )


def test_a_shard_without_a_copy_is_named() -> None:
    with pytest.raises(StoreError, match=r"no copy of shard 3 answers; start the peers that have it \(7\)"):
        next_step([ShardCopies(3, {7: "Dead"})], {1, 2}, 1)


@pytest.mark.parametrize("peers", [0, 1])
def test_two_copies_need_two_peers(peers: int) -> None:
    with serving(peers=peers) as alone, ServerStore.connect(alone.url) as store:
        with pytest.raises(
            InvalidArgumentError, match="--replicas 2 needs as many peers, the cluster has 1"
        ) as told:
            store.create("c", SPEC, StorageConfig(replicas=2))
        assert "wait until the others have joined" in str(told.value)
        assert "c" not in alone.collections
        alone.factor = 2  # the server's own rule, as in deploy/kubernetes
        with pytest.raises(InvalidArgumentError, match="keeps 2 copies of each shard, and has 1 peers now"):
            store.create("c", SPEC)
        assert "c" not in alone.collections
        store.create("c", SPEC, StorageConfig(replicas=1))
        assert store.list_collections() == ["c"]


def test_copies_that_are_there_and_those_that_are_not(stub: Stub, store: ServerStore) -> None:
    store.create("c", SPEC)
    assert [len(each.active) for each in store.copies("c")] == [2] * 6
    stub.placed["c"][4] = {1: "Active", 3: "Dead"}
    fourth = store.copies("c")[4]
    assert (fourth.shard, fourth.active, fourth.dead) == (4, [1], [3])


def test_peers_that_join_later_get_their_part(stub: Stub, store: ServerStore) -> None:
    stub.peers = 1
    store.create("c", SPEC, StorageConfig(shards=6, replicas=1))
    assert [each.states for each in store.copies("c")] == [{1: "Active"}] * 6
    stub.peers = 3
    said: list[str] = []
    assert store.rebalance("c", replicas=2, log=said.append) == len(said) > 6
    copies = store.copies("c")
    assert [len(each.active) for each in copies] == [2] * 6
    assert [sum(peer in each.states for each in copies) for peer in (1, 2, 3)] == [4, 4, 4]
    assert said[0] == "c: copying shard 0 from peer 1 to peer 2"
    layout = store.index_state("c").layout
    assert layout is not None
    assert layout.replicas == 2
    assert store.rebalance("c") == 0


def test_a_lost_peer_is_made_up_for(stub: Stub, store: ServerStore) -> None:
    store.create("c", SPEC)
    stub.silent = {2}
    for on in stub.placed["c"].values():
        on |= {2: "Dead"} if 2 in on else {}
    assert store.rebalance("c") > 0
    assert all(set(each.states) == {1, 3} == set(each.active) for each in store.copies("c"))


def test_a_silent_peer_is_made_up_for_before_qdrant_calls_its_copies_dead(
    stub: Stub, store: ServerStore
) -> None:
    store.create("c", SPEC)
    stub.silent = {2}
    assert all(2 not in each.active for each in store.copies("c"))
    assert store.rebalance("c") > 0
    assert all({1, 3} == set(each.active) for each in store.copies("c"))
    with pytest.raises(StoreError, match="no copy of shard 0 answers"):
        next_step([ShardCopies(0, {1: "Active"})], {2}, 1)


def test_a_transfer_of_an_earlier_run_is_waited_for(stub: Stub, store: ServerStore) -> None:
    store.create("c", SPEC, StorageConfig(replicas=1))
    with ServerStore.connect(stub.url) as killed:
        (source,) = killed.copies("c")[0].states
        target = next(peer for peer in (1, 2, 3) if peer != source)
        killed._server.begin_step("c", Step("replicate", 0, source, target))
    assert stub.transfers
    assert store.rebalance("c", replicas=3) == 11  # the twelfth copy was on its way
    assert [len(each.active) for each in store.copies("c")] == [3] * 6


def test_more_copies_than_peers_that_answer_are_refused(stub: Stub, store: ServerStore) -> None:
    store.create("c", SPEC)
    with pytest.raises(InvalidArgumentError, match="4 copies need as many peers, 3 of the cluster answer"):
        store.rebalance("c", replicas=4)
    assert stub.collections["c"]["replication_factor"] == 2
    stub.silent = {2, 3}
    with pytest.raises(InvalidArgumentError, match="2 copies need as many peers, 1 of the cluster answer"):
        store.rebalance("c")


def test_a_transfer_that_fails_is_told(stub: Stub, store: ServerStore) -> None:
    store.create("c", SPEC, StorageConfig(replicas=1))
    real = stub.answer

    def answer(asked):  # type: ignore[no-untyped-def]  # accepts, and does nothing
        if asked.method == "POST" and asked.path.endswith("/cluster"):
            return 200, {"result": True, "status": "ok", "time": 0.0}
        return real(asked)

    stub.answer = answer  # type: ignore[method-assign]  # for this test
    with pytest.raises(StoreError, match=r"copying shard 0 .* has come to no end .* run it again"):
        store.rebalance("c", replicas=2)


def test_what_is_no_cluster_is_not_rebalanced(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        store.create("c", SPEC)
        assert store.copies("c") == []
        with pytest.raises(InvalidArgumentError, match="is no Qdrant cluster"):
            store.rebalance("c")
    with serving() as alone, ServerStore.connect(alone.url) as server:
        server.create("c", SPEC)
        assert server.copies("c") == []
        with pytest.raises(InvalidArgumentError, match="is no Qdrant cluster"):
            server.rebalance("c")


def test_people_see_copies_and_have_them_made(stub: Stub, store: ServerStore, tmp_path: Path) -> None:
    store.create("c", SPEC)
    stub.placed["c"][0] = {1: "Active", 3: "Dead"}
    shown = lookalike("collections", "show", "c", "--store", stub.url, cwd=tmp_path)
    assert "  shard 0    1 on 1, 3 (dead)" in shown.stdout.splitlines()
    assert "1 of the 6 shards of c have fewer than 2 copies that answer" in shown.stderr
    assert "lookalike collections rebalance c" in shown.stderr
    made = lookalike("collections", "rebalance", "c", "--store", stub.url, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert made.stderr.splitlines()[0] == "c: copying shard 0 from peer 1 to peer 2"
    assert "each of the 6 shards has 2 copies or more that answer" in made.stderr
    told = lookalike("collections", "show", "c", "--store", stub.url, "--json", cwd=tmp_path)
    assert told.stderr == ""
    assert json.loads(told.stdout)["copies"][0] == {"shard": 0, "peers": {"1": "Active", "2": "Active"}}
