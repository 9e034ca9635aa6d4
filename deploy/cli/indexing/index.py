"""``lookalike index``, and the options that say which images are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import click
from click.core import ParameterSource

from lookalike.deploy.cli.many_images import engine_option, shard_option
from lookalike.deploy.cli.options import (
    SOURCES,
    Given,
    LocalPath,
    Provider,
    check_root,
    collection_option,
    combine,
    command,
    crop_option,
    files_from_options,
    filled_store_option,
    json_option,
    layout_options,
    max_pixels_option,
    model_option,
    option,
    pattern_options,
    provider_option,
)
from lookalike.deploy.cli.output import (
    json_lines,
    log,
    log_failed_files,
    log_no_images,
    log_skipped,
    print_json,
    progress_bar,
    warn,
    warn_of_store,
)

if TYPE_CHECKING:
    from lookalike.encoder.detect import Framing
    from lookalike.encoder.images import Crop
    from lookalike.encoder.runtime import Model
    from lookalike.indexer.parts import LoadReport
    from lookalike.indexer.sources import SourceList
    from lookalike.indexer.store import StorageConfig
    from lookalike.indexer.sync import SyncReport
    from lookalike.indexer.units import Shard

Function = Callable[..., Any]
_METADATA: Final = "Metadata"
_PARTS: Final = "A folder of parts"
_NOT_FOR_LATENTS: Final = {
    *("files_from", "include", "exclude", "hidden", "person_from"),
    *("payload", "attributes", "checksum", "dry_run", "watch", "report", "faces", "face_threshold"),
}
"""Options of ``lookalike index`` that would be ignored for a file of latents."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceOptions:
    """The argument SOURCE and the options that select images; each attribute has the name of its option."""

    sources: tuple[str, ...]
    split: Literal["train", "test", "all"] | None
    root_name: str | None
    files_from: str | None
    nul: bool
    root: Path | None
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    hidden: bool
    person_from: str | None

    def __post_init__(self) -> None:
        if not self.sources and self.files_from is None:
            raise click.UsageError(
                "name a source: a folder, an image file, a tar archive, lfw, mnist, or --files-from"
            )
        if self.root is not None and not self.is_latents:
            check_root(self.root, self.files_from)
        if self.split is not None and (self.files_from is not None or set(self.sources) != {"mnist"}):
            raise click.UsageError("--split works only with mnist; index other sources in a separate run")

    @property
    def is_latents(self) -> bool:
        """Whether a source is a file of latents, or a folder of parts."""
        from lookalike.indexer.parquet import is_latents
        from lookalike.indexer.parts import is_parts

        return any(is_latents(source) or is_parts(source) for source in self.sources)

    def build(self, payload: Mapping[str, Mapping[str, Any]] | None = None) -> SourceList:
        """Return the sources and how they are read, with the payload to store by path.

        Raises:
            DataError: the list of ``--files-from`` cannot be read, or is empty.
            InvalidArgumentError: ``--person-from`` is no regular expression.
        """
        from lookalike.indexer.sources import FileList, SourceFilter, SourceList, person_pattern

        return SourceList(
            sources=self.sources,
            files=() if self.files_from is None else FileList(self.files_from, nul=self.nul),
            root=self.root,
            root_name=self.root_name,
            split=self.split,
            filter=SourceFilter(
                include=self.include,
                exclude=self.exclude,
                hidden=self.hidden,
                person=None if self.person_from is None else person_pattern(self.person_from),
                payload=payload,
            ),
        )


_source_options: Final = combine(
    click.argument("sources", nargs=-1, metavar="SOURCE..."),
    option(
        "--split",
        type=click.Choice(["train", "test", "all"]),
        group=SOURCES,
        help="Part of mnist to read.",
        show_default="all",
    ),
    option(
        "--root-name",
        metavar="NAME",
        group=SOURCES,
        help="Name to remember the source's folder by.",
        show_default="the folder's name",
    ),
    files_from_options,
    pattern_options,
    option(
        "--person-from",
        metavar="REGEX",
        group=SOURCES,
        help="Find the person's name in the path with this regular expression.",
        show_default="the folder's name",
    ),
)


