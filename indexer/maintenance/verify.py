"""Whether a collection still says the truth: of the files on disk, and of the model that made its vectors.

Legend: D dimensions of an embedding.
"""

from __future__ import annotations

import hashlib
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.embed.batch import Readable
from lookalike.encoder.embed.pipeline import EmbeddedBatch, embed_files
from lookalike.encoder.errors import BundleError, DataError, InvalidArgumentError, ModelMismatchError
from lookalike.encoder.images.preprocess import Crop
from lookalike.encoder.runtime.model import Model
from lookalike.indexer.sources.source import Source, as_path, item_id
from lookalike.indexer.sources.tar import Contained, located
from lookalike.indexer.store.base import VectorStore
from lookalike.indexer.store.points import Payload, Record
from lookalike.indexer.store.spec import CollectionSpec

Kind = Literal["missing", "extra", "changed", "unreadable", "vector", "duplicate", "differing"]
KINDS: Final[tuple[Kind, ...]] = (
    "missing", "extra", "changed", "unreadable", "vector", "duplicate", "differing",
)  # fmt: skip
ALIKE: Final = 0.999
UNIT_WITHIN: Final = 1e-3
_STEP: Final = 500
_ANY_SIZE: Final = 1 << 40  # it was not too large when it was indexed


@dataclass(frozen=True, slots=True)
class Issue:
    """Something that is not as it should be.

    Attributes:
        kind: ``missing`` stored but not on disk; ``extra`` on disk but not stored; ``changed`` since it was
            indexed; ``unreadable`` so that nothing can be said; ``vector`` of wrong length, not unit or not
            finite; ``duplicate`` of one root and path; ``differing`` from what the model makes of the file.
        path: Root name and path in it, with ``/``; the id of a point that has none.
        reason: In a few words.
    """

    kind: Kind
    path: str
    reason: str


@dataclass(slots=True)
class VerifyReport:
    """What an audit came to.

    Attributes:
        items: Points that were looked at.
        without_file: Of these, points that say no root and path: nothing on disk to compare with.
        sampled: Files that were embedded again and compared.
        issues: What is not as it should be.
    """

    items: int = 0
    without_file: int = 0
    sampled: int = 0
    issues: list[Issue] = field(default_factory=list)

    @property
    def counts(self) -> dict[Kind, int]:
        """How many findings there are of every kind."""
        found = Counter(finding.kind for finding in self.issues)
        return {kind: found[kind] for kind in KINDS}

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**asdict(self), "counts": self.counts}


def verify(
    store: VectorStore,
    name: str,
    *,
    model: Model | None = None,
    sample: int = 100,
    seed: int = 0,
    checksum: bool = False,
    on_total: Callable[[int], object] = lambda _: None,
    on_progress: Callable[[int], object] = lambda _: None,
) -> VerifyReport:
    """Compare a collection with the files that it says it holds. Nothing is changed.

    Holds 16 bytes of each item in memory, and what it finds.

    Args:
        store: The store.
        name: The collection.
        model: Its model; None: no vector is computed again.
        sample: How many files to embed again, drawn at random; fewer where files are missing or changed.
        seed: Of the draw.
        checksum: Read every file and compare its SHA-256, instead of its size and time.
        on_total: Told how many points there are.
        on_progress: Told of points done.

    Raises:
        CollectionNotFoundError: there is no such collection.
        ModelMismatchError: it was made by another model.
        InvalidArgumentError: ``sample`` or ``seed`` is negative.
        StoreError: the store failed.
    """
    if sample < 0 or seed < 0:
        raise InvalidArgumentError(f"sample and seed are 0 or more, not {sample} and {seed}; leave them out")
    spec = store.info(name)
    if model is not None:
        spec.check_model(name, model_id=model.model_id, crop=spec.crop)
    count = store.count(name)
    on_total(count)
    report, walk = VerifyReport(), _Walk(spec, checksum)
    size = 0 if model is None else min(sample, count)
    drawn = (
        {int(at) for at in np.random.default_rng(seed).choice(count, size, replace=False)} if size else set()
    )
    picked: list[tuple[Record, Path | Readable]] = []
    for position, record in enumerate(store.scroll(name, with_vectors=True)):
        found = walk.look(record)
        report.items += 1
        report.without_file += found.file is None
        report.issues += found.findings
        if position in drawn and found.file is not None and not found.findings:
            picked.append((record, found.file))
        if report.items % _STEP == 0:
            on_progress(_STEP)
    report.issues += _extra(spec, walk)
    if model is not None:
        report.sampled, differing = _embedded_again(model, spec, picked)
        report.issues += differing
    on_progress(report.items % _STEP)
    return report


def remembered_model(spec: CollectionSpec, name: str) -> Model:
    """Open the model that a collection remembers.

    Raises:
        ModelMismatchError: it cannot be opened.
    """
    try:
        return Model.open(spec.model_name)
    except BundleError as error:
        raise ModelMismatchError(
            f"collection {name!r} was made by model {spec.model_name} ({spec.model_id[:12]}), "
            f"which cannot be opened here ({error}); pass --model with the folder it is in, or --sample 0"
        ) from error


@dataclass(frozen=True, slots=True)
class _Look:
    """What was found of one point, and the file that it is about, if any."""

    file: Path | Contained | None
    findings: list[Issue]


