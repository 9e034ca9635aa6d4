"""``lookalike evaluate``: measure models, collections and vectors of any origin."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from lookalike.deploy.cli.options import LocalPath, store_option

if TYPE_CHECKING:
    from lookalike.deploy.evaluation import (
        AttributeReport,
        EvaluationTable,
        Folds,
        LabeledImages,
        Part,
        Ranking,
    )
    from lookalike.encoder.runtime import Provider
    from lookalike.indexer.store import VectorStore

Command = TypeVar("Command", bound=Callable[..., Any])
_KINDS: Final = ("model", "collection", "vectors")
_MAX_FAILURES: Final = 20
_TEST_SETS: Final = ("cbsd68", "polyu", "photographs", "skimage", "lfw-64", "lfw-250", "mnist")
_PARTS: Final = ("likelihood", "accuracy", "diversity", "distance", "neighbours")
_KEPT: Final = 8
_HELD_OUT_NOTE: Final = (
    "trust the held columns: no shipped model was trained on these people, but on some of all"
)


def image_file(_ctx: click.Context, _option: click.Parameter, file: Path | None) -> Path | None:
    """Refuse an image file that could not be written, before anything is measured."""
    if file is not None and file.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise click.BadParameter("an image is written as .png, .jpg, .jpeg or .webp; change the file name")
    return file


_provider = click.option(
    "--provider", default="auto", show_default=True, type=click.Choice(["auto", "cpu", "cuda"])
)
_COMPARISON_OPTIONS: Final = (
    click.option("--model", "models", multiple=True, metavar="BUNDLE",
                 help="Bundle folder or shipped model; faces when nothing is named. Repeatable."),
    click.option("--collection", "collections", multiple=True, metavar="NAME",
                 help="A collection's vectors as they are stored. Repeatable."),
    store_option,
    click.option("--vectors", multiple=True, metavar="FILE.parquet", type=LocalPath(),
                 help="Vectors of any origin: columns path, vector and optionally person. Repeatable."),
    click.option("--data", metavar="lfw|FOLDER",
                 help="Images by person; default: lfw, or the images of a single collection."),
    click.option("--crop", metavar="full|center:F|X,Y,W,H",
                 help="How these images are framed, if not as the model expects."),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True,
                 help="Splits a folder's people and draws its pairs."),
    click.option("--json", "as_json", is_flag=True, help="Print a list of JSON objects."),
    _provider,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Comparison:
    """The options that retrieval and verification share."""

    models: tuple[str, ...]
    collections: tuple[str, ...]
    store: str
    vectors: tuple[Path, ...]
    data: str | None
    crop: str | None
    seed: int
    as_json: bool
    provider: Provider


def _options(*options: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """Add options to a command, in the order of its help."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@click.group()
def evaluate() -> None:
    """Measure models, collections and vectors of any origin."""


@evaluate.command(epilog="Example: lookalike evaluate retrieval --model faces --collection family")
@_options(*_COMPARISON_OPTIONS)
@click.pass_context
def retrieval(ctx: click.Context, /, **values: Any) -> None:
    """Search with every image of a person with two or more: is the person found first?

    The rows "held out" are people of lfw whom no shipped model was trained on: trust these. A collection is
    searched as it is, all else through a temporary store.
    """
    from lookalike.deploy.evaluation import held_out_people, rank_all, retrieval_table, temporary_collection

    options = _Comparison(**values)
    with ExitStack() as stack:
        store = _open_store(options, stack)
        images = _open_images(options, store)
        table, missing = _collect(options, images, None)
        table.require(table.usable, images)
        rankings: list[tuple[str, Ranking]] = [
            ("collection", rank_all(store, name, progress=_progress))
            for name in options.collections
            if store is not None
        ]
        for row in table.rows:
            with temporary_collection(row, images) as (temporary, name):
                ranking = replace(rank_all(temporary, name, progress=_progress), name=row.name)
            rankings.append((row.kind, ranking))
    rankings.sort(key=lambda each: _KINDS.index(each[0]))
    groups: dict[str, frozenset[str] | None] = {"everybody": None}
    if images.lfw is not None:
        groups["held out"] = held_out_people(images, seed=options.seed)
    records = [
        {"name": ranking.name, "kind": kind, "people": group, **ranking.metrics(people).to_json()}
        for kind, ranking in rankings
        for group, people in groups.items()
        if people is None or ranking.queries_of(people)
    ]
    failed = _print_failures(table.failures) or missing
    _print_records(records, as_json=options.as_json, table=retrieval_table)
    ctx.exit(_exit_code(records, failed=failed))


