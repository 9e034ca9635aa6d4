"""What a collection remembers about itself, and its layout: shards, quantization, vectors on disk, HNSW.

Legend: N vectors, D dimensions of an embedding, P peers of a cluster.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Final, Literal, Self, get_args

from lookalike.encoder.errors import InvalidArgumentError, ModelMismatchError, StoreError

Quantization = Literal["none", "int8", "binary"]

DEFAULT_M: Final = 16
EF_CONSTRUCT: Final = 128
EF_SEARCH: Final = 512
"""hnsw_ef: recall@10 of a million 128-d face vectors is 0.984 in 3 ms; with 256, 0.975 in half of that."""
QUANTILE: Final = 0.99
"""int8 clips the outermost hundredth of all values, so that the rest has a finer resolution."""
ON_DISK_ABOVE: Final = 10_000_000
MOST_REPLICAS: Final = 2
SHARDS_PER_PEER: Final = 2
_OVERHEAD: Final = 1.5
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
    """The layout of one collection in its store.

    Attributes:
        shards: Parts that the points are spread over, each on one peer.
        replicas: Copies of each shard, on as many peers.
        quantization: Which quantized vectors are searched first: ``int8`` has a quarter of the bytes,
            ``binary`` a 32nd; the best hits are rescored by their original vectors.
        on_disk: Whether original vectors are read from disk when needed, not held in memory.
        hnsw_m: Edges per vector in the graph.
        hnsw_ef_construct: Candidates considered for these edges.
        hnsw_payload_m: Edges among points that share an indexed value; 0: none.

    Raises:
        InvalidArgumentError: a value is outside the range that Qdrant accepts.
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
        """Return the bytes of memory that N vectors need in a cluster, all replicas together.

        Qdrant's rule, N x D x 4 bytes x 1.5; quantized vectors are added or, with the originals on disk,
        replace them. Vectors on disk without quantization need less, and are read from there.
        """
        in_memory = _BYTES[self.quantization]
        if self.quantization != "none" and not self.on_disk:
            in_memory += _BYTES["none"]
        return round(count * dimension * in_memory * _OVERHEAD) * self.replicas

    def to_json(self) -> dict[str, Any]:
        """Return JSON values that :meth:`from_json` reads back equal."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_json` wrote; missing values have their defaults.

        Raises:
            InvalidArgumentError: a value or a name is unknown.
        """
        try:
            return cls(**value)
        except TypeError as error:
            raise InvalidArgumentError(
                f"a layout has {', '.join(f.name for f in fields(cls))}: {error}"
            ) from error


def recommended_layout(count: int, dimension: int, peers: int = 1) -> Layout:
    """Return the layout recommended for N vectors of D dimensions on P peers.

    It follows Qdrant's documentation (qdrant.tech/documentation: Capacity Planning, Distributed Deployment,
    Optimize):

    - *Memory* is N x D x 4 bytes x 1.5. Up to ten million vectors are all held in memory.
    - *Beyond ten million* the originals are on disk, and quantized vectors are held in memory and searched,
      then rescored by the originals. Where int8 saves less of a vector (3 D bytes) than its edges in the
      graph take (2 x 4 bytes x m), which stay in memory anyway, it is not worth its loss.
    - *In a cluster* there are two replicas of each shard, so that one peer may fail, and two or more shards
      per peer, so that they stay balanced when a peer is added.

    Args:
        count: N, the expected number of vectors.
        dimension: D.
        peers: P; 1: a single server, or an embedded store.

    Raises:
        InvalidArgumentError: ``count`` is less than 0, or ``peers`` or ``dimension`` less than 1.
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
    """Return how many candidates are rescored per hit; None without quantization.

    With these, recall@10 of the 13,233 faces of LFW, 512-d, through the graph is 1.000 with int8 and 0.985
    with binary (``python -m tests.benchmarks.layouts``).

    Args:
        quantization: Quantization of the collection; None: one that is not ours.
    """
    if quantization == "none":
        return None
    return _OVERSAMPLING["binary" if quantization is None else quantization]


@dataclass(frozen=True, kw_only=True, slots=True)
class StorageConfig:
    """Storage options of a new collection; None leaves a value to :func:`recommended_layout`.

    Attributes:
        expect: Expected number of vectors.
        numeric_fields: Payload fields that will hold numbers, for a store that indexes them before the
            upload.
        defer_index: Whether a server builds no graph before :meth:`VectorStore.build_index`.
        shards, replicas, quantization, on_disk, hnsw_m, hnsw_ef_construct, hnsw_payload_m: As in
            :class:`Layout`.
    """

    expect: int | None = None
    numeric_fields: tuple[str, ...] = ()
    defer_index: bool = False
    shards: int | None = None
    replicas: int | None = None
    quantization: Quantization | None = None
    on_disk: bool | None = None
    hnsw_m: int | None = None
    hnsw_ef_construct: int | None = None
    hnsw_payload_m: int | None = None

    @property
    def explicit(self) -> dict[str, Any]:
        """The options of the layout that were given, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(Layout)}
        return {name: value for name, value in values.items() if value is not None}

    def with_known(self, *, expect: int, numeric_fields: Sequence[str] = ()) -> StorageConfig:
        """Return a copy with the known count, unless one was given, and the known numeric fields."""
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
        if peers is None and self.defer_index:
            raise InvalidArgumentError(
                "--defer-index is for a Qdrant server, an embedded store builds its index at the end anyway; "
                "leave it out, or name a server with --store http://..."
            )
        if peers is None:
            for name in ("shards", "replicas"):
                if self.explicit.get(name, 1) != 1:
                    raise InvalidArgumentError(
                        f"{_flag(name)} is for a Qdrant server or cluster, an embedded store is one folder; "
                        "leave it out, or name a server with --store http://..."
                    )
        recommended = recommended_layout(self.expect or 0, dimension, peers or 1)
        layout = Layout(**{**recommended.to_json(), **self.explicit})
        if layout.replicas > (peers or 1):
            raise InvalidArgumentError(
                f"--replicas {layout.replicas} needs as many peers, the cluster has {peers or 1}; wait until "
                "the others have joined, or ask for fewer"
            )
        return layout


