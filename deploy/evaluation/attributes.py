"""How well a model reads, edits and searches by attributes, on people that nothing was fitted to.

Whether an edit shows is decided by a classifier that shares nothing with the model: a linear discriminant on
gradients and pixels. Gradients: N. Dalal, B. Triggs: Histograms of Oriented Gradients for Human Detection.
CVPR 2005. Their principal components: M. Turk, A. Pentland: Eigenfaces for Recognition. Journal of Cognitive
Neuroscience 3, 1991.

Legend: N images, M of them edited, S side of an image or number of strengths, E embedding size, F features, K
components.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from lookalike.deploy.evaluation.fit_data import ScoredImages, encode_examples
from lookalike.deploy.evaluation.vectors import Progress, no_progress
from lookalike.encoder.bundle import Attributes
from lookalike.encoder.embed import exit_with_parent
from lookalike.encoder.errors import DataError, InvalidArgumentError, MissingExtraError, printable
from lookalike.encoder.metrics import roc_auc
from lookalike.encoder.runtime import Model
from lookalike.searcher.generation import attributes_of, edit_steps
from lookalike.trainer.fitting import FEWEST, Discriminant, Examples, discriminant, folds_of

Floats = NDArray[np.float32]
Halves = NDArray[np.float16]
Pixels = NDArray[np.uint8]
Reals = NDArray[np.float64]
Rows = NDArray[np.int64]
Feature = Callable[[Pixels], Halves]
"""Gray images uint8 (n, S, S) to features float16 (n, F)."""

HITS: Final = 10
_EDIT_BATCH: Final = 25
_CELLS: Final = 8
_COMPONENTS: Final = 400
_PIXEL_SIDE: Final = 16
_GRADIENT_WEIGHT: Final = 3.0  # unit-length gradients would count little beside 256 gray values in [0, 1]
_LUMA: Final = (0.299, 0.587, 0.114)  # ITU-R BT.601
_POOL_BATCH: Final = 256
_POOL_THRESHOLD: Final = 2000  # images: below it processes take longer to start than to work
_MAX_WORKERS: Final = 8


def hog_features(images: Pixels) -> Halves:
    """Return histograms of oriented gradients, float16 (n, 7 * 7 * 4 * 9), of gray images, uint8 (n, S, S).

    Nine orientations in 8 x 8 cells, blocks of 2 x 2 normalized by clipped L2; unit length.

    Raises:
        MissingExtraError: scikit-image is not installed.
    """
    try:
        from skimage.feature import hog
    except ImportError as error:
        raise MissingExtraError("HOG needs scikit-image; pip install 'lookalike[evaluate]'") from error

    def one(image: Pixels) -> Floats:
        cell = len(image) // _CELLS
        features: Reals = hog(
            image, orientations=9, pixels_per_cell=(cell, cell), cells_per_block=(2, 2), block_norm="L2-Hys"
        )
        unit: Floats = (features / (float(np.linalg.norm(features)) or 1.0)).astype(np.float32)
        return unit

    return np.stack([one(image) for image in images]).astype(np.float16)


@contextmanager
def feature_pool(count: int) -> Iterator[Callable[[Feature, Pixels], Iterator[Halves]]]:
    """Give a function that computes features of ``count`` images in batches, on all cores if that is faster.

    Processes, not threads: much of scikit-image runs under Python's lock.
    """

    def batches(images: Pixels) -> Iterator[Pixels]:
        return (images[start : start + _POOL_BATCH] for start in range(0, len(images), _POOL_BATCH))

    if count < _POOL_THRESHOLD:
        yield lambda feature, images: map(feature, batches(images))
        return
    # Spawned: forking a process that runs threads (onnxruntime's) may hang.
    workers = min(os.cpu_count() or 1, _MAX_WORKERS)
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=exit_with_parent)
    try:
        yield lambda feature, images: pool.map(feature, batches(images))
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True, eq=False, slots=True)
class AttributeClassifier:
    """Recognizes one attribute in pixels.

    Attributes:
        center: float64 (F,), mean of the training faces.
        axes: float64 (F, K), their principal axes.
        discriminant: Log-odds of the components.
        deviation: Standard deviation of the log-odds over these faces.
        auc: Area under the ROC on test people.
        accuracy: Share of right decisions on their images, in [0, 1].
        tested: Number of these images.
    """

    center: Reals
    axes: Reals
    discriminant: Discriminant
    deviation: float
    auc: float
    accuracy: float
    tested: int

    def __call__(self, features: Floats) -> Reals:
        """Return log-odds float64 (N,) of features float32 (N, F): over 0 the attribute is present."""
        return self.discriminant((features - self.center) @ self.axes)

    @classmethod
    def fit_all(cls, names: Sequence[str], features: Floats, examples: Examples) -> dict[str, Self]:
        """Fit one for each attribute to the people who are not tested, and test it on those who are.

        Args:
            names: Attributes; both sides have images with and without each.
            features: float32 (N, F), of :func:`pixel_features`.
            examples: The same N images.
        """
        train_rows = ~examples.tested
        center = features[train_rows].mean(0, dtype=np.float64)
        centered = features[train_rows] - center
        _, axes = np.linalg.eigh(centered.T @ centered / len(centered))  # variance ascending
        axes = axes[:, -_COMPONENTS:]
        components = (features - center) @ axes  # (N, K)
        folds, classifiers = folds_of(examples.people), {}
        for name in names:
            scores = examples.scores[name]
            known = np.isfinite(scores) & (scores != 0)
            train, test = known & train_rows, known & examples.tested
            fitted = discriminant(components[train], scores[train] > 0, folds[train])
            odds, present = fitted(components[test]), scores[test] > 0
            classifiers[name] = cls(
                center,
                axes,
                fitted,
                float(fitted(components[train_rows]).std()),
                roc_auc(odds, present),
                float(((odds > 0) == present).mean()),
                int(test.sum()),
            )
        return classifiers


def pixel_features(pixels: Pixels, *, progress: Progress = no_progress) -> Floats:
    """Return the classifier's input, float32 (N, F), of images uint8 (N, S, S, 1 or 3), N > 0.

    Gradients, then a square of 16 x 16 mean gray values in [0, 1].

    Raises:
        MissingExtraError: scikit-image is not installed.
    """
    gray = pixels[..., 0]
    if pixels.shape[3] == 3:
        gray = (pixels @ np.array(_LUMA, np.float32)).astype(np.uint8)
    parts = []
    with feature_pool(len(gray)) as extract, progress("gradients", len(gray)) as advance:
        for part in extract(hog_features, gray):
            parts.append(part)
            advance(len(part))
    cell = max(gray.shape[1] // _PIXEL_SIDE, 1)
    cells = gray.shape[1] // cell
    blocks = gray[:, : cells * cell, : cells * cell].reshape(len(gray), cells, cell, cells, cell)
    small = blocks.mean(axis=(2, 4), dtype=np.float32).reshape(len(gray), -1) / 255
    gradients = np.concatenate(parts).astype(np.float32) * np.float32(_GRADIENT_WEIGHT)
    return np.concatenate([gradients, small], 1)


@dataclass(frozen=True, slots=True)
class Shift:
    """How far another attribute moves with an edit, on average, in its standard deviations.

    Attributes:
        judged: By the independent classifier.
        read: By the model, from the edited image.
    """

    judged: float
    read: float


@dataclass(frozen=True, slots=True)
class EditResult:
    """Faces without an attribute, by label and classifier, after adding it; or with it, after removing it.

    Attributes:
        strength: In standard deviations of the model's reading; under 0 the attribute was removed.
        faces: M.
        success: Share of them in which the classifier sees the change, in [0, 1].
        kept: Share of them whose most similar of all N images is their own original.
        others: Every other attribute.
    """

    strength: float
    faces: int
    success: float
    kept: float
    others: dict[str, Shift]


@dataclass(frozen=True, slots=True)
class AttributeSearchResult:
    """A search for the ten most similar to faces without an attribute that was added to their latents.

    Attributes:
        strength: In standard deviations of the model's reading; 0 is the plain search.
        queries: Their number; none finds itself.
        share: Share of the hits with the attribute: by the label where there is one, else as the model reads
            it.
        labelled: The same of the hits that have a label; None where no hit has one.
        likeness: Mean cosine of the hits to the unedited query.
        same_person: Share of the hits that show the person of the query.
    """

    strength: float
    queries: int
    share: float
    labelled: float | None
    likeness: float
    same_person: float


@dataclass(frozen=True, slots=True)
class AttributeResult:
    """The metrics of one attribute.

    Attributes:
        name: Of it.
        auc: Area under the ROC of the model's reading on test people.
        tested: Number of their images.
        judge_auc: The same of the independent classifier.
        judge_accuracy: Share of its right decisions on these images.
        edits: For each strength, removals first.
        searches: For each strength, the plain search first.
    """

    name: str
    auc: float
    tested: int
    judge_auc: float
    judge_accuracy: float
    edits: tuple[EditResult, ...]
    searches: tuple[AttributeSearchResult, ...]


@dataclass(frozen=True, slots=True)
class AttributeReport:
    """All attributes of a model.

    Attributes:
        model: Its name.
        pictures: N.
        each: Its attributes.
        undone: Largest difference between latents and the same latents after an edit and its opposite.
        failures: Why images could not be read, a line each.
    """

    model: str
    pictures: int
    each: tuple[AttributeResult, ...]
    undone: float
    failures: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; metrics but ``undone`` are rounded to four places."""
        record: dict[str, Any] = _rounded(asdict(self))
        return record | {"undone": self.undone}


