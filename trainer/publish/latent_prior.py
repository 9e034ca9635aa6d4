"""Mixtures of Gaussians fitted to training latents: what a model's pictures are drawn from.

Legend: N latents, Z numbers of each, K classes.
"""

from __future__ import annotations

import warnings
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.bundle.gaussian_mixture import GaussianMixture
from lookalike.encoder.bundle.latent_prior import LatentPrior
from lookalike.trainer.data.batches import subsample

Floats = NDArray[np.float32]

_COMPONENTS: Final = 20
_EACH: Final = 20
"""Latents for each number of a component, or its covariance is one of chance."""
_MOST: Final = 20_000
_RIDGE: Final = 1e-3
"""Added to each variance, of latents of about unit spread: a collapsed number keeps a component proper."""


def fit_latent_prior(
    latents: Floats, labels: NDArray[np.int64] | None = None, classes: int = 0, *, seed: int = 0
) -> LatentPrior:
    """Fit a mixture to all latents, and a Gaussian to each class.

    Args:
        latents: float32 (N, Z).
        labels: int64 (N,), -1 where the class is not known.
        classes: K; 0: without.
        seed: Of the start of the fit.

    Raises:
        OptionError: latents that are not finite, or a class without example.
    """
    by_class = (
        None if labels is None or not classes else _short(GaussianMixture.by_class(latents, labels, classes))
    )
    return LatentPrior(mixture=_short(_mixture(latents, seed=seed)), by_class=by_class)


def _short(mixture: GaussianMixture) -> GaussianMixture:
    """Round to what float16 holds, where it reaches: half of the bytes are then zero, and packed away."""
    with np.errstate(over="ignore"):
        means, covariances = (
            array.astype(np.float16).astype(np.float32) for array in (mixture.means, mixture.covariances)
        )
    fits = np.isfinite(means).all() and np.isfinite(covariances).all()
    return GaussianMixture(mixture.weights, means, covariances) if fits else mixture


def _mixture(latents: Floats, *, seed: int) -> GaussianMixture:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture as Estimator

    some = latents[subsample(np.arange(len(latents)), _MOST)].astype(np.float64)
    spread = some.std(axis=0).max()
    components = int(np.clip(len(some) // (_EACH * some.shape[1]), 1, _COMPONENTS))
    model = Estimator(
        components, reg_covar=_RIDGE * float(spread) ** 2, max_iter=50, random_state=seed % 2**32
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fifty steps are as near as samples show
        model.fit(some)
    return GaussianMixture.from_arrays(model.weights_, model.means_, model.covariances_)
