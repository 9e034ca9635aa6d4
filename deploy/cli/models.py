"""``lookalike models``: the bundles at hand, and networks made elsewhere wrapped as bundles."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from lookalike.encoder.bundle.bundle import Bundle

__all__ = ["models"]

_MOST_CLASSES: Final = 20
_TRAINED: Final = {
    "none": "trained without names",
    "person": "trained with people's names",
    "class": "trained with the classes of its pictures",
    "unknown": "not said here what it was trained with",
}


class _ListByDefault(click.Group):
    """Lists when no verb of its own is named: ``models``, ``models --json``, ``models BUNDLE``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        known = bool(args) and (args[0] in self.commands or args[0] in ctx.help_option_names)
        return super().parse_args(ctx, args if known else ["list", *args])


@click.group(cls=_ListByDefault)
def models() -> None:
    """List the bundles at hand, or wrap an encoder of your own."""


@models.command("list", epilog="Example: lookalike models list")
@click.argument("where", nargs=-1, metavar="[BUNDLE]...")
@click.option("--json", "as_json", is_flag=True, help="A list of objects on stdout.")
def list_(where: tuple[str, ...], as_json: bool) -> None:
    """List bundles with their figures: the shipped ones, or those that are given."""
    from lookalike.encoder.bundle.bundle import Bundle
    from lookalike.encoder.bundle.registry import shipped_bundles

    opened = [Bundle.open(name) for name in where or shipped_bundles()]
    if as_json:
        click.echo(json.dumps([_to_json(bundle) for bundle in opened]))
        return
    if not opened:
        click.echo("no shipped bundle; lookalike train makes one", err=True)
    for bundle in opened:
        _print(bundle)


@models.command(
    "import",
    epilog="Example: lookalike models import my.onnx --mean 127.5 --std 127.5 --bgr --name arcface",
)
@click.argument("network", metavar="FILE.onnx", type=click.Path(path_type=Path))
@click.option("--name", required=True, metavar="NAME", help="What to call it: its folder gets this name.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=".",
    show_default=True,
    metavar="FOLDER",
    help="In which folder that folder is made.",
)
@click.option(
    "--size", type=click.IntRange(8, 1024), help="Side of its input, where the network leaves it open."
)
@click.option("--mean", required=True, metavar="M[,M,M]", help="Taken off each value of 0..255, by channel.")
@click.option("--std", required=True, metavar="S[,S,S]", help="Then divides it.")
@click.option("--rgb/--bgr", "rgb", default=True, show_default=True, help="Order of its channels.")
@click.option("--grey", is_flag=True, help="Feed it grey pictures, also where it takes three channels.")
@click.option(
    "--crop",
    default="full",
    show_default=True,
    metavar="full|center:F|X,Y,W,H",
    help="How pictures are framed.",
)
@click.option("--output", metavar="NAME", help="Which of its outputs, where several could be meant.")
@click.option(
    "--mirror/--no-mirror",
    default=True,
    show_default=True,
    help="Average a picture with its mirror image.",
)
def import_(
    network: Path,
    name: str,
    out: Path,
    size: int | None,
    mean: str,
    std: str,
    rgb: bool,
    grey: bool,
    crop: str,
    output: str | None,
    mirror: bool,
) -> None:
    """Wrap an ONNX network that turns a picture into a vector as a bundle.

    It can index and search, not draw. The network takes float images, (N, C, H, W) or (N, H, W, C), and gives
    one vector each; --mean and --std are one number or three, in the order of its channels.
    """
    from lookalike.encoder.errors import InvalidArgumentError
    from lookalike.encoder.export.import_model import import_onnx, need_extra
    from lookalike.encoder.images.preprocess import Crop
    from lookalike.encoder.text import printable

    need_extra()
    from lookalike.encoder.export.onnx_graph import Normalization

    if name in ("", ".", "..") or Path(name).name != name:
        raise InvalidArgumentError(
            f"a name is that of a folder, {printable(name)!r} cannot be; say where with --out"
        )
    normalization = Normalization(mean=_numbers("--mean", mean), std=_numbers("--std", std), rgb=rgb, gray=grey)
    folder = out / name
    bundle = import_onnx(
        network,
        folder,
        size=size,
        normalization=normalization,
        crop=Crop.parse(crop),
        output=output,
        mirror=mirror,
    )
    click.echo(f"{bundle.name}: {_described(bundle)}", err=True)
    click.echo(os.fsencode(folder))  # as it is: made to be read by the next program


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) not in (1, 3):
        raise click.BadParameter(
            f"give one number, or three with commas between; {text!r} is neither", param_hint=option
        )
    return values


