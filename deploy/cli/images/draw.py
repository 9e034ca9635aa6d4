"""``lookalike reconstruct``, ``generate``, ``interpolate`` and ``edit``: images from a model's decoder."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from lookalike.deploy.cli.face_options import one_face, one_face_options
from lookalike.deploy.cli.options import (
    LocalPath,
    Provider,
    combine,
    command,
    crop_option,
    images_argument,
    max_pixels_option,
    model_option,
    open_option,
    option,
    provider_option,
)
from lookalike.deploy.cli.output import exit_code, log, log_failed, print_path, show

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from lookalike.encoder.detect import ChosenFace, CutFace
    from lookalike.encoder.images import Crop
    from lookalike.encoder.runtime import Model
    from lookalike.searcher.generation import InputFraming, Interpolation, Sampler

    Pixels = NDArray[np.uint8]

_ALL: Final = "all"
_out_option = combine(
    option(
        "--out",
        required=True,
        metavar="FILE.png|FOLDER/",
        type=LocalPath(str),
        help="Contact sheet, or folder for one PNG per image.",
    ),
    open_option(),
)


@command(epilog="Example: lookalike reconstruct me.jpg you.jpg --model faces --out sheet.png")
@images_argument
@model_option()
@crop_option()
@one_face_options
@max_pixels_option()
@_out_option
@provider_option
@click.pass_context
def reconstruct(
    ctx: click.Context,
    images: tuple[Path, ...],
    model: str,
    crop: Crop | None,
    faces: bool,
    face: int | None,
    max_pixels: int | None,
    out: str,
    provider: Provider,
) -> None:
    """Show images above their reconstructions.

    A model that was trained to denoise removes their noise.
    """
    from lookalike.encoder.runtime import Model
    from lookalike.searcher import generation
    from lookalike.searcher.figures import caption, reconstruction_sheet, unique_names

    framing = one_face(crop, faces=faces, face=face)
    opened = Model.open(model, provider=provider)
    files, pixels = _read(opened, images, framing, max_pixels)
    if opened.bundle.spec.denoises is not None:
        log(f"{opened.bundle.name} was trained to remove noise {opened.bundle.spec.denoises}")
    if files:
        outputs = generation.reconstruct(opened, pixels)
        _save(
            out,
            unique_names(files),
            outputs,
            lambda: reconstruction_sheet(opened, pixels, outputs, list(map(caption, files))),
        )
    ctx.exit(exit_code(len(images) - len(files), len(images)))


@command(epilog="Example: lookalike generate --model faces -n 25 --seed 1 --out faces.png")
@model_option()
@option(
    "-n",
    "--count",
    type=click.IntRange(1, 10_000),
    default=16,
    show_default=True,
    metavar="N",
    help="Number of images.",
)
@option(
    "--class",
    "of_class",
    metavar="NAME|all",
    help="Generate this class only; all: one column per class, the same latent along each row.",
)
@option(
    "--sampler",
    type=click.Choice(["normal", "gaussian", "gmm"]),
    help="Distribution of the latents: N(0, I), a Gaussian fitted to the training latents, or a Gaussian "
    "mixture fitted to them.",
    show_default="normal for a VAE, gaussian for an autoencoder",
)
@option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Random seed; the same seed gives the same images.",
)
@option(
    "--temperature",
    type=click.FloatRange(0, 100),
    default=1.0,
    show_default=True,
    help="Scale of the random latents: below 1 more typical images, above 1 more varied ones.",
)
@_out_option
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
    """Generate new images.

    They are sampled from the model's latent distribution. lookalike models lists the classes of a model.
    """
    from lookalike.encoder.images import grid, to_uint8
    from lookalike.encoder.runtime import Model
    from lookalike.searcher.figures import classes_sheet, safe_names
    from lookalike.searcher.generation import sample_classes, sample_latents

    opened = Model.open(model, provider=provider)
    numbers = [f"{number:0{len(str(count - 1))}d}" for number in range(count)]
    if of_class == _ALL:
        rows = sample_classes(opened, count, sampler=sampler, seed=seed, temperature=temperature)
        classes = safe_names(opened.bundle.spec.classes)
        names = [f"{number}-{name}" for number in numbers for name in classes]
        _save(out, names, rows.reshape(-1, *rows.shape[2:]), lambda: classes_sheet(opened, rows))
        return
    latents = sample_latents(
        opened, count, sampler=sampler, of_class=of_class, seed=seed, temperature=temperature
    )
    pixels = to_uint8(opened.decode(latents))
    _save(out, _with_classes(opened, numbers, latents, of_class), pixels, lambda: grid(list(pixels)))


@command(epilog="Example: lookalike interpolate me.jpg you.jpg --steps 8 --model faces --out strip.png")
@images_argument
@model_option()
@option(
    "--steps",
    type=click.IntRange(2, 200),
    default=10,
    show_default=True,
    help="Number of images from one IMAGE to the next, both reconstructions included.",
)
@option(
    "--interpolation",
    type=click.Choice(["linear", "spherical"]),
    help="Straight line between the latents, or an arc that keeps their length.",
    show_default="spherical for a VAE, linear otherwise",
)
@crop_option()
@one_face_options
@max_pixels_option()
@_out_option
@provider_option
@click.pass_context
def interpolate(
    ctx: click.Context,
    images: tuple[Path, ...],
    model: str,
    steps: int,
    interpolation: Interpolation | None,
    crop: Crop | None,
    faces: bool,
    face: int | None,
    max_pixels: int | None,
    out: str,
    provider: Provider,
) -> None:
    """Interpolate between images.

    Each row leads from one IMAGE to the next in even steps through the latents, with the originals at its
    ends. A folder gets all generated images in order, without the originals.
    """
    from lookalike.encoder.runtime import Model
    from lookalike.searcher import generation
    from lookalike.searcher.figures import caption, interpolation_sheet

    if len(images) < 2:
        raise click.UsageError("interpolation needs two or more IMAGEs")
    framing = one_face(crop, faces=faces, face=face)
    opened = Model.open(model, provider=provider)
    files, pixels = _read(opened, images, framing, max_pixels)
    if len(files) < 2:
        ctx.exit(1)
    rows = generation.interpolate(opened, pixels, steps, interpolation=interpolation)
    path = [rows[0, 0], *(image for row in rows for image in row[1:])]  # one image where two rows meet
    names = [f"{number:0{len(str(len(path) - 1))}d}" for number in range(len(path))]
    _save(out, names, path, lambda: interpolation_sheet(opened, pixels, rows, list(map(caption, files))))
    ctx.exit(exit_code(len(images) - len(files), len(images)))


@command(epilog="Example: lookalike edit me.jpg --model faces --add Smiling=2 --out smile.png")
@images_argument
@model_option()
@option(
    "--add",
    "added",
    multiple=True,
    required=True,
    metavar="NAME=STRENGTH",
    help="Change this attribute by STRENGTH standard deviations; negative: less of it; repeatable.",
)
@option(
    "--steps", metavar="FIRST:LAST:N", help="Make a strip per image: N multiples of --add, such as -2:2:9."
)
@option(
    "--keep-detail/--no-keep-detail",
    default=True,
    show_default=True,
    help="Add back the detail that the reconstruction loses.",
)
@crop_option()
@one_face_options
@option(
    "--paste",
    is_flag=True,
    help="Put the changed face back into the whole photograph, blended; implies --faces.",
)
@max_pixels_option()
@_out_option
@provider_option
@click.pass_context
def edit(
    ctx: click.Context,
    images: tuple[Path, ...],
    model: str,
    added: tuple[str, ...],
    steps: str | None,
    keep_detail: bool,
    crop: Crop | None,
    faces: bool,
    face: int | None,
    paste: bool,
    max_pixels: int | None,
    out: str,
    provider: Provider,
) -> None:
    """Change an attribute of a face, such as its smile.

    lookalike attributes list shows the attributes of a model. The output is the part of the image that the
    model sees, at the model's size.

    With --paste it is the whole photograph, in its own size, changed only where the model sees the face: a
    file for one IMAGE, or a folder for one PNG per image. Metadata is left out.
    """
    from lookalike.encoder.detect import ChosenFace
    from lookalike.encoder.runtime import Model
    from lookalike.searcher.figures import caption, edits_sheet, unique_names
    from lookalike.searcher.generation import edit_steps, editing_attributes, parse_steps, parse_strengths

    framing = one_face(crop, faces=faces or paste, face=face)
    strengths = parse_strengths(added)
    multiples = [1.0] if steps is None else parse_steps(steps)
    opened = Model.open(model, provider=provider)
    editing_attributes(opened).change(strengths)  # refuses unknown attributes before any image is read
    if isinstance(framing, ChosenFace) and paste:
        names = _with_steps(unique_names(images), multiples, steps)
        targets = _paste_targets(out, names, images)
        edits = (strengths, multiples, keep_detail)
        done = _paste(opened, images, framing, edits, targets, max_pixels)
        ctx.exit(exit_code(len(images) - done, len(images)))
    files, pixels = _read(opened, images, framing, max_pixels)
    if files:
        rows = edit_steps(opened, pixels, strengths, multiples, keep_detail=keep_detail)
        heads = [] if steps is None else [f"{multiple:g}" for multiple in multiples]
        title = ", ".join(f"{name} {strength:+g}" for name, strength in strengths.items())
        _save(
            out,
            _with_steps(unique_names(files), multiples, steps),
            rows.reshape(-1, *rows.shape[2:]),
            lambda: edits_sheet(opened, pixels, rows, list(map(caption, files)), title=title, heads=heads),
        )
    ctx.exit(exit_code(len(images) - len(files), len(images)))


def _with_steps(names: list[str], multiples: Sequence[float], steps: str | None) -> list[str]:
    """Return a name for each step of each image."""
    if steps is None:
        return names
    width = len(str(len(multiples) - 1))
    return [f"{name}-{step:0{width}d}" for name in names for step in range(len(multiples))]


def _paste_targets(out: str, names: Sequence[str], images: Sequence[Path]) -> list[Path]:
    """Return the file of each changed photograph; none of them is a photograph that is read."""
    from lookalike.encoder.errors import printable
    from lookalike.searcher.figures import is_folder

    if is_folder(out):
        targets = [Path(out, f"{name}.png") for name in names]
    elif len(names) == 1:
        targets = [Path(out)]
    else:
        raise click.UsageError(
            f"--paste makes {len(names)} photographs, and --out {printable(out)} is one file; name a folder: "
            f"--out {printable(out)}/"
        )
    for target in targets:
        if target.exists() and any(image.exists() and target.samefile(image) for image in images):
            raise click.UsageError(f"--out would replace {printable(str(target))} itself; name another place")
    return targets


def _paste(
    model: Model,
    images: Sequence[Path],
    chosen: ChosenFace,
    edits: tuple[dict[str, float], list[float], bool],
    targets: Sequence[Path],
    max_pixels: int | None,
) -> int:
    """Write each photograph with its face changed, one at a time; return how many could be read."""
    from lookalike.encoder.errors import ImageError
    from lookalike.encoder.images import save_image
    from lookalike.searcher.generation import edit_photograph

    strengths, multiples, keep_detail = edits
    done, waiting = 0, iter(targets)
    for image in images:
        files = list(islice(waiting, len(multiples)))
        try:
            changed = edit_photograph(
                model,
                image,
                strengths,
                multiples,
                face=chosen,
                keep_detail=keep_detail,
                max_pixels=max_pixels,
                on_face=_log_face,
            )
        except ImageError as error:
            log_failed([error])
            continue
        for file, pixels in zip(files, changed, strict=True):
            save_image(file, pixels)
            print_path(file)
        done += 1
    return done


def _read(
    model: Model, images: Sequence[Path], crop: InputFraming, max_pixels: int | None
) -> tuple[list[Path], Pixels]:
    """Return the files that can be read and their pixels; report the others on stderr."""
    from lookalike.searcher.generation import read_all

    files, pixels, failures = read_all(model, images, crop=crop, max_pixels=max_pixels, on_face=_log_face)
    log_failed(failures)
    return files, pixels


def _log_face(file: Path, cut: CutFace) -> None:
    """Say which face of a photograph was taken, where there are several."""
    from lookalike.encoder.detect import place_in_words
    from lookalike.encoder.errors import printable

    if cut.count > 1:
        log(f"{printable(str(file))}: {place_in_words(cut.number, cut.count)}")


def _with_classes(
    model: Model, numbers: Sequence[str], latents: NDArray[np.float32], of_class: str | None
) -> list[str]:
    """Return names of files: the number, then the class if the model has classes."""
    from lookalike.searcher.figures import safe_names
    from lookalike.searcher.generation import most_likely_classes

    classes = model.bundle.spec.classes
    generated = [of_class] * len(numbers) if of_class is not None else most_likely_classes(model, latents)
    if generated is None:
        return list(numbers)
    plain = dict(zip(classes, safe_names(classes), strict=True))
    return [f"{number}-{plain[name]}" for number, name in zip(numbers, generated, strict=True)]


def _save(
    out: str, names: Sequence[str], images: Sequence[Pixels] | Pixels, sheet: Callable[[], Pixels]
) -> None:
    """Write one PNG per image into the folder ``out``, or one sheet to that file, and print the paths."""
    from lookalike.encoder.images import save_image
    from lookalike.searcher.figures import is_folder, save_each

    if is_folder(out):
        for path in save_each(Path(out), names, list(images)):
            print_path(path)
        show(Path(out))
    else:
        save_image(Path(out), sheet())
        show(Path(out))
        print_path(out)