face_options: Final = combine(
    option(
        "--faces",
        is_flag=True,
        help="Find the faces in each picture; each, turned upright, is an item. A collection remembers it.",
    ),
    option(
        "--face-threshold",
        type=click.FloatRange(0.1, 1, max_open=True),
        metavar="SCORE",
        help="Smallest score of a face.",
        show_default="0.8",
    ),
)


def source_options(function: Function) -> Function:
    """Give a command SOURCE and the options that select images, as one argument ``sources``."""

    @wraps(function)
    def with_sources(*args: Any, **options: Any) -> Any:
        chosen = {each.name: options.pop(each.name) for each in fields(SourceOptions)}
        return function(*args, sources=SourceOptions(**chosen), **options)

    return _source_options(with_sources)


@command(epilog="Example: lookalike index photos/ --model faces --collection family")
@model_option(name="model_name", show_default="faces; that of the collection, if it is there")
@collection_option("Collection to fill, created if missing")
@filled_store_option
@crop_option()
@face_options
@option(
    "--checksum",
    is_flag=True,
    help="Detect changes by content (SHA-256), not by size and time, and damage of stored vectors.",
)
@option("--dry-run", is_flag=True, help="Only report what would change.")
@option("--prune", is_flag=True, help="Remove images from the collection that are no longer in the sources.")
@option(
    "--watch",
    is_flag=True,
    help="Go on until Ctrl+C, and follow the folders as they change; with --prune, also what is deleted.",
)
@option(
    "--report",
    type=LocalPath(dir_okay=False),
    help="Write JSON lines to this file: each image that changed, moved, went missing or failed.",
)
@max_pixels_option()
@provider_option
@json_option("Print the report as JSON on stdout.")
@source_options
@option(
    "--payload",
    type=LocalPath(dir_okay=False),
    group=_METADATA,
    help="CSV or JSONL file with a column 'path': metadata to store with each image.",
)
@option(
    "--attributes",
    type=LocalPath(dir_okay=False),
    group=_METADATA,
    help="Attribute scores by person and image number, in the format of lfw_attributes.txt.",
)
@option(
    "--predict",
    metavar="NAME,...",
    group=_METADATA,
    help="Predict these attributes (see: lookalike attributes list) for each image that --attributes has no "
    "score for; above 0 means: more likely present than not.",
)
@layout_options
@shard_option(group=_PARTS)
@engine_option(group=_PARTS)
@option(
    "--defer-index",
    is_flag=True,
    group=_PARTS,
    help="Have the server build no search index of the new collection before lookalike collections optimize.",
)
@click.pass_context
def index(
    ctx: click.Context,
    /,
    sources: SourceOptions,
    layout: Given[StorageConfig],
    model_name: str,
    collection: str | None,
    store: str,
    crop: Crop | None,
    faces: bool,
    face_threshold: float | None,
    payload: Path | None,
    attributes: Path | None,
    predict: str | None,
    checksum: bool,
    dry_run: bool,
    prune: bool,
    watch: bool,
    report: Path | None,
    max_pixels: int | None,
    provider: Provider,
    as_json: bool,
    shard: Shard | None,
    engine: str,
    defer_index: bool,
) -> None:
    """Add the images of folders to a collection.

    SOURCE is a folder, an image file, a tar archive, lfw, mnist, or a file or folder from lookalike embed. A
    run on an unchanged folder opens no image, and moved files are not embedded again. Files that cannot be
    read are reported and skipped; the exit code is then 3.
    """
    if sources.is_latents:
        _index_latents(ctx, sources, layout.build(defer_index=defer_index), shard, engine)
        return
    _check_no_parts(ctx)
    from lookalike.deploy.cli.indexing.watch import watch as watch_paths
    from lookalike.indexer.open import open_store
    from lookalike.indexer.sources import read_tables
    from lookalike.indexer.store import choose_collection
    from lookalike.indexer.sync import sync

    paths = _watched(sources, dry_run=dry_run) if watch else []
    framing = framing_of(crop, faces, face_threshold)
    names = [] if predict is None else [name.strip() for name in predict.split(",")]
    is_default = ctx.get_parameter_source("model_name") is ParameterSource.DEFAULT
    with json_lines(report) as write_event:
        model = _open_model(store, collection, model_name, is_default=is_default, provider=provider)

        def update(*, processes: bool = False) -> SyncReport:
            with open_store(store) as opened, progress_bar("Indexing") as bar:
                warn_of_store(opened)
                return sync(
                    opened,
                    choose_collection(opened, collection),
                    model,
                    sources.build(read_tables(payload, attributes)),
                    crop=framing,
                    storage=layout.build(),
                    predict=names,
                    prune=prune,
                    checksum=checksum,
                    dry_run=dry_run,
                    max_pixels=max_pixels,
                    processes=processes,
                    on_found=bar.on_found,
                    on_total=bar.on_total,
                    on_progress=bar.on_progress,
                    on_event=lambda event: None if event.status == "added" else write_event(event),
                    log=bar.log,
                    warn=bar.warn,
                )

        def show(done: SyncReport) -> None:
            _print_report(done, str(model.provider), names)
            if as_json:
                print_json({"store": store, **done.to_json()})

        done = update(processes=True)
        show(done)
        if watch:
            watch_paths(paths, store, update, show, done)
    ctx.exit(3 if done.failed else 0)