def _to_json(bundle: Bundle) -> dict[str, object]:
    likeness = None if bundle.calibration is None else bundle.calibration.scores
    return {
        "name": bundle.name,
        "model_id": bundle.model_id,
        **bundle.manifest.spec.to_json(),
        "calibration": None if likeness is None else likeness.to_json(),
    }


def _described(bundle: Bundle) -> str:
    spec, image = bundle.spec, bundle.spec.image
    return (
        f"{spec.kind}, {image.size}x{image.size}x{image.channels}, latent {spec.latent}, crop {image.crop}, "
        f"id {bundle.model_id[:12]}"
    )


def _of_classes(bundle: Bundle) -> str:
    from lookalike.encoder.text import printable

    names = bundle.spec.classes
    more = f" and {len(names) - _MOST_CLASSES} more" if len(names) > _MOST_CLASSES else ""
    some = ", ".join(names[: _MOST_CLASSES if more else None])
    return f"{len(names)} classes: {printable(some)}{more}"


def _of_drawing(bundle: Bundle) -> str:
    """What `lookalike generate` can draw of it."""
    spec, sampling = bundle.spec, bundle.sampling
    samplers = ["normal", "gaussian"] if spec.has_prior else ["gaussian"]
    if sampling is not None and sampling.mixture is not None:
        samplers.append(f"gmm ({sampling.mixture.components} Gaussians)")
    by_class = spec.conditional or (sampling is not None and sampling.by_class is not None)
    return f"draws from {', '.join(samplers)}{'; each class by itself' if by_class else ''}"


def _print(bundle: Bundle) -> None:
    if not bundle.is_denoiser:
        _print_of_latents(bundle)
    else:
        spec = bundle.denoiser_spec
        low, high = (255 * sigma for sigma in spec.deviations)
        click.echo(
            f"{bundle.name}  denoiser, any size, gray or RGB, multiples of {spec.size_multiple}, "
            f"id {bundle.model_id[:12]}"
        )
        click.echo(f"  takes noise of sigma {low:g} to {high:g} (of 255) from pictures: lookalike denoise")
    for key, value in bundle.manifest.spec.figures.items():
        rows = value if isinstance(value, list) else [value]
        for row in rows:  # of a cleaner, one for each noise that it was measured at
            text = ", ".join(f"{k} {v}" for k, v in row.items()) if isinstance(row, dict) else row
            click.echo(f"  {key:<18} {text}")


def _print_of_latents(bundle: Bundle) -> None:
    click.echo(f"{bundle.name}  {_described(bundle)}")
    click.echo(f"  {_TRAINED[bundle.spec.labels]}")
    if bundle.spec.classes:
        click.echo(f"  {_of_classes(bundle)}")
    if "decoder" in bundle.graphs:
        click.echo(f"  {_of_drawing(bundle)}")
    if bundle.spec.denoises is not None:
        click.echo(f"  taught to clean: noise {bundle.spec.denoises}; lookalike reconstruct draws without it")
    likeness = None if bundle.calibration is None else bundle.calibration.scores
    if likeness is not None:
        click.echo(
            f"  calibrated on {likeness.people} people: {likeness.matched} matched, "
            f"{likeness.mismatched} mismatched pairs"
        )
