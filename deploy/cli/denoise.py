"""``lookalike denoise``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from lookalike.deploy.cli.search import provider_option

if TYPE_CHECKING:
    from lookalike.encoder.runtime.session import Provider
    from lookalike.searcher.denoising.batch import BatchReport, Outcome
    from lookalike.searcher.denoising.denoiser import AutoencoderDenoiser, UNetDenoiser
    from lookalike.searcher.denoising.paths import Destination, Task

__all__ = ["denoise"]

_KINDS: Final = {"png": "PNG", "jpeg": "JPEG", "tiff": "TIFF", "webp": "WebP"}
_ON_A_SHEET: Final = 12


def _sigma(_ctx: click.Context, _param: click.Parameter, value: str) -> float | None:
    """Return None of auto, and 0 to 255 as a fraction of that."""
    if value == "auto":
        return None
    try:
        sigma = float(value)
    except ValueError:
        sigma = -1.0
    if not 0 <= sigma <= 255:  # NaN too
        raise click.BadParameter(f"{value!r} is neither auto nor a number from 0 to 255")
    return sigma / 255


@click.command(epilog="Example: lookalike denoise scans/ --out clean/")
@click.argument("sources", nargs=-1, metavar="SOURCE...")
@click.option("--out", metavar="FOLDER|FILE", help="Where cleaned pictures go; a file for a single picture.")
@click.option("--model", default="clean", show_default=True, help="Bundle folder or shipped model.")
@click.option(
    "--sigma",
    callback=_sigma,
    default="auto",
    show_default=True,
    metavar="auto|N",
    help="Deviation of the noise, of 255; auto: estimated of each picture.",
)
@click.option(
    "--strength",
    type=click.FloatRange(0, 1),
    default=1.0,
    show_default=True,
    help="How much of what the model takes away goes: 0.7 leaves some grain.",
)
@click.option("--format", "kind", type=click.Choice(list(_KINDS)), help="Default: as each picture is.")
@click.option(
    "--quality",
    type=click.IntRange(1, 100),
    help="Of JPEG and WebP; default: as each JPEG was made, lossless WebP lossless, else 95.",
)
@click.option("--suffix", default="", metavar="TEXT", help="Goes behind names: -clean makes me-clean.jpg.")
@click.option(
    "--overwrite/--skip-existing",
    default=False,
    help="Make again what is there already, or leave it (the default): so an interrupted run goes on.",
)
@click.option("--files-from", metavar="-|FILE", help="Pictures by name, one a line; - is standard input.")
@click.option("-0", "--null", "nul", is_flag=True, help="NUL stands between names of --files-from.")
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder of --files-from; default: what its names have in common.",
)
@click.option("--include", multiple=True, metavar="GLOB", help="Only paths or names like this; repeatable.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="None like this; repeatable.")
@click.option("--hidden", is_flag=True, help="Also what begins with a dot.")
@click.option(
    "--sheet", type=click.Path(path_type=Path, dir_okay=False), help="Before and after, as a picture."
)
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    help="JSON lines: what became of each picture, and its estimated sigma.",
)
@click.option(
    "--max-pixels",
    type=click.IntRange(min=1),
    default=200_000_000,
    show_default=True,
    help="Larger pictures are left out.",
)
@click.option("--threads", type=click.IntRange(1, 1024), help="That clean; default: one for each core.")
@provider_option
@click.option("--json", "as_json", is_flag=True, help="The report as JSON on stdout.")
@click.pass_context
def denoise(
    ctx: click.Context,
    /,
    sources: tuple[str, ...],
    out: str | None,
    model: str,
    sigma: float | None,
    strength: float,
    kind: str | None,
    quality: int | None,
    max_pixels: int,
    provider: Provider,
    **options: Any,
) -> None:
    """Take the noise from pictures of any size.

    SOURCE is a file, a folder with all that is in it, or - for standard input.

    Size, depth, alpha, metadata and colour profile stay. Nothing is ever written over a picture that is
    read; what is clean already is copied. Run it again after an interruption and it goes on. Pictures that
    cannot be read are named and stop nothing; the exit code is then 3.
    """
    from dataclasses import replace

    from lookalike.searcher.denoising.denoiser import AutoencoderDenoiser, open_file_denoiser
    from lookalike.searcher.denoising.paths import destination_of

    how: dict[str, Any] = {"sigma": sigma, "strength": strength, "quality": quality, "max_pixels": max_pixels}
    wanted = None if kind is None else _KINDS[kind]
    if "-" in sources:
        _check_stdin(sources, out, options)
        _of_stdin(open_file_denoiser(model, kind=wanted, provider=provider, **how))
        return
    if out is None:
        raise click.UsageError("name a folder for cleaned pictures with --out")
    listed = _listed(sources, options)
    destination = destination_of(sources, listed, out=out, kind=wanted, suffix=options["suffix"])
    treatment = open_file_denoiser(model, kind=destination.kind, provider=provider, **how)
    if isinstance(treatment, AutoencoderDenoiser):
        _say_that_it_draws(treatment)
        destination = replace(destination, kind=treatment.kind)
    tasks, unreadable = _tasks(sources, listed, destination, options)
    report, outcomes = _run(tasks, treatment, unreadable, options)
    _tell(report, treatment, tasks)
    if options["as_json"]:
        told = {"model": model, "provider": treatment.provider, "out": out, **report.to_json()}
        click.echo(json.dumps({**told, "images": [outcome.to_json() for outcome in outcomes]}))
    ctx.exit(3 if report.failed else 0)


def _check_stdin(sources: tuple[str, ...], out: str | None, options: dict[str, Any]) -> None:
    if len(sources) > 1 or options["files_from"] is not None:
        raise click.UsageError("- is one picture on standard input; name nothing beside it")
    if out not in (None, "-") or options["suffix"]:
        raise click.UsageError("what comes from standard input goes to standard output; leave --out out")
    if options["as_json"] or options["sheet"] or options["report"]:
        raise click.UsageError("--json, --sheet and --report are of files, not of -; leave them out")


def _of_stdin(treatment: UNetDenoiser | AutoencoderDenoiser) -> None:
    treated = treatment(sys.stdin.buffer.read(), "standard input")
    sys.stdout.buffer.write(treated.data)
    sys.stdout.buffer.flush()


def _listed(sources: tuple[str, ...], options: dict[str, Any]) -> list[Path]:
    from lookalike.indexer.sources.file_list import read_list

    if not sources and options["files_from"] is None:
        raise click.UsageError("name a source: a folder, a picture file, - or --files-from")
    if options["root"] is not None and options["files_from"] is None:
        raise click.UsageError("--root is the folder of --files-from; a source is its own")
    return [] if options["files_from"] is None else read_list(options["files_from"], nul=options["nul"])


def _tasks(
    sources: tuple[str, ...], listed: list[Path], destination: Destination, options: dict[str, Any]
) -> tuple[list[Task], list[tuple[str, str]]]:
    """Return what there is to do, and folders that cannot be listed with the reason."""
    from lookalike.encoder.text import printable
    from lookalike.indexer.sources.selection import SourceFilter
    from lookalike.searcher.denoising.paths import check_tasks, find_tasks

    unreadable: list[tuple[str, str]] = []

    def on_unreadable(error: OSError) -> None:
        unreadable.append((printable(str(error.filename)), f"cannot be listed ({error.strerror})"))

    tasks = find_tasks(
        sources,
        listed,
        root=options["root"],
        reading=SourceFilter(
            include=options["include"], exclude=options["exclude"], hidden=options["hidden"]
        ),
        destination=destination,
        on_unreadable=on_unreadable,
    )
    check_tasks(tasks)
    return tasks, unreadable


def _say_that_it_draws(treatment: AutoencoderDenoiser) -> None:
    image, name = treatment.model.bundle.spec.image, treatment.model.bundle.name
    click.echo(
        f"{name} sees {image.size}x{image.size} pixels, crop {image.crop}: pictures are resized to that, "
        "and nothing that came with them is kept",
        err=True,
    )


def _run(
    tasks: list[Task],
    treatment: UNetDenoiser | AutoencoderDenoiser,
    unreadable: list[tuple[str, str]],
    options: dict[str, Any],
) -> tuple[BatchReport, list[Outcome]]:
    from dataclasses import replace

    from tqdm import tqdm

    from lookalike.searcher.denoising.batch import denoise_all

    outcomes: list[Outcome] = []
    views: list[Outcome] = []
    with ExitStack() as stack:
        tell = stack.enter_context(_lines_to(options["report"]))
        bar = stack.enter_context(tqdm(total=len(tasks), unit="image", disable=None, leave=False))

        def on_outcome(outcome: Outcome) -> None:
            bar.update()
            tell(outcome)
            if outcome.view is not None and len(views) < _ON_A_SHEET and outcome.status == "cleaned":
                views.append(outcome)
            if options["as_json"]:
                outcomes.append(replace(outcome, view=None))

        report = denoise_all(
            tasks,
            treatment,
            overwrite=options["overwrite"],
            threads=options["threads"],
            on_outcome=on_outcome,
        )
    report.failed[:0] = unreadable
    if options["sheet"] is not None:
        _sheet(options["sheet"], views)
    return report, outcomes


@contextmanager
def _lines_to(file: Path | None) -> Iterator[Callable[[Outcome], object]]:
    from lookalike.encoder.errors import DataError
    from lookalike.encoder.text import printable

    if file is None:
        yield lambda _: None
        return
    try:
        lines = file.open("w", encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"--report must be a file that can be written, {printable(str(file))} cannot ({error.strerror}); "
            "name another"
        ) from error
    with lines:
        yield lambda outcome: lines.write(json.dumps(outcome.to_json()) + "\n")


def _sheet(file: Path, views: list[Outcome]) -> None:
    from lookalike.encoder.images.contact_sheet import save_image
    from lookalike.searcher.figures import denoised_sheet

    if not views:
        click.echo("no picture was cleaned: there is nothing for a sheet", err=True)
        return
    printable = [(Path(o.task.path), o.sigma, o.view) for o in views if o.view is not None]
    save_image(file, denoised_sheet(printable))


def _tell(report: BatchReport, treatment: UNetDenoiser | AutoencoderDenoiser, tasks: list[Task]) -> None:
    from lookalike.encoder.images.discover import IMAGE_SUFFIXES
    from lookalike.encoder.text import printable

    for path, reason in report.failed:
        click.echo(f"failed: {printable(path)}: {reason}", err=True)
    speed = f", {report.images_per_second:.1f} images/s" if report.images_per_second else ""
    click.echo(f"{report.in_words()}; {report.seconds:.1f} s on {treatment.provider}{speed}", err=True)
    if report.skipped:
        click.echo("--overwrite makes again what is there already", err=True)
    if not tasks:
        click.echo(f"no pictures there; looked for {', '.join(sorted(IMAGE_SUFFIXES))}", err=True)
    sys.stderr.flush()
