"""How well noise is taken off: rivals side by side on the same noisy arrays, in turns on the same cores.

SSIM: Z. Wang et al.: Image Quality Assessment. IEEE TIP 13, 2004; scikit-image's, windows of 7 x 7, averaged
over the channels.

Legend: N pictures, H height, W width, C channels (1 grey, 3 RGB).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lookalike.deploy.evaluation.exhibits import DenoisingTestSet
from lookalike.deploy.evaluation.rivals import BM3D, Method
from lookalike.deploy.evaluation.vectors import Progress, no_progress
from lookalike.encoder.errors import MissingExtraError
from lookalike.encoder.metrics import psnr_from_mse

__all__ = ["DenoisingResult", "Row", "evaluate_denoising", "need_extra", "time_methods"]

Floats = NDArray[np.float32]
_TOGETHER: Final = 50
"""Pictures that a rival is given at once: they bound the memory."""
_SPAN: Final = 0.25
"""Seconds that a turn of the race takes at least, so that the clock and the first call count little."""


@dataclass(frozen=True, slots=True)
class Row:
    """What one rival made of the noisy pictures.

    Attributes:
        name: Who it was.
        told: What it knew or how it was set.
        psnr: Median over the pictures of each one's PSNR, dB.
        mean_psnr: Their mean.
        ssim: Median of their SSIM.
        speed: Pictures a second, median over the turns; None where it was not measured.
        times_bm3d: That, over BM3D's in the same race; None without BM3D.
        made: float32 (H, W, C) of each of the first pictures.
    """

    name: str
    told: str
    psnr: float
    mean_psnr: float
    ssim: float
    speed: float | None
    times_bm3d: float | None
    made: tuple[Floats, ...]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; the pictures are left out."""
        return {
            "name": self.name,
            "told": self.told,
            "psnr_db": _rounded(self.psnr, 3),
            "mean_psnr_db": _rounded(self.mean_psnr, 3),
            "ssim": round(self.ssim, 4),
            "images_per_second": self.speed and float(f"{self.speed:.4g}"),
            "times_bm3d": self.times_bm3d and float(f"{self.times_bm3d:.4g}"),
        }


@dataclass(frozen=True, slots=True)
class DenoisingResult:
    """All rivals on one set of pictures under one noise.

    Attributes:
        exhibit: The pictures.
        sigma: Deviation of the noise, of 1.
        noisy: What every rival was given.
        rows: The noisy pictures as they are, then each rival.
    """

    exhibit: DenoisingTestSet
    sigma: float
    noisy: Sequence[Floats]
    rows: tuple[Row, ...]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "data": self.exhibit.name,
            "sigma": round(255 * self.sigma, 4),
            "pictures": len(self.exhibit),
            "rows": [row.to_json() for row in self.rows],
        }


def need_extra() -> None:
    """Refuse to begin without what figures and filters come from.

    Raises:
        MissingExtraError: scikit-image is not installed.
    """
    try:
        import skimage  # noqa: F401  # only whether it is there
    except ImportError as error:
        raise MissingExtraError(
            "evaluate denoising measures with scikit-image; pip install 'lookalike[evaluate]'"
        ) from error


