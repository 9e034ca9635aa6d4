"""How to train. Names no torch: the command line shows it where torch is not installed."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from lookalike.encoder.errors import InvalidArgumentError

if TYPE_CHECKING:
    from lookalike.encoder.images.noise import NoiseSpec

__all__ = [
    "DENOISER_DEFAULTS",
    "IDENTITY_CONFIG",
    "VAE_DEFAULTS",
    "Binarise",
    "Device",
    "ElboConfig",
    "Precision",
    "TrainingSpec",
    "default_schedule",
]

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
