"""Are faces found in photographs, how exactly, and does a search with them find the person?

Legend: N made photographs, S side of a model's input, C its channels, E embedding size.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lookalike.deploy.evaluation.data import LabeledImages
from lookalike.deploy.evaluation.faces.photographs import MadePhotograph, Pixels, plan_photographs
from lookalike.deploy.evaluation.vectors import Progress, embed_images, no_progress
from lookalike.encoder.detect import (
    INDEX_THRESHOLD,
    QUERY_THRESHOLD,
    Face,
    FaceFinder,
    Similarity,
    cut_faces,
    cut_out,
    face_finder,
    labeled_face,
)
from lookalike.encoder.errors import DataError
from lookalike.encoder.files import read_bounded
from lookalike.encoder.images import Crop, decode_rgb, encode_pnm, read_pixels
from lookalike.encoder.runtime import Model

QUERIES: Final = (
    "whole photograph",
    "box crop",
    "landmarks, one look",
    "landmarks, two looks",
    "undisturbed",
)
"""How the query is cut out of a photograph; the last of LFW's own image."""
TURNS: Final = ((0.0, 10.0), (10.0, 20.0), (20.0, 30.0))
WIDTHS: Final = ((28, 40), (40, 80), (80, 120), (120, 1000))
_UPRIGHT: Final = (0.0, 5.0)
_TURNED: Final = (20.0, 30.0)
_BACKGROUNDS: Final = 300
_ON_THEIR_SIDE: Final = 200
_BOX_SHARE: Final = 0.727
"""Side of LFW's tight crop (90 px) over the median height of a box in its images (123.8 px)."""
_HIT: Final = 0.7
"""Eye distances: a face whose landmarks are nearer on average to those that were put there is the same."""


