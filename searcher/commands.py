"""``lookalike search``, ``reconstruct`` and ``generate``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from indexer.commands import store_option

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from encoder.images import Crop
    from encoder.model import Provider
    from searcher.search import Answer, Searcher

__all__ = ["generate", "reconstruct", "search"]

_LONGEST_NAME = 32
_provider = click.option(
    "--provider", default="auto", show_default=True, type=click.Choice(["auto", "cpu", "cuda"])
)
_model = click.option("--model", default="faces", show_default=True, help="Bundle folder or shipped model.")
_crop = click.option(
    "--crop", metavar="full|centre:F|X,Y,W,H", help="How these pictures are framed, if otherwise."
)
_images = click.argument(
    "images", nargs=-1, required=True, metavar="IMAGE...", type=click.Path(path_type=Path)
)


@click.command(epilog="Example: lookalike search me.jpg --collection family --sheet hits.png")
@_images
@click.option("--collection", required=True, metavar="NAME")
@store_option
@click.option(
    "-k",
    "k",
    type=click.IntRange(1, 100_000),
    default=10,
    show_default=True,
    help="Most results for each query.",
)
@click.option("--model", help="Bundle folder, if not where the collection remembers it.")
@_crop
@click.option("--exclude-self", is_flag=True, help="Leave out items that are the query's very file.")
@click.option(
    "--prior",
    type=float,
    metavar="P",
    help="How probable a match is before looking, for each picture of the collection; "
    "1/size by default: one match is expected.",
)
@click.option(
    "--fmr",
    type=float,
    metavar="RATE",
    help="A match is a score that so many pairs of two people are above, 0.001 say; "
    "the smallest rate the calibration knows by default.",
)
@click.option("--sheet", type=click.Path(path_type=Path), help="Draw queries and results: out.png.")
@click.option("--json", "as_json", is_flag=True, help="A list on stdout, one object for each query.")
@_provider
@click.pass_context
def search(
    ctx: click.Context,
    images: tuple[Path, ...],
    collection: str,
    store: str,
    k: int,
    model: str | None,
    crop: str | None,
    exclude_self: bool,
    prior: float | None,
    fmr: float | None,
    sheet: Path | None,
    as_json: bool,
    provider: Provider,
) -> None:
    """Find the pictures most like a picture. Likeness is no proof that two pictures show one person.

    Of a calibrated model (see lookalike calibrate) a result has a probability p that it shows the query's
    person, and is a match when its score is above a threshold. p expects one picture of the person in the
    collection: where there are many, or most likely none, say so with --prior.
    """
    from encoder.images import Crop
    from indexer.store import open_store
    from searcher.search import Searcher

    framing = None if crop is None else Crop.parse(crop)
    with open_store(store) as opened:
        searcher = Searcher.open(opened, collection, model=model, provider=provider)
        answers = list(
            searcher.similar(images, k=k, exclude_self=exclude_self, crop=framing, prior=prior, fmr=fmr)
        )
        good = [answer for answer in answers if answer.failure is None]
        drawn = _draw_answers(sheet, searcher, good, framing) if sheet is not None and good else None
    if as_json:
        click.echo(json.dumps([answer.to_json() for answer in answers]))
    else:
        _print_table(good)
    _print_notes(good, matches=not as_json)
    failed = [answer.failure for answer in answers if answer.failure is not None]
    for failure in failed:
        click.echo(f"failed: {failure}", err=True)
    if drawn is not None:
        click.echo(drawn, err=True)
    if searcher.size == 0:
        click.echo(f"collection {collection} is empty; lookalike index fills it", err=True)
    ctx.exit(_code(len(failed), len(answers)))


@click.command(epilog="Example: lookalike reconstruct me.jpg you.jpg --model faces --out sheet.png")
@_images
@_model
@_crop
@click.option("--out", required=True, metavar="FILE.png|FOLDER/", help="One sheet, or one PNG each.")
@_provider
@click.pass_context
def reconstruct(
    ctx: click.Context,
    images: tuple[Path, ...],
    model: str,
    crop: str | None,
    out: str,
    provider: Provider,
) -> None:
    """Draw pictures above what the model keeps of them."""
    from encoder.images import Crop
    from encoder.model import Model
    from searcher import generate as drawing
    from searcher.pictures import caption, free_names, reconstruction_sheet

    opened = Model.open(model, provider=provider)
    framing = None if crop is None else Crop.parse(crop)
    files, pixels, failed = drawing.read_all(opened, images, crop=framing)
    for failure in failed:
        click.echo(f"failed: {failure}", err=True)
    if files:
        back = drawing.reconstruct(opened, pixels)
        names = free_names(files)
        _save(out, names, back, lambda: reconstruction_sheet(opened, pixels, back, list(map(caption, files))))
    ctx.exit(_code(len(failed), len(images)))


@click.command(epilog="Example: lookalike generate --model faces -n 25 --seed 1 --out faces.png")
@_model
@click.option("-n", "count", type=click.IntRange(1, 10_000), default=16, show_default=True, help="How many.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="The same seed draws the same pictures.",
)
@click.option(
    "--temperature",
    type=click.FloatRange(0, 100),
    default=1.0,
    show_default=True,
    help="Under 1 tamer, over 1 wilder.",
)
@click.option("--out", required=True, metavar="FILE.png|FOLDER/", help="One sheet, or one PNG each.")
@_provider
def generate(model: str, count: int, seed: int, temperature: float, out: str, provider: Provider) -> None:
    """Draw pictures that never were.

    They are sampled from where the training pictures lie.
    """
    from encoder.model import Model
    from encoder.sheets import grid
    from searcher.generate import sample

    pictures = sample(Model.open(model, provider=provider), count, seed=seed, temperature=temperature)
    names = [f"{number:0{len(str(count - 1))}d}" for number in range(count)]
    _save(out, names, pictures, lambda: grid(list(pictures)))


def _draw_answers(sheet: Path, searcher: Searcher, answers: list[Answer], crop: Crop | None) -> str:
    """Write the sheet and return a line that says so."""
    from encoder.images import shown
    from encoder.sheets import save_picture
    from searcher.pictures import MOST_ROWS, answers_sheet

    save_picture(sheet, answers_sheet(searcher, answers, crop=crop))
    some = f", the first {MOST_ROWS} of {len(answers)} queries" if len(answers) > MOST_ROWS else ""
    return f"drawn: {shown(str(sheet))}{some}"


def _print_table(answers: list[Answer]) -> None:
    """A query's file, then a line for each result: rank, score, probability and person where known, path."""
    from encoder.images import shown
    from searcher.pictures import chance

    for number, answer in enumerate(answers):
        click.echo(f"{chr(10) if number else ''}{shown(answer.query)}  ({answer.took_ms:.1f} ms)")
        people = [shown(result.person or "") for result in answer.results]
        width = min(max(map(len, people), default=0), _LONGEST_NAME)
        for person, result in zip(people, answer.results, strict=True):
            cut = person if len(person) <= width else f"{person[: width - 1]}…"
            name = f"{cut:<{width}}  " if width else ""
            worth = "" if result.probability is None else f"p {chance(result.probability):>5}  "
            click.echo(f"{result.rank:>4}  {result.score:6.3f}  {worth}{name}{shown(result.path)}")


def _print_notes(answers: list[Answer], *, matches: bool) -> None:
    """Say on stderr what there is against an answer."""
    from encoder.images import shown

    for answer in answers:
        if answer.warning is not None:
            click.echo(f"{shown(answer.query)}: {answer.warning}", err=True)
        if matches and answer.match is False:
            click.echo(f"{shown(answer.query)}: no good match", err=True)


def _save(
    out: str, names: list[str], pictures: NDArray[np.uint8], sheet: Callable[[], NDArray[np.uint8]]
) -> None:
    from encoder.sheets import save_picture
    from searcher.pictures import is_folder, save_each

    if is_folder(out):
        for path in save_each(Path(out), names, list(pictures)):
            click.echo(os.fsencode(path))  # as it is: made to be read by the next program
    else:
        save_picture(Path(out), sheet())
        click.echo(os.fsencode(out))


def _code(failed: int, asked: int) -> int:
    """0 good, 3 some failed, 1 all failed."""
    return 0 if not failed else 1 if failed == asked else 3
