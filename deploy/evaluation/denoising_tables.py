"""Figures of cleaning as lines for people, and as a sheet of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lookalike.deploy.evaluation.denoising import DenoisingResult, Row
from lookalike.deploy.evaluation.noisy_queries import Recall
from lookalike.encoder.images.contact_sheet import Tile, contact_sheet
from lookalike.encoder.images.preprocess import to_uint8
from lookalike.encoder.metrics import psnr_from_mse

__all__ = ["denoising_lines", "denoising_sheet", "recall_lines"]

_NONE: Final = "-"


def denoising_lines(bouts: Sequence[DenoisingResult]) -> str:
    """Return a table for each set of pictures and noise: medians of the pictures' figures."""
    return "\n\n".join("\n".join(_lines(bout)) for bout in bouts)


def denoising_sheet(bout: DenoisingResult, *, side: int = 96) -> NDArray[np.uint8]:
    """Draw rows of clean pictures, noisy ones and what each rival made of them, uint8 (H, W, 3).

    As many columns as results were kept; under each picture its PSNR in dB.
    """
    kept = len(bout.rows[0].made)
    clean = bout.exhibit.clean[:kept]
    rows = [[Tile(pixels=to_uint8(picture)) for picture in clean]]
    rows += [
        [
            Tile(
                pixels=to_uint8(back),
                subcaption=f"{psnr_from_mse(float(np.square(back - picture).mean())):.1f} dB",
            )
            for back, picture in zip(row.made, clean, strict=True)
        ]
        for row in bout.rows
    ]
    title = f"{bout.exhibit.name}, sigma {_sigma(bout)}"
    return contact_sheet(rows, title=title, row_labels=["clean", *(row.name for row in bout.rows)], side=side)


def recall_lines(recalls: Sequence[Recall]) -> str:
    """Return a table of what noise takes from a search and what cleaning gives back; nothing of nothing."""
    if not recalls:
        return ""
    first = recalls[0]
    lines = [
        f"search, {first.queries:,} queries among {first.others:,} others",
        f"{'sigma':>5}  {'Recall@1':>8}  {'given back':>10}  queries",
    ]
    for each in recalls:
        back = _NONE if each.regained is None else f"{each.regained:.0%}"
        how = (
            "as they are"
            if each.cleaner is None
            else f"cleaned by {each.cleaner} ({each.left:.0%} left as they are)"
        )
        lines.append(f"{each.sigma:>5g}  {each.recall_at_1:>8.3f}  {back:>10}  {how}")
    return "\n".join(lines)


def _lines(bout: DenoisingResult) -> list[str]:
    width = max(len(row.name) for row in bout.rows)
    head = f"{'PSNR dB':>8} {'SSIM':>6} {'images/s':>9} {'of BM3D':>8}"
    many = "picture" if len(bout.exhibit) == 1 else "pictures"
    return [
        f"{bout.exhibit.name}, sigma {_sigma(bout)}, {len(bout.exhibit)} {many}",
        f"{'row':<{width}}  {head}  told",
        *(_line(row, width) for row in bout.rows),
    ]


def _line(row: Row, width: int) -> str:
    speed = _NONE if row.speed is None else f"{row.speed:.3g}"
    times = _NONE if row.times_bm3d is None else f"{row.times_bm3d:.3g} x"
    return f"{row.name:<{width}}  {row.psnr:>8.2f} {row.ssim:>6.3f} {speed:>9} {times:>8}  {row.told}"


def _sigma(bout: DenoisingResult) -> str:
    return f"{255 * bout.sigma:.4g}"
