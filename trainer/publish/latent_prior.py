"""Fit the latent prior, Gaussian mixtures of the training latents, from which images are generated.

Legend: N latents, Z dimensions, K classes.
"""

from __future__ import annotations

import warnings
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.bundle import GaussianMixture, LatentPrior
from lookalike.trainer.data import subsample

Floats = NDArray[np.float32]

_COMPONENTS: Final = 20
_EACH: Final = 20
"""Latents for each dimension of a component: with fewer, its covariance is unreliable."""
_MAX_LATENTS: Final = 20_000
_RIDGE: Final = 1e-3
"""Added to each variance, of latents of about unit spread: keeps components regular if they collapse."""


def fit_latent_prior(
    latents: Floats, labels: NDArray[np.int64] | None = None, classes: int = 0, *, seed: int = 0
) -> LatentPrior:
    """Fit a mixture to all latents, and a Gaussian to each class.

    Args:
        latents: float32 (N, Z).
        labels: int64 (N,), -1 if the class is unknown.
        classes: K; 0: no classes.
        seed: Of the initialization.

    Raises:
        InvalidArgumentError: latents that are not finite, or a class without example.
    """
    by_class = (
        None
        if labels is None or not classes
        else _rounded(GaussianMixture.by_class(latents, labels, classes))
    )
    return LatentPrior(mixture=_rounded(_mixture(latents, seed=seed)), by_class=by_class)


def _rounded(mixture: GaussianMixture) -> GaussianMixture:
    """Round to float16 if the values fit: half of the bytes are then zero, and compress well."""
    with np.errstate(over="ignore"):
        means, covariances = (
            array.astype(np.float16).astype(np.float32) for array in (mixture.means, mixture.covariances)
        )
    fits = np.isfinite(means).all() and np.isfinite(covariances).all()
    return GaussianMixture(mixture.weights, means, covariances) if fits else mixture


def _mixture(latents: Floats, *, seed: int) -> GaussianMixture:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture as Estimator

    rows = latents[subsample(np.arange(len(latents)), _MAX_LATENTS)].astype(np.float64)
    spread = rows.std(axis=0).max()
    components = int(np.clip(len(rows) // (_EACH * rows.shape[1]), 1, _COMPONENTS))
    model = Estimator(
        components, reg_covar=_RIDGE * float(spread) ** 2, max_iter=50, random_state=seed % 2**32
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fifty steps are enough for sampling
        model.fit(rows)
    return GaussianMixture.from_arrays(model.weights_, model.means_, model.covariances_)
