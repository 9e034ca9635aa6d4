"""Models and denoisers running on onnxruntime."""

from lookalike.encoder.runtime.denoiser import Denoiser, save_denoiser, sigma_at
from lookalike.encoder.runtime.model import Model
from lookalike.encoder.runtime.session import Provider

__all__ = ["Denoiser", "Model", "Provider", "save_denoiser", "sigma_at"]
