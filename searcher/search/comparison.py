"""Two images compared with each other, without a collection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lookalike.encoder.images import Crop
from lookalike.encoder.runtime import Model
from lookalike.searcher.search.matches import MatchScorer
from lookalike.searcher.search.query_denoiser import QueryDenoiser
from lookalike.searcher.search.query_images import LoadedQuery, Query, QueryFace, QueryFaces, Timer
from lookalike.searcher.search.query_vectors import QueryEmbedder, no_vector, untimed


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """How similar two images are.

    Attributes:
        score: Cosine similarity in [-1, 1]; it is not a probability.
        probability: That both show one person, in (0, 1); None where the model is not calibrated, or an image
            is unlike what it was trained on.
        match: Whether they are taken for one person, see :class:`~.matches.MatchScorer`; None where the model
            is not calibrated.
        same_file: Whether both have exactly the same bytes.
        warning: Why the score means little, in one line; None where nothing is known against it.
        faces: The face of each image that was compared; None where whole images are.
    """

    score: float
    probability: float | None
    match: bool | None
    same_file: bool
    warning: str | None
    faces: tuple[QueryFace | None, QueryFace | None]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values: score, probability, match, same_file, warning, faces."""
        return {
            "score": round(self.score, 6),
            "probability": None if self.probability is None else float(f"{self.probability:.4g}"),
            "match": self.match,
            "same_file": self.same_file,
            "warning": self.warning,
            "faces": [None if face is None else face.to_json() for face in self.faces],
        }


def compare(
    model: Model,
    first: Query,
    second: Query,
    *,
    crop: Crop | None = None,
    faces: QueryFaces | None = None,
    prior: float | None = None,
    fmr: float | None = None,
    denoiser: QueryDenoiser | None = None,
    max_pixels: int | None = None,
    timer: Timer = untimed,
) -> Comparison:
    """Compare two images.

    Args:
        model: The model that embeds them.
        first: An image file, or an object like one.
        second: The other.
        crop: How they are framed; None: as the model wants it.
        faces: Which face of each is compared; None: whole images are.
        prior: Probability that both show one person, before any comparison; None: 0.5.
        fmr: False match rate of a threshold that a match exceeds; None: no threshold.
        denoiser: Denoises the images first.
        max_pixels: Larger images are refused; None: the default limit.
        timer: Called for each step.

    Raises:
        ImageError: an image cannot be read, or has no such face.
        VectorError: an image has no usable embedding.
        InvalidArgumentError: crop and faces are both given, or prior or rate are invalid.
    """
    usual = None if faces is not None else model.bundle.spec.image.crop
    embedder = QueryEmbedder(model, usual, timer=timer, max_pixels=max_pixels)
    crop = embedder.framing(crop, faces)
    scorer = MatchScorer.of_pair(model.bundle, prior=prior, fmr=fmr, faces=crop is None)
    loaded = [_loaded(embedder.load(each, crop, faces, denoiser)[0]) for each in (first, second)]
    vectors = []
    embedded, warnings = embedder.vectors(loaded)
    for each, vector in zip(loaded, embedded, strict=True):
        if vector is None:
            raise no_vector(each.name)
        vectors.append(vector)
    score = float(np.clip(vectors[0] @ vectors[1], -1, 1))
    named = zip(loaded, warnings, strict=True)
    warning = next((f"{each.name}: {text}" for each, text in named if text is not None), None)
    (probability,) = scorer.probabilities([score])
    return Comparison(
        score=score,
        probability=probability if warning is None else None,
        match=scorer.is_match(score, probability, warned=warning is not None),
        same_file=loaded[0].digest == loaded[1].digest,
        warning=warning,
        faces=(loaded[0].face, loaded[1].face),
    )


def _loaded(query: LoadedQuery) -> LoadedQuery:
    if query.error is not None:
        raise query.error
    return query