@dataclass(frozen=True, eq=False, slots=True)
class Observation:
    """What was found in a made photograph.

    Attributes:
        made: How it was made.
        width: Of the face, in pixels: that in LFW's image, enlarged.
        found: Whether the face was found at the threshold of indexing.
        distances: Of its landmarks to those on LFW's image, mean of the five, in distances of the eyes: with
            one look and with two; None where it was not found.
        sideways: Whether it was found when the photograph lies on its side (a quarter turn) and on its head;
            empty: that was not tried.
        others: Faces found in the photograph before the face was put there; None: that was not tried.
        queries: By name of a query its pixels uint8 (S, S, C), or None where no face was found.
        photograph: uint8 (H, W, 3), and the face that a search takes; None: not kept.
    """

    made: MadePhotograph
    width: float
    found: bool
    distances: tuple[float, float] | None
    sideways: tuple[bool, ...]
    others: int | None
    queries: dict[str, Pixels | None]
    photograph: tuple[Pixels, Face | None] | None


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Share of queries whose first hit shows the same person.

    Attributes:
        query: One of :data:`QUERIES`.
        all: Of all photographs.
        upright: Of those whose face is turned by at most 5 degrees; None: there are none.
        turned: By 20 to 30 degrees.
    """

    query: str
    all: float
    upright: float | None
    turned: float | None


@dataclass(frozen=True, eq=False, slots=True)
class FaceReport:
    """What was measured.

    Attributes:
        model: Name of the model.
        observations: Of each photograph.
        passed_over: Images of LFW in which no face was found even undisturbed: no photograph was made
            of them.
        gallery: How many images each query searched, its own left out.
        without_face: How many of them were framed as they are, as no face was found.
        search: A row for each kind of query.
        seed: Of all random choices.
    """

    model: str
    observations: tuple[Observation, ...]
    passed_over: int
    gallery: int
    without_face: int
    search: tuple[SearchResult, ...]
    seed: int

    def recall(self, keep: Callable[[Observation], bool] = lambda _: True) -> tuple[int, float | None]:
        """Return how many of these photographs there are, and the share whose face was found."""
        found = [each.found for each in self.observations if keep(each)]
        return len(found), float(np.mean(found)) if found else None

    def recall_by_turn(self) -> list[tuple[float, float, int, float | None]]:
        """Return for ranges of degrees: from, to, photographs, share found."""
        return [
            (low, high, *self.recall(_within(lambda each: abs(each.made.degrees), low, high)))
            for low, high in TURNS
        ]

    def recall_by_width(self) -> list[tuple[float, float, int, float | None]]:
        """Return the same for ranges of widths in pixels."""
        return [
            (low, high, *self.recall(_within(lambda each: each.width, low, high))) for low, high in WIDTHS
        ]

    @property
    def sideways(self) -> tuple[int, float | None, float | None]:
        """How many photographs were turned, and the shares found after 90 and after 180 degrees."""
        tried = [each.sideways for each in self.observations if each.sideways]
        shares = np.mean(tried, axis=0).tolist() if tried else (None, None)
        return len(tried), shares[0], shares[1]

    @property
    def false_faces(self) -> tuple[int, int]:
        """How many photographs without a face were searched, and how many faces were found there."""
        counts = [each.others for each in self.observations if each.others is not None]
        return len(counts), sum(counts)

    def landmarks(self) -> tuple[float, float, float] | None:
        """Return distances in eye distances: median with one look, with two, and the 95th percentile then."""
        distances = np.array([each.distances for each in self.observations if each.distances is not None])
        if not len(distances):
            return None
        one, two = np.median(distances, axis=0).tolist()
        return one, two, float(np.percentile(distances[:, 1], 95))

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        tried, quarter, half = self.sideways
        without, false = self.false_faces
        landmarks = self.landmarks()
        names = ("one_look", "two_looks", "two_looks_95th_percentile")
        return {
            "model": self.model,
            "pictures": len(self.observations),
            "passed_over": self.passed_over,
            "seed": self.seed,
            "recall": self.recall()[1],
            "by_turn": [_range_json(*row) for row in self.recall_by_turn()],
            "by_width": [_range_json(*row) for row in self.recall_by_width()],
            "false_faces": {"pictures": without, "faces": false},
            "on_their_side": {"pictures": tried, "recall_90": quarter, "recall_180": half},
            "landmarks": None if landmarks is None else dict(zip(names, landmarks, strict=True)),
            "gallery": self.gallery,
            "without_face": self.without_face,
            "search": [
                {
                    "query": row.query,
                    "recall_at_1": row.all,
                    "turned_0_5": row.upright,
                    "turned_20_30": row.turned,
                }
                for row in self.search
            ],
        }


def evaluate_faces(
    model: Model,
    images: LabeledImages,
    backgrounds: Sequence[Path],
    *,
    count: int,
    others: int | None = None,
    seed: int = 0,
    keep: int = 0,
    progress: Progress = no_progress,
) -> FaceReport:
    """Find the faces of made photographs, and search with them.

    Every query searches the faces of the other images, found and turned upright; it is a miss where no face
    is found.

    Args:
        model: The model.
        images: LFW.
        backgrounds: Photographs without people.
        count: Number of photographs.
        others: How many images of other people are searched, chosen at random; None: all.
        seed: Of all random choices.
        keep: Number of photographs that are kept.
        progress: Shows the progress.

    Raises:
        MissingExtraError: The extra ``faces`` is not installed.
        InvalidArgumentError: The images are not LFW, or the model does not say where it has faces.
        DataError: A photograph cannot be read, or no face was found anywhere.
    """
    finder, _ = face_finder(), model.bundle.face_frame
    plan = plan_photographs(images, backgrounds, count, seed=seed)
    by_background: dict[Path, list[MadePhotograph]] = defaultdict(list)
    for made in plan:
        by_background[made.background].append(made)
    watched: list[Observation | None] = []
    with (
        progress("photographs", len(plan)) as advance,
        ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="photographs") as pool,
    ):
        look = _Look(model, images, finder, keep)
        tasks = [pool.submit(look.at_all, file, some, advance) for file, some in by_background.items()]
        try:
            for task in as_completed(tasks):
                watched += task.result()
        finally:
            for task in tasks:
                task.cancel()
    seen = sorted((each for each in watched if each is not None), key=lambda each: each.made.number)
    if not seen:
        raise DataError("no face was found in any of the images; raise --pictures")
    searched = _gallery(images, seen, others, seed)
    vectors = embed_images(model, searched.images, faces=True, progress=progress)
    return FaceReport(
        model=model.bundle.name,
        observations=tuple(seen),
        passed_over=len(watched) - len(seen),
        gallery=len(searched.images) - 1,
        without_face=vectors.without_face or 0,
        search=tuple(_search(model, query, seen, searched, vectors.rows) for query in QUERIES),
        seed=seed,
    )


@dataclass(frozen=True)
class _Look:
    """Makes photographs, and looks for their faces; several threads may use it."""

    model: Model
    images: LabeledImages
    finder: FaceFinder
    keep: int

    def at_all(
        self, background: Path, plan: Sequence[MadePhotograph], advance: Callable[[int], object]
    ) -> list[Observation | None]:
        """Return what is seen in the photographs with one background."""
        try:
            photograph = decode_rgb(read_bounded(background), name=background.name)
        except OSError as error:
            raise DataError(
                f"{background} cannot be read ({error.strerror}); name other photographs"
            ) from error
        seen = []
        for made in plan:
            seen.append(self.at(photograph, made))
            advance(1)
        return seen

    def at(self, photograph: Pixels, made: MadePhotograph) -> Observation | None:
        """Return what is seen in one; None where no face is found even in LFW's own image."""
        file = self.images.files[made.face]
        image = decode_rgb(read_bounded(file), name=file.name)
        known = _labeled(self.finder.find(image, threshold=QUERY_THRESHOLD))
        if known is None:
            return None
        background = made.draw_background(photograph)
        drawn = made.draw(background, image)
        height, width = drawn.shape[:2]
        true = made.similarity.apply(known.points(*image.shape[1::-1]))
        indexed = self._find(drawn, INDEX_THRESHOLD)
        queried = indexed or self._find(drawn, QUERY_THRESHOLD)
        taken, refined = max(queried, key=lambda pair: pair[1].prominence, default=(None, None))
        distances: tuple[float, float] | None = None
        for one, two in indexed:
            if _is_there(two, true, width, height):
                apart = (_distance(face.points(width, height), true) for face in (one, two))
                distances = next(apart), next(apart)
        return Observation(
            made=made,
            width=known.width * made.scale,
            found=distances is not None,
            distances=distances,
            sideways=self._sideways(drawn, true) if made.number < _ON_THEIR_SIDE else (),
            others=len(self.finder.find(background)) if made.number < _BACKGROUNDS else None,
            queries=self._queries(drawn, taken, refined, image, known),
            photograph=(drawn, refined) if made.number < self.keep else None,
        )

    def _sideways(self, drawn: Pixels, true: NDArray[np.float32]) -> tuple[bool, bool]:
        """Return whether the face is found after a quarter turn to the left, and after a half turn."""
        height, width = drawn.shape[:2]
        quarter = np.stack([true[:, 1], width - true[:, 0]], 1)
        half = np.stack([width - true[:, 0], height - true[:, 1]], 1)
        return (
            any(_is_there(face, quarter, height, width) for face in self.finder.find(np.rot90(drawn))),
            any(_is_there(face, half, width, height) for face in self.finder.find(np.rot90(drawn, 2))),
        )

    def _find(self, drawn: Pixels, threshold: float) -> list[tuple[Face, Face]]:
        """Return faces with the landmarks of one look and of two."""
        first = self.finder.find(drawn, threshold=threshold, refined=False)
        pairs = [(face, better) for face in first if (better := self.finder.refine(drawn, face)) is not None]
        return pairs or [(face, face) for face in self.finder.find(drawn, threshold=threshold)]

    def _queries(
        self, drawn: Pixels, taken: Face | None, refined: Face | None, image: Pixels, known: Face
    ) -> dict[str, Pixels | None]:
        spec, frame = self.model.bundle.spec.image, self.model.bundle.face_frame
        cuts: tuple[Pixels | None, ...] = (None, None, None)
        if taken is not None and refined is not None:
            aligned = cut_faces(drawn, [taken, refined], frame, spec.size)
            cuts = _cut_box(drawn, taken, spec.size), aligned[0], aligned[1]
        undisturbed = cut_faces(image, [known], frame, spec.size)[0]
        whole = read_pixels(encode_pnm(drawn), spec, name="photograph")
        as_input = [
            None if cut is None else read_pixels(encode_pnm(cut), spec, crop=Crop(), name="face")
            for cut in (*cuts, undisturbed)
        ]
        return dict(zip(QUERIES, (whole, *as_input), strict=True))


