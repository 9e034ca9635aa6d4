"""What a search returns: hits with scores, probabilities and matches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from lookalike.encoder.bundle import Bundle, ScoreCalibration, default_prior
from lookalike.encoder.errors import InvalidArgumentError, LookalikeError
from lookalike.encoder.text import printable
from lookalike.indexer.store import Hit
from lookalike.searcher.search.query_denoiser import DenoiseInfo


@dataclass(frozen=True, slots=True)
class SearchHit:
    """One image that was found.

    Attributes:
        rank: From 1.
        score: Cosine similarity in [-1, 1]; higher is more similar. It is not a probability.
        id: Of the item.
        payload: The stored metadata: root, path, sha256, size, mtime_ns, person.
        probability: That it shows the query's person, in (0, 1); None where the model is not calibrated.
        match: Whether the score is above the threshold; None where there is none.
    """

    rank: int
    score: float
    id: str
    payload: dict[str, Any]
    probability: float | None = None
    match: bool | None = None

    @property
    def path(self) -> str:
        """Relative to the item's root."""
        return str(self.payload["path"])

    @property
    def person(self) -> str | None:
        """The person in the image, where known."""
        return self.payload.get("person")

    def to_json(self) -> dict[str, Any]:
        """Return JSON values: rank, score, probability, match, path, person, payload."""
        return {
            "rank": self.rank,
            "score": round(self.score, 6),
            "probability": None if self.probability is None else float(f"{self.probability:.4g}"),
            "match": self.match,
            "path": self.path,
            "person": self.person,
            "payload": self.payload,
        }


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The hits of one query, or the error that it ended with.

    Attributes:
        query: The query's file, as it was given; the path of a stored item.
        model_id: Of the model that embedded it.
        took_ms: Reading, embedding and searching; each one's share of queries that run together.
        results: Best first; empty when the query failed.
        error: Why it failed; None when it did not.
        match: Whether any hit is above the threshold; None where there is no threshold or the query failed.
        warning: Why the hits mean little, in one line; None where nothing is known against them.
        denoise_info: How the query was denoised; None where denoising was not requested.
        examples: ``like`` and ``unlike``: the files of a query of several images; empty for a single image.
    """

    query: str
    model_id: str
    took_ms: float
    results: tuple[SearchHit, ...]
    error: LookalikeError | None = None
    match: bool | None = None
    warning: str | None = None
    denoise_info: DenoiseInfo | None = None
    examples: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values: query, model_id, took_ms, match, warning, results.

        Also treatment where denoising was requested, like and unlike for a query of several images, and error
        when it failed.
        """
        values: dict[str, Any] = {
            "query": self.query,
            **{side: list(files) for side, files in self.examples.items()},
            "model_id": self.model_id,
            "took_ms": round(self.took_ms, 3),
            "match": self.match,
            "warning": self.warning,
            "results": [result.to_json() for result in self.results],
        }
        if self.denoise_info is not None:
            values["treatment"] = self.denoise_info.to_json()
        return values if self.error is None else values | {"error": str(self.error)}


@dataclass(frozen=True, slots=True)
class MatchScorer:
    """Turns the scores of a search into probabilities and matches.

    Attributes:
        calibration: Of the model; None where it is not calibrated.
        prior: Probability that an image of the collection shows the query's person, before any comparison.
        threshold: Score that a match exceeds; None where the calibration supported none.
    """

    calibration: ScoreCalibration | None = None
    prior: float = 0.5
    threshold: float | None = None

    @classmethod
    def from_bundle(cls, bundle: Bundle, *, size: int, prior: float | None, fmr: float | None) -> Self:
        """Return the scorer for a collection of ``size`` images.

        Args:
            bundle: The model.
            size: Images in the collection.
            prior: In (0, 1); None: one match expected, see :func:`default_prior`.
            fmr: False match rate of the threshold; None: the smallest that the calibration supports.

        Raises:
            InvalidArgumentError: invalid prior or rate, or one was given and the model is not calibrated.
        """
        calibration = None if bundle.calibration is None else bundle.calibration.scores
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

    def rank(self, hits: Sequence[Hit]) -> tuple[SearchHit, ...]:
        """Return search hits for the store's hits, best first."""
        probabilities: list[float | None] = [None] * len(hits)
        if self.calibration is not None:
            scores = [hit.score for hit in hits]
            probabilities = self.calibration.probability(scores, self.prior).tolist()
        return tuple(
            SearchHit(rank, hit.score, hit.id, dict(hit.payload), probability, self._is_match(hit.score))
            for rank, (hit, probability) in enumerate(zip(hits, probabilities, strict=True), start=1)
        )

    def any_match(self, results: Sequence[SearchHit]) -> bool | None:
        """Whether any hit is above the threshold; None where there is none."""
        return None if self.threshold is None else any(result.match for result in results)

    def _is_match(self, score: float) -> bool | None:
        return None if self.threshold is None else score > self.threshold