def _open_model(
    address: str, collection: str | None, name: str, *, is_default: bool, provider: Provider
) -> Model:
    """Open the model that is named, or else that of the collection, where it is there."""
    from lookalike.encoder.errors import CollectionNotFoundError
    from lookalike.encoder.runtime import Model
    from lookalike.indexer.open import open_store
    from lookalike.indexer.store import choose_collection
    from lookalike.indexer.sync import open_model

    if is_default:
        with open_store(address) as store:
            chosen = choose_collection(store, collection)
            try:
                return open_model(chosen, store.info(chosen), provider=provider, threads=1)
            except CollectionNotFoundError:
                pass
    return Model.open(name, provider=provider, threads=1)


def _watched(sources: SourceOptions, *, dry_run: bool) -> list[Path]:
    """Return what --watch watches."""
    from lookalike.deploy.cli.indexing.watch import watched_paths

    if dry_run:
        raise click.UsageError("--watch and --dry-run exclude each other: leave one out")
    return watched_paths(() if sources.files_from is not None else sources.sources)


def _print_report(done: SyncReport, provider: str, names: Sequence[str]) -> None:
    log_failed_files(done.failed)
    speed = f", {done.images_per_second:.0f} images/s" if done.images_per_second else ""
    log(f"{done.collection}: {done.summary()}; {done.seconds:.1f} s on {provider}{speed}")
    if done.seen == 0:
        log_no_images()
    log_skipped(done.passed_over)
    if names:
        log(f"{', '.join(names)}: predicted for {done.predicted} images")


def framing_of(crop: Crop | None, faces: bool, threshold: float | None) -> Framing | None:
    """Return how images are framed; None: as the collection remembers."""
    if not faces and threshold is None:
        return crop
    from lookalike.encoder.detect import INDEX_THRESHOLD, Faces

    if crop is not None:
        raise click.UsageError(
            "--crop and --faces exclude each other: faces are cut out where they are found"
        )
    return Faces(INDEX_THRESHOLD if threshold is None else threshold)


