"""``lookalike train``: one command per kind of model; each builds the configuration and calls its recipe."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from lookalike.deploy.cli.options import Given, Group, Helps, LocalPath, auto, combine, option, options_of
from lookalike.deploy.cli.output import log, print_path
from lookalike.deploy.cli.training.data import DataOptions, data_options, training_data_options
from lookalike.encoder.errors import DataError, TrainingError
from lookalike.trainer.config import (
    DENOISER_DEFAULTS,
    DIGIT_DENOISER,
    DIGIT_EPOCHS,
    DIGIT_PATCHES,
    IDENTITY_CONFIG,
    VAE_DEFAULTS,
    AESpec,
    DenoiserShape,
    Device,
    ElboConfig,
    PatchSpec,
    TrainingSpec,
    VAESpec,
    default_descriptor,
    default_epochs,
    default_schedule,
    default_texture,
)

if TYPE_CHECKING:
    from lookalike.encoder.images import NoiseSpec
    from lookalike.trainer.data import Dataset

_EXTRA: Final = ("torch", "onnx", "onnxscript", "sklearn")
_NETWORK, _TRAINING, _OBJECTIVE = "Network", "Training", "Objective"


def need_extra() -> None:
    """Check that the packages that training needs are installed.

    Raises:
        TrainingError: torch, onnx, onnxscript or scikit-learn is not installed.
    """
    missing = [name for name in _EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise TrainingError(
            f"training needs the extra [train], {', '.join(missing)} cannot be imported; "
            "pip install 'lookalike[train]'"
        )


# Options


def _to_noise(_ctx: click.Context, _option: click.Parameter, text: str | None) -> NoiseSpec | None:
    from lookalike.encoder.images import NoiseSpec

    return None if text is None else NoiseSpec.parse(text)


_noise_option = option(
    "--denoise",
    "noise",
    default="0",
    show_default=True,
    metavar="SIGMA|LO:HI|KIND:...",
    callback=_to_noise,
    group=_TRAINING,
    help="Train to denoise: add noise to the input, not to the target. Sigma of Gaussian noise, of 255; or "
    "salt-pepper:0.1, poisson:25, masking:0.5, jpeg:10:60, camera:20:60, resized:25, shadows:40.",
)
_SCHEDULE: Final[Helps] = {
    "learning_rate": "Peak learning rate.",
    "weight_decay": "Weight decay of AdamW.",
    "warmup": "Steps until the peak learning rate.",
    "averaging": "Decay of the moving average of the weights, which is the model that is kept.",
    "shift": "Shift training images by up to this many pixels.",
    "precision": "Precision; auto: bfloat16 on CUDA, float32 on the CPU.",
    "seed": "Random seed.",
}


def _schedule(*names: str) -> Helps:
    return {name: _SCHEDULE[name] for name in names}


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """How a training runs; it changes nothing about the model.

    Attributes:
        device: Processor.
        sample_every: Save a sheet of reconstructions every so many epochs; 0: never.
        resume: Continue an interrupted run.
    """

    device: Device = "auto"
    sample_every: int = 10
    resume: bool = False


_RUN: Final[Helps] = {
    "device": "Processor.",
    "sample_every": {
        "help": "Save a sheet of reconstructions every N epochs; 0: never.",
        "type": click.IntRange(min=0),
        "metavar": "N",
    },
    "resume": "Continue an interrupted run with the same options.",
}
_run_options = options_of(RunOptions, "run", _RUN, group=_TRAINING)


@click.group(cls=Group)
def train() -> None:
    """Train a model on LFW, MNIST or a folder of images. Needs the [train] extra."""


# Autoencoder


@train.command(
    epilog="Example: lookalike train ae --data lfw --out runs/faces --epochs 150",
    short_help="Train an autoencoder.",
)
@data_options("with subfolders or without", subfolders=("auto", "class", "person", "none"))
@option("--quick-jpeg", is_flag=True, help="Decode JPEG at about --size: twice as fast, less exact.")
@options_of(
    AESpec,
    "network",
    {
        "latent": "Dimensions of the latent.",
        "hidden": "Widths of the hidden layers, such as 256 or 1024,512.",
    },
    group=_NETWORK,
)
@option(
    "--descriptor",
    type=click.IntRange(min=0),
    metavar="N",
    group=_NETWORK,
    help="Dimensions of a descriptor of what lies where, learned without labels; 0: none.",
    show_default="0 for mnist, else one for 8 images, 32 to 256",
)
@option(
    "--texture",
    type=click.IntRange(min=0),
    metavar="N",
    group=_NETWORK,
    help="Dimensions of a texture descriptor, for images that are not framed alike; 0: none.",
    show_default="128 for up to 4,000 images; 0 for lfw, mnist, --faces, --descriptor 0 and people",
)
@option(
    "--identity",
    default=256,
    show_default=True,
    type=click.IntRange(min=1),
    metavar="N",
    group=_NETWORK,
    help="Dimensions of the identity embedding (--subfolders person).",
)
@options_of(
    TrainingSpec,
    "training",
    {
        "epochs": auto("Passes over the training images.", "one for 6 images, 40 to 150"),
        "batch": "Images per step.",
        **_schedule("learning_rate", "weight_decay", "shift", "precision", "seed"),
    },
    group=_TRAINING,
)
@option(
    "--identity-epochs",
    default=IDENTITY_CONFIG.epochs,
    show_default=True,
    type=click.IntRange(min=1),
    group=_TRAINING,
    help="Epochs of the identity embedding (--subfolders person).",
)
@_noise_option
@_run_options
def ae(
    source: DataOptions,
    out: Path,
    network: Given[AESpec],
    descriptor: int | None,
    texture: int | None,
    identity: int,
    identity_epochs: int,
    training: Given[TrainingSpec],
    noise: NoiseSpec,
    run: Given[RunOptions],
) -> None:
    """Train an autoencoder: Linear > BatchNorm1d > ReLU layers, mean squared error.

    Search compares the descriptors, or the latent where there are none. Metrics are reported on people, or
    images of each class, that the network never saw. Checkpoints and log.csv go to OUT.run.
    """
    need_extra()
    from lookalike.trainer.models import DescriptorSpec, IdentitySpec, TextureSpec
    from lookalike.trainer.recipes import train_autoencoder

    shape = network.build(**source.shape)
    clean = {"noise": None if noise.is_zero else noise}
    training.build(**clean)  # refuses a wrong value before the data are read
    dataset = source.open()
    count = len(dataset.paths)
    spec = training.build(**clean, epochs=default_epochs(count))
    schedule = replace(IDENTITY_CONFIG, epochs=identity_epochs, precision=spec.precision, seed=spec.seed)
    supervised: dict[str, Any] = {"size": shape.size, "dim": identity, "training": schedule}
    dims, components = default_descriptor(count)
    dims = (0 if source.digits else dims) if descriptor is None else descriptor
    people = source.subfolders == "person" or dataset.faces or dataset.name == "lfw"
    if texture is None:
        texture = 0 if people or not dims else default_texture(count)
    features = {"dim": dims, "components": max(dims, components)}
    train_autoencoder(
        dataset,
        out,
        image=source.image(dataset),
        network=shape,
        spec=spec,
        descriptor=DescriptorSpec(size=shape.size, **features) if dims else None,
        texture=TextureSpec(size=shape.size, channels=shape.channels, dim=texture) if texture else None,
        identity=IdentitySpec(**supervised) if source.subfolders == "person" else None,
        device=run.values["device"],
        sample_every=run.values["sample_every"],
        resume=run.values["resume"],
        log=log,
    )
    print_path(out)


# Variational autoencoders

_vae_network = combine(
    options_of(
        VAESpec,
        "network",
        {
            "latent": "Dimensions of the latent.",
            "hidden": "Width of the layer between convolutions and latent.",
            "down": auto("Channels of the encoder's convolutions.", "chosen by --size"),
            "up": auto("Channels of the decoder's stages.", "--down reversed"),
        },
        group=_NETWORK,
    ),
    options_of(
        VAESpec,
        "network",
        {
            "likelihood": auto(
                "Distribution of the pixels given the latent.",
                "bernoulli for mnist and with --binarise dynamic, else gaussian",
            ),
            "deviation": auto("Standard deviation of gaussian pixels, in [0, 1].", "the most likely one"),
        },
        group=_OBJECTIVE,
    ),
)
_ELBO: Final[Helps] = {
    "binarise": auto(
        "dynamic: draw black and white pixels anew each time an image is shown.",
        "dynamic for mnist, else none",
    ),
    "mirror": auto("Also train on mirror images.", "no for mnist, else yes"),
    "align": auto(
        "Whiten the aggregate posterior after training, so that the latents together match N(0, I).",
        "no for mnist, else yes",
    ),
    "importance": "Samples of the importance-weighted bound; 1: the ELBO.",
    "beta": "Weight of the KL divergence.",
    "beta_warmup": "Share of the training over which --beta rises from 0.",
    "free_bits": "Nats of KL divergence per latent dimension that cost nothing.",
}
_CVAE_ELBO: Final[Helps] = {
    "label_weight": "Weight of the cross-entropy of the encoder's class.",
    "adversarial_weight": "Weight of the adversary that keeps the class out of the latent; 0: none.",
    "consistency": auto(
        "Weight of recognizing the class of generated images; 0: none.",
        f"{ElboConfig().consistency:g} for mnist, else 0",
    ),
}
_vae_training = combine(
    options_of(
        TrainingSpec,
        "training",
        {
            "epochs": auto(
                "Passes over the training images.",
                f"{VAE_DEFAULTS.epochs} for 5,000 images or more, else enough for 2,500 steps",
            ),
            "batch": auto(
                "Images per step, 3 or more.", f"{VAE_DEFAULTS.batch} from 5,000 images, 64 from 500, else 32"
            ),
            **_schedule("learning_rate", "weight_decay", "warmup", "averaging", "shift", "precision", "seed"),
        },
        group=_TRAINING,
        defaults=VAE_DEFAULTS,
    ),
    _noise_option,
    _run_options,
)


@train.command(
    epilog="Example: lookalike train vae --data mnist --out runs/digits-vae",
    short_help="Train a variational autoencoder.",
)
@data_options("with one subfolder per class", subfolders=("class", "none"))
@_vae_network
@options_of(ElboConfig, "elbo", _ELBO, group=_OBJECTIVE)
@_vae_training
def vae(**options: Any) -> None:
    """Train a variational autoencoder (VAE): convolutions, trained on a bound of the likelihood.

    If the images have classes, a Gaussian is fitted to the latents of each class. Checkpoints, log.csv and
    reconstructions go to OUT.run.
    """
    _train_vae("vae", **options)


@train.command(
    epilog="Example: lookalike train cvae --data mnist --out runs/digits",
    short_help="Train a conditional variational autoencoder.",
)
@data_options("with one subfolder per class", subfolders=("class", "none"))
@_vae_network
@option(
    "--unmodulated",
    is_flag=True,
    group=_NETWORK,
    help="Feed the class to the decoder's input only, not to each stage.",
)
@options_of(ElboConfig, "elbo", _ELBO | _CVAE_ELBO, group=_OBJECTIVE)
@_vae_training
def cvae(**options: Any) -> None:
    """Train a conditional VAE: the decoder gets the class, and the encoder predicts it.

    Classes are the digits, the subfolders of a folder, or with and without an attribute. Checkpoints, log.csv
    and reconstructions go to OUT.run.
    """
    _train_vae("cvae", **options)


def _train_vae(
    kind: Literal["vae", "cvae"],
    *,
    source: DataOptions,
    out: Path,
    network: Given[VAESpec],
    elbo: Given[ElboConfig],
    training: Given[TrainingSpec],
    noise: NoiseSpec,
    run: Given[RunOptions],
    unmodulated: bool = False,
) -> None:
    need_extra()
    from lookalike.encoder.errors import printable
    from lookalike.trainer.recipes import train_vae

    digits = source.digits
    binary = (elbo.values["binarise"] or ("dynamic" if digits else "none")) == "dynamic"
    shape = network.build(
        **source.shape,
        modulated=not unmodulated,
        likelihood="bernoulli" if binary or digits else "gaussian",
    )
    config = elbo.build(
        binarise="dynamic" if binary else "none",
        mirror=not digits,
        align=not digits,
        consistency=ElboConfig().consistency if digits else 0.0,
    )
    clean = {"noise": None if noise.is_zero else noise}
    training.build(**clean)  # refuses a wrong value before the data are read
    dataset = source.open()
    if kind == "cvae":
        if not dataset.classes:
            raise DataError(
                f"a conditional model needs two classes or more, {printable(dataset.name)} has none; sort "
                "the images into subfolders, use --class-attribute (lfw), or train a vae"
            )
        shape = replace(shape, classes=len(dataset.classes))
    train_vae(
        dataset,
        out,
        image=source.image(dataset),
        network=shape,
        elbo=config,
        spec=training.build(**clean, **_vae_schedule(dataset, kind)),
        device=run.values["device"],
        sample_every=run.values["sample_every"],
        resume=run.values["resume"],
        log=log,
    )
    print_path(out)


def _vae_schedule(dataset: Dataset, kind: Literal["vae", "cvae"]) -> dict[str, int]:
    """Return epochs and batch for the size of a data set; a CVAE trains on images that have a class."""
    rows = range(len(dataset.paths))
    split = dataset.split(row for row in rows if kind == "vae" or dataset.labels[row] >= 0)
    return dict(zip(("epochs", "batch"), default_schedule(len(split.train)), strict=True))


@train.command(
    epilog="Example: lookalike train denoiser --data lfw --out runs/denoise --epochs 40",
    short_help="Train a denoiser for images of any size.",
)
@training_data_options("of images")
@options_of(
    DenoiserShape,
    "network",
    {
        "widths": auto("Channels at 1/2, 1/4 and 1/8 of the side.", "48,64,96 for mnist, else 64,96,128"),
        "blocks": "Residual blocks at these scales.",
    },
    group=_NETWORK,
)
@option(
    "--patch",
    type=click.IntRange(min=8),
    group=_TRAINING,
    help="Side of a training patch in pixels.",
    show_default=f"{DIGIT_PATCHES.side} for mnist, else {PatchSpec().side}",
)
@options_of(
    TrainingSpec,
    "training",
    {
        "epochs": auto(
            "Epochs of as many patches as there are training images, at least 1,024.",
            f"{DIGIT_EPOCHS} for mnist, else {DENOISER_DEFAULTS.epochs}",
        ),
        "batch": "Patches per step.",
        **_schedule("learning_rate", "precision", "seed"),
    },
    group=_TRAINING,
    defaults=DENOISER_DEFAULTS,
)
@option(
    "--denoise",
    "noise",
    metavar="SIGMA|LO:HI",
    callback=_to_noise,
    group=_TRAINING,
    help="Sigma of the Gaussian noise to learn, of 255. All but mnist learn camera noise and grain too.",
    show_default="0:191 for mnist, else 0:75",
)
@option(
    "--photographs",
    type=LocalPath(Path, exists=True, file_okay=False),
    group=_TRAINING,
    help="Folder of photographs to train on beside lfw; every fifth by name is for validation.",
)
@options_of(RunOptions, "run", {name: _RUN[name] for name in ("device", "resume")}, group=_TRAINING)
def denoiser(
    data: str,
    out: Path,
    network: Given[DenoiserShape],
    patch: int | None,
    training: Given[TrainingSpec],
    noise: NoiseSpec | None,
    photographs: Path | None,
    run: Given[RunOptions],
) -> None:
    """Train a denoiser: a residual U-Net that gets the noise level, and a network that estimates it.

    It denoises gray and RGB images of any size. Photographs in a folder are read whole and kept in memory, at
    most 2.4 GB of them; 40 of textures, skies and low light are a start. Metrics are reported on people, or
    images, that it never saw. Checkpoints and log.csv go to OUT.run.
    """
    need_extra()
    from lookalike.encoder.images import NoiseSpec, find_images
    from lookalike.trainer.data import noise_mix, open_dataset
    from lookalike.trainer.recipes import train_denoiser

    digits = data == "mnist"
    if digits and photographs is not None:
        raise click.UsageError("--photographs are for faces and other photographs; leave it out for mnist")
    usual, patches = (DIGIT_DENOISER, DIGIT_PATCHES) if digits else (DenoiserShape(), PatchSpec())
    train_denoiser(
        open_dataset(data, progress=True),
        out,
        shape=network.build(widths=usual.widths),
        patches=patches if patch is None else replace(patches, side=patch),
        noise=noise_mix(noise or NoiseSpec.parse("0:191" if digits else "0:75"), white_only=digits),
        spec=training.build(epochs=DIGIT_EPOCHS if digits else DENOISER_DEFAULTS.epochs),
        photographs=None if photographs is None else [photographs / p for p in find_images(photographs)],
        **run.values,
        log=log,
    )
    print_path(out)
