"""``lookalike evaluate attributes``: how well they are read, given and searched with."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from lookalike.deploy.evaluation.attributes import AttributeReport
    from lookalike.encoder.runtime.session import Provider

__all__ = ["attributes"]

_MOST_FAILURES = 20


def _picture(_ctx: click.Context, _option: click.Parameter, file: Path | None) -> Path | None:
    """Refuse now what could not be written when all is measured."""
    if file is not None and file.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise click.BadParameter("a picture is written as .png, .jpg, .jpeg or .webp; change the file name")
    return file


@click.command(epilog="Example: lookalike evaluate attributes --faces 50 --curve smiles.png")
@click.option("--model", default="faces", show_default=True, help="Bundle folder or shipped model.")
@click.option("--only", metavar="NAME,...", help="These attributes; all that LFW scores when left out.")
@click.option(
    "--strength",
    "strengths",
    multiple=True,
    type=click.FloatRange(0, 100, min_open=True),
    default=(1.0, 2.0, 3.0, 4.0, 5.0),
    show_default=True,
    help="In standard deviations; each is added, and taken away. Again for more.",
)
@click.option(
    "--faces",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="Of each attribute so many are edited to have it, so many not to, and so many searched with.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Draws the faces.")
@click.option(
    "--curve",
    metavar="FILE.png",
    type=click.Path(path_type=Path),
    callback=_picture,
    help="Draw what an edit gains and costs over its strength.",
)
@click.option("--json", "as_json", is_flag=True, help="An object on stdout.")
@click.option("--provider", default="auto", show_default=True, type=click.Choice(["auto", "cpu", "cuda"]))
@click.pass_context
def attributes(
    ctx: click.Context,
    /,
    model: str,
    only: str | None,
    strengths: tuple[float, ...],
    faces: int,
    seed: int,
    curve: Path | None,
    as_json: bool,
    provider: Provider,
) -> None:
    """Does a smile appear, and is it still the same face? On people of LFW that no shipped model saw.

    What an edit gives is told by a judge who shares nothing with the model: a discriminant on the pixels of
    the other people, whose own AUC stands beside it. An edited face should still find its own original first
    among all pictures of LFW, and no other attribute should move.
    """
    from lookalike.deploy.evaluation.attribute_tables import attribute_lines
    from lookalike.deploy.evaluation.attributes import evaluate_attributes
    from lookalike.deploy.evaluation.fit_data import read_scored_images
    from lookalike.encoder.runtime.model import Model

    opened = Model.open(model, provider=provider)
    scored = read_scored_images("lfw", None).only(
        tuple(part.strip() for part in only.split(",")) if only is not None else ()
    )
    found = evaluate_attributes(opened, scored, strengths=strengths, faces=faces, seed=seed, steps=_steps)
    for failure in found.failures[:_MOST_FAILURES]:
        click.echo(f"failed: {failure}", err=True)
    if len(found.failures) > _MOST_FAILURES:
        click.echo(f"failed: {len(found.failures) - _MOST_FAILURES} more pictures", err=True)
    drawn = curve is None or _draw(curve, found)
    click.echo(json.dumps(found.to_json()) if as_json else attribute_lines(found))
    ctx.exit(0 if drawn and not found.failures else 3)


def _draw(file: Path, found: AttributeReport) -> bool:
    """Draw the trade-off and return whether the part that draws is installed."""
    from lookalike.deploy.evaluation.curves import draw_trade_off
    from lookalike.encoder.errors import MissingExtraError
    from lookalike.encoder.text import printable

    lines = [
        (f"{one.name} {'added' if sign > 0 else 'taken away'}", [
            (abs(edit.strength), edit.success, edit.kept) for edit in one.edits if sign * edit.strength > 0
        ])
        for one in found.each
        for sign in (1, -1)
    ]  # fmt: skip
    try:
        draw_trade_off(file, [(name, sorted(points)) for name, points in lines if points])
    except MissingExtraError as error:
        click.echo(str(error), err=True)
        return False
    click.echo(f"drawn: {printable(str(file))}", err=True)
    return True


@contextmanager
def _steps(what: str, total: int) -> Iterator[Callable[[int], object]]:
    from tqdm import tqdm

    with tqdm(desc=what, total=total, unit="image", disable=None, leave=False) as bar:
        yield bar.update
