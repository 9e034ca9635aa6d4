"""Measuring denoisers: noisy images, the methods that get them, and what is measured."""

from lookalike.deploy.evaluation.denoising.measure import (
    CleanResult,
    CleanRow,
    DenoisingReport,
    DenoisingResult,
    Row,
    evaluate_clean,
    evaluate_denoisers,
    evaluate_denoising,
    require_skimage,
)
from lookalike.deploy.evaluation.denoising.methods import DenoiserMethod, DenoisingModel, Method
from lookalike.deploy.evaluation.denoising.noisy_images import (
    DenoisingTestSet,
    InputNoise,
    NoisyImages,
    open_test_set,
    open_test_sets,
)

__all__ = [
    "CleanResult",
    "CleanRow",
    "DenoiserMethod",
    "DenoisingModel",
    "DenoisingReport",
    "DenoisingResult",
    "DenoisingTestSet",
    "InputNoise",
    "Method",
    "NoisyImages",
    "Row",
    "evaluate_clean",
    "evaluate_denoisers",
    "evaluate_denoising",
    "open_test_set",
    "open_test_sets",
    "require_skimage",
]