@evaluate.command(epilog="Example: lookalike evaluate verification --model faces --roc roc.png")
@_options(
    click.option("--pairs", metavar="FILE", type=LocalPath(),
                 help="Pairs in the layout of LFW's pairs.txt, for your own --data."),
    click.option("--roc", "roc_file", metavar="FILE.png", type=LocalPath(),
                 callback=image_file, help="Plot the ROC of every row, on the held folds."),
    *_COMPARISON_OPTIONS,
)  # fmt: skip
@click.pass_context
def verification(ctx: click.Context, /, pairs: Path | None, roc_file: Path | None, **values: Any) -> None:
    """Decide whether two images show one person: ten folds of pairs, the threshold from the other folds.

    For lfw they are those of View 2; for a folder they are drawn, no person in two folds. "held" are folds 1
    to 5 alone, on whose people no shipped model was trained: trust these.
    """
    from lookalike.deploy.evaluation import evaluate_pairs, plot_roc, verification_table

    options = _Comparison(**values)
    with ExitStack() as stack:
        store = _open_store(options, stack)
        images = _open_images(options, store)
        folds = _folds(options, images, pairs)
        table, missing = _collect(options, images, store)
    folds = folds.within(table.usable)
    table.require(folds.needed(len(images)), images)
    held = [evaluate_pairs(row.rows, folds.held_out) for row in table.rows]
    records = [
        {
            "name": row.name,
            "kind": row.kind,
            "held": metrics.to_json(),
            "all": evaluate_pairs(row.rows, folds.all)[0].to_json(),
        }
        for row, (metrics, _) in zip(table.rows, held, strict=True)
    ]
    failed = _print_failures(table.failures) or missing
    if records and roc_file is not None:
        curves = [(row.name, False, curve) for row, (_, curve) in zip(table.rows, held, strict=True)]
        title = f"One person or two? Held-out pairs of {images.name}"
        failed |= not _write_plot(roc_file, lambda: plot_roc(roc_file, curves, title=title))
    _print_records(records, as_json=options.as_json, table=verification_table)
    if records and not options.as_json:
        click.echo(_HELD_OUT_NOTE, err=True)
    ctx.exit(_exit_code(records, failed=failed))


