"""Fit attributes to labeled images: for each a linear probe, and a direction to edit it.

The two directions differ: the best probe is not the edit that changes least else. Probe: the linear
discriminant of R. A. Fisher: The use of multiple measurements in taxonomic problems. Annals of Eugenics 7,
1936, its covariance shrunk as in J. H. Friedman: Regularized Discriminant Analysis. JASA 84, 1989.
Edit direction: how latents change on average with the probe's output, all other probes held fixed; with a
single probe that is S. Haufe et al.: On the interpretation of weight vectors of linear models in multivariate
neuroimaging. NeuroImage 87, 2014.

Legend: N images, D latent size, E embedding size, A attributes, F features, M covariates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.bundle import Attribute, Attributes
from lookalike.encoder.errors import DataError, printable
from lookalike.encoder.metrics import roc_auc

Floats = NDArray[np.float32]
Reals = NDArray[np.float64]
Method = Literal["partial", "plain"]

FEWEST: Final = 8
"""Examples with an attribute, and without it: with fewer, a direction would describe these images."""
_FOLDS: Final = 5
_SHRINKAGES: Final = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Of the mean variance, added to every variance; the one with the best AUC in cross-validation is taken."""
_RIDGE: Final = 0.01
"""Of the variance of the covariates: among 73 attributes some are nearly the same."""
_STEP: Final = 0.1


@dataclass(frozen=True, eq=False, slots=True)
class Examples:
    """Labeled images.

    Attributes:
        latents: float32 (N, D); of a model that averages mirror images, the mean of both.
        embeddings: float32 (N, E), unit length, of these latents.
        scores: Name to (N,): above 0 with the attribute, below 0 without it; NaN: unknown.
        people: N names; all images of a person are on one side of every split.
        tested: bool (N,): test images; nothing is fitted to them.
        fixed: (N, M): covariates to hold fixed, for example the mean color; M may be 0.
    """

    latents: Floats
    embeddings: Floats
    scores: dict[str, Reals]
    people: Sequence[str]
    tested: NDArray[np.bool_]
    fixed: Reals


@dataclass(frozen=True, eq=False, slots=True)
class Discriminant:
    """Log-odds of features float (N, F): ``features @ weights + offset``."""

    weights: Reals
    offset: float

    def __call__(self, features: NDArray[np.floating]) -> Reals:
        """Return float64 (N,)."""
        odds: Reals = np.asarray(features @ self.weights + self.offset, np.float64)
        return odds


def fit_attributes(
    examples: Examples,
    embed: Callable[[Floats], Floats],
    *,
    method: Method = "partial",
    known: Attributes | None = None,
) -> Attributes:
    """Fit every attribute that the examples score.

    Args:
        examples: Labeled images.
        embed: Latents float32 (N, D) to embeddings float32 (N, E) of unit length.
        method: ``partial``: the other attributes and the covariates are held fixed; ``plain``: the difference
            of the two means.
        known: Existing attributes; held fixed too, except those of the same names.

    Raises:
        DataError: fewer than :data:`FEWEST` examples with or without an attribute.
    """
    fitted = ~examples.tested
    folds = folds_of(examples.people)
    readings: dict[str, Discriminant] = {}
    for name, scores in examples.scores.items():
        chosen = fitted & np.isfinite(scores) & (scores != 0)
        _check_enough(name, scores[chosen])
        readings[name] = discriminant(examples.embeddings[chosen], scores[chosen] > 0, folds[chosen])
    moves = _plain(examples) if method == "plain" else _partial(examples, readings, known)
    return Attributes(
        tuple(_attribute(examples, name, readings[name], moves[name], embed) for name in sorted(readings))
    )


def discriminant(
    features: NDArray[np.floating], has: NDArray[np.bool_], folds: NDArray[np.int64]
) -> Discriminant:
    """Fit a linear discriminant; shrinkage and scale of the log-odds come from cross-validation.

    Args:
        features: float (N, F).
        has: bool (N,), with and without the attribute; both occur.
        folds: (N,), from :func:`folds_of`: the fold of each image.
    """
    rows = np.asarray(features, np.float64)
    held_out = np.full((len(_SHRINKAGES), len(rows)), np.nan)
    for fold in np.unique(folds):
        train, test = folds != fold, folds == fold
        if 0 < has[train].sum() < train.sum() - 1:
            held_out[:, test] = _weights(rows[train], has[train]) @ rows[test].T
    scored = np.isfinite(held_out[0])
    weights = _weights(rows, has)
    if not 0 < has[scored].sum() < scored.sum():  # too few people for cross-validation
        held_out, scored = weights @ rows.T, np.ones(len(rows), bool)
    areas = [roc_auc(line[scored], has[scored]) for line in held_out]
    best = int(np.argmax(areas))
    scale, offset = _odds(held_out[best][scored], has[scored])
    return Discriminant(scale * weights[best], offset)


