"""Embeddings of people as a model would give them, by the million, and who is nearest to whom. Not a test.

A person is a direction, a picture that direction and noise of the same spectrum: pictures of one person have
a cosine of some 0.55, of two of 0 +- 0.1. Few people have many pictures and many few, as in LFW. Smiling
leans on the picture's vector, Male on the person's, and 40 % of the pictures smile.

Every piece of rows is drawn from a seed of its own, so nothing holds all of them.

Legend: N rows, P people, D dimensions, Q queries, k nearest.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lookalike.indexer.parquet.file import ROWS, Entry, Rows
from lookalike.indexer.store import CollectionSpec

Vectors = NDArray[np.float32]
NOISE = 0.9
PICTURES_EACH = 20


@dataclass(frozen=True)
class People:
    """N pictures of N / 20 people."""

    count: int
    dimension: int = 128
    seed: int = 0

    @property
    def spec(self) -> CollectionSpec:
        """What a collection of them remembers."""
        return CollectionSpec(
            model_id="5" * 64,
            model_name="synthetic",
            dimension=self.dimension,
            crop="full",
            roots={"people": "/data/people"},
        )

    @cached_property
    def faces(self) -> Vectors:
        """A direction of each person, float32 (P, D)."""
        return unit(self._noise(np.random.default_rng([self.seed, 0]), max(1, self.count // PICTURES_EACH)))

    def rows(self) -> Iterator[Rows]:
        """Yield all rows, a piece at a time."""
        lean = unit(np.random.default_rng([self.seed, 1]).normal(size=(2, self.dimension)).astype(np.float32))
        for start in range(0, self.count, ROWS):
            size = min(ROWS, self.count - start)
            rng = np.random.default_rng([self.seed, 2, start])
            who, vectors = self._pictures(rng, size)
            smiling = vectors @ lean[0] * np.sqrt(self.dimension) + rng.normal(size=size) - 0.36
            male = self.faces[who] @ lean[1] * np.sqrt(self.dimension)
            entries = [
                entry(start + row, int(who[row]), float(smiling[row]), float(male[row]))
                for row in range(size)
            ]
            yield Rows(entries, vectors)

    def queries(self, count: int) -> tuple[Vectors, list[str]]:
        """Return further pictures, float32 (Q, D), and who is on them."""
        who, vectors = self._pictures(np.random.default_rng([self.seed, 3]), count)
        return vectors, [name_of(int(person)) for person in who]

    def _pictures(self, rng: np.random.Generator, size: int) -> tuple[NDArray[np.int64], Vectors]:
        who = (len(self.faces) * rng.random(size) ** 2).astype(np.int64)
        return who, unit(self.faces[who] + NOISE * unit(self._noise(rng, size)))

    def _noise(self, rng: np.random.Generator, size: int) -> Vectors:
        spectrum = 1 / np.sqrt(1 + np.arange(self.dimension) / 16)
        return (rng.normal(size=(size, self.dimension)) * spectrum).astype(np.float32)


def name_of(person: int) -> str:
    return f"Person_{person:06d}"


def entry(number: int, person: int, smiling: float, male: float) -> Entry:
    """What a collection keeps beside a vector."""
    return Entry(
        path=f"{name_of(person)}/{number:08d}.jpg",
        root="people",
        sha256=hashlib.sha256(number.to_bytes(8, "big")).hexdigest(),
        size=8000 + number * 7919 % 40_000,
        mtime_ns=1_600_000_000_000_000_000 + number * 1_000_003,
        person=name_of(person),
        payload={"Smiling": smiling, "Male": male},
    )


def unit(vectors: NDArray[Any]) -> Vectors:
    rows: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return rows


class Nearest:
    """The k best rows of each of Q queries among all that were shown, exactly."""

    def __init__(self, queries: Vectors, k: int) -> None:
        self._queries = queries
        self.scores: Vectors = np.full((len(queries), k), -np.inf, np.float32)
        self.rows: NDArray[np.int64] = np.full((len(queries), k), -1)

    def show(self, vectors: Vectors, start: int, passes: NDArray[np.bool_] | None = None) -> None:
        """Look at n rows, of which the first has the number ``start``.

        Args:
            vectors: float32 (n, D) of unit length.
            start: Of the first.
            passes: Which count, bool (n,) or, by query, (Q, n); None: all.
        """
        scores = self._queries @ vectors.T
        if passes is not None:
            scores = np.where(passes, scores, -np.inf)
        k = self.scores.shape[1]
        best = np.argpartition(scores, -min(k, len(vectors)), axis=1)[:, -k:]
        scores = np.concatenate([self.scores, np.take_along_axis(scores, best, axis=1)], axis=1)
        rows = np.concatenate([self.rows, best + start], axis=1)
        keep = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        self.scores = np.take_along_axis(scores, keep, axis=1)
        self.rows = np.where(np.isfinite(self.scores), np.take_along_axis(rows, keep, axis=1), -1)
