"""Loss functions and the bound that a VAE maximizes."""

from lookalike.trainer.objectives.elbo import DIGIT_VALUES, VAEObjective, evaluate_elbo
from lookalike.trainer.objectives.losses import (
    cosface_loss,
    denoising_loss,
    estimation_loss,
    mean_squared_error,
)
from lookalike.trainer.objectives.noise_level import level_to_tell

__all__ = [
    "DIGIT_VALUES",
    "VAEObjective",
    "cosface_loss",
    "denoising_loss",
    "estimation_loss",
    "evaluate_elbo",
    "level_to_tell",
    "mean_squared_error",
]
