"""Print the README's tables, baselines and published values included: ``make figures``.

Without a command all tables are printed; ``python -m tests.benchmarks.figures faces --help`` and so on have
the options of each.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, get_args

import click
from tqdm import tqdm

from lookalike.deploy.cli.evaluate import image_file
from lookalike.deploy.evaluation import (
    DenoisingModel,
    DenoisingResult,
    Folds,
    GenerationBenchmark,
    GenerationPlan,
    InputNoise,
    LabeledImages,
    MnistData,
    Ranking,
    denoising_lines,
    denoising_sheet,
    digit_classifier,
    evaluate_denoising,
    evaluate_generation,
    evaluate_pairs,
    lfw_folds,
    open_labeled,
    open_test_sets,
    plot_roc,
    rank_all,
    retrieval_table,
    sample_folds,
    temporary_collection,
    verification_table,
)
from lookalike.deploy.evaluation.denoising.noisy_images import TestSetName
from lookalike.deploy.evaluation.verification import Roc
from lookalike.encoder.errors import MissingExtraError
from lookalike.encoder.images import Crop, save_image
from lookalike.encoder.runtime import Denoiser, Model
from lookalike.searcher.search import QueryDenoiser
from tests.benchmarks.build_table import build_table
from tests.benchmarks.classical_denoisers import BM3D, bm3d_methods, classical_methods
from tests.benchmarks.denoising_speed import compare_denoisers, speed_lines
from tests.benchmarks.failure_cases import FailureSheet
from tests.benchmarks.knn import baseline_knn
from tests.benchmarks.noisy_queries import noisy_recall, recall_lines
from tests.benchmarks.published import generation_markdown, published_denoising, published_lines

_SETS: Final = ("lfw-64", "lfw-250", "mnist", "skimage")
_KEPT: Final = 8
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_seed = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
_image: Final[dict[str, Any]] = {
    "metavar": "FILE.png",
    "type": click.Path(path_type=Path),
    "callback": image_file,
}


@click.group(invoke_without_command=True)
@click.pass_context
def main(ctx: click.Context) -> None:
    """Print the README's tables, or one of them."""
    if ctx.invoked_subcommand is None:
        for command in (faces, digits, denoising, queries):
            ctx.invoke(command)
            click.echo()


