"""Checks whether a collection still agrees with its files on disk and with the model of its vectors.

Legend: D dimensions of an embedding.
"""

from __future__ import annotations

import hashlib
import math
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from lookalike.encoder.detect import parse_framing
from lookalike.encoder.embed import EmbeddedBatch, Readable, embed_files
from lookalike.encoder.errors import BundleError, DataError, InvalidArgumentError, ModelMismatchError
from lookalike.encoder.runtime import Model
from lookalike.indexer.sources import Contained, Source, as_path, file_below, item_id, leads_out, located
from lookalike.indexer.store import CollectionSpec, Payload, Record, VectorStore
from lookalike.indexer.sync import face_count, face_id, face_number

Kind = Literal["missing", "extra", "changed", "unreadable", "vector", "duplicate", "differing"]
KINDS: Final[tuple[Kind, ...]] = (
    "missing", "extra", "changed", "unreadable", "vector", "duplicate", "differing",
)  # fmt: skip
MIN_COSINE: Final = 0.999
UNIT_TOLERANCE: Final = 1e-3
_STEP: Final = 500
_ANY_SIZE: Final = 1 << 40  # it was not too large when it was indexed


@dataclass(frozen=True, slots=True)
class Issue:
    """A problem of one item.

    Attributes:
        kind: ``missing``: stored but not on disk; ``extra``: on disk but not stored; ``changed`` since it was
            indexed; ``unreadable``, so it cannot be checked; ``vector``: wrong shape, not of unit length,
            not finite, or not as it was stored; ``duplicate``: the same root and path twice; ``differing``
            from the model's embedding now.
        path: Root name and path, with ``/``; the id of a point without them.
        reason: In a few words.
    """

    kind: Kind
    path: str
    reason: str


@dataclass(slots=True)
class VerifyReport:
    """The result of a check.

    Attributes:
        items: Points that were checked.
        without_file: Points without root and path, or whose root only a file of latents told: they cannot be
            compared with a file.
        sampled: Files that were embedded again and compared.
        issues: The problems.
    """

    items: int = 0
    without_file: int = 0
    sampled: int = 0
    issues: list[Issue] = field(default_factory=list)

    @property
    def counts(self) -> dict[Kind, int]:
        """Number of issues of each kind."""
        counts = Counter(issue.kind for issue in self.issues)
        return {kind: counts[kind] for kind in KINDS}

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        values = asdict(self)
        issues = values.pop("issues")
        return {**values, "findings": issues, "counts": self.counts}


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
    """Compare a collection with its files on disk. Nothing is changed.

    Memory holds 16 bytes of each item, and the issues.

    Args:
        store: The store.
        name: The collection.
        model: Its model; None: no file is embedded again.
        sample: How many files to embed again, chosen at random; fewer where files are missing or changed.
        seed: Seed of the random choice.
        checksum: Read every file and compare its SHA-256, instead of its size and time.
        on_total: Called with the number of points.
        on_progress: Called with the number of points done since the last call.

    Raises:
        CollectionNotFoundError: there is no such collection.
        ModelMismatchError: the collection holds vectors of another model.
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
    report, checker = VerifyReport(), _Checker(spec, checksum)
    size = 0 if model is None else min(sample, count)
    rng = np.random.default_rng(seed)
    chosen = set(rng.choice(count, size, replace=False).tolist()) if size else set()
    to_embed: list[tuple[Record, Path | Readable]] = []
    for position, record in enumerate(store.scroll(name, with_vectors=True)):
        file, issues = checker.check(record)
        report.items += 1
        report.without_file += file is None
        report.issues += issues
        if position in chosen and file is not None and not issues:
            to_embed.append((record, file))
        if report.items % _STEP == 0:
            on_progress(_STEP)
    report.issues += _find_extra(spec, checker)
    if model is not None:
        report.sampled, issues = _embed_again(model, spec, to_embed)
        report.issues += issues
    on_progress(report.items % _STEP)
    return report


def remembered_model(spec: CollectionSpec, name: str) -> Model:
    """Open the model of a collection.

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


