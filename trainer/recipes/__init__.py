"""One training function for each kind of model."""

from lookalike.trainer.recipes.ae import train_autoencoder
from lookalike.trainer.recipes.classifier import cached_classifier
from lookalike.trainer.recipes.denoiser import train_denoiser
from lookalike.trainer.recipes.vae import train_vae

__all__ = ["cached_classifier", "train_autoencoder", "train_denoiser", "train_vae"]
