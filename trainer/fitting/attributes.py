"""Fit attributes to pictures that are known to have them or not: how each is read, and how it is moved.

Two directions, for the one that tells best is not the one that changes least else. Read: the linear
discriminant of R. A. Fisher: The use of multiple measurements in taxonomic problems. Annals of Eugenics 7,
1936, its covariance shrunk as in J. H. Friedman: Regularized Discriminant Analysis. JASA 84, 1989.
Moved: how latents change on average with a reading, everything else that is read held fixed; without anything
else, that is S. Haufe et al.: On the interpretation of weight vectors of linear models in multivariate
neuroimaging. NeuroImage 87, 2014.

Legend: N pictures, D latent size, E embedding size, A attributes, F features, M covariates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.bundle.attributes import Attribute, Attributes
from lookalike.encoder.errors import DataError
from lookalike.encoder.metrics import roc_auc
from lookalike.encoder.text import printable

Floats = NDArray[np.float32]
Reals = NDArray[np.float64]
Method = Literal["partial", "plain"]

FEWEST: Final = 8
"""Examples with an attribute, and without it: below that, a direction is about these pictures."""
_FOLDS: Final = 5
_SHRINKAGES: Final = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Of the mean variance, added to every one; the one is taken that tells people apart who are left out."""
_RIDGE: Final = 0.01
"""Of the variance of what is held fixed: among 73 attributes some say nearly the same."""
_STEP: Final = 0.1


@dataclass(frozen=True, eq=False, slots=True)
class Examples:
    """Pictures, and what is known of them.

    Attributes:
        latents: float32 (N, D), where the model compares mirrored pictures the mean of both.
        embeddings: float32 (N, E), unit length, of these latents.
        scores: Name to (N,): over 0 it has the attribute, under 0 it has not; NaN: unknown.
        people: N names of who is on it; of one person are all on one side of every split.
        tested: bool (N,): nothing is fitted to these; they tell how well it is read.
        fixed: (N, M): what is held fixed besides, the mean colour for instance; M may be 0.
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
        examples: The pictures.
        embed: Latents float32 (N, D) to embeddings float32 (N, E) of unit length.
        method: ``partial``: the other attributes, and what the examples say, are held fixed; ``plain``: the
            difference of the two means.
        known: Attributes that are there already; held fixed too, those of the same names excepted.

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
    """Fit one: the shrinkage and the scale of the log-odds are those of folds left out in turn.

    Args:
        features: float (N, F).
        has: bool (N,), both kinds among them.
        folds: (N,), as of :func:`fit_attributes`: which is left out together.
    """
    rows = np.asarray(features, np.float64)
    left_out = np.full((len(_SHRINKAGES), len(rows)), np.nan)
    for fold in np.unique(folds):
        train, test = folds != fold, folds == fold
        if 0 < has[train].sum() < train.sum() - 1:
            left_out[:, test] = _weights(rows[train], has[train]) @ rows[test].T
    told = np.isfinite(left_out[0])
    weights = _weights(rows, has)
    if not 0 < has[told].sum() < told.sum():  # too few people to leave any out
        left_out, told = weights @ rows.T, np.ones(len(rows), bool)
    areas = [roc_auc(line[told], has[told]) for line in left_out]
    best = int(np.argmax(areas))
    scale, offset = _odds(left_out[best][told], has[told])
    return Discriminant(scale * weights[best], offset)


def folds_of(people: Sequence[str]) -> NDArray[np.int64]:
    """Return which fold each picture is in, (N,): by the name alone, the same on every machine."""
    named = {
        name: hashlib.sha256(f"attributes {name}".encode(errors="surrogateescape")).digest()[0]
        for name in set(people)
    }
    return np.array([named[name] % _FOLDS for name in people], np.int64)


def _check_enough(name: str, scores: Reals) -> None:
    positive = int((scores > 0).sum())
    if min(positive, len(scores) - positive) < FEWEST:
        raise DataError(
            f"attribute {printable(name)} needs {FEWEST} pictures with it and {FEWEST} without to be fitted, "
            f"there are {positive} and {len(scores) - positive}; label more"
        )


def _weights(rows: Reals, has: NDArray[np.bool_]) -> Reals:
    """Return a line of weights for each shrinkage, (S, F)."""
    means = rows[has].mean(0), rows[~has].mean(0)
    centred = rows - np.where(has[:, None], means[0], means[1])
    variance, axes = np.linalg.eigh(centred.T @ centred / max(len(rows) - 2, 1))
    apart = (means[0] - means[1]) @ axes
    ridges = np.array(_SHRINKAGES)[:, None] * max(variance.mean(), np.finfo(float).tiny)
    weights: Reals = (apart / (variance.clip(0) + ridges)) @ axes.T
    return weights


def _odds(scores: Reals, has: NDArray[np.bool_]) -> tuple[float, float]:
    """Return scale and offset of log-odds: two Gaussians of one width, with the share of each."""
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
    """Return how latents change with each reading, the others held fixed, (D,)."""
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
    """Scale a move so that one of it raises the reading by one standard deviation, and count."""
    fitted, scores = ~examples.tested, examples.scores[name]
    has, lacks = scores > 0, scores < 0
    here, latents = reading(examples.embeddings[fitted]), examples.latents[fitted]
    deviation = float(here.std())
    unit = move / max(float(np.linalg.norm(move)), np.finfo(float).tiny)
    small = _STEP * float(np.linalg.norm(latents.std(0))) * unit
    raised = float((reading(embed((latents + small).astype(np.float32))) - here).mean()) / _STEP
    if not raised > 0:
        raise DataError(
            f"attribute {printable(name)} cannot be moved: its examples do not differ in what is compared; "
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
