"""The one verdict on a comparison, for every way of asking: is it a match?"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Self

from lookalike.encoder.bundle import Bundle, ScoreCalibration, default_prior
from lookalike.encoder.errors import InvalidArgumentError, printable
from lookalike.indexer.store import Hit
from lookalike.searcher.search.query_images import QueryFace, stored_face
from lookalike.searcher.search.results import SearchHit

_EVEN: Final = 0.5


@dataclass(frozen=True, slots=True)
class MatchScorer:
    """Turns the scores of a search into probabilities and matches.

    A hit is a match when all of this holds: its score is above the threshold, it shows the query's person
    more probably than not, and the query is an image of the kind that the model was trained on. A threshold
    alone is not enough: with many items, one in a million false matches is still more frequent than a true
    one.

    Attributes:
        calibration: Of the model; None where it is not calibrated.
        prior: Probability that an image of the collection shows the query's person, before any comparison.
        threshold: Score that a match exceeds; None where the calibration supported none.
    """

    calibration: ScoreCalibration | None = None
    prior: float = 0.5
    threshold: float | None = None

    @classmethod
    def from_bundle(
        cls, bundle: Bundle, *, size: int, prior: float | None, fmr: float | None, faces: bool = False
    ) -> Self:
        """Return the scorer for a collection of ``size`` images.

        Args:
            bundle: The model.
            size: Images in the collection.
            prior: In (0, 1); None: one match expected, see :func:`default_prior`.
            fmr: False match rate of the threshold; None: the smallest that the calibration supports.
            faces: Whether faces found in pictures are compared.

        Raises:
            InvalidArgumentError: invalid prior or rate, or one was given and the model is not calibrated.
        """
        fitted = bundle.calibration_of(faces=faces)
        calibration = None if fitted is None else fitted.scores
        if calibration is None:
            if prior is not None or fmr is not None:
                raise InvalidArgumentError(
                    f"--prior and --fmr need a calibrated model, {printable(bundle.name)} is not calibrated; "
                    "run lookalike calibrate first"
                )
            return cls()
        chosen = default_prior(size) if prior is None else prior
        calibration.probability(0.0, chosen)  # refuses an invalid prior also where nothing is found
        return cls(calibration, chosen, calibration.threshold(fmr))

    def probabilities(self, scores: Sequence[float]) -> list[float | None]:
        """Return the probability of each score; None where the model is not calibrated."""
        if self.calibration is None:
            return [None] * len(scores)
        found: list[float | None] = self.calibration.probability(scores, self.prior).tolist()
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
        return None if self.calibration is None else any(result.match for result in results)


def _may_be(hit: Hit, face: QueryFace | None) -> bool:
    """Whether an item of the query's file can be the query: of faces, the one that is compared."""
    stored = stored_face(hit.payload)
    return face is None or stored is None or stored.number == face.number
