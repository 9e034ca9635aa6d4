"""``lookalike train cleaner``: options in, one call, a few lines out."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args

import click

from lookalike.trainer.config import DENOISER_DEFAULTS, Device, Precision, TrainingSpec

if TYPE_CHECKING:
    from lookalike.encoder.images.noise import NoiseSpec

__all__ = ["cleaner"]

_WIDTHS: Final = (64, 96, 128)
_DIGITS: Final = (48, 64, 96)
_DIGITS_EPOCHS: Final = 3


def _noise(_ctx: click.Context, _option: click.Parameter, text: str | None) -> NoiseSpec | None:
    from lookalike.encoder.images.noise import NoiseSpec

    return None if text is None else NoiseSpec.parse(text)


@click.command(
    epilog="Example: lookalike train cleaner --data lfw --out runs/clean --epochs 40",
    short_help="A network that takes noise off pictures of any size.",
)
@click.option("--data", required=True, metavar="lfw|mnist|FOLDER", help="LFW, MNIST, or a folder of images.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the new bundle.")
@click.option(
    "--denoise",
    "noise",
    metavar="SIGMA|LO:HI",
    callback=_noise,
    help="Gaussian noise that it learns to take off, of 255; mnist: 0:191, others: 0:75.",
)
@click.option(
    "--widths", metavar="N,N,N", help="Features at 1/2, 1/4, 1/8 of the side; 64,96,128, mnist: 48,64,96."
)
@click.option("--blocks", default="2,2,2", show_default=True, metavar="N,N,N", help="Residual blocks there.")
@click.option("--patch", type=click.IntRange(min=8), help="Side of a patch in pixels; mnist: 28, others: 64.")
@click.option(
    "--epochs",
    type=int,
    help="Of as many patches as there are training images, 1,024 at least; "
    f"mnist: {_DIGITS_EPOCHS}, others: {DENOISER_DEFAULTS.epochs}.",
)
@click.option("--batch", default=DENOISER_DEFAULTS.batch, show_default=True, help="Patches in a step.")
@click.option(
    "--learning-rate", default=DENOISER_DEFAULTS.learning_rate, show_default=True, help="At its peak."
)
@click.option(
    "--precision",
    default=DENOISER_DEFAULTS.precision,
    show_default=True,
    type=click.Choice(get_args(Precision)),
    help="auto: bfloat16 on CUDA, float32 on the CPU.",
)
@click.option(
    "--device", default="auto", show_default=True, type=click.Choice(get_args(Device)), help="Where."
)
@click.option("--seed", default=DENOISER_DEFAULTS.seed, show_default=True, help="Of everything random.")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run of the same options.")
def cleaner(
    data: str,
    out: Path,
    noise: NoiseSpec | None,
    widths: str | None,
    blocks: str,
    patch: int | None,
    epochs: int | None,
    batch: int,
    learning_rate: float,
    precision: Precision,
    device: Device,
    seed: int,
    resume: bool,
) -> None:
    """Train a cleaner: a residual U-Net that is told how noisy a picture is, and one that finds that out.

    It cleans grey and RGB pictures of any size. Figures are reported on people whom it never saw. The run
    keeps its checkpoints and log.csv in OUT.run.
    """
    from lookalike.deploy.cli.train import need_extra

    need_extra()
    from lookalike.encoder.images.noise import NoiseSpec
    from lookalike.trainer.config import DenoiserShape, PatchSpec
    from lookalike.trainer.data.dataset import open_dataset
    from lookalike.trainer.recipes.denoiser import train_denoiser

    digits = data == "mnist"
    usual = _DIGITS if digits else _WIDTHS
    shape = DenoiserShape(
        widths=usual if widths is None else _three(widths, "--widths"), blocks=_three(blocks, "--blocks")
    )
    if epochs is None:
        epochs = _DIGITS_EPOCHS if digits else DENOISER_DEFAULTS.epochs
    patches = PatchSpec(side=28, mirror=False, rotated=0.0) if digits else PatchSpec()
    train_denoiser(
        open_dataset(data, progress=True),
        out,
        shape=shape,
        patches=patches if patch is None else replace(patches, side=patch),
        noise=noise or NoiseSpec.parse("0:191" if digits else "0:75"),
        spec=TrainingSpec(
            epochs=epochs,
            batch=batch,
            learning_rate=learning_rate,
            warmup=DENOISER_DEFAULTS.warmup,
            shift=0,
            precision=precision,
            seed=seed,
        ),
        device=device,
        resume=resume,
        log=lambda line: click.echo(line, err=True),
    )
    click.echo(os.fsencode(out))  # as bytes: a name need not be UTF-8


def _three(text: str, option: str) -> tuple[int, int, int]:
    try:
        first, second, third = (int(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(
            f"three whole numbers with commas between are wanted, {text!r} is not", param_hint=option
        ) from None
    return first, second, third
