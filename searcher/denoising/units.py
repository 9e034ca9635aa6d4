"""Units of images denoised into a folder or bucket, by as many processes and machines as there are.

::

    clean/a/me.jpg                              the images, in the tree of their source
    clean/0.tar/000001.jpg                      archives and Parquet files become folders
    clean/_log/_plan                            the units
    clean/_log/0b5e6bd9f4….parquet              the log of one unit: it is done

A unit is done when its log is there, which is written after its images.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar, Final

from lookalike.encoder.embed import Readable, read_source
from lookalike.encoder.errors import (
    BundleError,
    DataError,
    ImageError,
    InvalidArgumentError,
    one_line,
    printable,
)
from lookalike.encoder.images import IMAGE_SUFFIXES, WRITABLE_FORMATS, suffixes_of
from lookalike.indexer.sources import SourceFilter, SourceList, as_path, as_text, leads_out
from lookalike.indexer.units import (
    Done,
    Folder,
    Listing,
    Plan,
    Unit,
    UnitImage,
    UnitImages,
    UnitSize,
    filter_from_json,
    filter_to_json,
    open_plan,
)
from lookalike.searcher.denoising.batch import SINGLE_FILE_ERRORS, Destination, Outcome, Task
from lookalike.searcher.denoising.denoiser import (
    AutoencoderDenoiser,
    DenoisedFile,
    UNetDenoiser,
    open_file_denoiser,
)
from lookalike.searcher.denoising.unit_log import read_log, write_log

LOG: Final = "_log"
"""Folder of the logs, in that of the images."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DenoiseOptions:
    """How images are denoised and written; see :func:`open_file_denoiser`.

    Attributes:
        sigma: Noise level in [0, 1]; None: estimated.
        strength: Share of the noise that is removed.
        kind: Format to write; None: as it was.
        quality: 1..100 of lossy formats; None: as it was, as far as possible.
        max_pixels: Larger images fail.
        suffix: Inserted between names and extensions.
    """

    sigma: float | None = None
    strength: float = 1.0
    kind: str | None = None
    quality: int | None = None
    max_pixels: int
    suffix: str = ""

    def open(self, model: str, *, provider: Any = "auto") -> UNetDenoiser | AutoencoderDenoiser:
        """Open the denoiser.

        Raises:
            InvalidArgumentError, BundleError: as :func:`open_file_denoiser` says.
        """
        how = asdict(self)
        del how["suffix"]
        return open_file_denoiser(model, provider=provider, **how)


@dataclass(frozen=True, slots=True)
class DenoiseSettings:
    """See :class:`lookalike.indexer.units.Settings`.

    Attributes:
        model: Shipped name or folder of the model, where the plan was made.
        model_id: Digest of the model.
        options: How images are denoised and written.
        roots: Root name to folder, path or URL.
        filter: Which images are taken.
    """

    command: ClassVar[str] = "lookalike denoise"
    compares: ClassVar[str] = "model, source, filter or option"
    unit_size: ClassVar[UnitSize] = UnitSize(first=32, largest=1024, bytes=64 << 20)

    model: str
    model_id: str
    options: DenoiseOptions
    roots: Mapping[str, str]
    filter: SourceFilter = field(default_factory=SourceFilter)

    def part_name(self, digest: bytes) -> str:
        """Return the file name of the log of a unit, by its digest."""
        chosen = [self.model_id, asdict(self.options), filter_to_json(self.filter), len(self.roots) > 1]
        text = json.dumps(chosen).encode()
        return f"{blake2b(text + digest, digest_size=16).hexdigest()}.parquet"

    def read_part(self, folder: Folder, part: str) -> Done:
        """Return what became of a unit, as its log tells.

        Raises:
            DataError: it cannot be read.
        """
        return read_log(folder, part)

    def is_same(self, other: DenoiseSettings) -> bool:
        """Whether a plan with these settings is one with the others; the model may be called otherwise."""
        return replace(self, model=other.model).to_json() == other.to_json()

    def to_json(self) -> dict[str, Any]:
        """Return JSON values that :meth:`from_json` reads back equal."""
        return {
            "denoiser": self.model,
            "model_id": self.model_id,
            "options": asdict(self.options),
            "roots": dict(self.roots),
            "filter": filter_to_json(self.filter),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any], *, where: str) -> DenoiseSettings:  # noqa: ARG003  # of the protocol
        """Read what :meth:`to_json` wrote.

        Raises:
            InvalidArgumentError, KeyError, TypeError: it is not such a record.
        """
        options = DenoiseOptions(**value["options"])
        chosen = filter_from_json(value["filter"])
        return cls(value["denoiser"], value["model_id"], options, dict(value["roots"]), chosen)


def plan_denoising(
    out: Folder,
    denoiser: UNetDenoiser | AutoencoderDenoiser,
    options: DenoiseOptions,
    sources: SourceList,
    *,
    overwrite: bool = False,
) -> Plan[DenoiseSettings]:
    """Return the plan of denoised images; it is written where there is none, or with ``overwrite``.

    Args:
        out: The folder of the images.
        denoiser: The model.
        options: How it was opened.
        sources: The images.
        overwrite: List the sources again; units that have not changed stay done.

    Raises:
        InvalidArgumentError: the folder has a plan with something else, lies in a source or holds one, or a
            source cannot be split into units.
        DataError: a source cannot be listed, or the folder not be written.
    """
    listing = Listing.of(sources)
    for folder, is_whole in listing.folders():
        own, other = f"{out.address}/", f"{folder.address.rstrip('/')}/"
        if own == other or (is_whole and (own.startswith(other) or other.startswith(own))):
            raise InvalidArgumentError(
                f"denoised images go into a folder of their own, {out} and the source {folder} are not "
                "apart; name another --out"
            )
    bundle = denoiser.bundle
    settings = DenoiseSettings(bundle.address, bundle.model_id, options, listing.roots, sources.filter)
    return open_plan(Folder(out.join(LOG)), settings, listing, overwrite=overwrite)


