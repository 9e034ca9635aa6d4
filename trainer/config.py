"""How to train and the shape of each network, without torch: the command line needs no torch for its help."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from lookalike.encoder.errors import InvalidArgumentError

if TYPE_CHECKING:
    from lookalike.encoder.images.noise import NoiseSpec


Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "bfloat16"]
Binarise = Literal["dynamic", "none"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSpec:
    """How to train. Saved in the bundle.

    Attributes:
        epochs: Passes over the training images; each pass shows an image or its mirror image.
        batch: B.
        learning_rate: At its peak; a linear warm-up, then a half cosine to zero.
        weight_decay: Of AdamW.
        warmup: Steps until the peak.
        averaging: Decay of the moving average of the weights that is evaluated and kept; less in a training
            of few steps.
        shift: Each image is moved by up to this many pixels each way.
        noise: What is put on the input, the target stays clean; each image draws its own level.
        precision: Of the large products: ``auto`` is bfloat16 on CUDA and float32 on the CPU, where only
            processors with bfloat16 arithmetic (AVX512-BF16, AMX) gain from it, about 2.5 times.
        seed: Of everything random.
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
        rules = {
            "epochs": (self.epochs >= 1, "1 or more"),
            "batch": (self.batch >= 1, "1 or more"),
            "learning_rate": (0 < self.learning_rate < math.inf, "above 0"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "0 or more"),
            "warmup": (self.warmup >= 0, "0 or more"),
            "averaging": (0 <= self.averaging < 1, "0 to below 1"),
            "shift": (self.shift >= 0, "0 or more"),
            "noise": (_is_noise(self.noise), "a NoiseSpec or None"),
            "precision": (self.precision in get_args(Precision), f"one of {', '.join(get_args(Precision))}"),
            "seed": (0 <= self.seed < 2**63, "0 to below 2**63"),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                raise InvalidArgumentError(f"{name} must be {rule}, not {getattr(self, name)}")

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self) | {"noise": 0.0 if self.noise is None else self.noise.to_json()}


def _is_noise(value: object) -> bool:
    if value is None:
        return True
    from lookalike.encoder.images.noise import NoiseSpec  # brings numpy, which --help does without

    return isinstance(value, NoiseSpec)


IDENTITY_CONFIG: Final = TrainingSpec(epochs=200, batch=128, learning_rate=2e-3, weight_decay=0.05, shift=0)
"""How names are taught: many small steps; pictures are varied by views, not moved by whole pixels."""

VAE_DEFAULTS: Final = TrainingSpec(
    epochs=60, batch=128, learning_rate=2e-3, warmup=300, averaging=0.999, shift=0
)
"""How a VAE is trained: many small steps, on pictures as they are; of few :func:`default_schedule` tells."""

_STEPS: Final = 2_500
_BATCHES: Final = ((5_000, 128), (500, 64), (0, 32))  # from so many training pictures


def default_schedule(pictures: int) -> tuple[int, int]:
    """Return the epochs and the batch that suit a VAE of so many training pictures, 1 or more.

    A network learns by steps: of few pictures they are as many as it needs, 2,500, in smaller batches; from
    5,000 pictures on it is :data:`VAE_DEFAULTS`.
    """
    batch = next(size for fewest, size in _BATCHES if pictures >= fewest)
    if batch == VAE_DEFAULTS.batch:
        return VAE_DEFAULTS.epochs, batch
    return math.ceil(_STEPS / math.ceil(pictures / batch)), batch


