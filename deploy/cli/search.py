"""``lookalike search``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lookalike.deploy.cli.facet_commands import where_option
from lookalike.deploy.cli.index import store_option

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lookalike.encoder.images.preprocess import Crop
    from lookalike.encoder.runtime.session import Provider
    from lookalike.searcher.search.query_denoiser import QueryDenoiser
    from lookalike.searcher.search.results import QueryResult
    from lookalike.searcher.search.searcher import Searcher

__all__ = ["crop_option", "exit_code", "images_argument", "provider_option", "search"]

_LONGEST_NAME = 32
provider_option = click.option(
    "--provider", default="auto", show_default=True, type=click.Choice(["auto", "cpu", "cuda"])
)
crop_option = click.option(
    "--crop", metavar="full|centre:F|X,Y,W,H", help="How these pictures are framed, if otherwise."
)
_file = click.Path(path_type=Path)
images_argument = click.argument("images", nargs=-1, required=True, metavar="IMAGE...", type=_file)


@click.command(epilog="Example: lookalike search me.jpg --collection family --sheet hits.png")
@click.argument("images", nargs=-1, metavar="IMAGE...", type=_file)
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
@crop_option
@where_option
@click.option(
    "--add",
    "added",
    multiple=True,
    metavar="NAME=STRENGTH",
    help="Search for the same face with more of an attribute: Smiling=2. Again for more.",
)
@click.option("--like", "liked", multiple=True, type=_file, help="All pictures together are one query.")
@click.option(
    "--unlike", "unliked", multiple=True, type=_file, help="The same, and away from this one. Again for more."
)
@click.option("--group-by", metavar="FIELD", help="The best result of each value only: person.")
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
@click.option(
    "--clean", "cleaned", is_flag=True, help="Take noise off the queries first, where there is any."
)
@click.option(
    "--clean-model",
    default="clean",
    show_default=True,
    metavar="BUNDLE",
    help="What takes it off: folder or shipped cleaner.",
)
@click.option("--sheet", type=click.Path(path_type=Path), help="Draw queries and results: out.png.")
@click.option("--json", "as_json", is_flag=True, help="A list on stdout, one object for each query.")
@provider_option
@click.pass_context
def search(
    ctx: click.Context,
    images: tuple[Path, ...],
    collection: str,
    store: str,
    k: int,
    model: str | None,
    crop: str | None,
    where: str | None,
    added: tuple[str, ...],
    liked: tuple[Path, ...],
    unliked: tuple[Path, ...],
    group_by: str | None,
    exclude_self: bool,
    prior: float | None,
    fmr: float | None,
    cleaned: bool,
    clean_model: str,
    sheet: Path | None,
    as_json: bool,
    provider: Provider,
) -> None:
    """Find the pictures most like a picture. Likeness is no proof that two pictures show one person.

    Of a calibrated model (see lookalike calibrate) a result has a probability p that it shows the query's
    person, and is a match when its score is above a threshold. p expects one picture of the person in the
    collection: where there are many, or most likely none, say so with --prior.

    With --like or --unlike, all IMAGEs are one query: their mean, moved away from what it should be unlike.
    """
    from lookalike.encoder.images.preprocess import Crop
    from lookalike.indexer.open import open_store
    from lookalike.indexer.store.where import parse_where
    from lookalike.searcher.generation.edit import parse_strengths
    from lookalike.searcher.search.retrieval import SearchParams
    from lookalike.searcher.search.searcher import Searcher

    if not images and not liked:
        raise click.UsageError("a search needs an IMAGE or --like")
    if (liked or unliked) and (prior is not None or fmr is not None):
        raise click.UsageError("--prior and --fmr are of one picture's person, not of --like and --unlike")
    framing = None if crop is None else Crop.parse(crop)
    strengths, condition = parse_strengths(added), None if where is None else parse_where(where)
    wanted = SearchParams(k=k, where=condition, exclude_self=exclude_self, group_by=group_by)
    with open_store(store) as opened:
        searcher = Searcher.open(opened, collection, model=model, provider=provider)
        cleaner = _cleaner(clean_model, provider) if cleaned else None
        if liked or unliked:
            likes = (*images, *liked)
            answers = [
                searcher.similar_to_examples(
                    likes, unliked, params=wanted, crop=framing, add=strengths, denoiser=cleaner
                )
            ]
        else:
            found = searcher.similar(
                images,
                k=k,
                exclude_self=exclude_self,
                where=condition,
                group_by=group_by,
                crop=framing,
                prior=prior,
                fmr=fmr,
                add=strengths,
                denoiser=cleaner,
            )
            answers = list(found)
        good = [answer for answer in answers if answer.error is None]
        drawn = (
            _draw_answers(sheet, searcher, good, framing, strengths) if sheet is not None and good else None
        )
    if as_json:
        click.echo(json.dumps([answer.to_json() for answer in answers]))
    else:
        _print_table(good)
    _print_notes(good, matches=not as_json)
    failed = [str(answer.error) for answer in answers if answer.error is not None]
    for failure in failed:
        click.echo(f"failed: {failure}", err=True)
    if drawn is not None:
        click.echo(drawn, err=True)
    if searcher.size == 0:
        click.echo(f"collection {collection} is empty; lookalike index fills it", err=True)
    ctx.exit(exit_code(len(failed), len(answers)))


def _cleaner(where: str, provider: Provider) -> QueryDenoiser:
    from lookalike.encoder.runtime.denoiser import Denoiser
    from lookalike.searcher.search.query_denoiser import QueryDenoiser

    return QueryDenoiser(Denoiser.open(where, provider=provider))


def _draw_answers(
    sheet: Path, searcher: Searcher, answers: list[QueryResult], crop: Crop | None, add: Mapping[str, float]
) -> str:
    """Write the sheet and return a line that says so."""
    from lookalike.encoder.images.contact_sheet import save_image
    from lookalike.encoder.text import printable
    from lookalike.searcher.figures import MAX_ROWS, results_sheet

    save_image(sheet, results_sheet(searcher, answers, crop=crop, add=add))
    some = f", the first {MAX_ROWS} of {len(answers)} queries" if len(answers) > MAX_ROWS else ""
    return f"drawn: {printable(str(sheet))}{some}"


def _print_table(answers: list[QueryResult]) -> None:
    """A query's file, then a line for each result: rank, score, probability and person where known, path."""
    from lookalike.encoder.text import printable
    from lookalike.searcher.figures import format_probability

    for number, answer in enumerate(answers):
        click.echo(f"{chr(10) if number else ''}{printable(answer.query)}  ({answer.took_ms:.1f} ms)")
        people = [printable(result.person or "") for result in answer.results]
        width = min(max(map(len, people), default=0), _LONGEST_NAME)
        for person, result in zip(people, answer.results, strict=True):
            cut = person if len(person) <= width else f"{person[: width - 1]}…"
            name = f"{cut:<{width}}  " if width else ""
            worth = "" if result.probability is None else f"p {format_probability(result.probability):>5}  "
            click.echo(f"{result.rank:>4}  {result.score:6.3f}  {worth}{name}{printable(result.path)}")


def _print_notes(answers: list[QueryResult], *, matches: bool) -> None:
    """Say on stderr what there is against an answer."""
    from lookalike.encoder.text import printable

    for answer in answers:
        if answer.denoise_info is not None:
            click.echo(f"{printable(answer.query)}: {answer.denoise_info.summary()}", err=True)
        if answer.warning is not None:
            click.echo(f"{printable(answer.query)}: {answer.warning}", err=True)
        if matches and answer.match is False:
            click.echo(f"{printable(answer.query)}: no good match", err=True)


def exit_code(failed: int, asked: int) -> int:
    """Return 0 where all is good, 3 where some failed, 1 where all did."""
    return 0 if not failed else 1 if failed == asked else 3
