"""Speeds of denoising methods, measured in turns on the same cores."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from lookalike.deploy.evaluation import DenoisingResult, Method, evaluate_denoising
from lookalike.deploy.evaluation.denoising import BATCH, Floats
from lookalike.deploy.evaluation.vectors import Progress, no_progress
from tests.benchmarks.classical_denoisers import BM3D

_TURN_SECONDS: Final = 0.25
"""A turn takes this long at least, so that the clock and the first call count little."""


def compare_denoisers(
    result: DenoisingResult,
    methods: Sequence[Method],
    *,
    rounds: int,
    seed: int = 0,
    keep: int = 0,
    progress: Progress = no_progress,
) -> DenoisingResult:
    """Return a result with the rows of more methods, and all speeds measured in turns.

    Args:
        result: Of the models.
        methods: The models' methods and others.
        rounds: Turns; 0: speeds are not measured.
        seed: Of the noise.
        keep: Number of images whose results are kept.
        progress: Shows the progress.
    """
    known = {row.name for row in result.rows}
    others = [_Cached(each) if isinstance(each, BM3D) else each for each in methods if each.name not in known]
    more = evaluate_denoising(
        result.images, result.sigma, others, seed=seed, keep=keep, progress=progress
    ).rows[1:]
    timed = [method for method in methods if not (isinstance(method, BM3D) and method.debias)]
    speeds = dict(time_methods(timed, result.noisy, result.sigma, rounds=rounds, progress=progress))
    if "BM3D" in speeds:  # undoing the clipping takes no time
        speeds["BM3D, debiased"] = speeds["BM3D"]
    rows = tuple(replace(row, speed=speeds.get(row.name)) for row in (*result.rows, *more))
    return replace(result, rows=rows)


def speed_lines(result: DenoisingResult) -> str:
    """Return how many times as fast as BM3D each method is, in one line."""
    bm3d = next((row.speed for row in result.rows if row.name == "BM3D"), None)
    if bm3d is None:
        return "speeds are not compared: BM3D was not timed"
    ratios = [f"{row.name} {row.speed / bm3d:.3g}" for row in result.rows if row.speed is not None]
    return f"speed over BM3D's: {', '.join(ratios)}"


class _Cached:
    """BM3D from the cache."""

    def __init__(self, method: BM3D) -> None:
        self.name, self.told, self._method = method.name, method.told, method

    def denoise(self, noisy: Sequence[Floats], sigma: float) -> list[Floats]:
        return self._method.denoise_cached(noisy, sigma, on_progress=lambda _: None)


def time_methods(
    methods: Sequence[Method],
    noisy: Sequence[Floats],
    sigma: float,
    *,
    rounds: int,
    progress: Progress = no_progress,
) -> Mapping[str, float]:
    """Return images a second by a method's name, the median of as many turns as there are rounds.

    They take turns, A B C A B C, so that other load of the machine affects all of them. A fast method
    denoises more images in a turn; before the first, each denoises one that does not count.
    """
    if not rounds:
        return {}
    counts = {method.name: _images_per_turn(method, noisy, sigma) for method in methods}
    speeds: dict[str, list[float]] = {method.name: [] for method in methods}
    with progress("timing", rounds * len(methods)) as advance:
        for _ in range(rounds):
            for method in methods:
                count = counts[method.name]
                speeds[method.name].append(count / _seconds(method, noisy[:count], sigma))
                advance(1)
    return {name: float(np.median(found)) for name, found in speeds.items()}


def _images_per_turn(method: Method, noisy: Sequence[Floats], sigma: float) -> int:
    method.denoise(noisy[:1], sigma)
    each = _seconds(method, noisy[:1], sigma)
    return max(1, min(len(noisy), BATCH, round(_TURN_SECONDS / max(each, 1e-9))))


def _seconds(method: Method, noisy: Sequence[Floats], sigma: float) -> float:
    began = time.perf_counter()
    method.denoise(noisy, sigma)
    return time.perf_counter() - began
