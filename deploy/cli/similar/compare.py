"""``lookalike compare``: how similar two images are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lookalike.deploy.cli.options import (
    LocalPath,
    Provider,
    command,
    crop_option,
    json_option,
    max_pixels_option,
    model_option,
    option,
    provider_option,
)
from lookalike.deploy.cli.output import log, print_json, warn

if TYPE_CHECKING:
    from pathlib import Path

    from lookalike.encoder.images import Crop
    from lookalike.searcher.search import Comparison

NO_MATCH = 4
"""Exit code where two images are no match: a script tells it from what fails."""


@command(epilog="Example: lookalike compare me.jpg you.jpg --faces")
@click.argument("images", nargs=2, metavar="IMAGE IMAGE", type=LocalPath())
@model_option()
@provider_option
@crop_option()
@option("--faces", is_flag=True, help="Compare the most prominent face of each image, turned upright.")
@option("--denoise", is_flag=True, help="Denoise the images first, where they are noisy.")
@option(
    "--prior",
    type=float,
    metavar="P",
    show_default="0.5",
    help="Probability that both images show one person, before looking.",
)
@option(
    "--fmr",
    type=float,
    metavar="RATE",
    show_default="no threshold",
    help="False match rate: the share of pairs of different people that count as a match, such as 0.001.",
)
@max_pixels_option()
@json_option()
@click.pass_context
def compare(
    ctx: click.Context,
    images: tuple[Path, Path],
    model: str,
    provider: Provider,
    crop: Crop | None,
    faces: bool,
    denoise: bool,
    prior: float | None,
    fmr: float | None,
    max_pixels: int | None,
    as_json: bool,
) -> None:
    """Compare two images. Similarity does not prove that they show one person.

    They match where it is more probable than not that they show one person, before looking taken to be as
    likely as not (--prior). --fmr 0.001 asks for more: a score that only one in a thousand pairs of different
    people exceeds. With a calibrated model the exit code is 0 where they match, 4 where not; without one 0.
    """
    from lookalike.encoder.runtime import Denoiser, Model
    from lookalike.searcher.search import QueryDenoiser, QueryFaces
    from lookalike.searcher.search import compare as compare_images

    if faces and crop is not None:
        raise click.UsageError("--crop does not work with --faces: leave one out")
    found = compare_images(
        Model.open(model, provider=provider),
        *images,
        crop=crop,
        faces=QueryFaces() if faces else None,
        prior=prior,
        fmr=fmr,
        denoiser=QueryDenoiser(Denoiser.open("denoise", provider=provider)) if denoise else None,
        max_pixels=max_pixels,
    )
    if as_json:
        print_json({"images": list(map(str, images)), **found.to_json()})
    else:
        click.echo(_line(found))
        for image, face in zip(images, found.faces, strict=True):
            if face is not None and face.count > 1:
                log(f"{image}: {face.summary()}")
        if found.warning is not None:
            warn(found.warning)
    ctx.exit(NO_MATCH if found.match is False and not found.same_file else 0)


def _line(found: Comparison) -> str:
    """Return score, probability and verdict in one line."""
    from lookalike.searcher.search import format_probability

    words = [f"score {found.score:.3f}"]
    if found.probability is not None:
        words.append(f"probability {format_probability(found.probability)}")
    if found.same_file:
        words.append("same file")
    elif found.match is not None:
        words.append("match" if found.match else "no match")
    return ", ".join(words)