@dataclass(frozen=True, eq=False, slots=True)
class _Gallery:
    """N images, encoded, and the classifiers that judge them."""

    model: Model
    attributes: Attributes
    pixels: Pixels
    examples: Examples
    classifiers: Mapping[str, AttributeClassifier]
    features: Floats
    strengths: tuple[float, ...]


def evaluate_attributes(
    model: Model,
    scored: ScoredImages,
    *,
    strengths: Sequence[float] = (1, 2, 3, 4, 5),
    faces: int = 200,
    seed: int = 0,
    progress: Progress = no_progress,
) -> AttributeReport:
    """Measure the attributes of a model that images are scored for.

    Args:
        model: With a decoder and attributes.
        scored: N images. Classifiers are fitted to people who are not tested; all else is measured on the
            others.
        strengths: Over 0, in standard deviations of the model's reading; each is added, and removed.
        faces: M at most, 1 or more, chosen for each attribute and direction, and for its searches.
        seed: Of the random choices.
        progress: Shows the progress.

    Raises:
        InvalidArgumentError: the model has no decoder or no attributes, or a strength is not over 0.
        DataError: no attribute has enough labels on both sides, or no image could be read.
        MissingExtraError: scikit-image is not installed.
    """
    if not strengths or not all(0 < strength < np.inf for strength in strengths):
        raise InvalidArgumentError(f"strengths must be finite and over 0, got {list(strengths)}")
    attributes = attributes_of(model)
    if not model.has_decoder:
        raise InvalidArgumentError(f"model {printable(model.bundle.name)} has no decoder and cannot edit")
    hog_features(np.zeros((1, 16, 16), np.uint8))  # says now that scikit-image is missing
    names = _usable(attributes, scored)
    pixels: list[Pixels] = []
    with progress("encoding", len(scored.images)) as advance:
        examples, failures = encode_examples(model, scored, on_progress=advance, on_pixels=pixels.append)
    images = np.concatenate(pixels)
    features = pixel_features(images, progress=progress)
    classifiers = AttributeClassifier.fit_all(names, features, examples)
    ordered = tuple(sorted(set(strengths)))
    gallery = _Gallery(model, attributes, images, examples, classifiers, features, ordered)
    results = tuple(
        _evaluate_attribute(gallery, name, faces, [seed, place], progress) for place, name in enumerate(names)
    )
    undone = undo_error(attributes, examples.latents[examples.tested], max(ordered))
    return AttributeReport(model.bundle.name, len(images), results, undone, tuple(failures))


