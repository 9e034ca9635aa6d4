"""ROC curves, and what an edit gains and costs, as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from lookalike.deploy.evaluation.verification import FAR, Roc
from lookalike.encoder.errors import MissingExtraError
from lookalike.encoder.images.contact_sheet import save_image

__all__ = ["draw_roc", "draw_trade_off"]

_LOWEST: Final = 1e-3  # of the false acceptance rate: below it LFW has too few pairs to tell
_COLOURS: Final = ("#1a68d6", "#c8412b", "#1b8a5a", "#8a4fbf", "#b8860b", "#0f8b9d")
_GREYS: Final = ("#b4b8be", "#8b9097", "#5f646b")
_DASHES: Final = ((0, (1, 1.5)), (0, (4, 2)), (0, (7, 2)))


def draw_roc(path: Path, curves: Sequence[tuple[str, bool, Roc]], *, title: str) -> None:
    """Draw curves (name, whether it is a baseline, points) in one picture, false acceptances on a log scale.

    Raises:
        MissingExtraError: matplotlib is not installed.
        OptionError: the file cannot be written, or its kind is unknown.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import FuncFormatter, PercentFormatter
    except ImportError as error:
        raise MissingExtraError(
            "a ROC picture needs matplotlib; pip install 'lookalike[evaluate]'"
        ) from error
    figure = Figure(figsize=(8.4, 6.2), dpi=130, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    chance = np.geomspace(_LOWEST, 1, 200)
    axes.plot(chance, chance, color="#d5d8dc", linewidth=1, zorder=1)
    axes.axvline(FAR, color="#e3e5e8", linewidth=1, zorder=0)
    baselines = [name for name, baseline, _ in curves if baseline]
    models = [name for name, baseline, _ in curves if not baseline]
    for name, baseline, curve in sorted(curves, key=lambda each: -each[2].auc):
        plain = name.replace("$", r"\$")  # a dollar would begin a formula
        label = f" {plain}  ({curve.auc:.3f})"  # what begins with _ is kept out of legends
        far = np.maximum(curve.far, _LOWEST / 10)
        style: dict[str, Any]
        if baseline:
            place = baselines.index(name) % len(_GREYS)
            style = {"color": _GREYS[place], "linestyle": _DASHES[place], "linewidth": 1.6}
        else:
            style = {"color": _COLOURS[models.index(name) % len(_COLOURS)], "linewidth": 2.4}
        axes.step(far, curve.tar, where="post", label=label, zorder=2 if baseline else 3, **style)
    axes.set(
        xscale="log",
        xlim=(_LOWEST, 1),
        ylim=(0, 1.005),
        xlabel="false acceptance rate: pairs of two people taken for one",
        ylabel="true acceptance rate: pairs of one person accepted",
    )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_title(title, loc="left", fontsize=12, pad=12)
    axes.grid(which="major", color="#eceef0", linewidth=0.8, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(title="area under the curve", loc="upper left", frameon=False, alignment="left")
    _save(path, FigureCanvasAgg(figure))


def draw_trade_off(path: Path, lines: Sequence[tuple[str, Sequence[tuple[float, float, float]]]]) -> None:
    """Draw lines (name, points of strength, success and identity kept), both shares in [0, 1].

    Raises:
        MissingExtraError: matplotlib is not installed.
        OptionError: the file cannot be written, or its kind is unknown.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import PercentFormatter
    except ImportError as error:
        raise MissingExtraError("a curve needs matplotlib; pip install 'lookalike[evaluate]'") from error
    figure = Figure(figsize=(10.4, 4.8), dpi=130, facecolor="white", layout="constrained")
    titles = "The judge sees the change", "It finds its own original first"
    for column, (axes, title) in enumerate(zip(figure.subplots(1, 2, sharey=True), titles, strict=True), 1):
        for place, (name, points) in enumerate(lines):
            colour, dash = _COLOURS[place // 2 % len(_COLOURS)], ("-", "--")[place % 2]  # added, taken away
            at, shares = [point[0] for point in points], [point[column] for point in points]
            label = " " + name.replace("$", r"\$")
            axes.plot(at, shares, color=colour, linestyle=dash, marker="o", linewidth=2.2, label=label)
        axes.set(ylim=(0, 1.02), xlabel="strength of the edit, standard deviations")
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_title(title, loc="left", fontsize=12, pad=10)
        axes.grid(which="major", color="#eceef0", linewidth=0.8, zorder=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="lower right" if column == 1 else "lower left", frameon=False)
    _save(path, FigureCanvasAgg(figure))


def _save(path: Path, canvas: Any) -> None:
    canvas.draw()
    save_image(path, np.asarray(canvas.buffer_rgba())[:, :, :3].copy())
