"""How a collection lies in its store: shards, copies, quantization, where vectors are, the HNSW graph.

Legend: N vectors, D dimensions of an embedding, P peers of a cluster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final, Literal, Self, get_args

from lookalike.encoder.errors import InvalidArgumentError

Quantization = Literal["none", "int8", "binary"]

DEFAULT_M: Final = 16
EF_CONSTRUCT: Final = 128
EF_SEARCH: Final = 512
"""So recall@10 of a million 128-d vectors of people is 0.984, in 3 ms; 256 gives 0.975 in half of that."""
QUANTILE: Final = 0.99
"""int8 takes the outermost hundredth of all numbers for one: the rest is told apart more finely."""
ON_DISK_ABOVE: Final = 10_000_000
MOST_REPLICAS: Final = 2
SHARDS_PER_PEER: Final = 2
_ROOM: Final = 1.5
_BYTES: Final[Mapping[Quantization, float]] = {"none": 4, "int8": 1, "binary": 1 / 8}
_OVERSAMPLING: Final[Mapping[Quantization, float]] = {"none": 1, "int8": 2, "binary": 32}
_BOUNDS: Final = {
    "shards": (1, 1024),
    "replicas": (1, 64),
    "hnsw_m": (4, 256),
    "hnsw_ef_construct": (4, 4096),
    "hnsw_payload_m": (0, 256),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """How one collection lies in its store.

    Attributes:
        shards: Parts that the points are spread over, each on some peer.
        replicas: Copies of each shard, on as many peers.
        quantization: What is searched first: ``int8`` a quarter of each vector's bytes, ``binary`` a 32nd;
            the best of that are compared anew by their original vectors.
        on_disk: Original vectors are read from disk as they are needed, not held in memory.
        hnsw_m: Edges of each vector in the graph.
        hnsw_ef_construct: Candidates for its edges that are looked at.
        hnsw_payload_m: Edges among those that share an indexed value; 0: none.

    Raises:
        InvalidArgumentError: a value is outside what Qdrant takes.
    """

    shards: int = 1
    replicas: int = 1
    quantization: Quantization = "none"
    on_disk: bool = False
    hnsw_m: int = DEFAULT_M
    hnsw_ef_construct: int = EF_CONSTRUCT
    hnsw_payload_m: int = 0

    def __post_init__(self) -> None:
        for name, (least, most) in _BOUNDS.items():
            if not least <= (value := getattr(self, name)) <= most:
                raise InvalidArgumentError(
                    f"{_flag(name)} is {least} to {most}, {value} is not; leave it to the rule"
                )
        if self.quantization not in get_args(Quantization):
            raise InvalidArgumentError(
                f"--quantization is none, int8 or binary, {self.quantization!r} is not"
            )

    def memory_bytes(self, count: int, dimension: int) -> int:
        """Return the bytes of memory that N vectors ask of a cluster, all copies together.

        Qdrant's rule, N x D x 4 bytes x 1.5; quantized copies come on top or, where the originals lie on
        disk, in their place. Vectors on disk without such copies do with less, and are read from there.
        """
        held = _BYTES[self.quantization]
        if self.quantization != "none" and not self.on_disk:
            held += _BYTES["none"]
        return round(count * dimension * held * _ROOM) * self.replicas

    def to_json(self) -> dict[str, Any]:
        """Return JSON values that :meth:`from_json` reads back equal."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_json` wrote; what it does not say is as by default.

        Raises:
            InvalidArgumentError: a value or a name is none of ours.
        """
        try:
            return cls(**value)
        except TypeError as error:
            raise InvalidArgumentError(
                f"a layout has {', '.join(f.name for f in fields(cls))}: {error}"
            ) from error


def recommended_layout(count: int, dimension: int, peers: int = 1) -> Layout:
    """Return the layout that N vectors of D dimensions should have on P peers.

    As Qdrant's documentation advises (qdrant.tech/documentation: Capacity Planning, Distributed Deployment,
    Optimize):

    - *Memory* is N x D x 4 bytes x 1.5. Up to ten million vectors all of it is held.
    - *Beyond ten million* the originals lie on disk, and what is held and searched are quantized copies,
      rescored by the originals. Where int8 saves less of a vector (3 D bytes) than its edges in the graph
      take (2 x 4 bytes x m), which stay in memory anyhow, it is not worth its loss.
    - *In a cluster* two copies of each shard, so that one peer may be gone, and two shards or more for each
      peer, so that they stay even when one is added.

    Args:
        count: N, as many as are expected.
        dimension: D.
        peers: P; 1: a server by itself, or an embedded store.

    Raises:
        InvalidArgumentError: a number is less than 0, or of peers or dimensions less than 1.
    """
    if count < 0 or dimension < 1 or peers < 1:
        raise InvalidArgumentError(
            "a layout is for 0 or more vectors of 1 or more dimensions on 1 or more peers, not for "
            f"{count} of {dimension} on {peers}"
        )
    large = count > ON_DISK_ABOVE and 3 * dimension > 2 * 4 * DEFAULT_M
    return Layout(
        shards=SHARDS_PER_PEER * peers if peers > 1 else 1,
        replicas=min(MOST_REPLICAS, peers),
        quantization="int8" if large else "none",
        on_disk=large,
    )


def oversampling(quantization: Quantization | None) -> float | None:
    """Return how many times as many candidates as hits are rescored; None where nothing is quantized.

    So recall@10 of the 13,233 faces of LFW, 512-d, through the graph is 1.000 with int8 and 0.985 with binary
    (``python -m tests.benchmarks.layouts``).

    Args:
        quantization: Of the collection; None: quantized in some way that is not ours.
    """
    if quantization == "none":
        return None
    return _OVERSAMPLING["binary" if quantization is None else quantization]


@dataclass(frozen=True, kw_only=True, slots=True)
class StorageConfig:
    """What is wanted of a new collection; what is None is left to :func:`recommended_layout`.

    Attributes:
        expect: How many vectors it will hold.
        numeric_fields: Payload fields that will hold numbers, for a store that indexes them before the upload.
        shards, replicas, quantization, on_disk, hnsw_m, hnsw_ef_construct, hnsw_payload_m: As in
            :class:`Layout`.
    """

    expect: int | None = None
    numeric_fields: tuple[str, ...] = ()
    shards: int | None = None
    replicas: int | None = None
    quantization: Quantization | None = None
    on_disk: bool | None = None
    hnsw_m: int | None = None
    hnsw_ef_construct: int | None = None
    hnsw_payload_m: int | None = None

    @property
    def explicit(self) -> dict[str, Any]:
        """What was said of the layout itself, by its name there."""
        values = {field.name: getattr(self, field.name) for field in fields(Layout)}
        return {name: value for name, value in values.items() if value is not None}

    def with_known(self, *, expect: int, numeric_fields: Sequence[str] = ()) -> StorageConfig:
        """Return the same with the count that is known, unless one was given, and fields of numbers."""
        return replace(
            self, expect=expect if self.expect is None else self.expect, numeric_fields=tuple(numeric_fields)
        )

    def resolve(self, dimension: int, *, peers: int | None = None) -> Layout:
        """Return the layout of a new collection: the recommended one, except where an option was given.

        Args:
            dimension: D.
            peers: P of the server or cluster; None: an embedded store, which is one folder.

        Raises:
            InvalidArgumentError: an option is out of range, needs a server, or needs more peers.
        """
        if peers is None:
            for name in ("shards", "replicas"):
                if self.explicit.get(name, 1) != 1:
                    raise InvalidArgumentError(
                        f"{_flag(name)} is for a Qdrant server or cluster, an embedded store is one folder; "
                        "leave it out, or name a server with --store http://..."
                    )
        recommended = recommended_layout(self.expect or 0, dimension, peers or 1)
        layout = Layout(**{**recommended.to_json(), **self.explicit})
        if layout.replicas > (peers or 1) > 1:
            raise InvalidArgumentError(
                f"--replicas {layout.replicas} needs as many peers, the cluster has {peers}; ask for fewer"
            )
        return layout


def differing_options(options: StorageConfig, layout: Layout) -> dict[str, str]:
    """Return which options a collection was not made with: each as it was given, and what it has."""
    has = layout.to_json()
    return {
        _said(name, value): _said(name, has[name])
        for name, value in options.explicit.items()
        if value != has[name]
    }


def _said(name: str, value: Any) -> str:
    """Return an option as it is written on the command line."""
    if name == "on_disk":
        return "--on-disk" if value else "--in-memory"
    return f"{_flag(name)} {value}"


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
