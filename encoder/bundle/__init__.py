"""Models on disk: reading, checking and writing bundles, and the fitted parts they hold."""

from lookalike.encoder.bundle.attributes import Attribute, Attributes
from lookalike.encoder.bundle.bundle import Bundle
from lookalike.encoder.bundle.calibration import RATES, Calibration, ScoreCalibration, default_prior
from lookalike.encoder.bundle.gaussian_mixture import GaussianMixture
from lookalike.encoder.bundle.latent_prior import LatentPrior
from lookalike.encoder.bundle.ood import ReconstructionErrorStats, reconstruction_errors
from lookalike.encoder.bundle.registry import absolute_path, check_target, shipped_bundles
from lookalike.encoder.bundle.spec import BundleSpec, DenoiserSpec
from lookalike.encoder.bundle.storage import GOLDEN_RUNS
from lookalike.encoder.bundle.whitening import AffineMap, LatentStatistics

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
    "reconstruction_errors",
    "shipped_bundles",
]