def folds_of(people: Sequence[str]) -> NDArray[np.int64]:
    """Return the fold of each image, (N,): by the hash of the name, the same on every machine."""
    named = {
        name: hashlib.sha256(f"attributes {name}".encode(errors="surrogateescape")).digest()[0]
        for name in set(people)
    }
    return np.array([named[name] % _FOLDS for name in people], np.int64)


def _check_enough(name: str, scores: Reals) -> None:
    positive = int((scores > 0).sum())
    if min(positive, len(scores) - positive) < FEWEST:
        raise DataError(
            f"attribute {printable(name)} needs {FEWEST} images with it and {FEWEST} without, "
            f"there are {positive} and {len(scores) - positive}; label more"
        )


def _weights(rows: Reals, has: NDArray[np.bool_]) -> Reals:
    """Return the weights for each shrinkage, (S, F)."""
    means = rows[has].mean(0), rows[~has].mean(0)
    centered = rows - np.where(has[:, None], means[0], means[1])
    variance, axes = np.linalg.eigh(centered.T @ centered / max(len(rows) - 2, 1))
    difference = (means[0] - means[1]) @ axes
    ridges = np.array(_SHRINKAGES)[:, None] * max(variance.mean(), np.finfo(float).tiny)
    weights: Reals = (difference / (variance.clip(0) + ridges)) @ axes.T
    return weights


def _odds(scores: Reals, has: NDArray[np.bool_]) -> tuple[float, float]:
    """Return scale and offset of the log-odds of two Gaussians of equal variance, with the share of each."""
    high, low = scores[has], scores[~has]
    squares = ((high - high.mean()) ** 2).sum() + ((low - low.mean()) ** 2).sum()
    variance = squares / max(len(scores) - 2, 1)
    scale = abs(high.mean() - low.mean()) / max(variance, np.finfo(float).tiny)
    middle = (high.mean() + low.mean()) / 2
    return scale, float(np.log(len(high) / len(low)) - scale * middle)


def _plain(examples: Examples) -> dict[str, Reals]:
    """Return the difference of the means of latents with and without each attribute, (D,)."""
    moves = {}
    for name, scores in examples.scores.items():
        has, lacks = ((sign * scores > 0) & ~examples.tested for sign in (1, -1))
        moves[name] = examples.latents[has].mean(0, dtype=float) - examples.latents[lacks].mean(
            0, dtype=float
        )
    return moves


def _partial(
    examples: Examples, readings: dict[str, Discriminant], known: Attributes | None
) -> dict[str, Reals]:
    """Return how latents change with the output of each probe, the others held fixed, (D,)."""
    fitted = ~examples.tested
    embeddings = examples.embeddings[fitted]
    others = () if known is None else tuple(one for one in known.each if one.name not in readings)
    columns = [reading(embeddings) for reading in readings.values()]
    columns += [one.read(embeddings).astype(np.float64) for one in others]
    columns += list(np.asarray(examples.fixed, np.float64)[fitted].T)
    given = np.stack(columns, 1)
    given = given - given.mean(0)
    given = given / np.maximum(given.std(0), np.finfo(float).tiny)
    latents = examples.latents[fitted].astype(np.float64)
    together = given.T @ given + _RIDGE * len(given) * np.eye(given.shape[1])
    slopes = np.linalg.solve(together, given.T @ (latents - latents.mean(0)))  # (A + others + M, D)
    return dict(zip(readings, slopes, strict=False))


def _attribute(
    examples: Examples, name: str, reading: Discriminant, move: Reals, embed: Callable[[Floats], Floats]
) -> Attribute:
    """Scale an edit direction to raise the probe by one standard deviation, and measure the AUC."""
    fitted, scores = ~examples.tested, examples.scores[name]
    has, lacks = scores > 0, scores < 0
    outputs, latents = reading(examples.embeddings[fitted]), examples.latents[fitted]
    deviation = float(outputs.std())
    unit = move / max(float(np.linalg.norm(move)), np.finfo(float).tiny)
    small = _STEP * float(np.linalg.norm(latents.std(0))) * unit
    raised = float((reading(embed((latents + small).astype(np.float32))) - outputs).mean()) / _STEP
    if not raised > 0:
        raise DataError(
            f"attribute {printable(name)} has no edit direction: its examples have the same embeddings; "
            "label more"
        )
    size = float(np.linalg.norm(latents.std(0))) * deviation / raised
    known = examples.tested & (has | lacks)
    measured = 0 < has[known].sum() < known.sum()
    return Attribute(
        name=name,
        edit_direction=(size * unit).astype(np.float32),
        probe=reading.weights.astype(np.float32),
        offset=float(reading.offset),
        deviation=deviation,
        positive=int((has & fitted).sum()),
        negative=int((lacks & fitted).sum()),
        auc=round(roc_auc(reading(examples.embeddings[known]), has[known]), 4) if measured else None,
        tested=int(known.sum()),
    )
