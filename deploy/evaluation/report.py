"""Results as tables, contact sheets and plots."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lookalike.deploy.evaluation.attributes import (
    AttributeReport,
    AttributeResult,
    AttributeSearchResult,
    EditResult,
)
from lookalike.deploy.evaluation.denoising import CleanResult, DenoisingResult
from lookalike.deploy.evaluation.generation import Generation, GenerationBenchmark
from lookalike.deploy.evaluation.retrieval import KnnResult
from lookalike.deploy.evaluation.searches import GroupFigures, SearchReliability, SmallQueries
from lookalike.deploy.evaluation.verification import FAR, Roc
from lookalike.encoder.errors import MissingExtraError
from lookalike.encoder.images import Tile, contact_sheet, save_image
from lookalike.encoder.metrics import psnr

Records = Sequence[Mapping[str, Any]]

_LOWEST_FAR: Final = 1e-3  # below it LFW has too few pairs
_COLORS: Final = ("#1a68d6", "#c8412b", "#1b8a5a", "#8a4fbf", "#b8860b", "#0f8b9d")
_GRAYS: Final = ("#b4b8be", "#8b9097", "#5f646b")
_DASHES: Final = ((0, (1, 1.5)), (0, (4, 2)), (0, (7, 2)))


def retrieval_table(records: Records) -> str:
    """Return a table of :meth:`Retrieval.to_json` records with name and people."""
    width = max(4, *(len(row["name"]) for row in records))
    head = f"{'queries':>8} {'others':>8} {'Recall@1':>9} {'Recall@5':>9} {'mAP':>7}"
    lines = [f"{'row':<{width}}  {'people':<10} {head}"]
    lines += [
        f"{row['name']:<{width}}  {row['people']:<10} {row['queries']:>8} {row['others']:>8} "
        f"{row['recall_at_1']:>9.3f} {row['recall_at_5']:>9.3f} {row['mean_average_precision']:>7.3f}"
        for row in records
    ]
    return "\n".join(lines)


def reliability_table(measured: Mapping[str, Sequence[SearchReliability]]) -> str:
    """Return a table of how right probabilities are, for each model: galleries, the person there or not."""
    width = max(4, *map(len, measured))
    lines = [
        f"{'row':<{width}} {'searched':>8}  {'person':<9}  {'prior':>5} {'searches':>8}  "
        f"{'error: first, all':>17} {'worst bin':>9}  {'match: precision, recall':>24}"
    ]
    for name, rows in measured.items():
        lines += [
            f"{name:<{width}} {row.size:>8}  {row.person:<9}  {row.prior:>5.2f} {row.searches:>8}  "
            f"{row.first_error:>9.3f} {row.hit_error:>7.3f} {_share(row.worst):>9}  "
            f"{_share(row.precision):>16} {_share(row.recall):>7}"
            for row in rows
        ]
    return "\n".join(lines)


def group_table(name: str, measured: Sequence[GroupFigures], threshold: float) -> str:
    """Return a table of groups of images as a model finds them."""
    width = max(5, *(len(row.group) for row in measured))
    lines = [
        f"{name}, matches above {threshold:.3f}",
        f"{'group':<{width}} {'images':>8} {'queries':>8} {'Recall@1':>9}  false matches: within, with all",
    ]
    lines += [
        f"{row.group:<{width}} {row.images:>8} {row.queries:>8} {_share(row.recall_at_1):>9}  "
        f"{row.within:>21.3%} {row.with_all:>9.3%}"
        for row in measured
    ]
    return "\n".join(lines)


def small_query_table(name: str, measured: Sequence[SmallQueries]) -> str:
    """Return a table of recall by the pixels of the queries."""
    lines = [f"{name}: {'pixels':>7} {'queries':>8} {'Recall@1':>9}"]
    lines += [
        f"{'':<{len(name) + 1}} {f'{row.side}x{row.side}':>7} {row.queries:>8} {row.recall_at_1:>9.3f}"
        for row in measured
    ]
    return "\n".join(lines)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def verification_table(records: Records) -> str:
    """Return a table of records with name, held and all, each a :meth:`Verification.to_json` record."""
    width = max(4, *(len(row["name"]) for row in records))
    over = (f"{part}: {records[0][part]['folds']} folds" for part in ("held", "all"))
    columns = f"{'accuracy':>15} {'AUC':>6} {'TAR@1%':>7}"
    lines = [
        f"{'':<{width}}  " + "  ".join(f"{text:>30}" for text in over),
        f"{'row':<{width}}  {columns}  {columns}",
    ]
    lines += [
        f"{row['name']:<{width}}  " + "  ".join(_verification_cells(row[part]) for part in ("held", "all"))
        for row in records
    ]
    return "\n".join(lines)


def _verification_cells(part: Mapping[str, Any]) -> str:
    accuracy = f"{part['accuracy']:.3f} ± {part['standard_error']:.3f}"
    return f"{accuracy:>15} {part['auc']:>6.3f} {part['tar_at_far_1_percent']:>7.3f}"


def attribute_lines(report: AttributeReport) -> str:
    """Return a block of lines for each attribute."""
    blocks = [_attribute_block(result, report.pictures) for result in report.each]
    blocks.append([f"an edit and its opposite give back the latent within {report.undone:.1e}"])
    return "\n\n".join("\n".join(block) for block in blocks)


def _attribute_block(result: AttributeResult, images: int) -> list[str]:
    lines = [
        f"{result.name}: read with AUC {result.auc:.3f} on {result.tested:,} held-out images; the "
        f"independent classifier has AUC {result.judge_auc:.3f} and is right on {result.judge_accuracy:.1%}",
        f"{'edit':>6} {'faces':>6} {'classifier':>14} {'finds its original':>19}  others move at most "
        "(classifier; model)",
    ]
    lines += map(_edit_line, result.edits)
    head = f"{'search':>6} {'queries':>7} {'hits with it':>13} {'of labeled hits':>17} {'cosine':>9}"
    lines += [f"{head} {'same person':>12}", *map(_search_line, result.searches)]
    return [
        *lines,
        f"hits: the ten most similar of {images:,} without the query; cosine: to the unedited query",
    ]


def _edit_line(edit: EditResult) -> str:
    moved = "-"
    if edit.others:
        judged = max(edit.others, key=lambda name: abs(edit.others[name].judged))
        read = max(edit.others, key=lambda name: abs(edit.others[name].read))
        moved = f"{judged} {edit.others[judged].judged:+.2f} sd; {read} {edit.others[read].read:+.2f} sd"
    return f"{edit.strength:>+6g} {edit.faces:>6,} {edit.success:>14.1%} {edit.kept:>19.1%}  {moved}"


def _search_line(row: AttributeSearchResult) -> str:
    labeled = "-" if row.labelled is None else f"{row.labelled:.1%}"
    strength = f"{row.strength:+g}" if row.strength else "plain"
    return (
        f"{strength:>6} {row.queries:>7,} {row.share:>13.1%} {labeled:>17} {row.likeness:>9.3f} "
        f"{row.same_person:>12.1%}"
    )


def denoising_lines(results: Sequence[DenoisingResult | CleanResult]) -> str:
    """Return a table for each set of images and noise, and for each set without noise."""
    blocks = [
        _clean_block(each) if isinstance(each, CleanResult) else _denoising_block(each) for each in results
    ]
    return "\n\n".join("\n".join(block) for block in blocks)


def _denoising_block(result: DenoisingResult) -> list[str]:
    width = max(len(row.name) for row in result.rows)
    lines = [
        f"{_title(result)}: PSNR in dB, to the clean images",
        f"{'row':<{width}}  {'median':>6} {'mean':>6} {'worst gain':>10} {'SSIM':>6} {'unchanged':>9} "
        f"{'images/s':>8}  told",
    ]
    for row in result.rows:
        gain, unchanged = f"{row.worst_gain:+.2f}", f"{row.unchanged:.0%}"
        if row is result.rows[0]:  # the input
            gain = unchanged = "-"
        speed = "-" if row.speed is None else f"{row.speed:.3g}"
        lines.append(
            f"{row.name:<{width}}  {row.psnr:>6.2f} {row.mean_psnr:>6.2f} {gain:>10} {row.ssim:>6.3f} "
            f"{unchanged:>9} {speed:>8}  {row.told}"
        )
    return lines


def _title(result: DenoisingResult) -> str:
    many = "image" if len(result.images) == 1 else "images"
    return f"{result.images.name}, {result.input.noise}, {len(result.images)} {many}"


def _clean_block(result: CleanResult) -> list[str]:
    width = max(len(row.name) for row in result.rows)
    many = "image" if len(result.images) == 1 else "images"
    lines = [
        f"{result.images.name}, no noise, {len(result.images)} {many}: PSNR in dB, to the input",
        f"{'row':<{width}}  {'input':<9}  {'median':>9} {'5 % below':>9} {'lowest':>9}  left as they are",
    ]
    for row in result.rows:
        median, low, lowest = (
            f"{value:.2f}" if np.isfinite(value) else "unchanged"
            for value in (row.median, row.low, row.lowest)
        )
        lines.append(
            f"{row.name:<{width}}  {row.input:<9}  {median:>9} {low:>9} {lowest:>9}  {row.left:>15.0%}"
        )
    return lines


def denoising_sheet(result: DenoisingResult, *, side: int = 96) -> NDArray[np.uint8]:
    """Return a contact sheet of clean and noisy images and each method's output, uint8 (H, W, 3).

    As many columns as outputs were kept; under each image its PSNR in dB.
    """
    clean = result.input.clean[: len(result.rows[0].output)]
    rows = [[Tile(pixels=image) for image in clean]]
    rows += [
        [
            Tile(pixels=made, subcaption=f"{psnr(made, image):.1f} dB")
            for made, image in zip(row.output, clean, strict=True)
        ]
        for row in result.rows
    ]
    labels = ["clean", *(row.name for row in result.rows)]
    return contact_sheet(rows, title=_title(result), row_labels=labels, side=side)


def generation_lines(benchmark: GenerationBenchmark, models: Sequence[Generation]) -> str:
    """Return a block of lines for each part."""
    blocks = [
        _likelihood_lines(models),
        _class_lines(benchmark, models),
        _distance_lines(benchmark, models),
        knn_lines([model.neighbours for model in models if model.neighbours is not None]),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _likelihood_lines(models: Sequence[Generation]) -> list[str]:
    rows = [(model.name, row) for model in models for row in model.likelihood]
    if not rows:
        return []
    width = _width(name for name, _ in rows)
    head = f"{'model':<{width}}  {'binary digits':<13} {'of':<10} {'images':>7} {'samples':>8}"
    lines = [f"{head} {'-ELBO, nats':>15} {'KL':>6} {'-log p at most':>15}"]
    lines += [
        f"{name:<{width}}  {row.protocol:<13} {row.measured:<10} {row.images:>7,} {row.samples:>8,} "
        f"{row.negative_elbo:>8.2f} ± {row.negative_elbo_error:<4.2f} {row.divergence:>6.2f} "
        f"{row.bound:>8.2f} ± {row.bound_error:<4.2f}"
        for name, row in rows
    ]
    return lines


def _class_lines(benchmark: GenerationBenchmark, models: Sequence[Generation]) -> list[str]:
    if benchmark.reference is None:
        return []
    width = _width(model.name for model in models)
    lines = [f"classifier: right on {benchmark.reference.accuracy.overall:.2%} of the test digits"]
    for model in models:
        start = f"{model.name:<{width}}  by {model.conditioned}:"
        if (found := model.accuracy) is not None:
            lines.append(
                f"{start} {found.overall:.2%} of {found.count:,} classified as requested, "
                f"worst {found.worst} {found.by_class[found.worst]:.2%}; {found.mistakes_line()}"
            )
        lines += [
            f"{start} diversity in {row.space} {row.mean:.2f} of the test digits', "
            f"lowest {row.lowest_class} {row.lowest:.2f}"
            for row in model.diversity
        ]
    return lines


def _distance_lines(benchmark: GenerationBenchmark, models: Sequence[Generation]) -> list[str]:
    rows = [(model.name, row) for model in models for row in model.distance]
    if not rows:
        return []
    rows += [("", benchmark.floor)] if benchmark.floor is not None else []
    width = _width(name for name, _ in rows)
    lines = [
        f"{'model':<{width}}  {'sampler':<15} {'images':>8} {'Fréchet':>8} {'precision':>9} {'recall':>7}"
    ]
    lines += [
        f"{name:<{width}}  {row.source:<15} {row.count:>8,} {row.frechet:>8.2f} {row.precision:>9.3f} "
        f"{row.recall:>7.3f}"
        for name, row in rows
    ]
    return lines


def knn_lines(rows: Sequence[KnnResult]) -> list[str]:
    """Return a table of how often nearest neighbors are right, without lines for no rows."""
    if not rows:
        return []
    width = _width(row.name for row in rows)
    head = f"{'vectors':<{width}}  {'dims':>7}  {'metric':<11} {'through':<7} {'stored':>7} {'queries':>7}"
    lines = [f"{head} {f'{rows[0].k}-NN accuracy':>16}"]
    lines += [
        f"{row.name:<{width}}  {row.numbers:>7}  {row.metric:<11} {row.through:<7} {row.stored:>7,} "
        f"{row.queries:>7,} {row.accuracy:>8.2%} ± {row.standard_error:.2%}"
        for row in rows
    ]
    return lines


def _width(names: Iterable[str]) -> int:
    return max(map(len, ("vectors", *names)))


def plot_roc(path: Path, curves: Sequence[tuple[str, bool, Roc]], *, title: str) -> None:
    """Plot curves (name, whether it is a baseline, points), with false acceptances on a log scale.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InvalidArgumentError: the file cannot be written, or its kind is unknown.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import FuncFormatter, PercentFormatter
    except ImportError as error:
        raise MissingExtraError("a ROC plot needs matplotlib; pip install 'lookalike[evaluate]'") from error
    figure = Figure(figsize=(8.4, 6.2), dpi=130, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    chance = np.geomspace(_LOWEST_FAR, 1, 200)
    axes.plot(chance, chance, color="#d5d8dc", linewidth=1, zorder=1)
    axes.axvline(FAR, color="#e3e5e8", linewidth=1, zorder=0)
    baselines = [name for name, baseline, _ in curves if baseline]
    models = [name for name, baseline, _ in curves if not baseline]
    for name, baseline, curve in sorted(curves, key=lambda each: -each[2].auc):
        escaped = name.replace("$", r"\$")  # a dollar would begin a formula
        label = f" {escaped}  ({curve.auc:.3f})"  # legends leave out what begins with _
        far = np.maximum(curve.far, _LOWEST_FAR / 10)
        style: dict[str, Any]
        if baseline:
            place = baselines.index(name) % len(_GRAYS)
            style = {"color": _GRAYS[place], "linestyle": _DASHES[place], "linewidth": 1.6}
        else:
            style = {"color": _COLORS[models.index(name) % len(_COLORS)], "linewidth": 2.4}
        axes.step(far, curve.tar, where="post", label=label, zorder=2 if baseline else 3, **style)
    axes.set(
        xscale="log",
        xlim=(_LOWEST_FAR, 1),
        ylim=(0, 1.005),
        xlabel="false acceptance rate: pairs of two people taken for one",
        ylabel="true acceptance rate: pairs of one person accepted",
    )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    _style(axes, title)
    axes.legend(title="area under the curve", loc="upper left", frameon=False, alignment="left")
    _save(path, FigureCanvasAgg(figure))


def plot_searches(path: Path, measured: Mapping[str, Sequence[SearchReliability]]) -> None:
    """Plot said against observed probability of first hits: a row for each model, a column for each size.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InvalidArgumentError: the file cannot be written, or its kind is unknown.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(
            "a reliability plot needs matplotlib; pip install 'lookalike[evaluate]'"
        ) from error
    sizes = sorted({row.size for rows in measured.values() for row in rows})
    figure = Figure(
        figsize=(3.9 * len(sizes), 4.1 * len(measured)), dpi=130, facecolor="white", layout="constrained"
    )
    for line, (name, rows) in enumerate(measured.items()):
        for column, size in enumerate(sizes):
            axes = figure.add_subplot(len(measured), len(sizes), line * len(sizes) + column + 1)
            axes.plot([0, 1], [0, 1], color="#d5d8dc", linewidth=1, zorder=1)
            for color, row in zip(_COLORS, (each for each in rows if each.size == size), strict=False):
                said, was = [each.said for each in row.bins], [each.was for each in row.bins]
                area = [12 + 260 * each.weight for each in row.bins]
                axes.plot(said, was, color=color, linewidth=1, alpha=0.5)
                axes.scatter(said, was, s=area, color=color, alpha=0.8, label=row.person)
            axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
            axes.set(xlabel="said", ylabel="observed share of right first hits")
            escaped = name.replace("$", r"\$")  # a dollar would begin a formula
            _style(axes, f"{escaped}: {size:,} searched")
            axes.legend(
                title="the person is",
                loc="lower right",
                bbox_to_anchor=(1, 0.05),
                frameon=False,
                markerscale=0.6,
            )
    _save(path, FigureCanvasAgg(figure))


def plot_trade_off(path: Path, lines: Sequence[tuple[str, Sequence[tuple[float, float, float]]]]) -> None:
    """Plot lines (name, points of strength, success and identity kept), both shares in [0, 1].

    Raises:
        MissingExtraError: matplotlib is not installed.
        InvalidArgumentError: the file cannot be written, or its kind is unknown.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import PercentFormatter
    except ImportError as error:
        raise MissingExtraError("a curve needs matplotlib; pip install 'lookalike[evaluate]'") from error
    figure = Figure(figsize=(10.4, 4.8), dpi=130, facecolor="white", layout="constrained")
    titles = "The classifier sees the change", "It finds its own original first"
    for column, (axes, title) in enumerate(zip(figure.subplots(1, 2, sharey=True), titles, strict=True), 1):
        for place, (name, points) in enumerate(lines):
            color, dash = _COLORS[place // 2 % len(_COLORS)], ("-", "--")[place % 2]  # added, removed
            strengths, shares = [point[0] for point in points], [point[column] for point in points]
            label = " " + name.replace("$", r"\$")
            axes.plot(strengths, shares, color=color, linestyle=dash, marker="o", linewidth=2.2, label=label)
        axes.set(ylim=(0, 1.02), xlabel="strength of the edit, standard deviations")
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        _style(axes, title)
        axes.legend(loc="lower right" if column == 1 else "lower left", frameon=False)
    _save(path, FigureCanvasAgg(figure))


def _style(axes: Any, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=12, pad=12)
    axes.grid(which="major", color="#eceef0", linewidth=0.8, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)


def _save(path: Path, canvas: Any) -> None:
    canvas.draw()
    save_image(path, np.asarray(canvas.buffer_rgba())[:, :, :3].copy())