@dataclass(frozen=True, slots=True)
class _Gallery:
    """The images that are searched, and the row in them of each image of LFW."""

    images: LabeledImages
    row_of: dict[int, int] = field(default_factory=dict)


def _gallery(images: LabeledImages, seen: Sequence[Observation], others: int | None, seed: int) -> _Gallery:
    """Return all images, or those of the people who are searched for and some more."""
    chosen = np.arange(len(images))
    if others is not None:
        asked = {images.people[each.made.face] for each in seen}
        is_asked = np.array([person in asked for person in images.people])
        rest = np.random.default_rng((seed, len(images))).permutation(np.flatnonzero(~is_asked))[:others]
        chosen = np.sort(np.concatenate([np.flatnonzero(is_asked), rest]))
    rows = chosen.tolist()
    part = LabeledImages(
        images.name,
        tuple(images.files[row] for row in rows),
        tuple(images.paths[row] for row in rows),
        tuple(images.people[row] for row in rows),
        images.crop,
        images.lfw,
    )
    return _Gallery(part, {index: row for row, index in enumerate(rows)})


def _search(
    model: Model, query: str, seen: Sequence[Observation], searched: _Gallery, rows: NDArray[np.float32]
) -> SearchResult:
    """Let all photographs query, each without its own image."""
    right = np.zeros(len(seen), np.bool_)
    asking = [(place, each.queries[query]) for place, each in enumerate(seen)]
    given = [(place, pixels) for place, pixels in asking if pixels is not None]
    if given:
        vectors = model.embed(np.stack([pixels for _, pixels in given]))
        scores = vectors @ rows.T
        people = searched.images.people
        for (place, _), row in zip(given, scores, strict=True):
            own = searched.row_of[seen[place].made.face]
            row[own] = -np.inf
            right[place] = people[int(row.argmax())] == people[own]
    degrees = np.array([abs(each.made.degrees) for each in seen])
    parts = [right[(low <= degrees) & (degrees <= high)] for low, high in (_UPRIGHT, _TURNED)]
    upright, turned = (float(part.mean()) if len(part) else None for part in parts)
    return SearchResult(query, float(right.mean()), upright, turned)