def undo_error(attributes: Attributes, latents: Floats, strength: float) -> float:
    """Return how far latents float32 (N, D) are off after all attributes were added and removed."""
    added, removed = (attributes.change(dict.fromkeys(attributes.names, by)) for by in (strength, -strength))
    return float(np.abs(latents + added + removed - latents).max())


def search_share(hits: Rows, labels: Reals, odds: Floats) -> tuple[float, float | None]:
    """Return the share of hits with an attribute, and that of the hits with a label; None without any.

    Args:
        hits: (M, 10) rows of the hits.
        labels: (N,): over 0 it is present, under 0 absent, NaN or 0 unknown.
        odds: (N,) log-odds by the model, used where there is no label.
    """
    known = np.isfinite(labels) & (labels != 0)
    present = np.where(known, labels > 0, odds > 0)
    labeled = known[hits]
    return float(present[hits].mean()), float(present[hits][labeled].mean()) if labeled.any() else None


def _usable(attributes: Attributes, scored: ScoredImages) -> list[str]:
    """Return the attributes with enough labels of both kinds, of people who are tested and of the others."""

    def enough(name: str) -> bool:
        sides = (scored.scores[name][side] for side in (scored.tested, ~scored.tested))
        return all(min((scores > 0).sum(), (scores < 0).sum()) >= FEWEST for scores in sides)

    names = [name for name in attributes.names if name in scored.scores and enough(name)]
    if not names:
        raise DataError(
            f"attributes need {FEWEST} labeled images with and {FEWEST} without, of held-out people and of "
            f"others; {scored.images.name} has them for none of {', '.join(attributes.names)}"
        )
    return names