def _index_latents(
    ctx: click.Context, sources: SourceOptions, layout: StorageConfig, shard: Shard | None, engine: str
) -> None:
    """Do what ``lookalike index`` does when its sources are files of latents, or a folder of parts."""
    from lookalike.encoder.bundle import Bundle
    from lookalike.indexer.open import open_store
    from lookalike.indexer.parquet import load_latents
    from lookalike.indexer.parts import is_parts, load_parts, require_plan
    from lookalike.indexer.store import choose_collection
    from lookalike.indexer.units import Folder, run_on_ray

    options = ctx.params
    of_parts = [source for source in sources.sources if is_parts(source)]
    files = _check_latents(ctx, sources.sources, of_parts)
    if not of_parts:
        _check_no_parts(ctx)
    elif shard is not None and engine != "local":
        raise click.UsageError("--shard is the share of a run on this machine; use --engine ray without it")
    is_default = ctx.get_parameter_source("model_name") is ParameterSource.DEFAULT
    plan = require_plan(Folder(of_parts[0])) if of_parts else None
    with (
        open_store(options["store"]) as store,
        progress_bar("Indexing", unit="rows" if plan is None else "units") as bar,
    ):
        warn_of_store(store)
        how: dict[str, Any] = {
            "root": sources.root,
            "root_name": options["root_name"],
            "bundle": None if is_default else Bundle.open(options["model_name"]),
            "crop": options["crop"],
            "storage": layout,
            "on_total": bar.on_total,
            "on_progress": bar.on_progress,
            "log": bar.log,
            "warn": bar.warn,
        }
        name = choose_collection(store, options["collection"])
        if plan is not None:
            run = run_on_ray if engine == "ray" else None
            _report_parts(ctx, load_parts(store, name, plan, shard=shard, run=run, **how))
            return
        report = load_latents(store, name, files, **how)
    log(
        f"{report.collection}: {report.added} added, {report.changed} changed, "
        f"{report.unchanged} unchanged; {report.seconds:.1f} s"
    )
    if options["as_json"]:
        print_json({"store": options["store"], **report.to_json()})


def _check_no_parts(ctx: click.Context) -> None:
    """Refuse the options of a folder of parts where there is none."""
    for name, usual in (("shard", None), ("engine", "local"), ("defer_index", False)):
        if ctx.params[name] != usual:
            flag = f"--{name.replace('_', '-')}"
            raise click.UsageError(
                f"{flag} works with a folder from lookalike embed --out FOLDER/; leave it out"
            )


def _report_parts(ctx: click.Context, report: LoadReport) -> None:
    rows, options = report.rows, ctx.params
    log(
        f"{rows.collection}: {rows.added} added, {rows.changed} changed, {rows.unchanged} unchanged in "
        f"{report.parts} of {report.units} parts, {report.done} were stored before; {rows.seconds:.1f} s"
    )
    if report.left:
        warn(f"{report.left} units are not embedded yet; run this again when they are")
    if options["as_json"]:
        parts = {"units": report.units, "loaded": report.parts, "stored": report.done, "left": report.left}
        print_json({"store": options["store"], **rows.to_json(), **parts})
    ctx.exit(3 if report.left else 0)


def _check_latents(ctx: click.Context, sources: Sequence[str], of_parts: Sequence[str]) -> list[Path]:
    """Refuse options that make no sense for a file of latents; return the files that are no parts."""
    from lookalike.encoder.errors import InvalidArgumentError, printable
    from lookalike.indexer.parquet import is_latents, latents_files

    if of_parts and len(sources) > 1:
        raise InvalidArgumentError(
            f"a folder of parts is indexed alone, '{printable(of_parts[0])}' is one; index the others in "
            "another run"
        )
    other = [source for source in sources if source not in of_parts and not is_latents(source)]
    if other:
        raise InvalidArgumentError(
            "images and files of latents need separate runs; "
            f"'{printable(other[0])}' is no file of latents, index it in another run"
        )
    if ctx.params["prune"]:
        raise InvalidArgumentError(
            "--prune needs the folder: a file of latents does not list what was removed; index the folder"
        )
    for parameter in ctx.command.params:
        if parameter.name in _NOT_FOR_LATENTS and ctx.params[parameter.name]:
            raise InvalidArgumentError(
                f"{parameter.opts[-1]} does not work with a file of latents, which is indexed whole; "
                "leave it out, or index the images"
            )
    return [file for source in sources if source not in of_parts for file in latents_files(source)]