def evaluate_denoising(
    exhibit: DenoisingTestSet,
    sigma: float,
    rivals: Sequence[Method],
    *,
    seed: int = 0,
    rounds: int = 3,
    shown: int = 0,
    steps: Progress = no_progress,
) -> DenoisingResult:
    """Let every rival clean the same noisy pictures, and race them.

    Args:
        exhibit: N clean pictures.
        sigma: Deviation of the Gaussian noise, of 1; the result is clipped to [0, 1].
        rivals: Who cleans. BM3D's pictures may come from the cache, its speed never does.
        seed: Of the noise.
        rounds: Turns in the race; 0: no race.
        shown: Of how many pictures the results are kept.
        steps: Told of the progress.

    Raises:
        MissingExtraError: scikit-image is not installed.
    """
    need_extra()
    noisy = exhibit.noisy(sigma, seed=seed)
    racing = [rival for rival in rivals if not _is_debiased(rival)]
    speeds = time_methods(racing, noisy, sigma, rounds=rounds, steps=steps) if rounds else {}
    beside = next((speeds.get(rival.name) for rival in racing if isinstance(rival, BM3D)), None)
    rows = [_row("noisy", "as it is", noisy, exhibit, None, None, shown)]
    for rival in rivals:
        with steps(rival.name, len(noisy)) as advance:
            made = _cleaned(rival, noisy, sigma, advance)
        speed = beside if _is_debiased(rival) else speeds.get(rival.name)
        times = None if speed is None or beside is None else speed / beside
        rows.append(_row(rival.name, rival.told, made, exhibit, speed, times, shown))
    return DenoisingResult(exhibit, sigma, noisy, tuple(rows))


def time_methods(
    rivals: Sequence[Method],
    noisy: Sequence[Floats],
    sigma: float,
    *,
    rounds: int,
    steps: Progress = no_progress,
) -> Mapping[str, float]:
    """Return pictures a second by rival's name, the median of as many turns as there are rounds.

    They take turns, A B C A B C, so that what else the machine does strikes all alike. A rival that is quick
    cleans more pictures in a turn; before the first, each cleans one that does not count.
    """
    counts = {rival.name: _enough(rival, noisy, sigma) for rival in rivals}
    speeds: dict[str, list[float]] = {rival.name: [] for rival in rivals}
    with steps("racing", rounds * len(rivals)) as advance:
        for _ in range(rounds):
            for rival in rivals:
                count = counts[rival.name]
                speeds[rival.name].append(count / _seconds(rival, noisy[:count], sigma))
                advance(1)
    return {name: float(np.median(found)) for name, found in speeds.items()}


def _is_debiased(rival: Method) -> bool:
    """Whether it is BM3D with what costs no time behind it: it runs in no race."""
    return isinstance(rival, BM3D) and rival.debias


def _enough(rival: Method, noisy: Sequence[Floats], sigma: float) -> int:
    """Return how many pictures a turn takes."""
    rival.clean(noisy[:1], sigma)
    each = _seconds(rival, noisy[:1], sigma)
    return max(1, min(len(noisy), _TOGETHER, round(_SPAN / max(each, 1e-9))))


def _seconds(rival: Method, noisy: Sequence[Floats], sigma: float) -> float:
    began = time.perf_counter()
    rival.clean(noisy, sigma)
    return time.perf_counter() - began


def _cleaned(
    rival: Method, noisy: Sequence[Floats], sigma: float, advance: Callable[[int], object]
) -> list[Floats]:
    if isinstance(rival, BM3D):
        return rival.recalled(noisy, sigma, on_progress=advance)
    made: list[Floats] = []
    for start in range(0, len(noisy), _TOGETHER):
        some = noisy[start : start + _TOGETHER]
        made += rival.clean(some, sigma)
        advance(len(some))
    return made


def _row(
    name: str,
    told: str,
    made: Sequence[Floats],
    exhibit: DenoisingTestSet,
    speed: float | None,
    times: float | None,
    shown: int,
) -> Row:
    from skimage.metrics import structural_similarity

    pairs = list(zip(made, exhibit.clean, strict=True))
    decibels = [
        psnr_from_mse(float(np.square(back.astype(np.float64) - clean).mean())) for back, clean in pairs
    ]
    ssim: Callable[..., float] = structural_similarity  # scikit-image leaves it untyped
    alike = [ssim(clean, back, data_range=1.0, channel_axis=2) for back, clean in pairs]
    return Row(
        name=name,
        told=told,
        psnr=float(np.median(decibels)),
        mean_psnr=float(np.mean(decibels)),
        ssim=float(np.median(alike)),
        speed=speed,
        times_bm3d=times,
        made=tuple(made[:shown]),
    )


def _rounded(value: float, digits: int) -> float | None:
    return round(value, digits) if np.isfinite(value) else None
