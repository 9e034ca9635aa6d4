"""``lookalike denoise``."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from lookalike.deploy.cli.images.denoise_many import (
    DenoiseSources,
    denoise_many,
    is_many,
    warn_of_resizing,
)
from lookalike.deploy.cli.many_images import many_images_options
from lookalike.deploy.cli.options import (
    LocalPath,
    Provider,
    command,
    files_from_options,
    json_option,
    max_pixels_option,
    model_option,
    open_option,
    option,
    pattern_options,
    provider_option,
)
from lookalike.deploy.cli.output import (
    json_lines,
    log,
    log_failed,
    log_no_images,
    log_skipped,
    print_json,
    progress_bar,
    show,
)

if TYPE_CHECKING:
    from lookalike.indexer.units import Shard
    from lookalike.searcher.denoising import (
        AutoencoderDenoiser,
        BatchReport,
        Outcome,
        Task,
        UNetDenoiser,
    )

_FORMATS: Final = {"png": "PNG", "jpeg": "JPEG", "tiff": "TIFF", "webp": "WebP"}
_MAX_ON_SHEET: Final = 12
_OUTPUT: Final = "Output"
_MANY: Final = "Many images"


def _sigma(_ctx: click.Context, _param: click.Parameter, value: str) -> float | None:
    """Return None for auto, and a number of 0 to 255 as a fraction of 255."""
    if value == "auto":
        return None
    try:
        sigma = float(value)
    except ValueError:
        sigma = -1.0
    if not 0 <= sigma <= 255:  # NaN too
        raise click.BadParameter(f"{value!r} is neither auto nor a number from 0 to 255")
    return sigma / 255


@command(epilog="Example: lookalike denoise scans/ --out denoised/")
@click.argument("sources", nargs=-1, metavar="SOURCE...")
@model_option("denoise")
@option(
    "--sigma",
    callback=_sigma,
    default="auto",
    show_default=True,
    metavar="auto|N",
    help="Standard deviation of the noise, of 255; auto: estimate it at each place of each image.",
)
@option(
    "--strength",
    type=click.FloatRange(0, 2),
    default=1.0,
    show_default=True,
    help="Share of the noise to remove: 0.7 leaves some grain. Above 1: count the noise as stronger than "
    "estimated.",
)
@max_pixels_option(200_000_000)
@option("--threads", type=click.IntRange(1, 1024), help="Number of threads.", show_default="one per core")
@provider_option
@files_from_options
@pattern_options
@option(
    "--out",
    metavar="FOLDER|FILE|URL",
    group=_OUTPUT,
    help="Output folder; for one image, a file too. A URL (s3, gs, abfs, hdfs) is a folder.",
)
@option(
    "--format",
    "kind",
    type=click.Choice(list(_FORMATS)),
    group=_OUTPUT,
    help="Output format.",
    show_default="that of each image",
)
@option(
    "--quality",
    type=click.IntRange(1, 100),
    group=_OUTPUT,
    help="Quality of JPEG and WebP.",
    show_default="that of each JPEG; lossless WebP stays lossless; else 95",
)
@option(
    "--suffix",
    default="",
    metavar="TEXT",
    group=_OUTPUT,
    help="Append to file names: -denoised writes me-denoised.jpg.",
)
@option(
    "--overwrite/--skip-existing",
    default=False,
    show_default=True,
    group=_OUTPUT,
    help="Write existing outputs again, or skip them, which continues an interrupted run. Of many images: "
    "list the sources again.",
)
@option(
    "--sheet",
    "--compare",
    type=LocalPath(dir_okay=False),
    group=_OUTPUT,
    help="Save the first images before and after, and the noise that was found, as one image.",
)
@open_option(group=_OUTPUT)
@option(
    "--report",
    type=LocalPath(dir_okay=False),
    group=_OUTPUT,
    help="Write JSON lines to this file: the noise of each image, and what changed.",
)
@json_option("Print the report as JSON on stdout.", group=_OUTPUT)
@many_images_options(_MANY)
@click.pass_context
def denoise(
    ctx: click.Context,
    /,
    model: str,
    sigma: float | None,
    strength: float,
    kind: str | None,
    quality: int | None,
    max_pixels: int,
    provider: Provider,
    shard: Shard | None,
    engine: str,
    only_plan: bool,
    **others: Any,
) -> None:
    """Denoise images of any size.

    SOURCE is an image file, a folder, or - for standard input; of many images also a tar archive, a Parquet
    file of images, or a URL.

    The noise is estimated at each place, and only noisy places are changed. Images without noise, and drawn
    or dithered ones, are copied. JPEG artifacts are left. Size, bit depth, alpha, metadata and color profile
    are kept, and further images in a JPEG file, such as gain maps, stay as they are. Source files are never
    overwritten. Run it again after an interruption to continue. Images that cannot be read are reported and
    skipped; the exit code is then 3.

    Where SOURCE or --out is a URL, an archive or a Parquet file, or with --shard, --engine ray or --plan, the
    images are listed once, and shared between processes and machines in units, each with a log in _log/.
    """
    from lookalike.searcher.denoising import (
        AutoencoderDenoiser,
        DenoiseOptions,
        check_tasks,
        find_tasks,
        open_file_denoiser,
        resolve_destination,
    )

    options = DenoiseSources(**others)
    how: dict[str, Any] = {"sigma": sigma, "strength": strength, "quality": quality, "max_pixels": max_pixels}
    output_format = None if kind is None else _FORMATS[kind]
    if "-" in options.sources:
        _check_stdin(options)
        _denoise_stdin(open_file_denoiser(model, kind=output_format, provider=provider, **how))
        return
    if options.out is None:
        raise click.UsageError("name the output folder with --out")
    if shard is not None or engine != "local" or only_plan or is_many(options.sources, options.out):
        work = DenoiseOptions(kind=output_format, suffix=options.suffix, **how)
        denoise_many(ctx, options, model, work, provider, shard=shard, engine=engine, only_plan=only_plan)
        return
    listed = options.read_list("a folder, an image file, -")
    destination = resolve_destination(
        options.sources, listed, out=options.out, kind=output_format, suffix=options.suffix
    )
    denoiser = open_file_denoiser(model, kind=destination.kind, provider=provider, **how)
    if isinstance(denoiser, AutoencoderDenoiser):
        warn_of_resizing(denoiser)
        destination = replace(destination, kind=denoiser.kind)
    tasks, unreadable, passed_over = options.find_tasks(
        lambda **how: find_tasks(options.sources, listed, destination=destination, **how)
    )
    check_tasks(tasks)
    report, outcomes = _run(options, tasks, denoiser, sigma)
    report.failed[:0] = unreadable
    report.passed_over = passed_over
    _log_report(report, denoiser.provider, tasks, sigma)
    if options.as_json:
        given = "auto" if sigma is None else round(255 * sigma, 2)
        record = {"model": model, "provider": denoiser.provider, "sigma": given, "out": options.out}
        print_json({**record, **report.to_json(), "images": [outcome.to_json() for outcome in outcomes]})
    ctx.exit(3 if report.failed else 0)


def _check_stdin(options: DenoiseSources) -> None:
    if len(options.sources) > 1 or options.files_from is not None:
        raise click.UsageError("- reads one image from standard input; leave other sources out")
    if options.out not in (None, "-") or options.suffix:
        raise click.UsageError("an image from standard input goes to standard output; leave --out out")
    if options.as_json or options.sheet or options.report:
        raise click.UsageError("--json, --sheet and --report do not work with -; leave them out")


def _denoise_stdin(denoiser: UNetDenoiser | AutoencoderDenoiser) -> None:
    from lookalike.encoder.errors import ImageError
    from lookalike.encoder.files import read_stream

    try:
        data = read_stream(sys.stdin.buffer)
    except OSError as error:
        raise ImageError(f"standard input cannot be read as an image ({error.strerror})") from error
    denoised = denoiser(data, "standard input")
    sys.stdout.buffer.write(denoised.data)
    sys.stdout.buffer.flush()


def _run(
    options: DenoiseSources,
    tasks: list[Task],
    denoiser: UNetDenoiser | AutoencoderDenoiser,
    sigma: float | None,
) -> tuple[BatchReport, list[Outcome]]:
    """Denoise the images; return the report and, for ``--json``, what became of each."""
    from lookalike.searcher.denoising import denoise_all

    outcomes: list[Outcome] = []
    shown: list[Outcome] = []
    with json_lines(options.report) as write_row, progress_bar("Denoising", total=len(tasks)) as bar:

        def on_outcome(outcome: Outcome) -> None:
            bar.on_progress()
            write_row(outcome)
            if outcome.view is not None and len(shown) < _MAX_ON_SHEET:
                shown.append(outcome)
            if options.as_json:
                outcomes.append(replace(outcome, view=None))

        report = denoise_all(
            tasks, denoiser, overwrite=options.overwrite, threads=options.threads, on_outcome=on_outcome
        )
    if options.sheet is not None:
        _save_sheet(options.sheet, shown, sigma)
    return report, outcomes


def _save_sheet(file: Path, outcomes: list[Outcome], sigma: float | None) -> None:
    from lookalike.encoder.errors import printable
    from lookalike.encoder.images import save_image
    from lookalike.searcher.figures import denoised_sheet

    if not outcomes:
        log(f"no image was denoised, so {printable(str(file))} was not written")
        return
    rows = [
        (Path(each.task.path), _found(each, sigma), each.view) for each in outcomes if each.view is not None
    ]
    save_image(file, denoised_sheet(rows))
    show(file)


def _found(outcome: Outcome, sigma: float | None) -> str:
    """Return what was found in an image, or the sigma that was given, for its place on the sheet."""
    if outcome.status == "clean":
        return f"left: {outcome.reason}"
    if sigma is not None:
        return f"sigma {255 * sigma:g}, as given"
    return "" if outcome.sigmas is None else f"sigma {255 * outcome.sigmas[0]:.1f}"


def _log_report(report: BatchReport, provider: str, tasks: list[Task], sigma: float | None) -> None:
    from lookalike.encoder.errors import printable

    log_failed(f"{printable(path)}: {reason}" for path, reason in report.failed)
    speed = f", {report.images_per_second:.1f} images/s" if report.images_per_second else ""
    given = "" if sigma is None else f"; sigma {255 * sigma:g}, as given"
    log(f"{report.summary()}{given}; {report.seconds:.1f} s on {provider}{speed}")
    log_skipped(report.passed_over)
    if report.skipped:
        log("use --overwrite to write existing outputs again")
    if not tasks:
        log_no_images()
