"""Models on disk: reading, checking and writing bundles, and the fitted parts they hold."""

from lookalike.encoder.bundle.attributes import Attribute, Attributes
from lookalike.encoder.bundle.bundle import Bundle, check_target
from lookalike.encoder.bundle.calibration import (
    RATES,
    Calibration,
    ReconstructionErrorStats,
    ScoreCalibration,
    default_prior,
    reconstruction_errors,
)
from lookalike.encoder.bundle.latent_space import AffineMap, GaussianMixture, LatentPrior, LatentStatistics
from lookalike.encoder.bundle.spec import BundleSpec, DenoiserSpec
from lookalike.encoder.bundle.storage import GOLDEN_RUNS, absolute_path, has_external_tensors, shipped_bundles

__all__ = [
    "GOLDEN_RUNS",
    "RATES",
    "AffineMap",
    "Attribute",
    "Attributes",
    "Bundle",
    "BundleSpec",
    "Calibration",
    "DenoiserSpec",
    "GaussianMixture",
    "LatentPrior",
    "LatentStatistics",
    "ReconstructionErrorStats",
    "ScoreCalibration",
    "absolute_path",
    "check_target",
    "default_prior",
    "has_external_tensors",
    "reconstruction_errors",
    "shipped_bundles",
]