@evaluate.command(
    epilog="Example: lookalike evaluate denoising --data lfw-64 --pictures 20 --sheet denoised.png"
)
@_options(
    click.option("--model", "models", multiple=True, metavar="BUNDLE",
                 help="A denoiser, or an autoencoder trained to denoise; default: denoise. Repeatable."),
    click.option("--data", "sets", multiple=True, default=("lfw-64",), show_default=True,
                 type=click.Choice((*_TEST_SETS, "all")),
                 help="lfw-64, lfw-250: faces of held-out people at 64x64, or whole. mnist: test digits. "
                 "skimage: its photographs. Of LOOKALIKE_DATA: cbsd68, polyu with real camera noise (both "
                 "for research only); photographs: every fifth in photos/. all: those found. Repeatable."),
    click.option("--sigma", "sigmas", multiple=True, type=click.FloatRange(0, 255, min_open=True),
                 help="Standard deviation of white noise, of 255; default: 25 and 50, for cbsd68 also 15, "
                 "for mnist 127.5. polyu has its own noise. Repeatable."),
    click.option("--photons", multiple=True, type=click.FloatRange(1, 1e6),
                 help="Camera noise: photons of a white pixel, on a mosaic of colors, then JPEG 90. "
                 "Repeatable."),
    click.option("--pictures", "count", type=click.IntRange(min=1), metavar="N",
                 help="Most images of each set; lfw-64 has 200, lfw-250 50, mnist 1,000."),
    click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True,
                 help="Of the models."),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the noise."),
    click.option("--sheet", metavar="FILE.png", type=LocalPath(), callback=image_file,
                 help="Write a contact sheet of clean, noisy and denoised images of the first set."),
    click.option("--json", "as_json", is_flag=True, help="Print a list of JSON objects."),
    _provider,
)  # fmt: skip
@click.pass_context
def denoising(
    ctx: click.Context, /, models: tuple[str, ...], sets: tuple[str, ...], sigmas: tuple[float, ...],
    photons: tuple[float, ...], count: int | None, threads: int, seed: int, sheet: Path | None, as_json: bool,
    provider: Provider,
) -> None:  # fmt: skip
    """Measure how much noise denoisers remove, how fast, and what they do to images without noise.

    All get the same arrays of 8 bits. A denoiser is blind, as `lookalike denoise` is, and for white noise
    also told the true sigma. "unchanged" and "left as they are" are shares of the images.
    """
    from lookalike.deploy.evaluation import (
        DenoisingModel,
        denoising_lines,
        denoising_sheet,
        evaluate_denoisers,
        open_test_sets,
        require_skimage,
    )
    from lookalike.encoder.images import save_image

    require_skimage()
    opened = [
        DenoisingModel.open(name, threads=threads, provider=provider) for name in models or ("denoise",)
    ]
    found, missing = open_test_sets(sets, count)
    keep = 0 if sheet is None else _KEPT
    report = evaluate_denoisers(
        opened, found, sigmas=sigmas, photons=photons, seed=seed, keep=keep, progress=_progress
    )
    left_out = [*missing, *report.left_out]
    for reason in left_out:
        click.echo(reason, err=True)
    if sheet is not None:
        save_image(sheet, denoising_sheet(report.noisy[0]))
        _print_written(sheet)
    results = report.results
    click.echo(json.dumps([result.to_json() for result in results]) if as_json else denoising_lines(results))
    ctx.exit(3 if left_out else 0)


def _split_parts(_ctx: click.Context, _option: click.Parameter, text: str | None) -> tuple[str, ...]:
    parts = _PARTS if text is None else tuple(part.strip() for part in text.split(","))
    unknown = [part for part in parts if part not in _PARTS]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(_PARTS)}; join several with commas")
    return parts


@evaluate.command(
    epilog="Example: lookalike evaluate generation --model digits --only likelihood --images 500"
)
@_options(
    click.option("--model", "models", multiple=True, metavar="BUNDLE", required=True,
                 help="Bundle folder or shipped model of digits. Repeatable."),
    click.option("--only", "parts", metavar="PART,...", callback=_split_parts,
                 help=f"Some of {', '.join(_PARTS)}; default: all."),
    click.option("--images", type=click.IntRange(min=1), default=10_000, show_default=True,
                 help="Test digits whose likelihood is measured, chosen at random when fewer than all."),
    click.option("--samples", type=click.IntRange(min=1), default=5_000, show_default=True,
                 help="Of each digit, for its likelihood."),
    click.option("--drawn", type=click.IntRange(min=50), default=10_000, show_default=True,
                 help="Images generated by each sampler for the classifier."),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True,
                 help="Of all random choices."),
    click.option("--json", "as_json", is_flag=True, help="Print a JSON object."),
    _provider,
)  # fmt: skip
@click.pass_context
def generation(
    ctx: click.Context, /, models: tuple[str, ...], parts: tuple[Part, ...], images: int, samples: int,
    drawn: int, seed: int, as_json: bool, provider: Provider,
) -> None:  # fmt: skip
    """Measure generative models of digits.

    Likelihood: nats of binary test digits by two protocols. Accuracy and diversity: how often a classifier
    predicts the requested digit, and how much digits of a class differ. Distance: how close generated digits
    are to real ones. Neighbours: how often the nearest neighbors of a latent have the right class. The
    classifier is trained once (some 15 minutes, with the [train] extra) and cached; it saw real digits only.
    5,000 samples of 10,000 digits take hours by each protocol; --images 1000 takes a tenth.
    """
    from lookalike.deploy.evaluation import (
        GenerationBenchmark,
        GenerationPlan,
        MnistData,
        digit_classifier,
        evaluate_generation,
        generation_lines,
    )
    from lookalike.encoder.runtime import Model

    plan = GenerationPlan(parts=parts, images=images, samples=samples, drawn=drawn, seed=seed)
    opened = [Model.open(name, provider=provider) for name in models]
    digits = MnistData.load(progress=True)
    for model in opened:
        digits.require(model)
    classifier = None
    if plan.needs_classifier:
        classifier = digit_classifier(digits, provider, log=lambda line: click.echo(line, err=True))
    benchmark = GenerationBenchmark.prepare(plan, digits, classifier)
    results = [evaluate_generation(model, benchmark, progress=_progress) for model in opened]
    remarks = [remark for result in results for remark in result.remarks]
    for remark in remarks:
        click.echo(remark, err=True)
    if as_json:
        click.echo(json.dumps(benchmark.to_json() | {"models": [result.to_json() for result in results]}))
    else:
        click.echo(generation_lines(benchmark, results))
    ctx.exit(3 if remarks else 0)


