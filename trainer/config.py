"""How to train, and the shape of each network. Imports no torch: the command line's help runs without it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from lookalike.encoder.errors import InvalidArgumentError

if TYPE_CHECKING:
    from lookalike.encoder.images import NoiseSpec

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "bfloat16"]
Binarise = Literal["dynamic", "none"]
Likelihood = Literal["bernoulli", "gaussian"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSpec:
    """How to train. Saved in the bundle.

    Attributes:
        epochs: Passes over the training images; each pass shows an image or its mirror image.
        batch: B.
        learning_rate: Peak value; reached by a linear warm-up, then a half cosine down to zero.
        weight_decay: Of AdamW.
        warmup: Steps until the peak.
        averaging: Decay of the moving average of the weights, which is what is evaluated and kept; lower in
            a training of few steps.
        shift: Each image is shifted by up to this many pixels each way.
        noise: Noise added to the input, with a level drawn for each image; the target stays clean.
        precision: Of the large matrix products: ``auto`` is bfloat16 on CUDA and float32 on the CPU, where
            only processors with bfloat16 arithmetic (AVX512-BF16, AMX) gain from it, about 2.5 times.
        seed: Of all random numbers.
    """

    epochs: int = 150
    batch: int = 512
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    warmup: int = 200
    averaging: float = 0.998
    shift: int = 1
    noise: NoiseSpec | None = None
    precision: Precision = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        _check(
            self,
            {
                "epochs": (self.epochs >= 1, "1 or more"),
                "batch": (self.batch >= 1, "1 or more"),
                "learning_rate": (0 < self.learning_rate < math.inf, "above 0"),
                "weight_decay": (0 <= self.weight_decay < math.inf, "0 or more"),
                "warmup": (self.warmup >= 0, "0 or more"),
                "averaging": (0 <= self.averaging < 1, "0 to below 1"),
                "shift": (self.shift >= 0, "0 or more"),
                "noise": (_is_noise(self.noise), "a NoiseSpec or None"),
                "precision": (self.precision in get_args(Precision), _one_of(Precision)),
                "seed": (0 <= self.seed < 2**63, "0 to below 2**63"),
            },
        )

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self) | {"noise": 0.0 if self.noise is None else self.noise.to_json()}


def _is_noise(value: object) -> bool:
    if value is None:
        return True
    from lookalike.encoder.images import NoiseSpec

    return isinstance(value, NoiseSpec)


def _check(spec: object, rules: Mapping[str, tuple[bool, str]]) -> None:
    for name, (valid, rule) in rules.items():
        if not valid:
            raise InvalidArgumentError(f"{name} must be {rule}, not {getattr(spec, name)}")


def _one_of(choices: object) -> str:
    return f"one of {', '.join(get_args(choices))}"


IDENTITY_CONFIG: Final = TrainingSpec(epochs=200, batch=128, learning_rate=2e-3, weight_decay=0.05, shift=0)
"""Training of the identity network: many small steps; images are augmented, not shifted by whole pixels."""

VAE_DEFAULTS: Final = TrainingSpec(
    epochs=60, batch=128, learning_rate=2e-3, warmup=300, averaging=0.999, shift=0
)
"""Training of a VAE: many small steps on unshifted images; see :func:`default_schedule` for few images."""

_STEPS: Final = 2_500
_BATCHES: Final = ((5_000, 128), (500, 64), (0, 32))  # least number of training images, batch size


def default_schedule(images: int) -> tuple[int, int]:
    """Return the epochs and the batch size for a VAE with this many training images, 1 or more.

    From 5,000 images on these are :data:`VAE_DEFAULTS`. With fewer, the network still needs 2,500 steps: more
    epochs of smaller batches.
    """
    batch = next(size for fewest, size in _BATCHES if images >= fewest)
    if batch == VAE_DEFAULTS.batch:
        return VAE_DEFAULTS.epochs, batch
    return math.ceil(_STEPS / math.ceil(images / batch)), batch


_IMAGES_PER_DIM: Final = 8
_FEWEST_DIMS: Final = 32


def default_descriptor(images: int) -> tuple[int, int]:
    """Return the dimensions of a descriptor and the components that it is made of, for so many images.

    One for each eight images, from 32 to 256 dimensions and 1,500 components. Of few images most directions
    are chance, and whitened they count as much as those that tell images apart.
    """
    count = max(_FEWEST_DIMS, images // _IMAGES_PER_DIM)
    return min(256, count), min(1500, count)


_FEWEST_EPOCHS: Final = 40
_IMAGES_PER_EPOCH: Final = 6


def default_epochs(images: int) -> int:
    """Return the epochs of an autoencoder for so many images: one for six, from 40 to 150.

    It starts as a PCA; few images it soon learns by heart.
    """
    return min(TrainingSpec().epochs, max(_FEWEST_EPOCHS, images // _IMAGES_PER_EPOCH))


_TEXTURE_DIMS: Final = 128
_MOST_TEXTURE_IMAGES: Final = 4000


def default_texture(images: int) -> int:
    """Return the dimensions of a texture descriptor for so many images: 128, and none for more than 4,000."""
    return _TEXTURE_DIMS if images <= _MOST_TEXTURE_IMAGES else 0


DENOISER_DEFAULTS: Final = TrainingSpec(epochs=40, batch=16, learning_rate=3e-3, warmup=100, shift=0)
"""Training of a denoiser: many small steps of Muon, on patches."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ElboConfig:
    """The objective of a VAE, and how its images are prepared. Saved in the bundle.

    The three weights of conditional models are for an image of 28 x 28 gray pixels; for an image with more
    values they are scaled up, as its likelihood is.

    Attributes:
        importance: Samples of the latent for each image; 1: the ELBO, more: the importance-weighted bound.
        beta: Weight of the divergence of q(z|x) from N(0, I); 1: a bound on the likelihood.
        beta_warmup: Share of the training over which that weight rises from 0.
        free_bits: Nats of divergence that each latent dimension has for free.
        label_weight: Of the cross-entropy of q(y|x), in nats; conditional models.
        adversarial_weight: Of the adversary that reads the class from the latent, which keeps the class out
            of the latent, so that the decoder follows the class it is given; conditional models.
        consistency: Weight of the cross-entropy of q(y|x) on images generated from z ~ N(0, I) and a random
            class y, as many as the batch has; only the decoder learns from it; conditional models.
        binarise: ``dynamic``: each pixel is 1 with its brightness as the probability, sampled anew each time
            it is shown; ``none``: pixels are shown as they are.
        mirror: Whether mirror images are shown too.
        align: Whether the latents are whitened after the training, so that their aggregate posterior has mean
            0 and covariance I; ``consistency`` then samples latents of the batch instead of N(0, I).
    """

    importance: int = 1
    beta: float = 1.0
    beta_warmup: float = 0.1
    free_bits: float = 0.0
    label_weight: float = 1.0
    adversarial_weight: float = 10.0
    consistency: float = 1.0
    binarise: Binarise = "none"
    mirror: bool = True
    align: bool = False

    def __post_init__(self) -> None:
        _check(
            self,
            {
                "importance": (1 <= self.importance <= 10_000, "1 to 10,000"),
                "beta": (0 <= self.beta < math.inf, "0 or more"),
                "beta_warmup": (0 <= self.beta_warmup <= 1, "0 to 1"),
                "free_bits": (0 <= self.free_bits < math.inf, "0 or more"),
                "label_weight": (0 <= self.label_weight < math.inf, "0 or more"),
                "adversarial_weight": (0 <= self.adversarial_weight < math.inf, "0 or more"),
                "consistency": (0 <= self.consistency < math.inf, "0 or more"),
                "binarise": (self.binarise in get_args(Binarise), _one_of(Binarise)),
            },
        )
        if self.free_bits and self.importance > 1:
            raise InvalidArgumentError(
                f"free_bits needs the ELBO (importance 1), got importance {self.importance}; "
                "take free_bits 0 or importance 1"
            )

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class AESpec:
    """Shape of the vanilla autoencoder.

    Attributes:
        size: S.
        channels: C.
        latent: D.
        hidden: Features of the encoder's hidden layers; the decoder has them in reverse.
    """

    size: int
    channels: int
    latent: int = 128
    hidden: tuple[int, ...] = (256,)

    def __post_init__(self) -> None:
        if self.latent < 1 or not self.hidden or any(features % 2 for features in self.hidden):
            raise InvalidArgumentError(
                f"latent must be at least 1 and hidden one or more even numbers, "
                f"got latent {self.latent} and hidden {self.hidden}"
            )
        if min(self.hidden) < 2 * self.latent:
            raise InvalidArgumentError(
                f"every hidden layer needs twice the latent's size to start from PCA, got hidden "
                f"{self.hidden} for latent {self.latent}; widen it or take a smaller latent"
            )

    @property
    def values(self) -> int:
        """P, the values of one image."""
        return self.channels * self.size**2

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self) | {"hidden": list(self.hidden)}