def _labeled(faces: list[Face]) -> Face | None:
    place = labeled_face(faces, centered=True)
    return None if place is None else faces[place]


def _is_there(face: Face, true: NDArray[np.float32], width: int, height: int) -> bool:
    """Whether it is the face with these landmarks, and none that stands on its head."""
    return _distance(face.points(width, height), true) < _HIT


def _distance(points: NDArray[np.float32], true: NDArray[np.float32]) -> float:
    """Return the mean distance of five landmarks, in distances of the eyes."""
    return float(np.linalg.norm(points - true, axis=1).mean() / np.linalg.norm(true[1] - true[0]))


def _cut_box(pixels: Pixels, face: Face, side: int) -> Pixels:
    """Return the square around the middle of a face's box, as much of it as LFW's tight crop shows."""
    height, width = pixels.shape[:2]
    left, top, across, down = face.box
    middle = complex((left + across / 2) * width, (top + down / 2) * height)
    scale = side / max(1.0, _BOX_SHARE * down * height)
    return cut_out(pixels, Similarity(complex(scale), complex(side / 2, side / 2) - scale * middle), side)


def _range_json(low: float, high: float, count: int, recall: float | None) -> dict[str, Any]:
    return {"from": low, "to": high, "pictures": count, "recall": recall}


def _within(value: Callable[[Observation], float], low: float, high: float) -> Callable[[Observation], bool]:
    return lambda each: low <= value(each) < high
