"""``lookalike reconstruct``, ``generate`` and ``interpolate``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from lookalike.deploy.cli.search import crop_option, exit_code, images_argument, provider_option

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from lookalike.encoder.runtime.model import Model
    from lookalike.encoder.runtime.session import Provider
    from lookalike.searcher.generation.sample import Interpolation, Sampler

    Pixels = NDArray[np.uint8]

__all__ = [
    "generate",
    "interpolate",
    "model_option",
    "out_option",
    "read_pictures",
    "reconstruct",
    "save_pictures",
]

_ALL: Final = "all"
model_option = click.option(
    "--model", default="faces", show_default=True, help="Bundle folder or shipped model."
)
out_option = click.option(
    "--out", required=True, metavar="FILE.png|FOLDER/", help="One sheet, or one PNG each."
)


@click.command(epilog="Example: lookalike reconstruct me.jpg you.jpg --model faces --out sheet.png")
@images_argument
@model_option
@crop_option
@out_option
@provider_option
@click.pass_context
def reconstruct(
    ctx: click.Context,
    images: tuple[Path, ...],
    model: str,
    crop: str | None,
    out: str,
    provider: Provider,
) -> None:
    """Draw pictures above what the model keeps of them.

    A model that was taught to clean draws them without their noise.
    """
    from lookalike.encoder.runtime.model import Model
    from lookalike.searcher.figures import caption, free_names, reconstruction_sheet
    from lookalike.searcher.generation import sample as drawing

    opened = Model.open(model, provider=provider)
    files, pixels = read_pictures(opened, images, crop)
    if opened.bundle.spec.denoises is not None:
        click.echo(f"{opened.bundle.name} was taught to clean noise {opened.bundle.spec.denoises}", err=True)
    if files:
        back = drawing.reconstruct(opened, pixels)
        names = free_names(files)
        save_pictures(
            out, names, back, lambda: reconstruction_sheet(opened, pixels, back, list(map(caption, files)))
        )
    ctx.exit(exit_code(len(images) - len(files), len(images)))


@click.command(epilog="Example: lookalike generate --model faces -n 25 --seed 1 --out faces.png")
@model_option
@click.option("-n", "count", type=click.IntRange(1, 10_000), default=16, show_default=True, help="How many.")
@click.option(
    "--class",
    "of_class",
    metavar="NAME|all",
    help="Of this class only; all: one row for each latent, one column for each class.",
)
@click.option(
    "--sampler",
    type=click.Choice(["normal", "gaussian", "gmm"]),
    help="What latents are drawn from: N(0, I), the default of a VAE; a Gaussian fitted to the training "
    "latents, the default of an autoencoder; or a mixture of Gaussians fitted to them.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="The same seed draws the same pictures.",
)
@click.option(
    "--temperature",
    type=click.FloatRange(0, 100),
    default=1.0,
    show_default=True,
    help="Under 1 tamer, over 1 wilder.",
)
@out_option
@provider_option
def generate(
    model: str,
    count: int,
    of_class: str | None,
    sampler: Sampler | None,
    seed: int,
    temperature: float,
    out: str,
    provider: Provider,
) -> None:
    """Draw pictures that never were.

    They are sampled from where the training pictures lie. lookalike models tells which classes a model knows.
    """
    from lookalike.encoder.images.contact_sheet import grid
    from lookalike.encoder.images.preprocess import to_uint8
    from lookalike.encoder.runtime.model import Model
    from lookalike.searcher.figures import classes_sheet, plain_names
    from lookalike.searcher.generation import sample as drawing

    opened = Model.open(model, provider=provider)
    numbers = [f"{number:0{len(str(count - 1))}d}" for number in range(count)]
    if of_class == _ALL:
        rows = drawing.sample_classes(opened, count, sampler=sampler, seed=seed, temperature=temperature)
        called = plain_names(opened.bundle.spec.classes)
        names = [f"{number}-{name}" for number in numbers for name in called]
        pictures = rows.reshape(-1, *rows.shape[2:])
        save_pictures(out, names, pictures, lambda: classes_sheet(opened, rows))
        return
    latents = drawing.sample_latents(
        opened, count, sampler=sampler, of_class=of_class, seed=seed, temperature=temperature
    )
    pictures = to_uint8(opened.decode(latents))
    save_pictures(out, _numbered(opened, numbers, latents, of_class), pictures, lambda: grid(list(pictures)))


@click.command(epilog="Example: lookalike interpolate me.jpg you.jpg --steps 8 --model faces --out strip.png")
@images_argument
@model_option
@click.option(
    "--steps",
    type=click.IntRange(2, 200),
    default=10,
    show_default=True,
    help="Pictures from one to the next, both reconstructions counted.",
)
@click.option(
    "--way",
    type=click.Choice(["linear", "spherical"]),
    help="A straight line of latents, or one that keeps their length: the default of a vae.",
)
@crop_option
@out_option
@provider_option
@click.pass_context
def interpolate(
    ctx: click.Context,
    images: tuple[Path, ...],
    model: str,
    steps: int,
    way: Interpolation | None,
    crop: str | None,
    out: str,
    provider: Provider,
) -> None:
    """Draw what lies between pictures.

    A row leads from each picture to the next, evenly through the latents, with the two themselves at its
    ends. A folder gets the pictures of the whole way in order, without the originals.
    """
    from lookalike.encoder.runtime.model import Model
    from lookalike.searcher.figures import caption, interpolation_sheet
    from lookalike.searcher.generation import sample as drawing

    if len(images) < 2:
        raise click.UsageError("from one picture to another needs two or more IMAGEs")
    opened = Model.open(model, provider=provider)
    files, pixels = read_pictures(opened, images, crop)
    if len(files) < 2:
        ctx.exit(1)
    rows = drawing.interpolate(opened, pixels, steps, way=way)
    walk = [rows[0, 0], *(picture for row in rows for picture in row[1:])]  # where rows meet, one of the two
    names = [f"{number:0{len(str(len(walk) - 1))}d}" for number in range(len(walk))]
    save_pictures(
        out, names, walk, lambda: interpolation_sheet(opened, pixels, rows, list(map(caption, files)))
    )
    ctx.exit(exit_code(len(images) - len(files), len(images)))


def read_pictures(model: Model, images: Sequence[Path], crop: str | None) -> tuple[list[Path], Pixels]:
    """Return the files that can be read and their pixels; say on stderr which cannot."""
    from lookalike.encoder.images.preprocess import Crop
    from lookalike.searcher.generation.sample import read_all

    files, pixels, failed = read_all(model, images, crop=None if crop is None else Crop.parse(crop))
    for failure in failed:
        click.echo(f"failed: {failure}", err=True)
    return files, pixels


def _numbered(
    model: Model, numbers: Sequence[str], latents: NDArray[np.float32], of_class: str | None
) -> list[str]:
    """Return names of files: the number, and behind it the class where one was drawn."""
    from lookalike.searcher.figures import plain_names
    from lookalike.searcher.generation.sample import classes_of

    classes = model.bundle.spec.classes
    drawn = [of_class] * len(numbers) if of_class is not None else classes_of(model, latents)
    if drawn is None:
        return list(numbers)
    called = dict(zip(classes, plain_names(classes), strict=True))
    return [f"{number}-{called[name]}" for number, name in zip(numbers, drawn, strict=True)]


def save_pictures(
    out: str, names: Sequence[str], pictures: Sequence[Pixels] | Pixels, sheet: Callable[[], Pixels]
) -> None:
    """Write one PNG each into the folder ``out``, or one sheet into that file, and tell where."""
    from lookalike.encoder.images.contact_sheet import save_image
    from lookalike.searcher.figures import is_folder, save_each

    if is_folder(out):
        for path in save_each(Path(out), names, list(pictures)):
            click.echo(os.fsencode(path))  # as it is: made to be read by the next program
    else:
        save_image(Path(out), sheet())
        click.echo(os.fsencode(out))
