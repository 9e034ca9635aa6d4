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
from lookalike.trainer.fitting.searches import (
    HITS,
    SIZES,
    Mates,
    Searches,
    draw_searches,
    fit_search_calibration,
)

__all__ = [
    "FEWEST",
    "HITS",
    "SIZES",
    "Discriminant",
    "Examples",
    "Mates",
    "Method",
    "Searches",
    "calibration_of",
    "discriminant",
    "draw_searches",
    "fit_attributes",
    "fit_calibration",
    "fit_score_calibration",
    "fit_search_calibration",
    "folds_of",
    "pair_scores",
]
