"""Copies of the shards of a collection in a cluster: which are missing, and the steps that mend it.

Each step is one of Qdrant's own operations: replicate a shard, move it, drop a copy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from lookalike.encoder.errors import InvalidArgumentError, StoreError
from lookalike.indexer.server.upload import retry
from lookalike.indexer.store import ShardCopies

SILENT: Final = "Silent"
POLL_SECONDS: Final = 1.0
_STALLED: Final = 15
"""Looks at a shard that is not being transferred before its transfer counts as failed."""


@dataclass(frozen=True, slots=True)
class Step:
    """One operation.

    Attributes:
        kind: ``replicate`` makes a copy on the target, ``move`` also removes that of the source, ``drop``
            removes that of the target.
        shard: The shard.
        source: Peer that has it.
        target: Peer that gets it, or loses it.
    """

    kind: Literal["replicate", "move", "drop"]
    shard: int
    source: int
    target: int

    def is_done(self, copies: Sequence[ShardCopies]) -> bool:
        """Whether the copies are as they are after this step."""
        states = next((each.states for each in copies if each.shard == self.shard), {})
        if self.kind == "drop":
            return self.target not in states
        return states.get(self.target) == "Active" and (self.kind == "replicate" or self.source not in states)

    def __str__(self) -> str:
        match self.kind:
            case "replicate":
                return f"copying shard {self.shard} from peer {self.source} to peer {self.target}"
            case "move":
                return f"moving shard {self.shard} from peer {self.source} to peer {self.target}"
            case "drop":
                return f"dropping the dead copy of shard {self.shard} on peer {self.target}"


def answering_peers(peers: Mapping[int, bool]) -> set[int]:
    """Return the peers of a cluster that answer."""
    return {peer for peer, answers in peers.items() if answers}


def with_silent(copies: Sequence[ShardCopies], peers: Collection[int]) -> list[ShardCopies]:
    """Return the copies with those called silent that Qdrant calls active, on peers that do not answer."""
    return [
        ShardCopies(
            each.shard,
            {
                peer: SILENT if state == "Active" and peer not in peers else state
                for peer, state in each.states.items()
            },
        )
        for each in copies
    ]


def next_step(copies: Sequence[ShardCopies], peers: Collection[int], replicas: int) -> Step | None:
    """Return the next step towards so many copies of each shard, spread evenly; None when nothing is left.

    Missing copies come first, then dead ones, then shards on peers that have two more than others.

    Args:
        copies: The copies of each shard.
        peers: The peers that answer.
        replicas: Copies wanted of each shard.

    Raises:
        InvalidArgumentError: there are fewer peers than copies wanted.
        StoreError: no copy of a shard answers.
    """
    if replicas > len(peers):
        raise InvalidArgumentError(
            f"{replicas} copies need as many peers, {len(peers)} of the cluster answer; start the others"
        )
    copies = with_silent(copies, peers)
    for each in copies:
        if not each.active:
            raise StoreError(
                f"no copy of shard {each.shard} answers; start the peers that have it "
                f"({', '.join(map(str, sorted(each.states))) or 'none'}), or restore a snapshot"
            )
    load = {peer: sum(peer in each.states for each in copies) for peer in sorted(peers)}
    return _missing_copy(copies, load, replicas) or _dead_copy(copies, replicas) or _uneven(copies, load)


def _missing_copy(copies: Sequence[ShardCopies], load: dict[int, int], replicas: int) -> Step | None:
    for each in copies:
        if sum(state not in ("Dead", SILENT) for state in each.states.values()) < replicas:
            free = [peer for peer in load if peer not in each.states]
            if not free:  # a peer that answers has a dead copy: a new one takes its place
                dead = next(peer for peer in each.dead if peer in load)
                return Step("drop", each.shard, each.active[0], dead)
            return Step("replicate", each.shard, each.active[0], min(free, key=lambda peer: load[peer]))
    return None


def _dead_copy(copies: Sequence[ShardCopies], replicas: int) -> Step | None:
    for each in copies:
        if each.dead and len(each.active) >= replicas:
            return Step("drop", each.shard, each.active[0], each.dead[0])
    return None


def _uneven(copies: Sequence[ShardCopies], load: dict[int, int]) -> Step | None:
    fullest, emptiest = max(load, key=lambda peer: load[peer]), min(load, key=lambda peer: load[peer])
    if load[fullest] - load[emptiest] > 1:
        for each in copies:
            if fullest in each.active and emptiest not in each.states:
                return Step("move", each.shard, fullest, emptiest)
    return None


class Cluster(Protocol):
    """What carries out the steps."""

    @property
    def address(self) -> str:
        """Its address, for messages."""
        ...

    def copies(self, name: str) -> tuple[list[ShardCopies], set[int]]:
        """Return the copies of each shard of a collection, and the shards that are being transferred."""
        ...

    def begin_step(self, name: str, step: Step) -> None:
        """Have the cluster begin to copy, move or drop a shard."""
        ...


def rebalance(
    cluster: Cluster, name: str, peers: Collection[int], replicas: int, log: Callable[[str], object]
) -> int:
    """Carry out one step after the other until nothing is left to do, and return how many there were.

    Args:
        cluster: The cluster.
        name: The collection.
        peers: The peers that answer.
        replicas: Copies wanted of each shard.
        log: Called with one line before each step.

    Raises:
        InvalidArgumentError, StoreError: as :func:`next_step` says, or a step came to no end.
    """
    done = 0
    while (step := next_step(_settled(cluster, name), peers, replicas)) is not None:
        log(f"{name}: {step}")
        _do(cluster, name, step)
        done += 1
    return done


def _settled(cluster: Cluster, name: str) -> list[ShardCopies]:
    """Return the copies when no shard is being transferred: one may be, after a kill."""
    while True:
        copies, moving = retry(lambda: cluster.copies(name), "questions after the copies")
        if not moving:
            return copies
        time.sleep(POLL_SECONDS)


def _do(cluster: Cluster, name: str, step: Step) -> None:
    """Have a step done and wait for it, however long."""

    def begin() -> None:
        copies, moving = cluster.copies(name)
        if not step.is_done(copies) and step.shard not in moving:  # else an earlier try began it
            cluster.begin_step(name, step)

    retry(begin, f"changes of collection {name!r}")
    stalled = 0
    while stalled < _STALLED:
        copies, moving = retry(lambda: cluster.copies(name), "questions after the copies")
        if step.is_done(copies):
            return
        stalled = 0 if step.shard in moving else stalled + 1
        time.sleep(POLL_SECONDS)
    raise StoreError(
        f"{step} has come to no end on {cluster.address}; see the logs of both peers, then run it again"
    )
