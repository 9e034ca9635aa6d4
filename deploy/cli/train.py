"""``lookalike train``: options in, one call, a few lines out."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args

import click

from lookalike.deploy.cli.class_commands import class_options, with_classes
from lookalike.deploy.cli.cleaner_commands import cleaner
from lookalike.deploy.cli.noise_commands import denoise_option
from lookalike.deploy.cli.variational_commands import cvae, vae
from lookalike.encoder.errors import TrainingError
from lookalike.trainer.config import IDENTITY_CONFIG, Device, Precision, TrainingSpec

if TYPE_CHECKING:
    from lookalike.encoder.images.noise import NoiseSpec

__all__ = ["need_extra", "train"]

_EXTRA: Final = ("torch", "onnx", "onnxscript", "sklearn")
_DEFAULTS: Final = TrainingSpec()


@click.group(short_help="Train a model on LFW, MNIST or a folder of images.")
def train() -> None:
    """Train a model on LFW, MNIST or a folder of images and write it as a bundle. Needs the [train] extra."""


train.add_command(vae)
train.add_command(cvae)
train.add_command(cleaner)


@train.command(
    epilog="Example: lookalike train ae --data lfw --out runs/faces --epochs 150",
    short_help="The vanilla autoencoder.",
)
@click.option(
    "--data",
    required=True,
    metavar="lfw|mnist|FOLDER",
    help="LFW, MNIST, or a folder with one subfolder a person.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the new bundle.")
@class_options("none")
@click.option("--size", type=int, help="Side of the input in pixels; mnist: 28, others: 64.")
@click.option("--grey", is_flag=True, help="One channel instead of RGB; mnist is grey.")
@click.option("--crop", metavar="full|centre:F|X,Y,W,H", help="Framing; lfw: centre:0.36, others: full.")
@click.option("--quick-jpeg", is_flag=True, help="Decode JPEG no larger than --size: at half the cost.")
@click.option("--latent", default=128, show_default=True, help="Numbers that a picture is squeezed into.")
@click.option(
    "--hidden", default="256", show_default=True, help="Widths of the hidden layers: 256 or 1024,512."
)
@click.option(
    "--descriptor",
    type=click.IntRange(min=0),
    metavar="N",
    help="Numbers more to search by, learned without names; mnist: 0, search by the latent, others: 256.",
)
@click.option(
    "--labels",
    default="none",
    show_default=True,
    type=click.Choice(("none", "person")),
    help="person: teach a part of the latent to tell people apart, by the names of the subfolders.",
)
@click.option(
    "--identity",
    default=256,
    show_default=True,
    type=click.IntRange(min=1),
    metavar="N",
    help="Numbers that --labels person adds to search by.",
)
@click.option(
    "--name-epochs",
    default=IDENTITY_CONFIG.epochs,
    show_default=True,
    type=click.IntRange(min=1),
    help="Passes of --labels person.",
)
@click.option(
    "--epochs", default=_DEFAULTS.epochs, show_default=True, help="Passes over the training images."
)
@click.option("--batch", default=_DEFAULTS.batch, show_default=True, help="Images in a step.")
@click.option("--learning-rate", default=_DEFAULTS.learning_rate, show_default=True, help="At its peak.")
@click.option("--weight-decay", default=_DEFAULTS.weight_decay, show_default=True, help="Of AdamW.")
@denoise_option
@click.option(
    "--shift", default=_DEFAULTS.shift, show_default=True, help="Move training images by up to N pixels."
)
@click.option(
    "--precision",
    default=_DEFAULTS.precision,
    show_default=True,
    type=click.Choice(get_args(Precision)),
    help="auto: bfloat16 on CUDA, float32 on the CPU.",
)
@click.option(
    "--device", default="auto", show_default=True, type=click.Choice(get_args(Device)), help="Where."
)
@click.option("--seed", default=_DEFAULTS.seed, show_default=True, help="Of everything random.")
@click.option(
    "--pictures",
    default=10,
    show_default=True,
    type=click.IntRange(min=0),
    help="Reconstructions drawn every N epochs; 0: never.",
)
@click.option("--resume", is_flag=True, help="Go on with an interrupted run of the same options.")
def ae(
    data: str,
    out: Path,
    classes: str,
    class_attribute: str | None,
    size: int | None,
    grey: bool,
    crop: str | None,
    quick_jpeg: bool,
    latent: int,
    hidden: str,
    descriptor: int | None,
    labels: str,
    identity: int,
    name_epochs: int,
    epochs: int,
    batch: int,
    learning_rate: float,
    weight_decay: float,
    noise: NoiseSpec | None,
    shift: int,
    precision: Precision,
    device: Device,
    seed: int,
    pictures: int,
    resume: bool,
) -> None:
    """Train the vanilla autoencoder: Linear > BatchNorm1d > ReLU, mean squared error.

    People stay on one side: figures are reported on people the network never saw. The run keeps its
    checkpoints, log.csv and pictures in OUT.run.
    """
    need_extra()
    from lookalike.encoder.images.preprocess import Crop, ImageSpec
    from lookalike.trainer.config import AESpec
    from lookalike.trainer.data.dataset import default_shape, open_dataset
    from lookalike.trainer.models.descriptor import DescriptorSpec
    from lookalike.trainer.models.identity import IdentitySpec
    from lookalike.trainer.recipes.ae import train_autoencoder

    side, channels = default_shape(data)
    size, channels = side if size is None else size, 1 if grey else channels
    if descriptor is None:
        descriptor = 0 if data == "mnist" else 256
    network = AESpec(size=size, channels=channels, latent=latent, hidden=_widths(hidden))
    spec = TrainingSpec(
        epochs=epochs,
        batch=batch,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        shift=shift,
        noise=noise,
        precision=precision,
        seed=seed,
    )
    naming = replace(IDENTITY_CONFIG, epochs=name_epochs, precision=precision, seed=seed)
    framing = None if crop is None else Crop.parse(crop)
    dataset = with_classes(open_dataset(data, progress=True), classes, class_attribute)
    image = ImageSpec(size=size, channels=channels, crop=framing or dataset.crop, quick_jpeg=quick_jpeg)
    train_autoencoder(
        dataset,
        out,
        image=image,
        network=network,
        spec=spec,
        descriptor=DescriptorSpec(size=size, dim=descriptor) if descriptor else None,
        identity=None if labels == "none" else IdentitySpec(size=size, dim=identity, training=naming),
        device=device,
        sample_every=pictures,
        resume=resume,
        log=lambda line: click.echo(line, err=True),
    )
    click.echo(os.fsencode(out))  # as bytes: a name need not be UTF-8


def need_extra() -> None:
    """Refuse to begin without what training needs.

    Raises:
        TrainingError: torch, onnx, onnxscript or scikit-learn is not installed.
    """
    missing = [name for name in _EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise TrainingError(
            f"training needs the extra [train], {', '.join(missing)} cannot be imported; "
            "pip install 'lookalike[train]'"
        )


def _widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(width) for width in text.split(","))
    except ValueError:
        raise click.BadParameter(
            f"widths are whole numbers with commas between, {text!r} is not", param_hint="--hidden"
        ) from None