class _Checker:
    """Checks the points of a collection, one after the other.

    Attributes:
        seen: The ids of the roots and paths so far, 16 bytes each.
        plain: Roots with images that are files, not entries of archives.
    """

    def __init__(self, spec: CollectionSpec, checksum: bool) -> None:
        self._dimension, self._checksum = spec.dimension, checksum
        self._roots, self._foreign = spec.roots, spec.foreign_roots
        self._gone = {name for name, folder in spec.roots.items() if not as_path(folder).exists()}
        first = {folder: name for name, folder in sorted(spec.roots.items(), reverse=True)}
        self._first_name = {name: first[folder] for name, folder in spec.roots.items()}
        self._names = Counter(self._first_name.values())  # of each folder
        self._shared: set[bytes] = set()
        self.seen: set[bytes] = set()
        self.plain: set[str] = set()

    def check(self, record: Record) -> tuple[Path | Contained | None, list[Issue]]:
        """Return the file of a point, if it has one, and the issues of the point."""
        root, path = record.payload.get("root"), record.payload.get("path")
        has_path = isinstance(root, str) and isinstance(path, str)
        shown = f"{root}/{path}" if has_path else record.id
        issues: list[Issue] = []
        if (fault := _vector_fault(record, self._dimension)) is not None:
            issues.append(Issue("vector", shown, fault))
        if not isinstance(root, str) or not isinstance(path, str):
            return None, issues
        if face_number(record.payload) > 1:  # the first stands for the picture
            key = _id_bytes(face_id(root, path, face_number(record.payload)))
        else:
            key = _id_bytes(item_id(root, path))
        if key in self.seen:
            issues.append(Issue("duplicate", shown, f"stored once more as {record.id}"))
        self.seen.add(key)
        if self._is_twin(root, path, face_number(record.payload)):
            issues.append(Issue("duplicate", shown, "stored once more under another name of its root"))
        if root in self._foreign:
            return None, issues
        file, disk_fault = self._file_of(root, path, record.payload)
        if disk_fault is not None:
            issues.append(Issue(disk_fault[0], shown, disk_fault[1]))
        if isinstance(file, Path):
            self.plain.add(root)
        return file, issues

    def _is_twin(self, root: str, path: str, number: int) -> bool:
        """Whether another root has the same folder, and an item of this path was seen there."""
        first_name = self._first_name.get(root)
        if number > 1 or first_name is None or self._names[first_name] == 1:
            return False
        key = _id_bytes(item_id(first_name, path))
        seen = key in self._shared
        self._shared.add(key)
        return seen

    def _file_of(
        self, root: str, path: str, payload: Payload
    ) -> tuple[Path | Contained | None, tuple[Kind, str] | None]:
        """Return the file of an item, and what is wrong with it."""
        if root not in self._roots:
            return None, ("missing", "the collection does not know its root")
        if leads_out(path):
            return None, ("unreadable", "its path leads out of its root")
        if root not in self._gone and _is_plain(text := f"{self._roots[root]}/{path}"):
            plain = Path(text)  # nearly all are: half the time
            return plain, self._disk_fault(plain, payload)
        file = file_below(self._roots[root], path)
        if root in self._gone:
            return file, ("missing", f"the folder of its root is gone: {self._roots[root]}")
        return self._find_file(file, payload)

    def _find_file(self, file: Path, payload: Payload) -> tuple[Path | Contained, tuple[Kind, str] | None]:
        """Return the file or archive entry of an image, and what is wrong with it."""
        try:
            found = located(file)
        except FileNotFoundError as error:
            return file, ("missing", error.strerror or "not on disk")
        except (DataError, OSError, ValueError) as error:
            return file, ("unreadable", str(error))
        return found, self._disk_fault(found, payload)

    def _disk_fault(self, file: Path | Contained, payload: Payload) -> tuple[Kind, str] | None:
        try:
            if self._checksum:
                same = _digest(file) == payload.get("sha256")
            else:
                same = _size_and_mtime(file) == (payload.get("size"), payload.get("mtime_ns"))
        except IsADirectoryError:
            return "unreadable", "not a file"
        except (FileNotFoundError, NotADirectoryError, ValueError):  # the last: a NUL in the path
            return "missing", "not on disk"
        except OSError as error:
            return "unreadable", error.strerror or type(error).__name__
        return None if same else ("changed", "other content" if self._checksum else "other size or time")


