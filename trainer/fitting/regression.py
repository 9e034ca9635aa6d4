"""Weighted logistic regression by Newton's method.

Legend: P examples, F features.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.errors import CalibrationError

Reals = NDArray[np.float64]
_STEPS: Final = 100


def logistic_regression(
    features: Reals, targets: Reals, weights: Reals, *, offset: Reals | float = 0.0
) -> Reals:
    """Return the coefficients float64 (F,) that make the weighted log loss smallest.

    Args:
        features: float64 (P, F).
        targets: float64 (P,), probabilities in [0, 1].
        weights: float64 (P,), 0 or more.
        offset: Added to the log-odds of each example: what is known of them, float64 (P,).

    Raises:
        CalibrationError: The features do not vary.
    """
    solution = np.zeros(features.shape[1])
    loss = _loss(features @ solution + offset, targets, weights)
    for _ in range(_STEPS):
        rates = 0.5 * (1 + np.tanh(0.5 * (features @ solution + offset)))  # sigmoid
        gradient = features.T @ (weights * (rates - targets))
        curvature = (features * (weights * rates * (1 - rates))[:, None]).T @ features
        try:
            step = np.linalg.solve(curvature, gradient)
        except np.linalg.LinAlgError as error:
            raise CalibrationError("calibration needs scores that differ, these are all the same") from error
        scale = 1.0
        while (
            after := _loss(features @ (solution - scale * step) + offset, targets, weights)
        ) > loss and scale > 1e-6:
            scale /= 2  # far from the minimum a full step can overshoot
        solution, gained, loss = solution - scale * step, loss - after, after
        if gained < 1e-12:
            break
    return solution


def _loss(odds: Reals, targets: Reals, weights: Reals) -> float:
    return float(weights @ (np.logaddexp(0, odds) - targets * odds))
