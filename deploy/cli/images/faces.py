"""``lookalike faces``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from lookalike.deploy.cli.face_options import frame_option
from lookalike.deploy.cli.images.sources import SourceOptions
from lookalike.deploy.cli.options import (
    LocalPath,
    command,
    files_from_options,
    json_option,
    max_pixels_option,
    open_option,
    option,
    pattern_options,
)
from lookalike.deploy.cli.output import (
    exit_code,
    log,
    log_failed,
    log_no_images,
    log_skipped,
    print_json,
    print_path,
    progress_bar,
    save_sheet,
)

if TYPE_CHECKING:
    from lookalike.encoder.detect import Frame
    from lookalike.searcher.faces import FoundFaces

_MAX_ON_SHEET: Final = 50
_OUTPUT: Final = "Output"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Options(SourceOptions):
    """The options of a run; each attribute has the name of its option."""

    out: str | None
    sheet: Path | None
    as_json: bool


@command(epilog="Example: lookalike faces photos/ --out faces/ --size 256")
@click.argument("sources", nargs=-1, metavar="PHOTO...")
@option(
    "--threshold",
    type=click.FloatRange(0.1, 1, max_open=True),
    default=0.8,
    show_default=True,
    help="Smallest score of a face; search uses 0.6 for its queries.",
)
@max_pixels_option(50_000_000)
@option("--threads", type=click.IntRange(1, 1024), help="Number of threads.", show_default="one per core")
@files_from_options
@pattern_options
@option(
    "--sheet",
    type=LocalPath(dir_okay=False),
    group=_OUTPUT,
    help=f"Save the first {_MAX_ON_SHEET} photographs with numbered boxes, and their faces, as one image.",
)
@open_option(group=_OUTPUT)
@option(
    "--out",
    metavar="FOLDER/",
    type=LocalPath(str),
    group=_OUTPUT,
    help="Write each face upright as FOLDER/NAME-NUMBER.png; no other file is replaced.",
)
@option(
    "--size",
    type=click.IntRange(16, 4096),
    default=256,
    show_default=True,
    group=_OUTPUT,
    help="Side of a face that is cut out, in pixels.",
)
@frame_option(
    "Where the eyes, the nose and the mouth lie: as in LFW, as for ArcFace, or x,y of five in fractions.",
    default="lfw",
    show_default=True,
    group=_OUTPUT,
)
@option(
    "--margin",
    type=click.FloatRange(0, 4),
    default=0.5,
    show_default=True,
    metavar="FRACTION",
    group=_OUTPUT,
    help="Show this much more on each side, in fractions of the frame; 0: what a model sees.",
)
@json_option("Print an object for each photograph as JSON lines on stdout.", group=_OUTPUT)
@click.pass_context
def faces(
    ctx: click.Context,
    /,
    threshold: float,
    max_pixels: int,
    threads: int | None,
    size: int,
    frame: Frame,
    margin: float,
    **others: Any,
) -> None:
    """Find, show and cut out the faces of photographs.

    PHOTO is an image file or a folder. Without --out and --json, each photograph is listed with its faces:
    number from the left, box in pixels (x, y, width, height), and score. Photographs that lie on their side
    are turned. A photograph without a face is no error. Needs the extra: pip install 'lookalike[faces]'.
    """
    from lookalike.encoder.detect import face_finder
    from lookalike.searcher.faces import FaceCut, find_faces, find_photographs

    options = _Options(**others)
    listed = options.read_list("a folder, an image file")
    face_finder()  # before a large folder is listed
    sheet: list[FoundFaces] = []
    with progress_bar("Finding faces", unit="photographs") as bar:
        tasks, unreadable, passed_over = options.find_tasks(
            lambda **how: find_photographs(options.sources, listed, out=options.out, **how)
        )
        bar.on_total(len(tasks))

        def on_found(found: FoundFaces) -> None:
            bar.on_progress()
            with bar.paused():
                _print(found, options)
            if found.view is not None:
                sheet.append(found)

        report = find_faces(
            tasks,
            threshold=threshold,
            max_pixels=max_pixels,
            cut=FaceCut(size=size, frame=frame, margin=margin),
            write=options.out is not None,
            views=_MAX_ON_SHEET if options.sheet is not None else 0,
            threads=threads,
            on_found=on_found,
        )
    if options.sheet is not None:
        _save_sheet(options.sheet, sheet, len(tasks))
    report.failed[:0] = unreadable
    log_failed(f"{path}: {reason}" for path, reason in report.failed)
    log(report.summary())
    log_skipped(passed_over)
    if not tasks:
        log_no_images()
    ctx.exit(exit_code(len(report.failed), len(tasks) + len(unreadable)))


def _print(found: FoundFaces, options: _Options) -> None:
    """Print what was found in one photograph on stdout."""
    from lookalike.encoder.errors import printable

    if options.as_json:
        print_json(found.to_json())
    elif options.out is not None:
        for file in found.files:
            print_path(file)
    elif not found.reason:
        count = len(found.faces)
        words = "no face" if not count else "1 face" if count == 1 else f"{count} faces"
        click.echo(f"{printable(found.path)}  {found.width}x{found.height}  {words}")
        for number, face in enumerate(found.faces, start=1):
            sides = (found.width, found.height, found.width, found.height)
            box = ",".join(str(round(part * side)) for part, side in zip(face.box, sides, strict=True))
            click.echo(f"{number:>4}   box {box:<20}  {face.width:>5} px wide   score {face.score:.2f}")


def _save_sheet(file: Path, shown: list[FoundFaces], total: int) -> None:
    from lookalike.encoder.errors import printable
    from lookalike.searcher.figures import faces_sheet

    if not shown:
        log(f"no photograph was read, so {printable(str(file))} was not written")
        return
    log(save_sheet(file, faces_sheet(shown)))
    if total > _MAX_ON_SHEET:
        log(f"the sheet shows the first {_MAX_ON_SHEET} of {total} photographs")
