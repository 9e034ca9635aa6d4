"""Who tells, apart from the model, whether a face has an attribute: a discriminant on gradients and pixels.

It shares nothing with the model whose edits it judges: it sees pixels alone. Gradients: N. Dalal, B. Triggs:
Histograms of Oriented Gradients for Human Detection. CVPR 2005. What varies among the faces it is fitted to
is kept as in M. Turk, A. Pentland: Eigenfaces for Recognition. Journal of Cognitive Neuroscience 3, 1991.

Legend: N pictures, F features, K components kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from lookalike.deploy.evaluation.local_features import extract, extractor
from lookalike.deploy.evaluation.vectors import Progress, no_progress
from lookalike.encoder.metrics import roc_auc
from lookalike.trainer.fitting.attributes import Discriminant, Examples, discriminant, folds_of

__all__ = ["AttributeClassifier", "appearance_features", "appearance_features_parallel"]

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]
Reals = NDArray[np.float64]

_KEPT: Final = 400
_SIDE: Final = 16
_GRADIENTS: Final = 3.0  # of unit length: beside 256 grey values in [0, 1] they would count little
_GREY: Final = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True, eq=False, slots=True)
class AttributeClassifier:
    """One attribute told from appearance.

    Attributes:
        centre: float64 (F,), of the faces it was fitted to.
        axes: float64 (F, K), along which they vary most.
        reading: Log-odds of what lies along them.
        deviation: Standard deviation of the log-odds over these faces.
        auc: Area under the ROC on people it was not fitted to.
        accuracy: Share of their pictures that it is right on, in [0, 1].
        tested: Their pictures.
    """

    centre: Reals
    axes: Reals
    reading: Discriminant
    deviation: float
    auc: float
    accuracy: float
    tested: int

    def __call__(self, appearance_features_parallel: Floats) -> Reals:
        """Return log-odds float64 (N,) of appearances float32 (N, F): over 0 it sees the attribute."""
        return self.reading((appearance_features_parallel - self.centre) @ self.axes)

    @classmethod
    def all_of(cls, names: Sequence[str], seen: Floats, examples: Examples) -> dict[str, Self]:
        """Fit one for each attribute to the people who are not tested, and test it on those who are.

        Args:
            names: Attributes; of each there are pictures with and without it on both sides.
            seen: float32 (N, F), of :func:`appearance_features_parallel`.
            examples: The same N pictures.
        """
        fitted = ~examples.tested
        centre = seen[fitted].mean(0, dtype=np.float64)
        centred = seen[fitted] - centre
        _, axes = np.linalg.eigh(centred.T @ centred / len(centred))  # by variance, the least first
        axes = axes[:, -_KEPT:]
        along = (seen - centre) @ axes  # (N, K)
        folds, judges = folds_of(examples.people), {}
        for name in names:
            scores = examples.scores[name]
            known = np.isfinite(scores) & (scores != 0)
            train, test = known & fitted, known & examples.tested
            reading = discriminant(along[train], scores[train] > 0, folds[train])
            told, has = reading(along[test]), scores[test] > 0
            judges[name] = cls(
                centre,
                axes,
                reading,
                float(reading(along[fitted]).std()),
                roc_auc(told, has),
                float(((told > 0) == has).mean()),
                int(test.sum()),
            )
        return judges


def appearance_features_parallel(pixels: Pixels, *, steps: Progress = no_progress) -> Floats:
    """Return what a judge sees of many pictures, as :func:`appearance_features` does, on every core."""
    grey = _grey(pixels)
    found = []
    with extractor(len(grey)) as parts, steps("gradients", len(grey)) as advance:
        for part in parts("hog", grey):
            found.append(part)
            advance(len(part))
    return _joined(np.concatenate(found), grey)


def appearance_features(pixels: Pixels) -> Floats:
    """Return what a judge sees, float32 (N, F), of pictures uint8 (N, S, S, 1 or 3), N > 0.

    Raises:
        MissingExtraError: scikit-image is not installed.
    """
    grey = _grey(pixels)
    return _joined(extract("hog", grey), grey)


def _joined(gradients: NDArray[np.float16], grey: Pixels) -> Floats:
    """Histograms of unit length, then a square of 16 x 16 mean grey values in [0, 1]."""
    count, side = len(grey), grey.shape[1]
    cell = max(side // _SIDE, 1)
    cells = side // cell
    cut = grey[:, : cells * cell, : cells * cell].reshape(count, cells, cell, cells, cell)
    small = cut.mean(axis=(2, 4), dtype=np.float32).reshape(count, -1) / 255
    return np.concatenate([gradients.astype(np.float32) * np.float32(_GRADIENTS), small], 1)


def _grey(pixels: Pixels) -> Pixels:
    if pixels.shape[3] == 1:
        return pixels[..., 0]
    grey: Pixels = (pixels @ np.array(_GREY, np.float32)).astype(np.uint8)
    return grey