@evaluate.command(epilog="Example: lookalike evaluate attributes --faces 50 --curve smiles.png")
@_options(
    click.option("--model", default="faces", show_default=True, help="Bundle folder or shipped model."),
    click.option("--only", metavar="NAME,...", help="These attributes; default: all that LFW scores."),
    click.option("--strength", "strengths", multiple=True, type=click.FloatRange(0, 100, min_open=True),
                 default=(1.0, 2.0, 3.0, 4.0, 5.0), show_default=True,
                 help="In standard deviations; each is added, and removed. Repeatable."),
    click.option("--faces", type=click.IntRange(min=1), default=200, show_default=True,
                 help="Most faces that each attribute is added to, that it is removed from, and queries."),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True,
                 help="Chooses the faces."),
    click.option("--curve", metavar="FILE.png", type=LocalPath(), callback=image_file,
                 help="Plot what an edit gains and costs over its strength."),
    click.option("--json", "as_json", is_flag=True, help="Print a JSON object."),
    _provider,
)  # fmt: skip
@click.pass_context
def attributes(
    ctx: click.Context, /, model: str, only: str | None, strengths: tuple[float, ...], faces: int, seed: int,
    curve: Path | None, as_json: bool, provider: Provider,
) -> None:  # fmt: skip
    """Measure edits: does a smile appear, and is it still the same face? On held-out people of LFW.

    Whether an edit shows is decided by a classifier that shares nothing with the model: a discriminant on the
    pixels of the other people, reported with its own AUC. An edited face should still find its own original
    first among all images of LFW, and no other attribute should move.
    """
    from lookalike.deploy.evaluation import (
        attribute_lines,
        evaluate_attributes,
        plot_trade_off,
        read_scored_images,
    )
    from lookalike.encoder.runtime import Model

    opened = Model.open(model, provider=provider)
    names = tuple(part.strip() for part in only.split(",")) if only is not None else ()
    scored = read_scored_images("lfw", None).only(names)
    report = evaluate_attributes(
        opened, scored, strengths=strengths, faces=faces, seed=seed, progress=_progress
    )
    failed = _print_failures(report.failures)
    if curve is not None:
        failed |= not _write_plot(curve, lambda: plot_trade_off(curve, _trade_off(report)))
    click.echo(json.dumps(report.to_json()) if as_json else attribute_lines(report))
    ctx.exit(3 if failed else 0)


def _trade_off(report: AttributeReport) -> list[tuple[str, list[tuple[float, float, float]]]]:
    """Return a line of (strength, success, kept) for each attribute added and removed."""
    lines = []
    for result in report.each:
        for sign, verb in ((1, "added"), (-1, "removed")):
            edits = [edit for edit in result.edits if sign * edit.strength > 0]
            points = sorted((abs(edit.strength), edit.success, edit.kept) for edit in edits)
            if points:
                lines.append((f"{result.name} {verb}", points))
    return lines