_VAE_WIDTHS: Final = (32, 64, 128, 128, 128)
_VAE_SMALLEST: Final = 10
"""Convolutions halve the side until it is at most this, and once more from 8 or 10: the dense layers then
have a quarter of the weights."""
_VAE_MAX_SIZE: Final = 160


@dataclass(frozen=True, kw_only=True, slots=True)
class VAESpec:
    """Shape of a VAE, or of a conditional one.

    Attributes:
        size: S; divisible by 2 as many times as the widths halve it.
        channels: C.
        latent: Z.
        down: Channels of the encoder's convolutions, each of which halves the side; empty: chosen by size.
            (One more at full size costs as much time as all of these, for next to nothing.)
        hidden: Features between convolutions and latent, both ways.
        up: Input channels of the decoder's convolutions, each of which doubles the side; empty: ``down`` in
            reverse.
        classes: K of a conditional VAE, 2 or more; 0 for a VAE.
        modulated: Whether the class also scales and shifts the channels of each stage of the decoder.
        likelihood: Of the pixels given the latent.
        deviation: Standard deviation of all Gaussian pixels; None: the most likely one of each batch
            (O. Rybkin et al.: Simple and Effective VAE Training with Calibrated Decoders, ICML 2021).
    """

    size: int
    channels: int
    latent: int = 40
    down: tuple[int, ...] = ()
    hidden: int = 256
    up: tuple[int, ...] = ()
    classes: int = 0
    modulated: bool = True
    likelihood: Likelihood = "bernoulli"
    deviation: float | None = None

    def __post_init__(self) -> None:
        if min(self.latent, self.hidden, self.channels, *self.down, *self.up) < 1:
            raise InvalidArgumentError(
                f"latent, hidden and widths must be 1 or more, got latent {self.latent}, "
                f"hidden {self.hidden}, down {self.down} and up {self.up}"
            )
        if self.classes < 0 or self.classes == 1:
            raise InvalidArgumentError(f"a conditional model needs 2 classes or more, not {self.classes}")
        if self.likelihood not in get_args(Likelihood):
            raise InvalidArgumentError(
                f"a likelihood is {' or '.join(get_args(Likelihood))}, not {self.likelihood!r}"
            )
        if self.deviation is not None and not 0 < self.deviation < 10:
            raise InvalidArgumentError(
                f"the deviation of pixels must be above 0 and below 10, not {self.deviation}"
            )
        halvings = len(self.down or self.up) or _halvings(self.size)
        too_large = self.size > _VAE_MAX_SIZE and not (self.down or self.up)
        if too_large or halvings > len(_VAE_WIDTHS) or self.size % 2**halvings:
            raise InvalidArgumentError(
                f"a size that is halved {halvings} times must be divisible by {2**halvings} and at most "
                f"{_VAE_MAX_SIZE}, {self.size} is not; take a --size of 28, 32, 64 or 128"
            )
        object.__setattr__(self, "down", self.down or _VAE_WIDTHS[:halvings])
        object.__setattr__(self, "up", self.up or self.down[::-1])
        if len(self.down) != len(self.up):
            raise InvalidArgumentError(
                f"encoder and decoder must have the same number of stages, got {len(self.down)} widths down "
                f"{self.down} and {len(self.up)} up {self.up}"
            )

    @property
    def side(self) -> int:
        """Side in pixels of the last convolution's output."""
        return self.size >> len(self.down)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self) | {"down": list(self.down), "up": list(self.up)}


