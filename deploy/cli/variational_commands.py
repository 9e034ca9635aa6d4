"""``lookalike train vae`` and ``cvae``: options in, one call, a few lines out."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import click

from lookalike.deploy.cli.class_commands import all_of, class_options, with_classes
from lookalike.deploy.cli.noise_commands import denoise_option
from lookalike.encoder.errors import DataError
from lookalike.trainer.config import (
    VAE_DEFAULTS,
    Binarise,
    Device,
    ElboConfig,
    Precision,
    TrainingSpec,
    default_schedule,
)

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from lookalike.trainer.data.dataset import Dataset

__all__ = ["cvae", "vae"]

_BOUND: Final = ElboConfig()
_NO_CLASSES: Final = (
    "a conditional model needs two classes or more, {} has none; sort the pictures into subfolders, "
    "take --class-attribute (lfw), or train a vae"
)


_shape = all_of(
    click.option(
        "--data",
        required=True,
        metavar="mnist|lfw|FOLDER",
        help="MNIST, LFW, or a folder with one subfolder a class.",
    ),
    click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the new bundle."),
    class_options("subfolder"),
    click.option("--size", type=int, help="Side of the input in pixels; mnist: 28, others: 64."),
    click.option("--grey", is_flag=True, help="One channel instead of RGB; mnist is grey."),
    click.option("--crop", metavar="full|centre:F|X,Y,W,H", help="Framing; lfw: centre:0.36, others: full."),
    click.option("--latent", default=40, show_default=True, help="Numbers of the latent."),
    click.option(
        "--hidden", default=256, show_default=True, help="Features between convolutions and latent."
    ),
    click.option("--down", metavar="N,N,...", help="Channels of the encoder's convolutions; by size."),
    click.option("--up", metavar="N,N,...", help="Channels of the decoder's stages; by size."),
)
_objective = all_of(
    click.option(
        "--likelihood",
        type=click.Choice(("bernoulli", "gaussian")),
        help="Of pixels given the latent; mnist, or with --binarise dynamic: bernoulli, others: gaussian.",
    ),
    click.option(
        "--deviation",
        type=float,
        default=None,
        help="Of gaussian pixels, of 1, one for all; left out, the likeliest.",
    ),
    click.option(
        "--binarise",
        type=click.Choice(get_args(Binarise)),
        help="dynamic: pixels are drawn black or white whenever shown; mnist: dynamic, others: none.",
    ),
    click.option(
        "--mirror/--no-mirror", default=None, help="Mirror images are as good; mnist: no, others: yes."
    ),
    click.option(
        "--align/--no-align",
        default=None,
        help="Turn and scale the trained latents so that all together are as N(0, I) says; mnist: no, "
        "others: yes.",
    ),
    click.option(
        "--importance",
        default=_BOUND.importance,
        show_default=True,
        help="Draws in the importance-weighted bound; 1: the ELBO.",
    ),
    click.option("--beta", default=_BOUND.beta, show_default=True, help="Weight of the divergence."),
    click.option(
        "--beta-warmup",
        default=_BOUND.beta_warmup,
        show_default=True,
        metavar="SHARE",
        help="Share of the training over which it rises from 0.",
    ),
    click.option(
        "--free-bits",
        default=_BOUND.free_bits,
        show_default=True,
        metavar="NATS",
        help="Divergence of each latent that costs nothing more.",
    ),
)
_course = all_of(
    denoise_option,
    click.option(
        "--epochs",
        type=int,
        help=f"Passes over the training images; of 5,000 {VAE_DEFAULTS.epochs}, of fewer what makes 2,500 steps.",
    ),
    click.option(
        "--batch",
        type=int,
        help=f"Images in a step, 3 or more; of 5,000 {VAE_DEFAULTS.batch}, of 500 64, of fewer 32.",
    ),
    click.option(
        "--learning-rate",
        default=VAE_DEFAULTS.learning_rate,
        show_default=True,
        help="At its peak; then a half cosine to 0.",
    ),
    click.option("--weight-decay", default=VAE_DEFAULTS.weight_decay, show_default=True, help="Of AdamW."),
    click.option(
        "--warmup",
        default=VAE_DEFAULTS.warmup,
        show_default=True,
        help="Steps until the learning rate's peak.",
    ),
    click.option(
        "--averaging",
        default=VAE_DEFAULTS.averaging,
        show_default=True,
        help="Decay of the moving average of the weights, which is what is kept.",
    ),
    click.option(
        "--shift", default=VAE_DEFAULTS.shift, show_default=True, help="Move images by up to N pixels."
    ),
    click.option(
        "--precision",
        default=VAE_DEFAULTS.precision,
        show_default=True,
        type=click.Choice(get_args(Precision)),
        help="auto: bfloat16 on CUDA, float32 on the CPU.",
    ),
    click.option(
        "--device", default="auto", show_default=True, type=click.Choice(get_args(Device)), help="Where."
    ),
    click.option("--seed", default=VAE_DEFAULTS.seed, show_default=True, help="Of everything random."),
    click.option(
        "--pictures",
        default=10,
        show_default=True,
        type=click.IntRange(min=0),
        help="Reconstructions drawn every N epochs; 0: never.",
    ),
    click.option("--resume", is_flag=True, help="Go on with an interrupted run of the same options."),
)


@click.command(
    epilog="Example: lookalike train vae --data mnist --out runs/digits-vae",
    short_help="The variational autoencoder.",
)
@_shape
@_objective
@_course
def vae(**options: Any) -> None:
    """Train the variational autoencoder: convolutions, reparametrised, on a bound of the likelihood.

    Of a folder's subfolders, of digits or of an attribute, a Gaussian of the latents is fitted to each class.
    The run keeps its checkpoints, log.csv and pictures in OUT.run.
    """
    _train("vae", **options)


@click.command(
    epilog="Example: lookalike train cvae --data mnist --out runs/digits",
    short_help="The conditional variational autoencoder.",
)
@_shape
@click.option(
    "--plain", is_flag=True, help="The class enters the decoder with the latent alone, at no stage."
)
@_objective
@click.option(
    "--label-weight",
    default=_BOUND.label_weight,
    show_default=True,
    help="Of the cross-entropy of the class that the encoder finds.",
)
@click.option(
    "--independence",
    "adversarial_weight",
    default=_BOUND.adversarial_weight,
    show_default=True,
    metavar="WEIGHT",
    help="Of the demand that the latent tells nothing of the class; 0: none.",
)
@click.option(
    "--consistency",
    type=float,
    metavar="WEIGHT",
    help=f"Of the demand that what is drawn of a class is recognised as it; mnist: {_BOUND.consistency:g}, "
    "others: 0, none.",
)
@_course
def cvae(**options: Any) -> None:
    """Train the conditional variational autoencoder: the decoder is told the class, the encoder finds it.

    Classes are the digits, a folder's subfolders, or those with and without an attribute. The run keeps its
    checkpoints, log.csv and pictures in OUT.run.
    """
    _train("cvae", **options)


def _train(
    kind: Literal["vae", "cvae"],
    *,
    data: str,
    out: Path,
    size: int | None,
    grey: bool,
    crop: str | None,
    down: str | None,
    up: str | None,
    likelihood: Literal["bernoulli", "gaussian"] | None,
    binarise: Binarise | None,
    mirror: bool | None,
    align: bool | None,
    device: Device,
    pictures: int,
    resume: bool,
    epochs: int | None,
    batch: int | None,
    **options: Any,
) -> None:
    from lookalike.deploy.cli.train import need_extra

    need_extra()
    from lookalike.encoder.images.preprocess import Crop, ImageSpec, printable
    from lookalike.trainer.config import VAESpec
    from lookalike.trainer.data.dataset import default_shape, open_dataset
    from lookalike.trainer.recipes.vae import train_vae

    side, channels = default_shape(data)
    channels = 1 if grey else channels
    binary = (binarise or ("dynamic" if data == "mnist" else "none")) == "dynamic"
    given = {"epochs": epochs, "batch": batch}
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    spec = TrainingSpec(**_taken(TrainingSpec, options), **chosen)
    shape: dict[str, Any] = _taken(VAESpec, options) | {
        "size": side if size is None else size,
        "channels": channels,
        "modulated": not options.get("plain"),
        "down": _widths(down, "--down"),
        "up": _widths(up, "--up"),
        "likelihood": likelihood or ("bernoulli" if binary or data == "mnist" else "gaussian"),
    }
    shaped = VAESpec(**shape)
    if options.get("consistency") is None:
        options["consistency"] = _BOUND.consistency if data == "mnist" else 0.0
    bound = ElboConfig(
        **_taken(ElboConfig, options),
        binarise="dynamic" if binary else "none",
        mirror=data != "mnist" if mirror is None else mirror,
        align=data != "mnist" if align is None else align,
    )
    framing = None if crop is None else Crop.parse(crop)
    dataset = with_classes(open_dataset(data, progress=True), options["classes"], options["class_attribute"])
    if kind == "cvae":
        if not dataset.classes:
            raise DataError(_NO_CLASSES.format(printable(dataset.name)))
        shaped = VAESpec(**shape, classes=len(dataset.classes))
    spec = replace(spec, **_usual(dataset, kind) | chosen)
    train_vae(
        dataset,
        out,
        image=ImageSpec(size=shaped.size, channels=channels, crop=framing or dataset.crop),
        network=shaped,
        elbo=bound,
        spec=spec,
        device=device,
        sample_every=pictures,
        resume=resume,
        log=lambda line: click.echo(line, err=True),
    )
    click.echo(os.fsencode(out))  # as bytes: a name need not be UTF-8


def _usual(dataset: Dataset, kind: Literal["vae", "cvae"]) -> dict[str, Any]:
    """Return the epochs and the batch that suit a data set: a CVAE learns from what has a class."""
    rows = range(len(dataset.paths))
    split = dataset.split(row for row in rows if kind == "vae" or dataset.labels[row] >= 0)
    return dict(zip(("epochs", "batch"), default_schedule(len(split.train)), strict=True))


def _taken(kind: type[DataclassInstance], options: dict[str, Any]) -> dict[str, Any]:
    """Take the options that are named as fields of a spec."""
    names = {field.name for field in fields(kind)} - {"classes"}
    return {name: value for name, value in options.items() if name in names}


def _widths(text: str | None, option: str) -> tuple[int, ...]:
    try:
        return tuple(int(width) for width in text.split(",")) if text is not None else ()
    except ValueError:
        raise click.BadParameter(
            f"widths are whole numbers with commas between, {text!r} is not", param_hint=option
        ) from None