def _open_store(options: _Comparison, stack: ExitStack) -> VectorStore | None:
    from lookalike.indexer.open import open_store

    return stack.enter_context(open_store(options.store)) if options.collections else None


def _open_images(options: _Comparison, store: VectorStore | None) -> LabeledImages:
    """Return the images of --data, else of the first collection, else lfw."""
    from lookalike.deploy.evaluation import collection_images, lfw_behind, open_labeled
    from lookalike.encoder.errors import DataError

    if options.data is not None or store is None:
        return open_labeled(options.data or "lfw", progress=True)
    try:
        lfw = lfw_behind(store, options.collections[0])
    except DataError as error:
        click.echo(f"rows of held-out people are left out: {error}", err=True)
        lfw = None
    return lfw or collection_images(store, options.collections[0])


def _folds(options: _Comparison, images: LabeledImages, pairs: Path | None) -> Folds:
    from lookalike.deploy.evaluation import lfw_folds, read_folds, sample_folds

    if pairs is not None:
        return read_folds(pairs, images)
    return lfw_folds(images) if images.lfw is not None else sample_folds(images, seed=options.seed)


def _collect(
    options: _Comparison, images: LabeledImages, store: VectorStore | None
) -> tuple[EvaluationTable, bool]:
    """Return the rows, and whether files of vectors were left out for want of pyarrow.

    Models, then collections where a store is given, then files.
    """
    from lookalike.deploy.evaluation import (
        EvaluationTable,
        embed_images,
        read_parquet_vectors,
        stored_vectors,
    )
    from lookalike.encoder.errors import MissingExtraError
    from lookalike.encoder.images import Crop
    from lookalike.encoder.runtime import Model

    names = options.models or (() if options.collections or options.vectors else ("faces",))
    crop = None if options.crop is None else Crop.parse(options.crop)
    models = [Model.open(name, provider=options.provider) for name in names]
    rows = [embed_images(model, images, crop=crop, progress=_progress) for model in models]
    if store is not None:
        rows += [stored_vectors(store, name, images) for name in options.collections]
    missing = False
    for file in options.vectors:
        try:
            rows.append(read_parquet_vectors(file, images))
        except MissingExtraError as error:
            click.echo(str(error), err=True)
            missing = True
    return EvaluationTable.from_rows(rows, len(images)), missing


@contextmanager
def _progress(task: str, total: int) -> Iterator[Callable[[int], object]]:
    from tqdm import tqdm

    with tqdm(desc=task, total=total, unit="image", disable=None, leave=False) as bar:
        yield bar.update


def _print_failures(failures: Sequence[str]) -> bool:
    """Print why images could not be read, and return whether there are any."""
    for failure in failures[:_MAX_FAILURES]:
        click.echo(f"failed: {failure}", err=True)
    if len(failures) > _MAX_FAILURES:
        click.echo(f"failed: {len(failures) - _MAX_FAILURES} more images", err=True)
    return bool(failures)


def _write_plot(file: Path, plot: Callable[[], None]) -> bool:
    """Write a plot, and return whether the extra that it needs is installed."""
    from lookalike.encoder.errors import MissingExtraError

    try:
        plot()
    except MissingExtraError as error:
        click.echo(str(error), err=True)
        return False
    _print_written(file)
    return True


def _print_written(file: Path) -> None:
    from lookalike.encoder.errors import printable

    click.echo(f"written: {printable(str(file))}", err=True)


def _print_records(records: list[dict[str, Any]], *, as_json: bool, table: Callable[..., str]) -> None:
    if as_json:
        click.echo(json.dumps(records))
    elif records:
        click.echo(table(records))


def _exit_code(records: list[dict[str, Any]], *, failed: bool) -> int:
    """Return 0 where all is good, 3 where some images or rows failed, 1 where there is no row."""
    return 1 if not records else 3 if failed else 0
