"""``lookalike evaluate denoising``: what takes noise off best, and how fast, side by side in one run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from lookalike.deploy.evaluation.denoising import DenoisingResult
    from lookalike.deploy.evaluation.exhibits import DenoisingTestSet, TestSetName
    from lookalike.deploy.evaluation.noisy_queries import Recall
    from lookalike.deploy.evaluation.rivals import Method
    from lookalike.encoder.runtime.denoiser import Denoiser
    from lookalike.encoder.runtime.session import Provider

__all__ = ["denoising"]

_SETS: Final = ("lfw-64", "lfw-250", "mnist", "photographs")
_SEARCH: Final = "search"
_SHOWN: Final = 8
_QUERIES: Final = 500
_CLEANER: Final = "denoise"


def _sheet(_ctx: click.Context, _option: click.Parameter, file: Path | None) -> Path | None:
    """Refuse now what could not be written when all is measured."""
    if file is not None and file.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise click.BadParameter("a picture is written as .png, .jpg, .jpeg or .webp; change the file name")
    return file


@click.command(epilog="Example: lookalike evaluate denoising --data lfw-64 --pictures 20 --sheet cleaned.png")
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="BUNDLE",
    help="A cleaner, or an autoencoder taught to clean; denoise when nothing is named. Again for more.",
)
@click.option(
    "--data",
    "sets",
    multiple=True,
    default=("lfw-64",),
    show_default=True,
    type=click.Choice((*_SETS, _SEARCH, "all")),
    help="Faces of held-out people at 64x64 or whole at 250x250, test digits, scikit-image's photographs; "
    "search: what noise takes from a search in LFW, and what cleaning queries gives back. Again for more.",
)
@click.option(
    "--sigma",
    "sigmas",
    multiple=True,
    type=click.FloatRange(0, 255, min_open=True),
    help="Deviation of the noise, of 255; 25 and 50 when left out, of mnist 127.5. Again for more.",
)
@click.option(
    "--pictures",
    type=click.IntRange(min=1),
    metavar="N",
    help="So many of each set at most; lfw-64 has 200, lfw-250 50, mnist 1,000, photographs 7, search 500.",
)
@click.option(
    "--search-model",
    default="faces",
    show_default=True,
    metavar="BUNDLE",
    help="What compares in --data search.",
)
@click.option("--no-bm3d", is_flag=True, help="Leave BM3D out: it takes seconds a picture.")
@click.option("--no-rivals", is_flag=True, help="Leave out all that is no model.")
@click.option(
    "--rounds",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    help="Turns in which the speeds are measured; 0: they are not.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Of the models; the others use one.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the noise.")
@click.option(
    "--sheet",
    metavar="FILE.png",
    type=click.Path(path_type=Path),
    callback=_sheet,
    help="Draw clean, noisy and cleaned pictures of the first set.",
)
@click.option("--json", "as_json", is_flag=True, help="A list of objects on stdout.")
@click.option("--provider", default="auto", show_default=True, type=click.Choice(["auto", "cpu", "cuda"]))
@click.pass_context
def denoising(
    ctx: click.Context,
    /,
    models: tuple[str, ...],
    sets: tuple[str, ...],
    sigmas: tuple[float, ...],
    pictures: int | None,
    search_model: str,
    no_bm3d: bool,
    no_rivals: bool,
    rounds: int,
    threads: int,
    seed: int,
    sheet: Path | None,
    as_json: bool,
    provider: Provider,
) -> None:  # fmt: skip
    """How much noise is taken off, and how fast: models beside BM3D, means, total variation and wavelets.

    All get the same noisy arrays; figures are medians over the pictures. The classical rows are told the true
    sigma, and are set by what was best on other pictures; what clipping did to digits, half of whose noise it
    takes, is undone behind them, and behind BM3D in a row of its own. BM3D is there where the package bm3d is
    installed (its licence forbids commercial use); what it made is kept in the cache.
    """
    from lookalike.deploy.evaluation.denoising import evaluate_denoising, need_extra
    from lookalike.deploy.evaluation.denoising_tables import denoising_lines, denoising_sheet, recall_lines
    from lookalike.deploy.evaluation.exhibits import open_test_set

    need_extra()
    field = _Field(models, no_bm3d=no_bm3d, no_rivals=no_rivals, threads=threads, provider=provider)
    bouts: list[DenoisingResult] = []
    for name in _named(sets):
        exhibit = open_test_set(name, pictures)
        for sigma in sigmas or ((127.5,) if name == "mnist" else (25.0, 50.0)):
            kept = _SHOWN if sheet is not None and not bouts else 0
            rivals = field.rivals(exhibit, sigma / 255)
            bouts.append(
                evaluate_denoising(
                    exhibit, sigma / 255, rivals, seed=seed, rounds=rounds, shown=kept, steps=_steps
                )
            )
    recalls = []
    if _SEARCH in sets or "all" in sets:
        recalls = _recalls(field, search_model, sigmas or (25.0, 50.0), pictures or _QUERIES, seed, provider)
    for remark in field.remarks:
        click.echo(remark, err=True)
    if sheet is not None and bouts:
        _draw(sheet, denoising_sheet(bouts[0]))
    if as_json:
        searched = {"data": _SEARCH, "rows": [recall.to_json() for recall in recalls]}
        click.echo(json.dumps([bout.to_json() for bout in bouts] + [searched] * bool(recalls)))
    else:
        click.echo("\n\n".join(filter(None, (denoising_lines(bouts), recall_lines(recalls)))))
    ctx.exit(3 if field.lacking else 0)


class _Field:
    """Who takes part.

    Attributes:
        remarks: Who does not and why, a line each.
        lacking: Whether one that was asked for does not.
    """

    def __init__(
        self, models: Sequence[str], *, no_bm3d: bool, no_rivals: bool, threads: int, provider: Provider
    ) -> None:
        from lookalike.deploy.evaluation.contenders import DenoisingModel
        from lookalike.encoder.bundle.registry import shipped_bundles

        named = models or ((_CLEANER,) if _CLEANER in shipped_bundles() else ())
        self._contenders = [DenoisingModel.open(name, threads=threads, provider=provider) for name in named]
        self._bm3d = not (no_bm3d or no_rivals)
        self._classical = not no_rivals
        self.remarks: dict[str, None] = {}
        self.lacking = False

    def cleaner(self) -> Denoiser | None:
        """Return the first model that is a cleaner."""
        from lookalike.encoder.runtime.denoiser import Denoiser

        return next((each.cleans for each in self._contenders if isinstance(each.cleans, Denoiser)), None)

    def rivals(self, exhibit: DenoisingTestSet, sigma: float) -> list[Method]:
        """Return those that clean these pictures: models first; sigma is of 1."""
        from lookalike.deploy.evaluation.rivals import BM3D, classical_methods
        from lookalike.encoder.errors import MissingExtraError

        digits = exhibit.name == "mnist"
        found: list[Method] = []
        for contender in self._contenders:
            each, why_not = contender.rivals(exhibit)
            found += each
            if why_not is not None:
                self.remarks[why_not] = None
                self.lacking = True
        if self._bm3d:
            try:
                found += [BM3D(), BM3D(debias=True)]
            except MissingExtraError as error:
                self.remarks[str(error)] = None
        if self._classical:
            found += classical_methods(sigma, digits=digits)
        return found


def _named(sets: Sequence[str]) -> list[TestSetName]:
    """Return the sets that are named, each once."""
    chosen: list[Any] = (
        list(_SETS) if "all" in sets else [name for name in dict.fromkeys(sets) if name in _SETS]
    )
    return chosen


def _recalls(
    field: _Field, search_model: str, sigmas: Sequence[float], count: int, seed: int, provider: Provider
) -> list[Recall]:
    """Search LFW with noisy pictures of held-out people, cleaned by the first cleaner that takes part."""
    from lookalike.deploy.evaluation.data import open_labeled
    from lookalike.deploy.evaluation.noisy_queries import noisy_recall
    from lookalike.deploy.evaluation.pairs import held_people
    from lookalike.encoder.runtime.model import Model
    from lookalike.searcher.search.query_denoiser import QueryDenoiser

    images = open_labeled("lfw", progress=True)
    cleaner = field.cleaner()
    if cleaner is None:
        field.remarks["no cleaner takes part: queries are compared as they are"] = None
    return noisy_recall(
        Model.open(search_model, provider=provider),
        images,
        held_people(images, seed=seed),
        cleaner=None if cleaner is None else QueryDenoiser(cleaner),
        sigmas=sigmas,
        count=count,
        seed=seed,
        steps=_steps,
    )


def _draw(file: Path, pixels: Any) -> None:
    from lookalike.encoder.images.contact_sheet import save_image
    from lookalike.encoder.text import printable

    save_image(file, pixels)
    click.echo(f"drawn: {printable(str(file))}", err=True)


@contextmanager
def _steps(what: str, total: int) -> Iterator[Callable[[int], object]]:
    from tqdm import tqdm

    with tqdm(desc=what, total=total, unit="image", disable=None, leave=False) as bar:
        yield bar.update
