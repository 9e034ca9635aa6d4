"""Models on disk: reading, checking and writing bundles, and the fitted parts they hold."""

from lookalike.encoder.bundle.attributes import Attribute, Attributes
from lookalike.encoder.bundle.bundle import Bundle, check_target, read_manifest
from lookalike.encoder.bundle.calibration import (
    DEFAULT_PRESENCE,
    OFF_AXIS_QUANTILE,
    RATES,
    Calibration,
    ReconstructionErrorStats,
    ScoreCalibration,
    SearchCalibration,
    presence_odds,
    reconstruction_errors,
)
from lookalike.encoder.bundle.card import CARD, model_card
from lookalike.encoder.bundle.latent_space import AffineMap, GaussianMixture, LatentPrior, LatentStatistics
from lookalike.encoder.bundle.spec import BUNDLE_FILES, BundleSpec, DenoiserSpec, TextSpec
from lookalike.encoder.bundle.storage import (
    GOLDEN_RUNS,
    WHOLE,
    absolute_path,
    check_name,
    has_external_tensors,
    is_shipped,
    models_folders,
    own_bundles,
    resolve_model,
    shipped_bundles,
)
from lookalike.encoder.bundle.tokenizer import Tokenizer, usual_length

__all__ = [
    "BUNDLE_FILES",
    "CARD",
    "DEFAULT_PRESENCE",
    "GOLDEN_RUNS",
    "OFF_AXIS_QUANTILE",
    "RATES",
    "WHOLE",
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
    "SearchCalibration",
    "TextSpec",
    "Tokenizer",
    "absolute_path",
    "check_name",
    "check_target",
    "has_external_tensors",
    "is_shipped",
    "model_card",
    "models_folders",
    "own_bundles",
    "presence_odds",
    "read_manifest",
    "reconstruction_errors",
    "resolve_model",
    "shipped_bundles",
    "usual_length",
]