@dataclass(frozen=True, slots=True)
class DenoiseJob:
    """What all units of a run have in common; it can be pickled.

    Attributes:
        out: The folder of the images.
        settings: As in the plan.
        model: Shipped name or folder of the model, on each machine that works.
    """

    out: Folder
    settings: DenoiseSettings
    model: str

    def __call__(self, task: tuple[str, Unit]) -> Done:
        """Denoise the images of a unit and write them, then its log.

        There is no log of a unit that cannot be read now and may be read later; the result says why.

        Raises:
            BundleError: the model is not on this machine, or is another one.
            DataError: the images or the log cannot be written.
        """
        part, unit = task
        settings = self.settings
        images = UnitImages(unit, settings.roots[unit.root], settings.filter)
        work = _Work(self.out, settings, _worker_denoiser(self.model, settings.model_id, settings.options))
        try:
            for image, file in images:
                work.denoise(image, file)
        except OSError as error:  # it may be there again in an hour: no log says that it is done
            return Done(part, error=f"{images.where(unit.name)}: cannot be read ({one_line(error)[:300]})")
        failed = [_failure(path, reason) for path, reason in images.failed]
        return write_log(Folder(self.out.join(LOG)), part, [*work.rows.values(), *work.failed, *failed])


class _Work:
    """The images of one unit.

    Attributes:
        rows: Of the log, by the names of the files that were written.
        failed: Rows of the log for images that failed.
    """

    def __init__(
        self, out: Folder, settings: DenoiseSettings, denoiser: UNetDenoiser | AutoencoderDenoiser
    ) -> None:
        self.rows: dict[Path, dict[str, Any]] = {}
        self.failed: list[dict[str, Any]] = []
        self._out, self._suffix, self._denoiser = out, settings.options.suffix, denoiser
        self._several_roots = len(settings.roots) > 1
        self._tidied: set[Path] = set()

    def denoise(self, image: UnitImage, file: str | Readable) -> None:
        """Denoise and write one image; what goes wrong with it alone becomes a row of the log."""
        relative = f"{image.root}/{image.path}" if self._several_roots else image.path
        if leads_out(relative):
            self.failed.append(_failure(image.name, "its name leads out of the folder"))
            return
        try:
            data, _ = read_source(file)
        except OSError as error:
            self.failed.append(_failure(image.name, f"cannot be read ({one_line(error)})"))
            return
        try:
            result = self._denoiser(data, image.name)
        except ImageError as error:
            self.failed.append(_failure(image.name, str(error)))
            return
        self._write(image, self._target(as_path(relative), result.kind), result)

    def _target(self, relative: Path, kind: str) -> Path:
        """Return the name of an output: no two images have one, though no run sees all names.

        So an extension is added where the format is another: ``me.jpg.png``.
        """
        target = Destination(out=Path(), suffix=self._suffix).target(relative)
        extension, inner = (Path(name).suffix.lower() for name in (target.name, target.stem))
        if self._denoiser.kind is None:
            is_whole = extension in IMAGE_SUFFIXES
        else:
            is_whole = extension in suffixes_of(kind) and inner not in IMAGE_SUFFIXES
        return target if is_whole else target.with_name(target.name + WRITABLE_FORMATS.get(kind, ""))

    def _write(self, image: UnitImage, target: Path, result: DenoisedFile) -> None:
        first = self.rows.get(target)
        if first is not None and first["path"] != image.name:
            self.failed.append(_failure(image.name, f"{first['path']} is written to the same file"))
            return
        if target.parent not in self._tidied:  # of runs that were killed
            self._tidied.add(target.parent)
            self._out.remove_drafts(str(target.parent))
        try:
            with self._out.writing(target.as_posix()) as opened:
                opened.write(result.data)
        except DataError as error:
            if getattr(error.__cause__, "errno", None) not in SINGLE_FILE_ERRORS:
                raise
            self.failed.append(_failure(image.name, f"cannot be written ({one_line(error)})"))
            return
        outcome = Outcome.of(Task(Path(), image.name, Path(as_text(target))), result)
        self.rows[target] = {**outcome.to_json(), "bytes": len(result.data)}


def _failure(path: str, reason: str) -> dict[str, Any]:
    return {"path": path, "status": "failed", "reason": reason.removeprefix(f"{path}: ")}


_kept: Final[dict[tuple[str, DenoiseOptions], UNetDenoiser | AutoencoderDenoiser]] = {}


def keep_denoiser(denoiser: UNetDenoiser | AutoencoderDenoiser, options: DenoiseOptions) -> None:
    """Keep a denoiser for the units of this process, and of those that are forked from it."""
    _kept[denoiser.bundle.model_id, options] = denoiser


def _worker_denoiser(
    model: str, model_id: str, options: DenoiseOptions
) -> UNetDenoiser | AutoencoderDenoiser:
    if (model_id, options) in _kept:
        return _kept[model_id, options]
    return _opened(model, model_id, options)


@cache
def _opened(model: str, model_id: str, options: DenoiseOptions) -> UNetDenoiser | AutoencoderDenoiser:
    denoiser = options.open(model, provider="cpu")
    if denoiser.bundle.model_id != model_id:
        raise BundleError(f"model {printable(model)} was replaced while it was in use; run it again")
    return denoiser