class _Walk:
    """Looks at one point after the other.

    Attributes:
        seen: The ids that roots and paths make, 16 bytes each.
        plain: Roots of pictures that are files, not members of archives.
    """

    def __init__(self, spec: CollectionSpec, checksum: bool) -> None:
        self._dimension, self._checksum = spec.dimension, checksum
        self._roots = {name: as_path(folder) for name, folder in spec.roots.items()}
        self.seen: set[bytes] = set()
        self.plain: set[str] = set()

    def look(self, record: Record) -> _Look:
        """Return what is to be said of a point."""
        root, path = record.payload.get("root"), record.payload.get("path")
        placed = isinstance(root, str) and isinstance(path, str)
        said = f"{root}/{path}" if placed else record.id
        findings: list[Issue] = []
        if (fault := _vector_fault(record.vector, self._dimension)) is not None:
            findings.append(Issue("vector", said, fault))
        if not isinstance(root, str) or not isinstance(path, str):
            return _Look(None, findings)
        key = UUID(item_id(root, path)).bytes
        if key in self.seen:
            findings.append(Issue("duplicate", said, f"stored once more as {record.id}"))
        self.seen.add(key)
        if root not in self._roots:
            return _Look(None, [*findings, Issue("missing", said, "the collection does not know its root")])
        file, fault_on_disk = self._placed(self._roots[root] / as_path(path), record.payload)
        if fault_on_disk is not None:
            findings.append(Issue(fault_on_disk[0], said, fault_on_disk[1]))
        if isinstance(file, Path):
            self.plain.add(root)
        return _Look(file, findings)

    def _placed(self, file: Path, payload: Payload) -> tuple[Path | Contained, tuple[Kind, str] | None]:
        """Return where a picture lies, and what is wrong with it there."""
        try:
            place = located(file)
        except FileNotFoundError as error:
            return file, ("missing", error.strerror or "not there")
        except (DataError, OSError, ValueError) as error:
            return file, ("unreadable", str(error))
        return place, self._disk_fault(place, payload)

    def _disk_fault(self, file: Path | Contained, payload: Payload) -> tuple[Kind, str] | None:
        try:
            if self._checksum:
                same = _digest(file) == payload.get("sha256")
            else:
                same = _facts(file) == (payload.get("size"), payload.get("mtime_ns"))
        except IsADirectoryError:
            return "unreadable", "not a file"
        except (FileNotFoundError, NotADirectoryError, ValueError):  # the last: a NUL in the path
            return "missing", "not on disk"
        except OSError as error:
            return "unreadable", error.strerror or type(error).__name__
        return None if same else ("changed", "other content" if self._checksum else "other size or time")


def _facts(file: Path | Contained) -> tuple[int, int]:
    if not isinstance(file, Path):
        return file.size, file.mtime_ns
    status = file.stat()
    if not stat.S_ISREG(status.st_mode):
        raise IsADirectoryError
    return status.st_size, status.st_mtime_ns


def _digest(file: Path | Contained) -> str:
    if not isinstance(file, Path):
        return file.read()[1].sha256
    _facts(file)  # a pipe would keep us waiting
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _vector_fault(vector: NDArray[np.float32] | None, dimension: int) -> str | None:
    """Return what is wrong with a stored vector, float32 (D,), that should have unit length."""
    if vector is None or vector.shape != (dimension,):
        return f"shape {None if vector is None else vector.shape}, not ({dimension},)"
    if not np.isfinite(vector).all():
        return "not finite"
    length = float(np.linalg.norm(vector.astype(np.float64)))
    return None if abs(length - 1) <= UNIT_WITHIN else f"length {length:.4g}, not 1"


def _extra(spec: CollectionSpec, walk: _Walk) -> Iterator[Issue]:
    """Yield the pictures under the known roots whose ids were not seen."""
    for name, folder in spec.roots.items():
        root = as_path(folder)
        if name not in walk.plain or not root.is_dir():
            continue  # only archives of it are stored; or all that it held is missing, and said to be
        try:
            for item in Source(name, root).items():
                if UUID(item.id).bytes not in walk.seen:
                    yield Issue("extra", f"{name}/{item.path}", "not stored")
        except DataError as error:
            yield Issue("unreadable", name, str(error))


def _embedded_again(
    model: Model, spec: CollectionSpec, picked: Iterable[tuple[Record, Path | Readable]]
) -> tuple[int, list[Issue]]:
    """Return how many vectors were compared, and what differs."""
    compared = 0
    findings: list[Issue] = []
    for batch in embed_files(model, picked, crop=Crop.parse(spec.crop), max_pixels=_ANY_SIZE):
        compared += len(batch.keys)
        findings += _differing(batch)
        findings += [Issue("unreadable", _said(record), reason) for record, reason in batch.failures]
    return compared, findings


def _differing(batch: EmbeddedBatch[Record]) -> Iterator[Issue]:
    for record, facts, embedding in zip(batch.keys, batch.facts, batch.embeddings, strict=True):
        if facts.sha256 != record.payload.get("sha256"):
            yield Issue("changed", _said(record), "other content")
        elif record.vector is not None and not (cosine := float(embedding @ record.vector)) >= ALIKE:
            yield Issue("differing", _said(record), f"cosine {cosine:.4f} to what the model makes of it now")


def _said(record: Record) -> str:
    return f"{record.payload['root']}/{record.payload['path']}"