DENOISER_DEFAULTS: Final = TrainingSpec(epochs=40, batch=16, learning_rate=3e-3, warmup=100, shift=0)
"""How a cleaner is trained: many small steps of Muon, on patches."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ElboConfig:
    """What a VAE maximises, and what it is shown. Saved in the bundle.

    Attributes:
        importance: Draws of the latent for each image; 1: the ELBO, more: the importance-weighted bound.
        beta: Weight of the divergence of q(z|x) from N(0, I); 1: a bound on the likelihood.
        beta_warmup: Share of the training over which that weight rises from 0.
        free_bits: Nats below which the divergence of a latent costs no less.
        label_weight: Of the cross-entropy of q(y|x), in nats of it; conditional models.
        independence: Weight of the demand that a latent tells nothing of the class, so that the decoder goes
            by the class it is told; conditional models.
        consistency: Weight of the cross-entropy of q(y|x) on pictures drawn of z ~ N(0, I) and a class y by
            lot, as many as the batch has, from which the decoder alone learns; conditional models. These
            three weights are those of a digit of 28 x 28 grey pixels, and grow with the values of a picture
            that has more, as its likelihood does.
        binarise: ``dynamic``: pixels are drawn anew each time they are shown, white as often as they are
            bright; ``none``: they are shown as they are.
        mirror: Whether mirror images are shown too.
        align: Whether latents are turned and scaled when the training is over, so that all of them together
            are as N(0, I) says; a ``consistency`` then draws of those of the batch, which will be so.
    """

    importance: int = 1
    beta: float = 1.0
    beta_warmup: float = 0.1
    free_bits: float = 0.0
    label_weight: float = 1.0
    independence: float = 10.0
    consistency: float = 1.0
    binarise: Binarise = "none"
    mirror: bool = True
    align: bool = False

    def __post_init__(self) -> None:
        rules = {
            "importance": (1 <= self.importance <= 10_000, "1 to 10,000"),
            "beta": (0 <= self.beta < math.inf, "0 or more"),
            "beta_warmup": (0 <= self.beta_warmup <= 1, "0 to 1"),
            "free_bits": (0 <= self.free_bits < math.inf, "0 or more"),
            "label_weight": (0 <= self.label_weight < math.inf, "0 or more"),
            "independence": (0 <= self.independence < math.inf, "0 or more"),
            "consistency": (0 <= self.consistency < math.inf, "0 or more"),
            "binarise": (self.binarise in get_args(Binarise), f"one of {', '.join(get_args(Binarise))}"),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                raise InvalidArgumentError(f"{name} must be {rule}, not {getattr(self, name)}")
        if self.free_bits and self.importance > 1:
            raise InvalidArgumentError(
                f"free bits are of the ELBO, not of a bound of {self.importance} draws; "
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


Likelihood = Literal["bernoulli", "gaussian"]

_VAE_WIDTHS: Final = (32, 64, 128, 128, 128)

_VAE_SMALLEST: Final = 10
"""Convolutions halve the side until it is at most this, and once more where it is 8 or 10: what is dense then
has a quarter of the weights."""

_VAE_MAX_SIZE: Final = 160


@dataclass(frozen=True, kw_only=True, slots=True)
class VAESpec:
    """Shape of a VAE, or of a conditional one.

    Attributes:
        size: S; as often divisible by 2 as the widths halve it.
        channels: C.
        latent: Z.
        down: Channels of the encoder's convolutions, each of which halves the side; empty: what suits the
            size. (One more at full size costs as much time as all of these, for next to nothing.)
        hidden: Features between convolutions and latent, both ways.
        up: Channels that the decoder's convolutions begin with, each of which doubles the side; empty: those
            of ``down`` in reverse.
        classes: K of a conditional VAE, 2 or more; 0 of a VAE.
        modulated: Whether the class also scales and shifts the channels of each stage of the decoder.
        likelihood: Of the pixels given the latent.
        deviation: Of Gaussian pixels, one for all; None: what it is of each batch, on which the likelihood is
            highest (O. Rybkin et al.: Simple and Effective VAE Training with Calibrated Decoders, ICML 2021).
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
        large = self.size > _VAE_MAX_SIZE and not (self.down or self.up)
        if large or halvings > len(_VAE_WIDTHS) or self.size % 2**halvings:
            raise InvalidArgumentError(
                f"a size that is halved {halvings} times must be divisible by {2**halvings} and at most "
                f"{_VAE_MAX_SIZE}, {self.size} is not; take a --size of 28, 32, 64 or 128"
            )
        object.__setattr__(self, "down", self.down or _VAE_WIDTHS[:halvings])
        object.__setattr__(self, "up", self.up or self.down[::-1])
        if len(self.down) != len(self.up):
            raise InvalidArgumentError(
                f"encoder and decoder must halve and double alike, got {len(self.down)} widths down "
                f"{self.down} and {len(self.up)} up {self.up}"
            )

    @property
    def side(self) -> int:
        """Pixels a side where the convolutions end."""
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

_MAX_FEATURES: Final = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class DenoiserShape:
    """Sizes of the cleaner. Saved in the bundle.

    Attributes:
        widths: Features at a half, a quarter and an eighth of the side.
        blocks: Residual blocks at each of these, before and after the next; at the last in all.
        estimator: Features of the network that finds the noise level.
    """

    widths: tuple[int, int, int] = (64, 96, 128)
    blocks: tuple[int, int, int] = (2, 2, 2)
    estimator: int = 48

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

    @property
    def reach(self) -> int:
        """How far away, in pixels, something can be that changes a cleaned pixel."""
        convolutions = (2 + 4 * self.blocks[0], 4 * self.blocks[1], 2 * self.blocks[2])  # at each scale
        pixels = (FOLD, 2 * FOLD, 4 * FOLD)  # that one of its cells spans
        # A convolution of three reaches one cell further; a pixel can lie anywhere in its cell.
        return sum(c * p for c, p in zip(convolutions, pixels, strict=True)) + pixels[-1] - 1

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self) | {"widths": list(self.widths), "blocks": list(self.blocks)}


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchSpec:
    """How patches are cut. Saved in the bundle.

    Attributes:
        side: S.
        mirror: Whether half of them are mirrored.
        turned: Share of them turned by a right angle or two or three.
        grey: Share of them made grey: their noise is the same in all channels.
    """

    side: int = 64
    mirror: bool = True
    turned: float = 0.2
    grey: float = 0.3
