"""``lookalike evaluate``: figures of models, collections and anybody's vectors, baselines beside them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lookalike.deploy.cli.denoising_commands import denoising
from lookalike.deploy.cli.options import store_option

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lookalike.deploy.evaluation.contest import EvaluationTable
    from lookalike.deploy.evaluation.data import LabeledImages
    from lookalike.deploy.evaluation.misses import FailureSheet
    from lookalike.deploy.evaluation.pairs import Folds
    from lookalike.deploy.evaluation.retrieval import Ranking
    from lookalike.deploy.evaluation.verification import Roc
    from lookalike.encoder.runtime.session import Provider
    from lookalike.indexer.store.base import VectorStore

__all__ = ["evaluate"]

Command = TypeVar("Command", bound=Callable[..., Any])
_ORDER = ("model", "collection", "vectors", "baseline")
_MOST_FAILURES = 20
_BELIEVE = (
    "believe held: no baseline and no shipped model was fitted to its people; all flatters a model that saw "
    "the others"
)


def _picture(_ctx: click.Context, _option: click.Parameter, file: Path | None) -> Path | None:
    """Refuse now what could not be written when all is measured."""
    if file is not None and file.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise click.BadParameter("a picture is written as .png, .jpg, .jpeg or .webp; change the file name")
    return file


_OPTIONS = (
    click.option("--model", "models", multiple=True, metavar="BUNDLE",
                 help="Bundle folder or shipped model; faces when nothing is named. Again for more."),
    click.option("--collection", "collections", multiple=True, metavar="NAME",
                 help="Its vectors as they are stored. Again for more."),
    store_option,
    click.option("--vectors", multiple=True, metavar="FILE.parquet", type=click.Path(path_type=Path),
                 help="Anybody's: columns path and vector, and person if you like. Again for more."),
    click.option("--data", metavar="lfw|FOLDER",
                 help="Pictures by person; default: lfw, or what a single collection holds."),
    click.option("--crop", metavar="full|center:F|X,Y,W,H",
                 help="How these pictures are framed, if otherwise."),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True,
                 help="Divides a folder's people and draws its pairs."),
    click.option("--no-baselines", is_flag=True, help="Leave out the rows without a network."),
    click.option("--misses", metavar="FILE.png", type=click.Path(path_type=Path), callback=_picture,
                 help="Draw the worst mistakes of the first row."),
    click.option("--json", "as_json", is_flag=True, help="A list of objects on stdout."),
    click.option("--provider", default="auto", show_default=True, type=click.Choice(["auto", "cpu", "cuda"])),
)  # fmt: skip

_pairs = click.option("--pairs", metavar="FILE", type=click.Path(path_type=Path),
                      help="Pairs in the layout of LFW's pairs.txt, for your own --data.")  # fmt: skip
_roc = click.option("--roc", "roc_file", metavar="FILE.png", type=click.Path(path_type=Path),
                    callback=_picture, help="Draw the ROC of every row, on the held folds.")  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Asked:
    """The options that both verbs have."""

    models: tuple[str, ...]
    collections: tuple[str, ...]
    store: str
    vectors: tuple[Path, ...]
    data: str | None
    crop: str | None
    seed: int
    no_baselines: bool
    misses: Path | None
    as_json: bool
    provider: Provider


def _shared(command: Command) -> Command:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.group()
def evaluate() -> None:
    """Measure models, collections and anybody's vectors."""


evaluate.add_command(denoising)