def _is_plain(text: str) -> bool:
    """Whether a path as it is stored has no escapes, and names nothing in an archive or in MNIST's files."""
    return not ("\\" in text or ".tar/" in text or text.endswith(".pgm"))


def _id_bytes(canonical: str) -> bytes:
    """Return the 16 bytes of an id, a third of the time that uuid.UUID takes."""
    return bytes.fromhex(canonical.replace("-", ""))


def _size_and_mtime(file: Path | Contained) -> tuple[int, int]:
    if not isinstance(file, Path):
        return file.size, file.mtime_ns
    status = file.stat()
    if not stat.S_ISREG(status.st_mode):
        raise IsADirectoryError
    return status.st_size, status.st_mtime_ns


def _digest(file: Path | Contained) -> str:
    if not isinstance(file, Path):
        return file.read()[1].sha256
    _size_and_mtime(file)  # refuses a pipe, which would block
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _vector_fault(record: Record, dimension: int) -> str | None:
    """Return what is wrong with a stored vector, float32 (D,), that should have unit length."""
    vector = record.vector
    if vector is None or vector.shape != (dimension,):
        return f"shape {None if vector is None else vector.shape}, not ({dimension},)"
    exact = vector.astype(np.float64)
    length = math.sqrt(float(exact @ exact))
    if not math.isfinite(length):
        return "not finite"
    if abs(length - 1) > UNIT_TOLERANCE:
        return f"length {length:.4g}, not 1"
    return "not as it was stored; index again with --checksum" if record.damaged else None


def _find_extra(spec: CollectionSpec, checker: _Checker) -> Iterator[Issue]:
    """Yield the images under the known roots whose ids were not seen."""
    for name, folder in spec.roots.items():
        root = as_path(folder)
        if name not in checker.plain or not root.is_dir():
            continue  # only archives of it are stored; or all its files are missing, and reported
        try:
            for item in Source(name, root).items():
                if _id_bytes(item.id) not in checker.seen:
                    yield Issue("extra", f"{name}/{item.path}", "not stored")
        except DataError as error:
            yield Issue("unreadable", name, str(error))


def _embed_again(
    model: Model, spec: CollectionSpec, files: Iterable[tuple[Record, Path | Readable]]
) -> tuple[int, list[Issue]]:
    """Return how many vectors were compared, and the issues."""
    compared = 0
    issues: list[Issue] = []
    for batch in embed_files(model, files, crop=parse_framing(spec.crop), max_pixels=_ANY_SIZE):
        compared += len(batch.keys)
        issues += _compare(batch)
        issues += [Issue("unreadable", _shown(record), reason) for record, reason in batch.failures]
    return compared, issues


def _compare(batch: EmbeddedBatch[Record]) -> Iterator[Issue]:
    row = 0
    for place, (record, info) in enumerate(zip(batch.keys, batch.facts, strict=True)):
        count = 1 if batch.faces is None else len(batch.faces[place])
        embeddings, row = batch.embeddings[row : row + count], row + count
        if info.sha256 != record.payload.get("sha256"):
            yield Issue("changed", _shown(record), "other content")
        elif batch.faces is not None and count != face_count(record.payload):
            yield Issue("differing", _shown(record), f"{count} faces are found now")
        elif count and record.vector is not None:
            cosine = float(embeddings[max(face_number(record.payload), 1) - 1] @ record.vector)
            if not cosine >= MIN_COSINE:
                yield Issue("differing", _shown(record), f"cosine {cosine:.4f} to the model's embedding now")


def _shown(record: Record) -> str:
    return f"{record.payload['root']}/{record.payload['path']}"
