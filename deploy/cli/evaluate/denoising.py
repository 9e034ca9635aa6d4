"""``lookalike evaluate denoising``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from lookalike.deploy.cli.evaluate.group import (
    evaluate,
    image_file,
    print_written,
    provider_option,
    show_progress,
)
from lookalike.deploy.cli.options import LocalPath, combine
from lookalike.deploy.cli.output import warn

if TYPE_CHECKING:
    from lookalike.encoder.runtime import Provider

_TEST_SETS: Final = ("cbsd68", "polyu", "photographs", "skimage", "lfw-64", "lfw-250", "mnist")
_KEPT: Final = 8


@evaluate.command(
    epilog="Example: lookalike evaluate denoising --data lfw-64 --pictures 20 --sheet denoised.png"
)
@combine(
    click.option("--model", "models", multiple=True, metavar="BUNDLE",
                 help="A denoiser, or an autoencoder trained to denoise; default: denoise. Repeatable."),
    click.option("--data", "sets", multiple=True, default=("lfw-64",), show_default=True,
                 type=click.Choice((*_TEST_SETS, "all")),
                 help="lfw-64, lfw-250: faces of held-out people at 64x64, or whole. mnist: test digits. "
                 "skimage: its photographs. Of LOOKALIKE_DATA: cbsd68, polyu with real camera noise (both "
                 "for research only); photographs: every fifth in photos/. all: those found. Repeatable."),
    click.option("--sigma", "sigmas", multiple=True, type=click.FloatRange(0, 255, min_open=True),
                 help="Standard deviation of white noise, of 255; default: 25 and 50, for cbsd68 also 15, "
                 "for mnist 127.5. polyu has its own noise. Repeatable."),
    click.option("--photons", multiple=True, type=click.FloatRange(1, 1e6),
                 help="Camera noise: photons of a white pixel, on a mosaic of colors, then JPEG 90. "
                 "Repeatable."),
    click.option("--pictures", "count", type=click.IntRange(min=1), metavar="N",
                 help="Most images of each set; lfw-64 has 200, lfw-250 50, mnist 1,000."),
    click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True,
                 help="Of the models."),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the noise."),
    click.option("--sheet", metavar="FILE.png", type=LocalPath(), callback=image_file,
                 help="Write a contact sheet of clean, noisy and denoised images of the first set."),
    click.option("--json", "as_json", is_flag=True, help="Print a list of JSON objects."),
    provider_option,
)  # fmt: skip
@click.pass_context
def denoising(
    ctx: click.Context, /, models: tuple[str, ...], sets: tuple[str, ...], sigmas: tuple[float, ...],
    photons: tuple[float, ...], count: int | None, threads: int, seed: int, sheet: Path | None, as_json: bool,
    provider: Provider,
) -> None:  # fmt: skip
    """Measure how much noise denoisers remove, how fast, and what they do to images without noise.

    All get the same arrays of 8 bits. A denoiser is blind, as `lookalike denoise` is, and for white noise
    also told the true sigma. "unchanged" and "left as they are" are shares of the images.
    """
    from lookalike.deploy.evaluation import (
        DenoisingModel,
        denoising_lines,
        denoising_sheet,
        evaluate_denoisers,
        open_test_sets,
        require_skimage,
    )
    from lookalike.encoder.images import save_image

    require_skimage()
    opened = [
        DenoisingModel.open(name, threads=threads, provider=provider) for name in models or ("denoise",)
    ]
    found, missing = open_test_sets(sets, count)
    keep = 0 if sheet is None else _KEPT
    report = evaluate_denoisers(
        opened, found, sigmas=sigmas, photons=photons, seed=seed, keep=keep, progress=show_progress
    )
    left_out = [*missing, *report.left_out]
    for reason in left_out:
        warn(reason)
    if sheet is not None:
        save_image(sheet, denoising_sheet(report.noisy[0]))
        print_written(sheet)
    results = report.results
    click.echo(json.dumps([result.to_json() for result in results]) if as_json else denoising_lines(results))
    ctx.exit(3 if left_out else 0)