@evaluate.command(epilog="Example: lookalike evaluate retrieval --model faces --collection family")
@_shared
@click.pass_context
def retrieval(ctx: click.Context, /, **options: Any) -> None:
    """Who finds themselves? Every image of a person with two or more queries all the others.

    "held out" are people whom no baseline was fitted to; of lfw they are those that the shipped models never
    saw: believe that row. A collection is asked as it is, all else through a store made for it.
    """
    from lookalike.deploy.evaluation.pairs import held_people
    from lookalike.deploy.evaluation.report import retrieval_table
    from lookalike.deploy.evaluation.retrieval import rank_all, temporary_collection

    asked = _Asked(**options)
    with ExitStack() as stack:
        store = _opened(asked, stack)
        images = _images(asked, store)
        held = held_people(images, seed=asked.seed)
        contest = _contest(asked, images, held, None)
        contest.require(contest.usable, images)
        rankings: list[tuple[str, str, Ranking]] = [
            (name, "collection", rank_all(store, name, steps=_steps))
            for name in asked.collections
            if store is not None
        ]
        for row in contest.rows:
            with temporary_collection(row, images) as (made, inside):
                found = replace(rank_all(made, inside, steps=_steps), name=row.name)
            rankings.append((row.name, row.kind, found))
    rankings.sort(key=lambda each: _ORDER.index(each[1]))
    groups = _groups(images, held, baselines=any(kind == "baseline" for _, kind, _ in rankings))
    told = [
        {"name": name, "kind": kind, "people": group, **ranking.of(people).to_json()}
        for name, kind, ranking in rankings
        for group, people in groups
        if people is None or ranking.asked(people)
    ]
    _say(contest)
    if rankings and asked.misses is not None:
        name, _, ranking = rankings[0]
        queries = ranking.asked(groups[-1][1]) or ranking.asked()
        _draw(asked.misses, lambda: _miss_sheet(asked, images).queries(name, queries))
    _print(told, as_json=asked.as_json, table=retrieval_table)
    ctx.exit(_code(contest, told))


@evaluate.command(epilog="Example: lookalike evaluate verification --model faces --roc roc.png")
@_pairs
@_roc
@_shared
@click.pass_context
def verification(ctx: click.Context, /, pairs: Path | None, roc_file: Path | None, **options: Any) -> None:
    """Do two pictures show one person? Ten folds of pairs, the threshold always from the other folds.

    For lfw they are those of View 2; for a folder they are drawn, no person in two folds. "held" are folds 1
    to 5 alone, to whose people no baseline and no shipped model was fitted. "all" flatters a model that saw
    the others: believe held.
    """
    from lookalike.deploy.evaluation.report import verification_table
    from lookalike.deploy.evaluation.verification import evaluate_pairs

    asked = _Asked(**options)
    with ExitStack() as stack:
        store = _opened(asked, stack)
        images = _images(asked, store)
        folds = _folds(asked, images, pairs)
        contest = _contest(asked, images, folds.held_people, store)
    folds = folds.within(contest.usable)
    contest.require(folds.needed(len(images)), images)
    held = [evaluate_pairs(row.rows, folds.held) for row in contest.rows]
    told = [
        {
            "name": row.name,
            "kind": row.kind,
            "held": found.to_json(),
            "all": evaluate_pairs(row.rows, folds.all)[0].to_json(),
        }
        for row, (found, _) in zip(contest.rows, held, strict=True)
    ]
    _say(contest)
    lacking = False
    if contest.rows and asked.misses is not None:
        first = contest.rows[0]
        _draw(asked.misses, lambda: _miss_sheet(asked, images).pairs(first.name, first.rows, folds.held))
    if contest.rows and roc_file is not None:
        curves = [
            (row.name, row.kind == "baseline", curve)
            for row, (_, curve) in zip(contest.rows, held, strict=True)
        ]
        lacking = not _draw_roc(roc_file, curves, images)
    _print(told, as_json=asked.as_json, table=verification_table)
    if told and not asked.as_json:
        click.echo(_BELIEVE, err=True)
    ctx.exit(_code(contest, told) or (3 if lacking else 0))


def _opened(asked: _Asked, stack: ExitStack) -> VectorStore | None:
    from lookalike.indexer.open import open_store

    return stack.enter_context(open_store(asked.store)) if asked.collections else None


def _images(asked: _Asked, store: VectorStore | None) -> LabeledImages:
    """Return what --data names, else what the first collection holds, else lfw."""
    from lookalike.deploy.evaluation.data import collection_images, lfw_behind, open_labeled
    from lookalike.encoder.errors import DataError

    if asked.data is not None or store is None:
        return open_labeled(asked.data or "lfw", progress=True)
    try:
        lfw = lfw_behind(store, asked.collections[0])
    except DataError as error:
        click.echo(f"held out: left out, for {error}", err=True)
        lfw = None
    return lfw or collection_images(store, asked.collections[0])


