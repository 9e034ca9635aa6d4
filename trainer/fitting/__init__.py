"""Calibration and attributes, fitted to embeddings with numpy."""

from lookalike.trainer.fitting.attributes import (
    FEWEST,
    Discriminant,
    Examples,
    Method,
    discriminant,
    fit_attributes,
    folds_of,
)
from lookalike.trainer.fitting.calibration import (
    calibration_of,
    fit_calibration,
    fit_score_calibration,
    pair_scores,
)

__all__ = [
    "FEWEST",
    "Discriminant",
    "Examples",
    "Method",
    "calibration_of",
    "discriminant",
    "fit_attributes",
    "fit_calibration",
    "fit_score_calibration",
    "folds_of",
    "pair_scores",
]