@main.command()
@click.option("--model", "models", multiple=True, default=("faces",), show_default=True)
@click.option("--data", default="lfw", show_default=True, metavar="lfw|FOLDER")
@click.option("--crop", help="How these images are framed, if not as known.")
@click.option("--roc", "roc_file", **_image, help="Plot the ROC of every row, on the held-out folds.")
@click.option("--failures", "failures_file", **_image, help="Show the worst mistakes of the first row.")
@_seed
@_json
def faces(
    models: tuple[str, ...],
    data: str,
    crop: str | None,
    roc_file: Path | None,
    failures_file: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Verification and retrieval of models, and of pixels, PCA and LBP+HOG."""
    images = open_labeled(data, progress=True)
    framing = None if crop is None else Crop.parse(crop)
    folds = lfw_folds(images) if images.lfw is not None else sample_folds(images, seed=seed)
    opened = [Model.open(name) for name in models]
    table = build_table(images, folds.held_out_people, models=opened, crop=framing, progress=_progress)
    for failure in table.failures:
        click.echo(f"failed: {failure}", err=True)
    folds = folds.within(table.usable)
    verified: list[dict[str, Any]] = []
    retrieved: list[dict[str, Any]] = []
    curves: list[tuple[str, bool, Roc]] = []
    for row in table.rows:
        metrics, curve = evaluate_pairs(row.rows, folds.held_out)
        curves.append((row.name, row.kind == "baseline", curve))
        every = evaluate_pairs(row.rows, folds.all)[0].to_json()
        verified.append({"name": row.name, "kind": row.kind, "held": metrics.to_json(), "all": every})
        with temporary_collection(row, images) as (store, name):
            ranking = replace(rank_all(store, name, progress=_progress), name=row.name)
        if failures_file is not None and not retrieved:
            _write_failures(failures_file, images, framing, row.rows, folds, ranking)
        for group, people in (("everybody", None), ("held out", folds.held_out_people)):
            record = {"name": row.name, "kind": row.kind, "people": group}
            retrieved.append(record | ranking.metrics(people).to_json())
    if roc_file is not None:
        plot_roc(roc_file, curves, title=f"One person or two? Held-out pairs of {images.name}")
    if as_json:
        click.echo(json.dumps({"verification": verified, "retrieval": retrieved}))
    else:
        click.echo(f"{verification_table(verified)}\n\n{retrieval_table(retrieved)}")


def _write_failures(
    file: Path, images: LabeledImages, crop: Crop | None, rows: Any, folds: Folds, ranking: Ranking
) -> None:
    """Write two contact sheets: FILE.png of queries, and FILE-pairs.png."""
    sheet = FailureSheet(images, crop=crop)
    queries = ranking.queries_of(folds.held_out_people) or ranking.queries_of()
    for target, pixels in (
        (file, sheet.queries(ranking.name, queries)),
        (file.with_stem(f"{file.stem}-pairs"), sheet.pairs(ranking.name, rows, folds.held_out)),
    ):
        if pixels is None:
            click.echo(f"{target} is not written: there is no mistake", err=True)
        else:
            save_image(target, pixels)


@main.command()
@click.option("--model", "models", multiple=True, default=("digits", "digits-vae"), show_default=True)
@click.option("--images", type=click.IntRange(min=1), default=1000, show_default=True)
@click.option("--samples", type=click.IntRange(min=1), default=5000, show_default=True)
@click.option("--drawn", type=click.IntRange(min=50), default=10_000, show_default=True)
@_seed
def digits(models: tuple[str, ...], images: int, samples: int, drawn: int, seed: int) -> None:
    """Generation of digits as a Markdown table, with k-NN of pixels and PCA, and published likelihoods."""
    plan = GenerationPlan(images=images, samples=samples, drawn=drawn, seed=seed)
    opened = [Model.open(name) for name in models]
    data = MnistData.load(progress=True)
    classifier = digit_classifier(data, "auto", log=lambda line: click.echo(line, err=True))
    benchmark = GenerationBenchmark.prepare(plan, data, classifier)
    results = [evaluate_generation(model, benchmark, progress=_progress) for model in opened]
    sizes = [model.bundle.spec.embedding for model in opened]
    baselines = baseline_knn(data, data.test, sizes, k=plan.neighbours, progress=_progress)
    click.echo(generation_markdown(benchmark, results, baselines))


@main.command()
@click.option("--model", "models", multiple=True, default=("denoise",), show_default=True)
@click.option(
    "--data",
    "sets",
    multiple=True,
    default=_SETS,
    show_default=True,
    type=click.Choice(get_args(TestSetName)),
)
@click.option("--sigma", "sigmas", multiple=True, type=click.FloatRange(0, 255, min_open=True))
@click.option("--photons", multiple=True, type=click.FloatRange(1, 1e6), help="Camera noise.")
@click.option("--pictures", "count", type=click.IntRange(min=1), metavar="N")
@click.option("--no-bm3d", is_flag=True, help="Leave BM3D out: it takes seconds to minutes an image.")
@click.option("--rounds", type=click.IntRange(min=0), default=3, show_default=True, help="Of the timing.")
@click.option("--sheet", **_image, help="A contact sheet of the first set.")
@_seed
@_json
def denoising(
    models: tuple[str, ...],
    sets: tuple[str, ...],
    sigmas: tuple[float, ...],
    photons: tuple[float, ...],
    count: int | None,
    no_bm3d: bool,
    rounds: int,
    sheet: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """PSNR, SSIM and speed of denoisers, BM3D, non-local means, total variation and wavelets.

    The classical rows get the true sigma, or where there is none an estimated one, and the settings that were
    best on other images; for digits the effect of clipping is undone after them, and after BM3D in a row of
    its own. BM3D is also told an estimated sigma, and of real noise the sigma that is best for the whole set.
    """
    opened = [DenoisingModel.open(name, threads=1, provider="auto") for name in models]
    found, _ = open_test_sets(sets, count)
    results: list[DenoisingResult] = []
    for images in found:
        ours = [method for model in opened for method in model.methods(images)[0]]
        for noise in images.noises(sigmas, photons):
            keep = _KEPT if sheet is not None and not results else 0
            result = evaluate_denoising(images, noise, ours, seed=seed, keep=keep, progress=_progress)
            bm3d = [] if no_bm3d else _bm3d(real=noise.kind == "real", known=noise.sigma is not None)
            methods = [*ours, *bm3d, *classical_methods(noise.sigma, digits=images.name == "mnist")]
            results.append(
                compare_denoisers(result, methods, rounds=rounds, seed=seed, keep=keep, progress=_progress)
            )
    if sheet is not None:
        save_image(sheet, denoising_sheet(results[0]))
    if as_json:
        click.echo(
            json.dumps([each.to_json() | {"published": published_denoising(each)} for each in results])
        )
    else:
        blocks = ([denoising_lines([each]), published_lines(each), speed_lines(each)] for each in results)
        click.echo("\n\n".join("\n".join(filter(None, lines)) for lines in blocks))


def _bm3d(*, real: bool, known: bool) -> list[BM3D]:
    try:
        return bm3d_methods(real=real, known=known)
    except MissingExtraError as error:
        click.echo(str(error), err=True)
        return []


@main.command()
@click.option("--model", default="faces", show_default=True)
@click.option("--denoiser", default="denoise", show_default=True)
@click.option("--sigma", "sigmas", multiple=True, default=(25.0, 50.0), show_default=True, type=float)
@click.option(
    "--photons", multiple=True, default=(80.0,), show_default=True, type=float, help="Camera noise."
)
@click.option(
    "--queries",
    "count",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="Most queries; 100000 takes all there are, in an hour or two.",
)
@_seed
@_json
def queries(
    model: str,
    denoiser: str,
    sigmas: tuple[float, ...],
    photons: tuple[float, ...],
    count: int,
    seed: int,
    as_json: bool,
) -> None:  # fmt: skip
    """Recall of noisy queries in LFW, as they are and denoised."""
    images = open_labeled("lfw", progress=True)
    recalls = noisy_recall(
        Model.open(model),
        images,
        lfw_folds(images).held_out_people,
        denoiser=QueryDenoiser(Denoiser.open(denoiser)),
        noises=[
            *(InputNoise("white", sigma / 255) for sigma in sigmas),
            *(InputNoise("camera", number) for number in photons),
        ],
        count=count,
        seed=seed,
        progress=_progress,
    )
    click.echo(json.dumps([recall.to_json() for recall in recalls]) if as_json else recall_lines(recalls))


@contextmanager
def _progress(task: str, total: int) -> Iterator[Callable[[int], object]]:
    with tqdm(desc=task, total=total, unit="image", disable=None, leave=False) as bar:
        yield bar.update


if __name__ == "__main__":
    main()