def _folds(asked: _Asked, images: LabeledImages, pairs: Path | None) -> Folds:
    from lookalike.deploy.evaluation.pairs import draw_folds, lfw_folds, read_folds

    if pairs is not None:
        return read_folds(pairs, images)
    return lfw_folds(images) if images.lfw is not None else draw_folds(images, seed=asked.seed)


def _contest(
    asked: _Asked, images: LabeledImages, held: frozenset[str], store: VectorStore | None
) -> EvaluationTable:
    """Get the rows; collections only where a store is given."""
    from lookalike.deploy.evaluation.baselines import BASELINES
    from lookalike.deploy.evaluation.contest import build_table
    from lookalike.encoder.images.preprocess import Crop
    from lookalike.encoder.runtime.model import Model

    named = asked.models or (() if asked.collections or asked.vectors else ("faces",))
    return build_table(
        images,
        held,
        models=[Model.open(name, provider=asked.provider) for name in named],
        collections=[(store, name) for name in asked.collections] if store is not None else (),
        files=asked.vectors,
        baselines=() if asked.no_baselines else BASELINES,
        crop=None if asked.crop is None else Crop.parse(asked.crop),
        steps=_steps,
    )


def _groups(
    images: LabeledImages, held: frozenset[str], *, baselines: bool
) -> list[tuple[str, frozenset[str] | None]]:
    """Return who queries: everybody, and those nothing was fitted to where that makes a difference."""
    fitted = images.lfw is not None or baselines
    return [("everybody", None), ("held out", held)] if fitted else [("everybody", None)]


@contextmanager
def _steps(what: str, total: int) -> Iterator[Callable[[int], object]]:
    from tqdm import tqdm

    with tqdm(desc=what, total=total, unit="image", disable=None, leave=False) as bar:
        yield bar.update


def _say(contest: EvaluationTable) -> None:
    for failure in contest.failures[:_MOST_FAILURES]:
        click.echo(f"failed: {failure}", err=True)
    if len(contest.failures) > _MOST_FAILURES:
        click.echo(f"failed: {len(contest.failures) - _MOST_FAILURES} more pictures", err=True)
    for line in (*contest.lacking, *contest.remarks):
        click.echo(line, err=True)


def _miss_sheet(asked: _Asked, images: LabeledImages) -> FailureSheet:
    from lookalike.deploy.evaluation.misses import FailureSheet
    from lookalike.encoder.images.preprocess import Crop

    return FailureSheet(images, crop=None if asked.crop is None else Crop.parse(asked.crop))


def _draw(file: Path, sheet: Callable[[], NDArray[np.uint8] | None]) -> None:
    """Write the sheet of misses and say so; where nothing went wrong there is none."""
    from lookalike.encoder.images.contact_sheet import save_image
    from lookalike.encoder.text import printable

    drawn = sheet()
    if drawn is None:
        click.echo(f"{printable(str(file))} is not drawn: there is no miss", err=True)
        return
    save_image(file, drawn)
    click.echo(f"drawn: {printable(str(file))}", err=True)


def _draw_roc(file: Path, curves: list[tuple[str, bool, Roc]], images: LabeledImages) -> bool:
    """Draw the curves and return whether the part that draws is installed."""
    from lookalike.deploy.evaluation.curves import draw_roc
    from lookalike.encoder.errors import MissingExtraError
    from lookalike.encoder.text import printable

    try:
        draw_roc(file, curves, title=f"One person or two? Held-out pairs of {images.name}")
    except MissingExtraError as error:
        click.echo(str(error), err=True)
        return False
    click.echo(f"drawn: {printable(str(file))}", err=True)
    return True


def _print(told: list[dict[str, Any]], *, as_json: bool, table: Callable[..., str]) -> None:
    if as_json:
        click.echo(json.dumps(told))
    elif told:
        click.echo(table(told))


def _code(contest: EvaluationTable, told: list[dict[str, Any]]) -> int:
    """0 good, 3 some pictures or rows failed, 1 there is no row."""
    return 1 if not told else 3 if contest.failures or contest.lacking else 0
