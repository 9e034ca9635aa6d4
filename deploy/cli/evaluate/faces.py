"""``lookalike evaluate faces``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from lookalike.deploy.cli.evaluate.group import (
    evaluate,
    image_file,
    print_written,
    provider_option,
    show_progress,
)
from lookalike.deploy.cli.options import LocalPath, combine
from lookalike.deploy.cli.output import warn

if TYPE_CHECKING:
    from lookalike.encoder.runtime import Provider

_KEPT: Final = 12


@evaluate.command(epilog="Example: lookalike evaluate faces --pictures 200 --sheet faces.png")
@combine(
    click.option("--model", default="faces", show_default=True,
                 help="Bundle folder or shipped model that says where it has faces."),
    click.option("--photographs", metavar="FOLDER", type=LocalPath(),
                 help="Photographs without people, which faces are put onto; default: photos in "
                 "LOOKALIKE_DATA."),
    click.option("--pictures", "count", type=click.IntRange(min=1), default=700, show_default=True,
                 metavar="N", help="Number of photographs that are made."),
    click.option("--others", type=click.IntRange(min=0), metavar="N",
                 help="Search N images of other people only, for a quick look; default: all of LFW."),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True,
                 help="Of all random choices."),
    click.option("--sheet", metavar="FILE.png", type=LocalPath(), callback=image_file,
                 help="Write a contact sheet of some photographs and the faces found in them."),
    click.option("--json", "as_json", is_flag=True, help="Print a JSON object."),
    provider_option,
)  # fmt: skip
def faces(
    *, model: str, photographs: Path | None, count: int, others: int | None, seed: int, sheet: Path | None,
    as_json: bool, provider: Provider,
) -> None:  # fmt: skip
    """Measure faces in whole photographs: are they found, how exactly, and is the person found by them?

    Photographs are made of faces of LFW's held-out people, put onto other photographs, turned by up to 30
    degrees and 0.4 to 1.8 times as large. Each queries all other images of LFW, aligned; a photograph without
    a face found is a miss. Of the first 300 the photograph without the face is searched for faces too, the
    first 200 are also turned by 90 and 180 degrees.
    """
    from lookalike.deploy.evaluation import (
        background_files,
        evaluate_faces,
        face_lines,
        face_sheet,
        open_labeled,
    )
    from lookalike.encoder.images import save_image
    from lookalike.encoder.runtime import Model

    opened = Model.open(model, provider=provider)
    files = background_files(photographs)
    report = evaluate_faces(
        opened,
        open_labeled("lfw", progress=True),
        files,
        count=count,
        others=others,
        seed=seed,
        keep=0 if sheet is None else _KEPT,
        progress=show_progress,
    )
    if report.passed_over:
        warn(f"{report.passed_over} images of LFW are left out: no face is found in them even undisturbed")
    if sheet is not None:
        save_image(sheet, face_sheet(report))
        print_written(sheet)
    click.echo(json.dumps(report.to_json()) if as_json else face_lines(report))
