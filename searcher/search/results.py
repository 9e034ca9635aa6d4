"""What a search gives back: results with their scores, and what the scores are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from lookalike.encoder.bundle.bundle import Bundle
from lookalike.encoder.bundle.calibration import ScoreCalibration, default_prior
from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.text import printable
from lookalike.indexer.store.base import Hit
from lookalike.searcher.search.query_denoiser import DenoiseInfo

__all__ = ["MatchScorer", "QueryResult", "SearchHit"]


@dataclass(frozen=True, slots=True)
class SearchHit:
    """One picture that was found.

    Attributes:
        rank: From 1.
        score: Cosine similarity in [-1, 1]; higher is more alike. It is no probability.
        id: Of the item.
        payload: All that is stored beside it: root, path, sha256, size, mtime_ns, person.
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
        """Whose picture it is, where that is known."""
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
    """What one query got.

    Attributes:
        query: The query's file, as it was given.
        model_id: Of the model that compared.
        took_ms: Reading, embedding and searching; of queries answered together, each one's share.
        results: Best first; empty when the query failed.
        failure: Why there is no answer, in one line; None when there is one.
        match: Whether any result is above the threshold; None where there is no threshold or no answer.
        warning: Why the results mean little, in one line; None when nothing is known against them.
        treatment: What was done to the query before; None where cleaning was not asked for.
        asked: ``like`` and ``unlike``: the files of a query of several pictures; empty for one of one.
    """

    query: str
    model_id: str
    took_ms: float
    results: tuple[SearchHit, ...]
    failure: str | None = None
    match: bool | None = None
    warning: str | None = None
    treatment: DenoiseInfo | None = None
    asked: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values: query, model_id, took_ms, match, warning, results.

        Also treatment where cleaning was asked for, like and unlike of a query of several pictures, and error
        when it failed.
        """
        answer: dict[str, Any] = {
            "query": self.query,
            **{side: list(files) for side, files in self.asked.items()},
            "model_id": self.model_id,
            "took_ms": round(self.took_ms, 3),
            "match": self.match,
            "warning": self.warning,
            "results": [result.to_json() for result in self.results],
        }
        if self.treatment is not None:
            answer["treatment"] = self.treatment.to_json()
        return answer if self.failure is None else answer | {"error": self.failure}


@dataclass(frozen=True, slots=True)
class MatchScorer:
    """What scores of one search are worth.

    Attributes:
        likeness: Of the model; None where it is not calibrated.
        prior: Probability that a picture of the collection shows the query's person, before it is looked at.
        threshold: Score that a match lies above; None where the data supported none.
    """

    likeness: ScoreCalibration | None = None
    prior: float = 0.5
    threshold: float | None = None

    @classmethod
    def of(cls, bundle: Bundle, *, size: int, prior: float | None, fmr: float | None) -> Self:
        """Return the judge of a search in a collection of ``size`` pictures.

        Args:
            bundle: The model.
            size: Pictures in the collection.
            prior: In (0, 1); None: one match expected, see :func:`default_prior`.
            fmr: False match rate of the threshold; None: the smallest that the calibration supports.

        Raises:
            InvalidArgumentError: a prior or a rate was given and cannot be, or the model is not calibrated.
        """
        likeness = None if bundle.calibration is None else bundle.calibration.scores
        if likeness is None:
            if prior is not None or fmr is not None:
                raise InvalidArgumentError(
                    f"--prior and --fmr need a calibrated model, {printable(bundle.name)} is none; "
                    "lookalike calibrate makes it one"
                )
            return cls()
        chosen = default_prior(size) if prior is None else prior
        likeness.probability(0.0, chosen)  # refuses what is no prior, also where nothing is found
        return cls(likeness, chosen, likeness.threshold(fmr))

    def ranked(self, hits: Sequence[Hit]) -> tuple[SearchHit, ...]:
        """Return results for hits, best first."""
        scores = [hit.score for hit in hits]
        chances: list[float | None] = [None] * len(hits)
        if self.likeness is not None:
            chances = self.likeness.probability(scores, self.prior).tolist()
        return tuple(
            SearchHit(rank, hit.score, hit.id, dict(hit.payload), chance, self._above(hit.score))
            for rank, (hit, chance) in enumerate(zip(hits, chances, strict=True), start=1)
        )

    def matched(self, results: Sequence[SearchHit]) -> bool | None:
        """Whether any result is above the threshold; None where there is none."""
        return None if self.threshold is None else any(result.match for result in results)

    def _above(self, score: float) -> bool | None:
        return None if self.threshold is None else score > self.threshold
