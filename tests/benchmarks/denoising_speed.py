"""Speeds of denoising methods, measured in turns on the same cores."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from lookalike.deploy.evaluation import DenoisingResult, Method, evaluate_denoising
from lookalike.deploy.evaluation.denoising.measure import BATCH
from lookalike.deploy.evaluation.denoising.noisy_images import Pixels
from lookalike.deploy.evaluation.vectors import Progress, no_progress
from tests.benchmarks.classical_denoisers import BM3D, keep_best_fixed

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
    noise, known = result.input.noise, {row.name for row in result.rows}
    others = [_Cached(each) if isinstance(each, BM3D) else each for each in methods if each.name not in known]
    more = evaluate_denoising(result.images, noise, others, seed=seed, keep=keep, progress=progress).rows[1:]
    usable = [method for method in methods if noise.sigma is not None or not method.needs_sigma]
    bm3d = [method for method in usable if isinstance(method, BM3D)]
    timed = [method for method in usable if method not in bm3d[1:]]  # one stands for all: they take the same
    speeds = dict(time_methods(timed, result.input.noisy, noise.sigma, rounds=rounds, progress=progress))
    if bm3d and speeds:
        speeds |= {method.name: speeds[bm3d[0].name] for method in bm3d}
    rows = (replace(row, speed=speeds.get(row.name)) for row in (*result.rows, *more))
    return replace(result, rows=keep_best_fixed(tuple(rows)))


def speed_lines(result: DenoisingResult) -> str:
    """Return how many times as fast as BM3D each method is, in one line."""
    bm3d = next((row.speed for row in result.rows if row.name.startswith("BM3D")), None)
    if bm3d is None:
        return "speeds are not compared: BM3D was not timed"
    ratios = [f"{row.name} {row.speed / bm3d:.3g}" for row in result.rows if row.speed is not None]
    return f"speed over BM3D's: {', '.join(ratios)}"


class _Cached:
    """BM3D from the cache."""

    def __init__(self, method: BM3D) -> None:
        self.name, self.told, self.needs_sigma = method.name, method.told, method.needs_sigma
        self._method = method

    def denoise(self, noisy: Sequence[Pixels], sigma: float | None) -> list[Pixels]:
        return self._method.denoise_cached(noisy, sigma, on_progress=lambda _: None)


def time_methods(
    methods: Sequence[Method],
    noisy: Sequence[Pixels],
    sigma: float | None,
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


def _images_per_turn(method: Method, noisy: Sequence[Pixels], sigma: float | None) -> int:
    method.denoise(noisy[:1], sigma)
    each = _seconds(method, noisy[:1], sigma)
    return max(1, min(len(noisy), BATCH, round(_TURN_SECONDS / max(each, 1e-9))))


def _seconds(method: Method, noisy: Sequence[Pixels], sigma: float | None) -> float:
    began = time.perf_counter()
    method.denoise(noisy, sigma)
    return time.perf_counter() - began