def _halvings(size: int) -> int:
    halvings = 1
    while size > _VAE_SMALLEST << halvings:
        halvings += 1
    return halvings + (size in (8 << halvings, _VAE_SMALLEST << halvings))


FOLD: Final = 2
"""The denoiser's pixels are folded two by two into channels."""
_MAX_FEATURES: Final = 1024
_MAX_DILATION: Final = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class DenoiserShape:
    """Sizes of the denoiser. Saved in the bundle.

    Attributes:
        widths: Features at a half, a quarter and an eighth of the side.
        blocks: Residual blocks at each of these, before and after the next scale; at the last one in all.
        estimator: Features of the network that estimates the noise level, at a quarter of the side; twice as
            many at an eighth.
        dilations: Of the blocks of that network at a sixteenth of the side, by which it sees far: noise is in
            smooth places too, texture is not.
    """

    widths: tuple[int, int, int] = (64, 96, 128)
    blocks: tuple[int, int, int] = (2, 2, 2)
    estimator: int = 32
    dilations: tuple[int, ...] = (1, 2, 4)

    def __post_init__(self) -> None:
        for name, values in (("widths", self.widths), ("blocks", self.blocks)):
            if not all(1 <= value <= _MAX_FEATURES for value in values):
                raise InvalidArgumentError(
                    f"{name} must be three numbers of 1 to {_MAX_FEATURES}, not {values}"
                )
        if not 1 <= self.estimator <= _MAX_FEATURES:
            raise InvalidArgumentError(
                f"estimator must be 1 to {_MAX_FEATURES} features, not {self.estimator}"
            )
        if not all(1 <= value <= _MAX_DILATION for value in self.dilations):
            raise InvalidArgumentError(
                f"dilations must be numbers of 1 to {_MAX_DILATION}, not {self.dilations}"
            )

    @property
    def receptive_field(self) -> int:
        """Distance in pixels beyond which nothing changes a denoised pixel."""
        convolutions = (2 + 4 * self.blocks[0], 4 * self.blocks[1], 2 * self.blocks[2])  # at each scale
        cells = (FOLD, 2 * FOLD, 4 * FOLD)  # side of a cell in pixels
        # A 3x3 convolution extends the field by one cell; a pixel can lie anywhere in its cell.
        return sum(n * cell for n, cell in zip(convolutions, cells, strict=True)) + cells[-1] - 1

    @property
    def estimator_field(self) -> int:
        """Distance in pixels beyond which nothing changes an estimated noise level."""
        convolutions, cells = (3, 4, 2 * sum(self.dilations)), (4, 8, 16)  # at each scale of the estimator
        return sum(n * cell for n, cell in zip(convolutions, cells, strict=True)) + cells[-1] - 1

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchSpec:
    """How patches are cut. Saved in the bundle.

    Attributes:
        side: S.
        mirror: Whether half of them are mirrored.
        rotated: Share of them rotated by 90, 180 or 270 degrees.
        gray: Share of them converted to gray: their noise is the same in all channels.
        drawn: Share of them in whose place a texture is drawn in their colors.
        relit: Share of them with other light and other contrast.
    """

    side: int = 64
    mirror: bool = True
    rotated: float = 0.2
    gray: float = 0.3
    drawn: float = 0.0
    relit: float = 0.0


DIGIT_DENOISER: Final = DenoiserShape(widths=(48, 64, 96))
"""Sizes of a denoiser of digits: small images need no wide network."""
DIGIT_PATCHES: Final = PatchSpec(side=28, mirror=False, rotated=0.0)
DIGIT_EPOCHS: Final = 3
