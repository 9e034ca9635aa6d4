"""``lookalike denoise`` of many images: in units, on any number of machines, from and to folders and URLs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from lookalike.deploy.cli.images.sources import SourceOptions
from lookalike.deploy.cli.many_images import check_share, log_left, print_plan, running, work
from lookalike.deploy.cli.options import Provider
from lookalike.deploy.cli.output import log, log_failed, log_failed_files, print_json

if TYPE_CHECKING:
    from lookalike.indexer.units import Folder, Shard, UnitsReport
    from lookalike.searcher.denoising import (
        AutoencoderDenoiser,
        DenoiseOptions,
        UNetDenoiser,
    )

_IN_ONE_FILE: Final = (".tar", ".parquet")


@dataclass(frozen=True, kw_only=True, slots=True)
class DenoiseSources(SourceOptions):
    """Where images are read and written; each attribute has the name of its option."""

    out: str | None
    suffix: str
    overwrite: bool
    sheet: Path | None
    report: Path | None
    threads: int | None
    as_json: bool


def is_many(sources: Sequence[str], out: str) -> bool:
    """Whether images are denoised in units, by where they are: in archives or at URLs, or were planned."""
    from lookalike.indexer.units import PLAN, is_url
    from lookalike.searcher.denoising import LOG

    return (
        is_url(out)
        or any(is_url(source) or source.lower().endswith(_IN_ONE_FILE) for source in sources)
        or (Path(out) / LOG / PLAN).is_file()
    )


def denoise_many(
    ctx: click.Context,
    options: DenoiseSources,
    model: str,
    how: DenoiseOptions,
    provider: Provider,
    *,
    shard: Shard | None,
    engine: str,
    only_plan: bool,
) -> None:
    """Denoise images in units, and end with the exit code."""
    from lookalike.indexer.units import Folder, wait_for_plan
    from lookalike.searcher.denoising import (
        LOG,
        AutoencoderDenoiser,
        DenoiseJob,
        keep_denoiser,
        plan_denoising,
    )

    out = Folder(_checked(options))
    check_share(shard, engine, provider, overwrite=options.overwrite)
    sources = options.build("a folder, an image file, a tar archive, a Parquet file, a URL")
    denoiser = how.open(model, provider="cpu" if engine == "ray" else provider)
    if isinstance(denoiser, AutoencoderDenoiser):
        warn_of_resizing(denoiser)
    keep_denoiser(denoiser, how)  # before processes are forked
    if only_plan:
        plan = plan_denoising(out, denoiser, how, sources, overwrite=options.overwrite)
        print_plan(out, plan, as_json=options.as_json)
        return
    with running(denoiser, engine) as run:
        if shard is not None and shard.number > 1:
            wait_for_plan(Folder(out.join(LOG)), shard, log)
        plan = plan_denoising(out, denoiser, how, sources, overwrite=options.overwrite)
        job = DenoiseJob(out, plan.settings, denoiser.bundle.address)
        report = work(plan, job, run, "Denoising", shard=shard, tidy=options.overwrite)
    _print_report(out, report, denoiser, shard)
    if options.as_json:
        record = {"model": model, "model_id": denoiser.bundle.model_id, "provider": denoiser.provider}
        print_json({**record, "out": out.address, **report.to_json(), "new_units": report.finished})
    ctx.exit(3 if report.status.failed or report.unfinished else 0)


def warn_of_resizing(denoiser: AutoencoderDenoiser) -> None:
    """Say that an autoencoder makes images of its own size."""
    image, name = denoiser.model.bundle.spec.image, denoiser.model.bundle.name
    log(
        f"{name} works on {image.size}x{image.size} pixels, crop {image.crop}: images are resized to that, "
        "and their metadata is not kept"
    )


def _checked(options: DenoiseSources) -> str:
    """Refuse options that make no sense for units; return ``--out``."""
    from lookalike.encoder.images import is_image

    for name, given in (
        ("--sheet", options.sheet),
        ("--report", options.report),
        ("--threads", options.threads),
    ):
        if given is not None:
            raise click.UsageError(
                f"{name} is for the files of one machine; the images here have logs in _log/, leave it out"
            )
    out = str(options.out)
    if is_image(out):
        raise click.UsageError(f"--out is a folder here, {out} is called like an image; name a folder")
    if "/" in options.suffix or "\0" in options.suffix:
        raise click.UsageError(f"--suffix is part of a file name, {options.suffix!r} is not")
    return out


def _print_report(
    out: Folder, report: UnitsReport, denoiser: UNetDenoiser | AutoencoderDenoiser, shard: Shard | None
) -> None:
    from lookalike.searcher.denoising import BatchReport

    status = report.status
    log_failed_files(status.failed)
    log_failed(report.unfinished)
    reasons = {reason: count for reason, count in status.counts.items() if reason != "cleaned"}
    images = BatchReport(status.counts["cleaned"], sum(reasons.values()), reasons, failed=status.failed)
    share = "" if shard is None else f"share {shard}: "
    speed = f", {report.rows / report.seconds:.1f} images/s" if report.rows and report.seconds else ""
    log(
        f"{out}: {share}{images.summary()} in {status.done} of {status.units} units, {report.finished} of "
        f"them new; {report.seconds:.1f} s on {denoiser.provider}{speed}"
    )
    log_left(report, shard)