def _evaluate_attribute(
    gallery: _Gallery, name: str, faces: int, seed: Sequence[int], progress: Progress
) -> AttributeResult:
    examples, classifier = gallery.examples, gallery.classifiers[name]
    scores = examples.scores[name]
    known = examples.tested & np.isfinite(scores) & (scores != 0)
    odds = gallery.attributes[name].read(examples.embeddings)
    edits: list[EditResult] = []
    for sign in (-1, 1):
        rng = np.random.default_rng([*seed, sign + 1])
        candidates = known & (sign * scores < 0) & (sign * classifier(gallery.features) <= 0)
        chosen = rng.permutation(np.flatnonzero(candidates))[:faces]
        if chosen.size:
            with progress(f"editing {name} {sign:+d}", chosen.size) as advance:
                edits += _edit_results(gallery, name, sign, chosen, advance)
    queries = np.random.default_rng([*seed, 1]).permutation(np.flatnonzero(known & (scores < 0)))[:faces]
    searches = [_search_result(gallery, name, by, queries, odds) for by in (0.0, *gallery.strengths)]
    return AttributeResult(
        name,
        roc_auc(odds[known], scores[known] > 0),
        int(known.sum()),
        classifier.auc,
        classifier.accuracy,
        tuple(sorted(edits, key=lambda result: result.strength)),
        tuple(searches),
    )


def _edit_results(
    gallery: _Gallery, name: str, sign: int, chosen: Rows, advance: Callable[[int], object]
) -> list[EditResult]:
    """Edit the chosen faces at every strength, and measure the edited images."""
    features: list[Floats] = []
    embeddings: list[Floats] = []
    for start in range(0, len(chosen), _EDIT_BATCH):
        rows = chosen[start : start + _EDIT_BATCH]
        edited = edit_steps(
            gallery.model, gallery.pixels[rows], {name: sign}, gallery.strengths
        )  # (m, S, ...)
        flat = edited.reshape(-1, *edited.shape[2:])
        features.append(pixel_features(flat).reshape(*edited.shape[:2], -1))
        embeddings.append(gallery.model.embed(flat).reshape(*edited.shape[:2], -1))
        advance(len(rows))
    seen, embedded = np.concatenate(features), np.concatenate(embeddings)  # (M, S, F), (M, S, E)
    return [
        _edit_result(gallery, name, sign * strength, chosen, seen[:, place], embedded[:, place])
        for place, strength in enumerate(gallery.strengths)
    ]


def _edit_result(
    gallery: _Gallery, name: str, strength: float, chosen: Rows, features: Floats, embedded: Floats
) -> EditResult:
    changed = (gallery.classifiers[name](features) > 0) == (strength > 0)
    nearest = (embedded @ gallery.examples.embeddings.T).argmax(1)
    before, others = gallery.examples.embeddings[chosen], {}
    for other, classifier in gallery.classifiers.items():
        if other == name:
            continue
        attribute = gallery.attributes[other]
        judged = (classifier(features) - classifier(gallery.features[chosen])).mean() / classifier.deviation
        read = (attribute.read(embedded) - attribute.read(before)).mean() / attribute.deviation
        others[other] = Shift(float(judged), float(read))
    success, kept = float(changed.mean()), float((nearest == chosen).mean())
    return EditResult(strength, len(chosen), success, kept, others)


def _search_result(
    gallery: _Gallery, name: str, strength: float, queries: Rows, odds: Floats
) -> AttributeSearchResult:
    """Search all images with edited latents, each query's own image left out."""
    examples = gallery.examples
    edited = examples.latents[queries] + gallery.attributes.change({name: strength})
    similarity = gallery.model.bundle.affine(edited) @ examples.embeddings.T  # (M, N)
    similarity[np.arange(len(queries)), queries] = -np.inf
    hits = np.argsort(-similarity, axis=1, kind="stable")[:, :HITS]
    share, labeled = search_share(hits, examples.scores[name], odds)
    unedited = np.take_along_axis(examples.embeddings[queries] @ examples.embeddings.T, hits, 1)
    people = np.array(examples.people)
    same = people[hits] == people[queries][:, None]
    return AttributeSearchResult(
        strength, len(queries), share, labeled, float(unedited.mean()), float(same.mean())
    )


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list | tuple) else value
