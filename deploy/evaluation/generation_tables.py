"""Figures of generation as lines for people, and as a Markdown table with published figures beside them.

Published: Y. Burda, R. Grosse, R. Salakhutdinov: Importance Weighted Autoencoders. ICLR 2016, table 1: one
stochastic layer, -log p(x) by 5,000 samples on dynamically binarised MNIST.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from lookalike.deploy.evaluation.generation import Generation
from lookalike.deploy.evaluation.judging import Diversity
from lookalike.deploy.evaluation.nats import PROTOCOLS, LikelihoodResult
from lookalike.deploy.evaluation.yardstick import FidResult, GenerationBenchmark

__all__ = ["generation_lines", "generation_markdown"]

_PUBLISHED: Final = "VAE 86.76, IWAE of 50 samples 84.78 (Burda et al. 2016)"
_COMPARED: Final = ("dynamic", "log p(x)")
"""The protocol and the quantity of the published figures: nothing else stands beside them."""
_BINARY: Final = {
    "dynamic": "one Bernoulli draw of each grey value",
    "threshold": "on where the grey value is 128 or more",
}
_NONE: Final = "-"
Row = tuple[str, list[str], str]


def generation_lines(beside: GenerationBenchmark, models: Sequence[Generation]) -> str:
    """Return lines for people, a block for each part."""
    blocks = [
        _likelihood_lines(models),
        _judged_lines(beside, models),
        _distance_lines(beside, models),
        _neighbour_lines(beside, models),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def generation_markdown(beside: GenerationBenchmark, models: Sequence[Generation]) -> str:
    """Return a Markdown table: a row for each figure, a column for each model, then what stands beside it."""
    rows = [
        *_likelihood_rows(models),
        *_judged_rows(beside, models),
        *_distance_rows(beside, models),
        *_neighbour_rows(beside, models),
    ]
    head = [
        f"{beside.digits.name.upper()} test digits",
        *(f"`{model.name}`" for model in models),
        "beside it",
    ]
    lines = [_line(head), _line(["---"] * len(head))]
    lines += [_line([what, *figures, published]) for what, figures, published in rows]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


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
    estimates = [row for _, row in rows if row.few]
    if estimates:
        apart = max(row.estimate_error for row in estimates)
        some = estimates[0]
        lines.append(
            f"{some.samples:,} samples of {some.fully:,} images, {some.few:,} of all: "
            f"± {apart:.2f} beside {some.samples:,} of all"
        )
    return lines


def _judged_lines(beside: GenerationBenchmark, models: Sequence[Generation]) -> list[str]:
    if beside.jury is None:
        return []
    width = _width(model.name for model in models)
    lines = [f"judge: right on {beside.jury.accuracy.overall:.2%} of the test digits"]
    for model in models:
        start = f"{model.name:<{width}}  by {model.conditioned}:"
        if (found := model.accuracy) is not None:
            lines.append(
                f"{start} {found.overall:.2%} of {found.count:,} seen as asked, "
                f"worst {found.worst} {found.by_class[found.worst]:.2%}; {found.confusion_line()}"
            )
        lines += [
            f"{start} diversity in {row.space} {row.mean:.2f} of the test digits', "
            f"least {row.lowest_class} {row.lowest:.2f}"
            for row in model.diversity
        ]
    return lines


def _distance_lines(beside: GenerationBenchmark, models: Sequence[Generation]) -> list[str]:
    rows = [(model.name, row) for model in models for row in model.distance]
    if not rows:
        return []
    rows += [("", beside.floor)] if beside.floor is not None else []
    width = _width(name for name, _ in rows)
    lines = [
        f"{'model':<{width}}  {'drawn by':<15} {'pictures':>8} {'Fréchet':>8} {'precision':>9} {'recall':>7}"
    ]
    lines += [
        f"{name:<{width}}  {row.source:<15} {row.count:>8,} {row.frechet:>8.2f} {row.precision:>9.3f} "
        f"{row.recall:>7.3f}"
        for name, row in rows
    ]
    return lines


def _neighbour_lines(beside: GenerationBenchmark, models: Sequence[Generation]) -> list[str]:
    rows = [model.neighbours for model in models if model.neighbours is not None]
    if not rows:
        return []
    rows += beside.baselines
    width = _width(row.name for row in rows)
    head = (
        f"{'vectors':<{width}}  {'numbers':>7}  {'compared by':<11} {'through':<7} {'stored':>7} {'asked':>7}"
    )
    lines = [f"{head} {f'{rows[0].k}-NN accuracy':>16}"]
    lines += [
        f"{row.name:<{width}}  {row.numbers:>7}  {row.metric:<11} {row.through:<7} {row.stored:>7,} "
        f"{row.queries:>7,} {row.accuracy:>8.2%} ± {row.standard_error:.2%}"
        for row in rows
    ]
    return lines


def _likelihood_rows(models: Sequence[Generation]) -> list[Row]:
    rows: list[Row] = []
    for protocol in PROTOCOLS:
        for measured in ("log p(x)", "log p(x|y)"):
            found = [_of(model, protocol, measured) for model in models]
            some = next((row for row in found if row is not None), None)
            if some is None:
                continue
            said = f"nats of {some.images:,} digits, {protocol} ({_BINARY[protocol]})"
            published = _PUBLISHED if (protocol, measured) == _COMPARED else _NONE
            bound = f"-{measured} at most, by {_samples(some)}; {said}"
            rows.append((bound, [_nats(row, "bound") for row in found], published))
            rows.append((f"-ELBO of {measured}; {said}", [_nats(row, "elbo") for row in found], _NONE))
    return rows


def _samples(row: LikelihoodResult) -> str:
    if not row.few:
        return f"{row.samples:,} samples"
    return f"{row.samples:,} samples (of {row.fully:,}, and {row.few:,} of all: ± {row.estimate_error:.2f})"


def _of(model: Generation, protocol: str, measured: str) -> LikelihoodResult | None:
    rows = (row for row in model.likelihood if (row.protocol, row.measured) == (protocol, measured))
    return next(rows, None)


def _nats(row: LikelihoodResult | None, which: str) -> str:
    if row is None:
        return _NONE
    value, error = (
        (row.bound, row.bound_error) if which == "bound" else (row.negative_elbo, row.negative_elbo_error)
    )
    return f"{value:.2f} ± {error:.2f}"


def _judged_rows(beside: GenerationBenchmark, models: Sequence[Generation]) -> list[Row]:
    if beside.jury is None:
        return []
    rows: list[Row] = []
    count = next((model.accuracy.count for model in models if model.accuracy is not None), 0)
    if count:
        right = [
            _NONE
            if (found := model.accuracy) is None
            else f"{found.overall:.2%}, worst {found.by_class[found.worst]:.2%} ({found.worst})"
            for model in models
        ]
        known = f"the test digits themselves: {beside.jury.accuracy.overall:.2%}"
        rows.append((f"{count:,} drawn by class, seen so by a classifier", right, known))
    for space in ("features", "pixels"):
        apart = [next((row for row in model.diversity if row.space == space), None) for model in models]
        if any(apart):
            what = (
                f"distance of two drawn digits of a class, over that of two test digits, in {_space(space)}"
            )
            rows.append((what, [_diversity(row) for row in apart], "1"))
    return rows


def _space(space: str) -> str:
    return "the classifier's features" if space == "features" else space


def _diversity(row: Diversity | None) -> str:
    return _NONE if row is None else f"{row.mean:.2f}, least {row.lowest:.2f} ({row.lowest_class})"


def _distance_rows(beside: GenerationBenchmark, models: Sequence[Generation]) -> list[Row]:
    rows: list[Row] = []
    samplers = dict.fromkeys(row.source for model in models for row in model.distance)
    for sampler in samplers:
        found = [next((row for row in model.distance if row.source == sampler), None) for model in models]
        count = next(row.count for row in found if row is not None)
        what = f"Fréchet distance; precision, recall: {count:,} drawn by `{sampler}`"
        known = _NONE if beside.floor is None else f"training digits: {_closeness(beside.floor)}"
        rows.append((what, [_closeness(row) for row in found], known))
    return rows


def _closeness(row: FidResult | None) -> str:
    return _NONE if row is None else f"{row.frechet:.2f}; {row.precision:.3f}, {row.recall:.3f}"


def _neighbour_rows(beside: GenerationBenchmark, models: Sequence[Generation]) -> list[Row]:
    found = [model.neighbours for model in models]
    some = next((row for row in found if row is not None), None)
    if some is None:
        return []
    best: dict[str, tuple[float, str]] = {}
    for row in beside.baselines:
        best[row.name] = max(best.get(row.name, (0.0, "")), (row.accuracy, row.metric))
    known = ", ".join(f"{name} {accuracy:.2%} ({metric})" for name, (accuracy, metric) in best.items())
    figures = [_NONE if row is None else f"{row.accuracy:.2%} ({row.numbers} numbers)" for row in found]
    return [(f"{some.k} nearest of {some.stored:,} training digits in the store are right", figures, known)]


def _width(names: Iterable[str]) -> int:
    return max(map(len, ("vectors", *names)))