def differing_options(options: StorageConfig, layout: Layout) -> dict[str, str]:
    """Return the options that differ from a layout: each as it was given, and what the layout has."""
    has = layout.to_json()
    return {
        _as_option(name, value): _as_option(name, has[name])
        for name, value in options.explicit.items()
        if value != has[name]
    }


def _as_option(name: str, value: Any) -> str:
    """Return an option as written on the command line."""
    if name == "on_disk":
        return "--on-disk" if value else "--in-memory"
    return f"{_flag(name)} {value}"


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


SPEC_FORMAT: Final = 1
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, kw_only=True, slots=True)
class CollectionSpec:
    """What a collection remembers about itself.

    Attributes:
        model_id: Digest of the model whose embeddings it holds.
        model_name: Shipped name or folder that opens the model again.
        dimension: D, the length of every vector.
        crop: How its images are framed, as ``lookalike.encoder.images.Crop`` or
            ``lookalike.encoder.detect.Faces`` writes it.
        metric: Always ``cosine``: embeddings have unit length.
        roots: Root name -> folder that item paths are relative to.
        foreign_roots: Names of the roots whose folder only a file of latents told: whoever wrote it may have
            named any, so no image is opened there.
        unlike_training: Whether most of its images are unlike what the model was trained on, so that nothing
            is known of how probable it is that two of them show one person.
        format: Version of this record's format.
    """

    model_id: str
    model_name: str
    dimension: int
    crop: str
    metric: Literal["cosine"] = "cosine"
    roots: Mapping[str, str] = field(default_factory=dict)
    foreign_roots: tuple[str, ...] = ()
    unlike_training: bool = False
    format: int = SPEC_FORMAT

    def to_json(self) -> dict[str, Any]:
        """Return JSON values that :meth:`from_json` reads back equal, without what is false or empty."""
        values = asdict(self) | {"roots": dict(self.roots), "foreign_roots": list(self.foreign_roots)}
        optional = ("foreign_roots", "unlike_training")
        return {key: value for key, value in values.items() if value or key not in optional}

    def folder_of(self, root: object) -> str | None:
        """Return the folder that images of a root are opened in.

        None: the collection knows no such root, or only from a file of latents.
        """
        return None if root in self.foreign_roots or not isinstance(root, str) else self.roots.get(root)

    @classmethod
    def from_json(cls, value: Mapping[str, Any], *, where: str) -> Self:
        """Read what :meth:`to_json` wrote.

        Raises:
            StoreError: it is not such a record, or of a later version; the message names ``where``.
        """
        version = value.get("format")
        if isinstance(version, int) and version > SPEC_FORMAT:
            raise StoreError(
                f"{where} was written by a later lookalike (format {version}); upgrade to read it"
            )
        try:
            spec = cls(**{**value, "foreign_roots": tuple(value.get("foreign_roots", ()))})
        except TypeError:
            spec = None
        if spec is None or not spec._typed():
            raise StoreError(f"{where} is not a lookalike collection; index into another name")
        return spec

    def _typed(self) -> bool:
        """Whether values read from outside have their declared types."""
        if not isinstance(self.roots, Mapping):
            return False
        texts = (self.model_id, self.model_name, self.crop, *self.roots, *self.roots.values())
        texts += self.foreign_roots
        kinds = ((self.dimension, int), (self.format, int), (self.unlike_training, bool))
        return (
            all(isinstance(text, str) for text in texts)
            and all(type(value) is kind for value, kind in kinds)
            and self.dimension > 0
            and self.metric == "cosine"
        )

    @property
    def has_faces(self) -> bool:
        """Whether its items are the faces of pictures, not whole pictures."""
        return self.crop.startswith("faces:")

    def same_embedding(self, other: CollectionSpec) -> bool:
        """Whether vectors of both are comparable: the same model, dimension and crop."""
        return (self.model_id, self.dimension, self.crop) == (other.model_id, other.dimension, other.crop)

    def check_model(self, name: str, *, model_id: str, crop: str) -> None:
        """Check that a model is the one whose vectors this collection holds.

        Raises:
            ModelMismatchError: another model, or the same one with another crop.
        """
        if model_id != self.model_id:
            raise ModelMismatchError(
                f"collection {name!r} holds vectors of model {self.model_name} ({self.model_id[:12]}), "
                f"this one is {model_id[:12]}; use that model or index into another collection"
            )
        if crop != self.crop and self.has_faces != crop.startswith("faces:"):
            holds, given = ("faces", "whole pictures") if self.has_faces else ("whole pictures", "faces")
            raise ModelMismatchError(
                f"collection {name!r} holds {holds}, this run is for {given}; "
                f"{'pass' if self.has_faces else 'leave out'} --faces, or index into another collection"
            )
        if crop != self.crop and self.has_faces:
            raise ModelMismatchError(
                f"collection {name!r} holds {self.crop}, this run finds {crop}; "
                "leave --face-threshold out, or index into another collection"
            )
        if crop != self.crop:
            raise ModelMismatchError(
                f"collection {name!r} was indexed with --crop {self.crop}, this run uses {crop}; "
                f"pass --crop {self.crop} or index into another collection"
            )

    def check_successor(self, name: str, new: CollectionSpec) -> None:
        """Check that a new spec does not change what the stored vectors mean.

        Raises:
            ModelMismatchError: model_id, dimension, crop or metric differ.
        """
        self.check_model(name, model_id=new.model_id, crop=new.crop)
        if (new.dimension, new.metric) != (self.dimension, self.metric):
            raise ModelMismatchError(
                f"collection {name!r} has {self.dimension} dimensions and metric {self.metric}, not "
                f"{new.dimension} and {new.metric}; index into another collection"
            )

    def with_changes(self, name: str, before: CollectionSpec, new: CollectionSpec) -> CollectionSpec:
        """Return this spec with what differs between two others, so that two runs at once both count.

        Args:
            name: The collection, for messages.
            before: The spec that the writer started from.
            new: The spec that the writer made of it.

        Raises:
            StoreError: another run has given the name of a new root to another folder meanwhile.
        """
        roots = {root: folder for root, folder in self.roots.items() if root in new.roots}
        roots |= {root: folder for root, folder in self.roots.items() if root not in before.roots}
        for root, folder in new.roots.items():
            if before.roots.get(root) == folder:
                continue
            if self.roots.get(root, folder) not in (folder, before.roots.get(root)):
                raise StoreError(
                    f"another run has called {self.roots[root]} the root {root!r} of {name!r} meanwhile, "
                    f"this one {folder}; run it again with another --root-name"
                )
            roots[root] = folder
        decided = {
            root
            for root in roots
            if root not in self.roots or (root in before.foreign_roots) != (root in new.foreign_roots)
        }
        foreign = {root for root in roots if root in (new if root in decided else self).foreign_roots}
        order = [*self.foreign_roots, *new.foreign_roots]
        changed = {
            key: getattr(new if getattr(new, key) != getattr(before, key) else self, key)
            for key in ("model_name", "unlike_training")
        }
        kept = tuple(root for root in dict.fromkeys(order) if root in foreign)
        return replace(self, roots=roots, foreign_roots=kept, **changed)


def is_name(name: str) -> bool:
    """Whether ``name`` is allowed for a collection (so it stays inside a folder or URL)."""
    return _NAME.fullmatch(name) is not None


def check_name(name: str) -> str:
    """Return ``name`` when it is allowed for a collection in every store.

    Raises:
        InvalidArgumentError: it is not (1 to 64 of A-Z a-z 0-9 . _ -, a letter or digit first).
    """
    if not is_name(name):
        raise InvalidArgumentError(
            f"a collection name is 1 to 64 letters, digits, '.', '_' or '-', a letter or digit first; "
            f"{name!r} is not"
        )
    return name
