"""``lookalike evaluate retrieval``, ``verification`` and ``clustering``: vectors of any origin."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from lookalike.deploy.cli.evaluate.group import (
    evaluate,
    image_file,
    print_failures,
    provider_option,
    show_progress,
    write_plot,
)
from lookalike.deploy.cli.options import LocalPath, combine, store_option
from lookalike.deploy.cli.output import warn

if TYPE_CHECKING:
    from lookalike.deploy.evaluation import (
        EvaluationTable,
        Folds,
        LabeledImages,
        Ranking,
        SearchReliability,
    )
    from lookalike.encoder.runtime import Provider
    from lookalike.indexer.store import VectorStore

_KINDS: Final = ("model", "collection", "vectors")
_HELD_OUT_NOTE: Final = (
    "trust the held columns: no shipped model was trained on these people, but on some of all"
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
    click.option("--faces", is_flag=True,
                 help="For models: find the face in each image and turn it upright; an image without one is "
                 "framed as it is without --faces."),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True,
                 help="Splits a folder's people and draws its pairs."),
    click.option("--json", "as_json", is_flag=True, help="Print a list of JSON objects."),
    provider_option,
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
    faces: bool
    seed: int
    as_json: bool
    provider: Provider

    @property
    def model_names(self) -> tuple[str, ...]:
        """The models that are measured: ``faces`` where nothing is named."""
        return self.models or (() if self.collections or self.vectors else ("faces",))


@evaluate.command(epilog="Example: lookalike evaluate retrieval --model faces --collection family")
@combine(
    click.option("--reliability", "reliability_file", metavar="FILE.png", type=LocalPath(),
                 callback=image_file,
                 help="Plot how right the probabilities of first hits are, for each calibrated model."),
    *_COMPARISON_OPTIONS,
)  # fmt: skip
@click.pass_context
def retrieval(ctx: click.Context, /, reliability_file: Path | None, **values: Any) -> None:
    """Search with every image of a person with two or more: is the person found first?

    The rows "held out" are people of lfw whom no shipped model was trained on: trust these. A collection is
    searched as it is, all else through a temporary store. Of calibrated models it is measured, too, how right
    the probabilities of the hits are.
    """
    from lookalike.deploy.evaluation import (
        held_out_people,
        plot_searches,
        rank_all,
        reliability_table,
        retrieval_table,
        temporary_collection,
    )

    comparison = _Comparison(**values)
    with ExitStack() as stack:
        store = _open_store(comparison, stack)
        images = _open_images(comparison, store)
        table, missing = _collect(comparison, images, None)
        table.require(table.usable, images)
        rankings: list[tuple[str, Ranking]] = [
            ("collection", rank_all(store, name, progress=show_progress))
            for name in comparison.collections
            if store is not None
        ]
        for row in table.rows:
            with temporary_collection(row, images) as (temporary, name):
                ranking = replace(rank_all(temporary, name, progress=show_progress), name=row.name)
            rankings.append((row.kind, ranking))
    rankings.sort(key=lambda each: _KINDS.index(each[0]))
    groups: dict[str, frozenset[str] | None] = {"everybody": None}
    if images.lfw is not None:
        groups["held out"] = held_out_people(images, seed=comparison.seed)
    records = [
        {
            "name": ranking.name,
            "kind": kind,
            "faces": comparison.faces and kind == "model",
            "people": group,
            **ranking.metrics(people).to_json(),
        }
        for kind, ranking in rankings
        for group, people in groups.items()
        if people is None or ranking.queries_of(people)
    ]
    failed = print_failures(table.failures) or missing
    measured = _measure_reliability(comparison, images, table)
    for name, rows in measured.items():
        last = [record for record in records if record["kind"] == "model" and record["name"] == name][-1:]
        for record in last:
            record["reliability"] = [row.to_json() for row in rows]
    _print_records(records, as_json=comparison.as_json, table=retrieval_table)
    if measured and not comparison.as_json:
        click.echo("\n" + reliability_table(measured))
    if measured and reliability_file is not None:
        failed |= not write_plot(reliability_file, lambda: plot_searches(reliability_file, measured))
    ctx.exit(_exit_code(records, failed=failed))


def _measure_reliability(
    comparison: _Comparison, images: LabeledImages, table: EvaluationTable
) -> dict[str, tuple[SearchReliability, ...]]:
    """Return how right probabilities of hits are, for each calibrated model; of lfw for held-out people."""
    import numpy as np

    from lookalike.deploy.evaluation import held_out_people, measure_searches
    from lookalike.encoder.bundle import Bundle
    from lookalike.encoder.errors import CalibrationError

    asking = None if images.lfw is None else held_out_people(images, seed=comparison.seed)
    measured = {}
    rows = [row for row in table.rows if row.kind == "model"]
    for row, name in zip(rows, comparison.model_names, strict=True):
        fitted = Bundle.open(name).calibration_of(faces=comparison.faces)
        if fitted is None or fitted.searches is None:
            continue
        present = np.flatnonzero(row.present)
        people = [images.people[place] for place in present]
        queries = np.array([asking is None or person in asking for person in people])
        try:
            measured[row.name] = measure_searches(
                fitted.searches, row.rows[present], people, queries=queries, seed=comparison.seed
            )
        except CalibrationError as error:
            warn(f"{row.name}: how right probabilities are was not measured: {error}")
    return measured


@evaluate.command(epilog="Example: lookalike evaluate verification --model faces --roc roc.png")
@combine(
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

    comparison = _Comparison(**values)
    with ExitStack() as stack:
        store = _open_store(comparison, stack)
        images = _open_images(comparison, store)
        folds = _folds(comparison, images, pairs)
        table, missing = _collect(comparison, images, store)
    folds = folds.within(table.usable)
    table.require(folds.needed(len(images)), images)
    held = [evaluate_pairs(row.rows, folds.held_out) for row in table.rows]
    records = [
        {
            "name": row.name,
            "kind": row.kind,
            "faces": row.without_face is not None,
            "held": metrics.to_json(),
            "all": evaluate_pairs(row.rows, folds.all)[0].to_json(),
        }
        for row, (metrics, _) in zip(table.rows, held, strict=True)
    ]
    failed = print_failures(table.failures) or missing
    if records and roc_file is not None:
        curves = [(row.name, False, curve) for row, (_, curve) in zip(table.rows, held, strict=True)]
        title = f"One person or two? Held-out pairs of {images.name}"
        failed |= not write_plot(roc_file, lambda: plot_roc(roc_file, curves, title=title))
    _print_records(records, as_json=comparison.as_json, table=verification_table)
    if records and not comparison.as_json:
        warn(_HELD_OUT_NOTE)
    ctx.exit(_exit_code(records, failed=failed))


@evaluate.command(epilog="Example: lookalike evaluate clustering --model faces")
@combine(
    click.option("--threshold", type=click.FloatRange(0, 1, min_open=True), metavar="X",
                 help="Similarity from which two images are near; default: as lookalike cluster has it."),
    *_COMPARISON_OPTIONS,
)  # fmt: skip
@click.pass_context
def clustering(ctx: click.Context, /, threshold: float | None, **values: Any) -> None:
    """Group images as lookalike cluster does: is each group one person, and each person one group?

    B-cubed precision and recall, and F1, their harmonic mean. The rows "held out" are people of lfw whom no
    shipped model was trained on, grouped among themselves: trust these.
    """
    from lookalike.deploy.evaluation import cluster_table, held_out_people, measure_clusters

    comparison = _Comparison(**values)
    with ExitStack() as stack:
        store = _open_store(comparison, stack)
        images = _open_images(comparison, store)
        table, missing = _collect(comparison, images, store)
        thresholds = _thresholds(comparison, store, threshold, len(table.rows))
    held = held_out_people(images, seed=comparison.seed)
    groups = {
        "everybody": [person is not None for person in images.people],
        "held out": [person in held for person in images.people],
    }
    records: list[dict[str, Any]] = []
    for row, near in zip(table.rows, thresholds, strict=True):
        for group, wanted in groups.items():
            chosen = [place for place, is_wanted in enumerate(wanted) if is_wanted and row.present[place]]
            people = [str(images.people[place]) for place in chosen]
            with show_progress(f"{row.name}: {group}", len(chosen)) as advance:
                found = measure_clusters(row.rows[chosen], people, near, on_progress=advance)
            records.append(
                {
                    "name": row.name,
                    "kind": row.kind,
                    "faces": row.without_face is not None,
                    "of": group,
                    **found.to_json(),
                }
            )
    failed = print_failures(table.failures) or missing
    _print_records(records, as_json=comparison.as_json, table=cluster_table)
    ctx.exit(_exit_code(records, failed=failed))


def _thresholds(
    comparison: _Comparison, store: VectorStore | None, given: float | None, rows: int
) -> list[float]:
    """Return the threshold of each row: models, collections, files of vectors."""
    from lookalike.encoder.bundle import Bundle
    from lookalike.searcher.clusters import DEFAULT_THRESHOLD, default_threshold

    if given is not None:
        return [given] * rows
    names = comparison.model_names
    found = [default_threshold(Bundle.open(name), faces=comparison.faces) for name in names]
    if store is not None:
        specs = [store.info(name) for name in comparison.collections]
        found += [default_threshold(Bundle.open(spec.model_name), faces=spec.has_faces) for spec in specs]
    found += [None] * (rows - len(found))
    return [DEFAULT_THRESHOLD if threshold is None else threshold for threshold in found]


def _open_store(comparison: _Comparison, stack: ExitStack) -> VectorStore | None:
    from lookalike.indexer.open import open_store

    return stack.enter_context(open_store(comparison.store)) if comparison.collections else None


def _open_images(comparison: _Comparison, store: VectorStore | None) -> LabeledImages:
    """Return the images of --data, else of the first collection, else lfw."""
    from lookalike.deploy.evaluation import collection_images, lfw_behind, open_labeled
    from lookalike.encoder.errors import DataError

    if comparison.data is not None or store is None:
        return open_labeled(comparison.data or "lfw", progress=True)
    try:
        lfw = lfw_behind(store, comparison.collections[0])
    except DataError as error:
        warn(f"rows of held-out people are left out: {error}")
        lfw = None
    return lfw or collection_images(store, comparison.collections[0])


def _folds(comparison: _Comparison, images: LabeledImages, pairs: Path | None) -> Folds:
    from lookalike.deploy.evaluation import lfw_folds, read_folds, sample_folds

    if pairs is not None:
        return read_folds(pairs, images)
    return lfw_folds(images) if images.lfw is not None else sample_folds(images, seed=comparison.seed)


def _collect(
    comparison: _Comparison, images: LabeledImages, store: VectorStore | None
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

    names = comparison.model_names
    if comparison.faces and not names:
        raise click.UsageError(
            "--faces is for models, collections and vectors are measured as they are; add --model, or leave "
            "it out"
        )
    crop = None if comparison.crop is None else Crop.parse(comparison.crop)
    models = [Model.open(name, provider=comparison.provider) for name in names]
    rows = [
        embed_images(model, images, crop=crop, faces=comparison.faces, progress=show_progress)
        for model in models
    ]
    for row in rows:
        if row.without_face:
            warn(
                f"{row.name}: no face was found in {row.without_face:,} of {len(images):,} images, these are "
                "framed as they are without --faces"
            )
    if store is not None:
        rows += [stored_vectors(store, name, images) for name in comparison.collections]
    missing = False
    for file in comparison.vectors:
        try:
            rows.append(read_parquet_vectors(file, images))
        except MissingExtraError as error:
            warn(str(error))
            missing = True
    return EvaluationTable.from_rows(rows, len(images)), missing


def _print_records(records: list[dict[str, Any]], *, as_json: bool, table: Callable[..., str]) -> None:
    if as_json:
        click.echo(json.dumps(records))
    elif records:
        click.echo(table(records))


def _exit_code(records: list[dict[str, Any]], *, failed: bool) -> int:
    """Return 0 where all is good, 3 where some images or rows failed, 1 where there is no row."""
    return 1 if not records else 3 if failed else 0
