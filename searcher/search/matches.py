"""The one verdict on a comparison, for every way of asking: is it a match?"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.bundle import DEFAULT_PRESENCE, Bundle
from lookalike.encoder.errors import InvalidArgumentError, printable
from lookalike.indexer.store import Hit
from lookalike.searcher.search.query_images import QueryFace, stored_face
from lookalike.searcher.search.results import SearchHit

_EVEN: Final = 0.5


@dataclass(frozen=True, slots=True)
class MatchScorer:
    """Turns the scores of a search, or of a comparison, into probabilities and matches.

    A hit is a match when it shows the query's person more probably than not, its score is above the threshold
    if there is one, and the query is an image of the kind that the model was trained on. A threshold alone is
    not enough: with many items, one in a million false matches is still more frequent than a true one.

    Attributes:
        estimate: Scores to probabilities; None where the model is not calibrated.
        threshold: Score that a match exceeds; None: there is none.
    """

    estimate: Callable[[Sequence[float]], NDArray[np.float64]] | None = None
    threshold: float | None = None

    @classmethod
    def of_search(
        cls, bundle: Bundle, *, size: int, prior: float | None, fmr: float | None, faces: bool = False
    ) -> Self:
        """Return the scorer for a collection of ``size`` images.

        Args:
            bundle: The model.
            size: Images in the collection.
            prior: In (0, 1): that the collection shows the person at all; None: :data:`DEFAULT_PRESENCE`.
            fmr: False match rate of a threshold; None: no threshold.
            faces: Whether faces found in pictures are compared.

        Raises:
            InvalidArgumentError: invalid prior or rate, or one was given and the model is not calibrated.
        """
        fitted, presence = bundle.calibration_of(faces=faces), DEFAULT_PRESENCE if prior is None else prior
        if fitted is None or fitted.scores is None:
            return cls._without(bundle, prior, fmr)
        estimate: Callable[[Sequence[float]], NDArray[np.float64]]
        if fitted.searches is not None:
            estimate = partial(fitted.searches.probability, size=size, prior=presence)
        else:  # fitted by an earlier version: as if one image of the collection showed the person
            estimate = partial(fitted.scores.probability, prior=presence / max(size, 1))
        estimate([0.0])  # refuses an invalid prior also where nothing is found
        return cls(estimate, None if fmr is None else fitted.scores.threshold(fmr))

    @classmethod
    def of_pair(cls, bundle: Bundle, *, prior: float | None, fmr: float | None, faces: bool = False) -> Self:
        """Return the scorer for two images.

        Args:
            bundle: The model.
            prior: In (0, 1): that both show one person; None: 0.5.
            fmr: False match rate of a threshold; None: no threshold.
            faces: Whether faces found in pictures are compared.

        Raises:
            InvalidArgumentError: As :meth:`of_search`.
        """
        fitted = bundle.calibration_of(faces=faces)
        if fitted is None or fitted.scores is None:
            return cls._without(bundle, prior, fmr)
        estimate = partial(fitted.scores.probability, prior=_EVEN if prior is None else prior)
        estimate([0.0])
        return cls(estimate, None if fmr is None else fitted.scores.threshold(fmr))

    @classmethod
    def _without(cls, bundle: Bundle, prior: float | None, fmr: float | None) -> Self:
        if prior is not None or fmr is not None:
            raise InvalidArgumentError(
                f"--prior and --fmr need a calibrated model, {printable(bundle.name)} is not calibrated; "
                "run lookalike calibrate first"
            )
        return cls()

    @property
    def is_calibrated(self) -> bool:
        """Whether it knows probabilities."""
        return self.estimate is not None

    def probabilities(self, scores: Sequence[float]) -> list[float | None]:
        """Return the probability of each score; None where the model is not calibrated."""
        if self.estimate is None:
            return [None] * len(scores)
        found: list[float | None] = self.estimate(scores).tolist()
        return found

    def is_match(self, score: float, probability: float | None, *, warned: bool = False) -> bool | None:
        """Whether a comparison is a match; None where the model is not calibrated.

        Args:
            score: Cosine similarity.
            probability: Of this score, from :meth:`probabilities`.
            warned: Whether the query is unlike what the model was trained on.
        """
        if probability is None:
            return None
        above = self.threshold is None or score > self.threshold
        return above and probability > _EVEN and not warned

    def rank(
        self,
        hits: Sequence[Hit],
        *,
        digests: Collection[str] = (),
        face: QueryFace | None = None,
        warned: bool = False,
        offset: int = 0,
    ) -> tuple[SearchHit, ...]:
        """Return search hits for the store's hits, best first.

        Args:
            hits: What was found.
            digests: SHA-256 (hex) of the query's files.
            face: The query's face; another one of the same file is not the query.
            warned: Whether the query is unlike what the model was trained on: then nothing is a match, and no
                probability is known.
            offset: Hits before these.
        """
        probabilities = self.probabilities([hit.score for hit in hits])
        return tuple(
            SearchHit(
                rank,
                hit.score,
                hit.id,
                dict(hit.payload),
                None if warned else probability,
                self.is_match(hit.score, probability, warned=warned),
                hit.payload.get("sha256") in digests and _may_be(hit, face),
            )
            for rank, (hit, probability) in enumerate(zip(hits, probabilities, strict=True), offset + 1)
        )

    def any_match(self, results: Sequence[SearchHit]) -> bool | None:
        """Whether any hit is a match; None where the model is not calibrated."""
        return any(result.match for result in results) if self.is_calibrated else None


def _may_be(hit: Hit, face: QueryFace | None) -> bool:
    """Whether an item of the query's file can be the query: of faces, the one that is compared."""
    stored = stored_face(hit.payload)
    return face is None or stored is None or stored.number == face.number
