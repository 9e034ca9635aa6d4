"""``lookalike embed`` and ``lookalike latents``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from lookalike.deploy.cli.indexing.index import SourceOptions, face_options, framing_of, source_options
from lookalike.deploy.cli.many_images import (
    check_share,
    log_left,
    many_images_options,
    print_plan,
    running,
    shard_option,
    work,
)
from lookalike.deploy.cli.options import (
    Group,
    LocalPath,
    Provider,
    command,
    crop_option,
    json_option,
    max_pixels_option,
    model_option,
    option,
    provider_option,
)
from lookalike.deploy.cli.output import (
    log,
    log_failed,
    log_failed_files,
    log_no_images,
    log_skipped,
    print_json,
    progress_bar,
)

if TYPE_CHECKING:
    from lookalike.encoder.detect import Framing
    from lookalike.encoder.images import Crop
    from lookalike.encoder.runtime import Model
    from lookalike.indexer.parts import EmbedSettings
    from lookalike.indexer.units import Plan, Run, Shard, UnitsReport

_PARTS: Final = "Many images (--out is a folder)"


@command(epilog="Example: lookalike embed photos/ --model faces --out latents.parquet")
@model_option(name="model_name")
@option(
    "--out",
    required=True,
    metavar="FILE.parquet|FOLDER/|URL",
    help="File to write, or folder of parts: with / at its end, or a URL (s3, gs, abfs, hdfs).",
)
@option("--overwrite", is_flag=True, help="Update an existing file; of a folder, list the sources again.")
@crop_option()
@face_options
@max_pixels_option()
@provider_option
@json_option("Print the report as JSON on stdout.")
@source_options
@many_images_options(_PARTS)
@click.pass_context
def embed(
    ctx: click.Context,
    /,
    sources: SourceOptions,
    model_name: str,
    out: str,
    overwrite: bool,
    crop: Crop | None,
    faces: bool,
    face_threshold: float | None,
    max_pixels: int | None,
    provider: Provider,
    as_json: bool,
    shard: Shard | None,
    engine: str,
    only_plan: bool,
) -> None:
    """Write the vectors of images to a Parquet file, or to a folder of parts.

    They are in its column vector, float32 of unit length.

    lookalike index adds the file or folder to a collection of the same model without opening an image;
    pandas, polars and DuckDB read it too. Run it again after an interruption to continue. A file that is up
    to date is left alone; one that is not is refused without --overwrite. Images that cannot be read are
    reported and skipped; the exit code is then 3.

    For many images name a folder: SOURCE may then be a URL, and a folder of tar archives or of Parquet files
    of images, too. They are listed once; several runs share the work with --shard or --engine ray.
    """
    from lookalike.encoder.runtime import Model

    framing = framing_of(crop, faces, face_threshold)
    is_folder = _names_folder(out)
    if not is_folder and (shard is not None or engine != "local" or only_plan):
        raise click.UsageError(
            f"--shard, --engine and --plan write a folder of parts, {out} is one file; name --out FOLDER/"
        )
    check_share(shard, engine, provider, overwrite=overwrite)
    model = Model.open(model_name, provider="cpu" if engine == "ray" else provider, threads=1)
    if not is_folder:
        file = LocalPath().convert(out, next(each for each in ctx.command.params if each.name == "out"), ctx)
        _embed_file(ctx, sources, model, file, framing, max_pixels, overwrite=overwrite, as_json=as_json)
        return
    from lookalike.encoder.embed import keep_model
    from lookalike.indexer.parts import make_plan
    from lookalike.indexer.units import Folder, wait_for_plan

    folder = Folder(out)
    if only_plan:
        plan = make_plan(
            folder, model, sources.build(), crop=framing, max_pixels=max_pixels, overwrite=overwrite
        )
        print_plan(folder, plan, as_json=as_json)
        return
    keep_model(model)  # before processes are forked
    with running(model, engine) as run:
        if shard is not None and shard.number > 1:
            wait_for_plan(folder, shard, log)
        plan = make_plan(
            folder, model, sources.build(), crop=framing, max_pixels=max_pixels, overwrite=overwrite
        )
        _embed_parts(ctx, model, plan, run, shard, tidy=overwrite, as_json=as_json)


def _names_folder(out: str) -> bool:
    from lookalike.indexer.units import PLAN, is_url

    return (is_url(out) and not out.endswith(".parquet")) or out.endswith("/") or (Path(out) / PLAN).is_file()


def _embed_file(
    ctx: click.Context,
    sources: SourceOptions,
    model: Model,
    out: Path,
    framing: Framing | None,
    max_pixels: int | None,
    *,
    overwrite: bool,
    as_json: bool,
) -> None:
    from lookalike.indexer.parquet import export_latents

    listed = sources.build()
    with progress_bar("Embedding") as bar:
        report = export_latents(
            model,
            listed.open({}),
            out,
            crop=framing,
            max_pixels=max_pixels,
            processes=True,
            overwrite=overwrite,
            on_total=bar.on_total,
            on_progress=bar.on_progress,
        )
    log_failed_files(report.failed)
    done = f"{report.embedded} embedded, {report.kept} kept, {report.dropped} dropped"
    speed = f", {report.images_per_second:.0f} images/s" if report.embedded else ""
    log(
        f"{out}: {report.rows} rows; {'unchanged' if report.unchanged else done}, "
        f"{len(report.failed)} failed; {report.seconds:.1f} s on {model.provider}{speed}"
    )
    if report.rows == 0 and not report.failed:
        log_no_images()
    log_skipped(report.passed_over)
    if as_json:
        record = {"out": str(out), "model_id": model.model_id, "provider": model.provider}
        print_json({**record, **report.to_json()})
    ctx.exit(3 if report.failed else 0)


def _embed_parts(
    ctx: click.Context,
    model: Model,
    plan: Plan[EmbedSettings],
    run: Run,
    shard: Shard | None,
    *,
    tidy: bool,
    as_json: bool,
) -> None:
    from lookalike.indexer.parts import embed_job

    report = work(plan, embed_job(model, plan), run, "Embedding", shard=shard, tidy=tidy)
    _print_parts(plan, report, shard)
    if as_json:
        record = {"out": plan.folder.address, "model_id": model.model_id, "provider": model.provider}
        print_json({**record, **report.to_json(), "embedded": report.finished})
    ctx.exit(3 if report.status.failed or report.unfinished else 0)


def _print_parts(plan: Plan[EmbedSettings], report: UnitsReport, shard: Shard | None) -> None:
    status = report.status
    log_failed_files(status.failed)
    log_failed(report.unfinished)
    share = "" if shard is None else f"share {shard}: "
    speed = f", {report.rows / report.seconds:.0f} rows/s" if report.rows and report.seconds else ""
    log(
        f"{plan.folder}: {share}{status.rows} rows in {status.done} of {status.units} units, "
        f"{report.finished} of them new; {len(status.failed)} images failed; {report.seconds:.1f} s{speed}"
    )
    log_left(report, shard)


@click.group(cls=Group)
def latents() -> None:
    """Show how far a folder of parts is."""


@latents.command(epilog="Example: lookalike latents status latents/")
@click.argument("place", metavar="FOLDER|URL")
@shard_option()
@json_option("Print the status as JSON on stdout.")
def status(place: str, shard: Shard | None, as_json: bool) -> None:
    """Show which share of the images of lookalike embed --out FOLDER/ is done.

    Says how many units are done and left, how many images failed, and how many rows and bytes there are.
    """
    from lookalike.indexer.parts import require_plan
    from lookalike.indexer.units import Folder, units_status

    plan = require_plan(Folder(place))
    found = units_status(plan, shard)
    if as_json:
        print_json({"place": plan.folder.address, "model": plan.settings.spec.model_name, **found.to_json()})
        return
    click.echo(
        f"{plan.folder}: {found.done} of {found.units} units done, {found.left} left; {found.rows} rows, "
        f"{in_bytes(found.bytes)}; {len(found.failed)} images failed"
    )
    log_failed_files(found.failed)


def in_bytes(count: int) -> str:
    """Return a size as ``12 kB``, ``3.4 MB`` or ``1.2 GB``."""
    size, units = float(count), ["bytes", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size /= 1000
        del units[0]
    return f"{size:.3g} {units[0]}"
