"""``lookalike edit``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lookalike.deploy.cli.draw import model_option, out_option, read_pictures, save_pictures
from lookalike.deploy.cli.search import crop_option, exit_code, images_argument, provider_option

if TYPE_CHECKING:
    from lookalike.encoder.runtime.session import Provider

__all__ = ["edit"]


@click.command(epilog="Example: lookalike edit me.jpg --model faces --add Smiling=2 --out smile.png")
@images_argument
@model_option
@click.option(
    "--add",
    "added",
    multiple=True,
    required=True,
    metavar="NAME=STRENGTH",
    help="Move this attribute by so many of its standard deviations, under 0 away from it. Again for more.",
)
@click.option(
    "--steps",
    metavar="FIRST:LAST:N",
    help="A strip of each picture: these N multiples of what is added, -2:2:9 for instance.",
)
@click.option(
    "--keep-detail/--no-keep-detail",
    default=True,
    show_default=True,
    help="Add back what the model does not keep of a picture.",
)
@crop_option
@out_option
@provider_option
@click.pass_context
def edit(
    ctx: click.Context,
    images: tuple[Path, ...],
    model: str,
    added: tuple[str, ...],
    steps: str | None,
    keep_detail: bool,
    crop: str | None,
    out: str,
    provider: Provider,
) -> None:
    """Draw the same face, smiling.

    A picture's latent is moved and drawn again; lookalike attributes list tells what can be added. What comes
    out is the part of the picture that the model sees, as large as it sees it.
    """
    from lookalike.encoder.runtime.model import Model
    from lookalike.searcher.figures import caption, edits_sheet, free_names
    from lookalike.searcher.generation import edit as editing

    strengths = editing.parse_strengths(added)
    multiples = [1.0] if steps is None else editing.parse_steps(steps)
    opened = Model.open(model, provider=provider)
    editing.attributes_of(opened).change(strengths)  # refuses before anything is read
    files, pixels = read_pictures(opened, images, crop)
    if files:
        rows = editing.edit_steps(opened, pixels, strengths, multiples, keep_detail=keep_detail)
        names = free_names(files)
        if steps is not None:
            width = len(str(len(multiples) - 1))
            names = [f"{name}-{step:0{width}d}" for name in names for step in range(len(multiples))]
        heads = [] if steps is None else [f"{multiple:g}" for multiple in multiples]
        title = ", ".join(f"{name} {strength:+g}" for name, strength in strengths.items())
        save_pictures(
            out,
            names,
            rows.reshape(-1, *rows.shape[2:]),
            lambda: edits_sheet(opened, pixels, rows, list(map(caption, files)), title=title, heads=heads),
        )
    ctx.exit(exit_code(len(images) - len(files), len(images)))
