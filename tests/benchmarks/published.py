"""Published values beside ours: of digits, with the README's table of them, and of denoising.

Digits: Y. Burda, R. Grosse, R. Salakhutdinov: Importance Weighted Autoencoders. ICLR 2016, table 1: one
stochastic layer, -log p(x) by 5,000 samples on dynamically binarized MNIST.

Denoising: mean PSNR on CBSD68 of CBM3D (K. Dabov, A. Foi, V. Katkovnik, K. Egiazarian: Color Image Denoising
via Sparse 3D Collaborative Filtering. ICIP 2007) and FFDNet, both as K. Zhang, W. Zuo, L. Zhang report them
(FFDNet: Toward a Fast and Flexible Solution for CNN-Based Image Denoising. IEEE TIP 27, 2018, the table of
color images). Both are told sigma, and their noisy images are neither clipped nor rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from lookalike.deploy.evaluation import DenoisingResult, GenerationBenchmark
from lookalike.deploy.evaluation.generation import Diversity, FidResult, Generation
from lookalike.deploy.evaluation.likelihood import PROTOCOLS, LikelihoodResult
from lookalike.deploy.evaluation.retrieval import KnnResult

_PUBLISHED: Final = "VAE 86.76, IWAE of 50 samples 84.78 (Burda et al. 2016)"
_COMPARABLE: Final = ("dynamic", "log p(x)")
"""The protocol and the quantity of the published values: they are compared with nothing else."""
_BINARY: Final = {
    "dynamic": "one Bernoulli draw of each gray value",
    "threshold": "on where the gray value is 128 or more",
}
_NONE: Final = "-"
_DENOISING: Final = {
    "CBM3D (Dabov et al. 2007)": {15: 33.52, 25: 30.71, 50: 27.38},
    "FFDNet (Zhang, Zuo, Zhang 2018)": {15: 33.87, 25: 31.21, 50: 27.96},
}
_CBSD68: Final = 68
Row = tuple[str, list[str], str]


def published_denoising(result: DenoisingResult) -> list[dict[str, Any]]:
    """Return JSON rows of published mean PSNR on the same images and sigma; none where there is no such."""
    noise = result.input.noise
    if result.images.name != "cbsd68" or len(result.images) != _CBSD68 or noise.sigma is None:
        return []
    sigma = round(255 * noise.sigma, 3)
    return [
        {"name": name, "mean_psnr_db": values[int(sigma)], "told": "true sigma, noise not clipped"}
        for name, values in _DENOISING.items()
        if sigma in values
    ]


def published_lines(result: DenoisingResult) -> str:
    """Return what was published, in one line; empty where nothing was."""
    rows = [f"{row['name']} {row['mean_psnr_db']:.2f}" for row in published_denoising(result)]
    return f"published, mean PSNR, told sigma, noise not clipped: {', '.join(rows)}" if rows else ""


def generation_markdown(
    benchmark: GenerationBenchmark, models: Sequence[Generation], baselines: Sequence[KnnResult]
) -> str:
    """Return a Markdown table: a row for each metric, a column for each model, then the comparison."""
    rows = [
        *_likelihood_rows(models),
        *_class_rows(benchmark, models),
        *_distance_rows(benchmark, models),
        *_knn_rows(models, baselines),
    ]
    names = (f"`{model.name}`" for model in models)
    head = [f"{benchmark.digits.name.upper()} test digits", *names, "compare"]
    lines = [_line(head), _line(["---"] * len(head))]
    lines += [_line([what, *values, published]) for what, values, published in rows]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _likelihood_rows(models: Sequence[Generation]) -> list[Row]:
    rows: list[Row] = []
    for protocol in PROTOCOLS:
        for measured in ("log p(x)", "log p(x|y)"):
            found = [_find(model, protocol, measured) for model in models]
            some = next((row for row in found if row is not None), None)
            if some is None:
                continue
            of = f"nats of {some.images:,} digits, {protocol} ({_BINARY[protocol]})"
            published = _PUBLISHED if (protocol, measured) == _COMPARABLE else _NONE
            bounds = [_NONE if row is None else f"{row.bound:.2f} ± {row.bound_error:.2f}" for row in found]
            elbos = [
                _NONE if row is None else f"{row.negative_elbo:.2f} ± {row.negative_elbo_error:.2f}"
                for row in found
            ]
            rows.append((f"-{measured} at most, by {some.samples:,} samples; {of}", bounds, published))
            rows.append((f"-ELBO of {measured}; {of}", elbos, _NONE))
    return rows


def _find(model: Generation, protocol: str, measured: str) -> LikelihoodResult | None:
    rows = (row for row in model.likelihood if (row.protocol, row.measured) == (protocol, measured))
    return next(rows, None)


def _class_rows(benchmark: GenerationBenchmark, models: Sequence[Generation]) -> list[Row]:
    if benchmark.reference is None:
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
        known = f"the test digits themselves: {benchmark.reference.accuracy.overall:.2%}"
        rows.append((f"{count:,} generated by class, classified so", right, known))
    for space, name in (("features", "the classifier's features"), ("pixels", "pixels")):
        ratios = [next((row for row in model.diversity if row.space == space), None) for model in models]
        if any(ratios):
            what = f"distance of two generated digits of a class over that of two test digits, in {name}"
            rows.append((what, [_diversity(row) for row in ratios], "1"))
    return rows


def _diversity(row: Diversity | None) -> str:
    return _NONE if row is None else f"{row.mean:.2f}, lowest {row.lowest:.2f} ({row.lowest_class})"


def _distance_rows(benchmark: GenerationBenchmark, models: Sequence[Generation]) -> list[Row]:
    rows: list[Row] = []
    samplers = dict.fromkeys(row.source for model in models for row in model.distance)
    for sampler in samplers:
        found = [next((row for row in model.distance if row.source == sampler), None) for model in models]
        count = next(row.count for row in found if row is not None)
        what = f"Fréchet distance; precision, recall: {count:,} generated by `{sampler}`"
        known = _NONE if benchmark.floor is None else f"training digits: {_fid(benchmark.floor)}"
        rows.append((what, [_fid(row) for row in found], known))
    return rows


def _fid(row: FidResult | None) -> str:
    return _NONE if row is None else f"{row.frechet:.2f}; {row.precision:.3f}, {row.recall:.3f}"


def _knn_rows(models: Sequence[Generation], baselines: Sequence[KnnResult]) -> list[Row]:
    found = [model.neighbours for model in models]
    some = next((row for row in found if row is not None), None)
    if some is None:
        return []
    best: dict[str, tuple[float, str]] = {}
    for row in baselines:
        best[row.name] = max(best.get(row.name, (0.0, "")), (row.accuracy, row.metric))
    known = ", ".join(f"{name} {accuracy:.2%} ({metric})" for name, (accuracy, metric) in best.items())
    values = [_NONE if row is None else f"{row.accuracy:.2%} ({row.numbers} dims)" for row in found]
    return [(f"{some.k} nearest of {some.stored:,} training digits in the store are right", values, known)]
