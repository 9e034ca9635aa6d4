"""How well attributes are read, given and searched with, on people that nothing was fitted to.

Legend: N pictures, M of them edited, S strengths, E embedding size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lookalike.deploy.evaluation.attribute_judge import (
    AttributeClassifier,
    appearance_features,
    appearance_features_parallel,
)
from lookalike.deploy.evaluation.fit_data import ScoredImages, encode_examples
from lookalike.deploy.evaluation.vectors import Progress, no_progress
from lookalike.encoder.bundle.attributes import Attributes
from lookalike.encoder.errors import DataError, InvalidArgumentError
from lookalike.encoder.metrics import roc_auc
from lookalike.encoder.runtime.model import Model
from lookalike.encoder.text import printable
from lookalike.searcher.generation.edit import attributes_of, edit_steps
from lookalike.trainer.fitting.attributes import FEWEST, Examples

__all__ = [
    "AttributeReport",
    "AttributeResult",
    "AttributeSearchResult",
    "EditResult",
    "Shift",
    "evaluate_attributes",
    "search_share",
    "undo_error",
]

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]

HITS: Final = 10
_TOGETHER: Final = 25


@dataclass(frozen=True, slots=True)
class Shift:
    """How far another attribute moves with an edit, on average, in its standard deviations.

    Attributes:
        judged: As the judge of its own sees it.
        read: As the model reads it from the edited picture.
    """

    judged: float
    read: float


@dataclass(frozen=True, slots=True)
class EditResult:
    """Faces that lacked an attribute, by label and by judge, after it was added; or had it, and it was taken.

    Attributes:
        strength: In standard deviations of the reading; under 0 it was taken away.
        faces: M.
        success: Share of them in which the judge sees it changed, in [0, 1].
        kept: Share of them whose nearest of all N pictures is the one that was edited.
        others: Every other attribute.
    """

    strength: float
    faces: int
    success: float
    kept: float
    others: dict[str, Shift]


@dataclass(frozen=True, slots=True)
class AttributeSearchResult:
    """A search for the ten likest to faces without an attribute that was added to their latents.

    Attributes:
        strength: In standard deviations of the reading; 0 is the plain search.
        queries: How many there were; none finds itself.
        share: Of the hits, with the attribute: by the label where there is one, else as the model reads it.
        labelled: Of the hits that have a label, with the attribute; None where no hit has one.
        likeness: Mean cosine of the hits to the query as it was, unedited.
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
    """One attribute.

    Attributes:
        name: Of it.
        auc: Area under the ROC of its reading on held-out people.
        tested: Their pictures.
        judge_auc: The same of the judge, who sees pixels alone.
        judge_accuracy: Share of these pictures that the judge is right on.
        edits: For each strength, taken away first.
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
    """All of a model.

    Attributes:
        model: What it is called.
        pictures: N.
        each: Its attributes.
        undone: Greatest difference between latents and the same after an edit and its opposite.
        failures: Why pictures could not be read, a line each.
    """

    model: str
    pictures: int
    each: tuple[AttributeResult, ...]
    undone: float
    failures: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; figures but ``undone`` are rounded to four places."""
        told: dict[str, Any] = _rounded(asdict(self))
        return told | {"undone": self.undone}


@dataclass(frozen=True, eq=False, slots=True)
class _Gallery:
    """N pictures measured, and what is asked of them."""

    model: Model
    attributes: Attributes
    pixels: NDArray[np.uint8]
    examples: Examples
    judges: Mapping[str, AttributeClassifier]
    seen: Floats
    strengths: tuple[float, ...]


def evaluate_attributes(
    model: Model,
    scored: ScoredImages,
    *,
    strengths: Sequence[float] = (1, 2, 3, 4, 5),
    faces: int = 200,
    seed: int = 0,
    steps: Progress = no_progress,
) -> AttributeReport:
    """Measure the attributes of a model that pictures are scored for.

    Args:
        model: With a decoder and attributes.
        scored: N pictures. Judges are fitted to people who are not tested; all else is of those who are.
        strengths: Over 0, in standard deviations of the reading; each is added, and taken away.
        faces: M at most, 1 or more, drawn by the seed for each attribute and direction, and for its searches.
        seed: Of what is drawn.
        steps: Told of the progress.

    Raises:
        InvalidArgumentError: the model has no decoder or no attributes, a strength is not over 0.
        DataError: no attribute has labels enough on both sides, or no picture could be read.
        MissingExtraError: scikit-image is not installed.
    """
    if not strengths or not all(0 < strength < np.inf for strength in strengths):
        raise InvalidArgumentError(f"strengths are finite and over 0, not {list(strengths)}")
    attributes = attributes_of(model)
    if not model.has_decoder:
        raise InvalidArgumentError(
            f"model {printable(model.bundle.name)} has no decoder, so nothing is edited by it"
        )
    appearance_features(
        np.zeros((1, *model.bundle.spec.image.shape), np.uint8)
    )  # says now what is not installed
    names = _usable(attributes, scored)
    pixels: list[NDArray[np.uint8]] = []
    with steps("encoding", len(scored.images)) as advance:
        examples, failures = encode_examples(model, scored, on_progress=advance, on_pixels=pixels.append)
    gallery = np.concatenate(pixels)
    seen = appearance_features_parallel(gallery, steps=steps)
    judges = AttributeClassifier.all_of(names, seen, examples)
    of = _Gallery(model, attributes, gallery, examples, judges, seen, tuple(sorted(set(strengths))))
    each = tuple(_figures(of, name, faces, [seed, place], steps) for place, name in enumerate(names))
    undone = undo_error(attributes, examples.latents[examples.tested], max(of.strengths))
    return AttributeReport(model.bundle.name, len(gallery), each, undone, tuple(failures))


def undo_error(attributes: Attributes, latents: Floats, strength: float) -> float:
    """Return how far latents float32 (N, D) are from themselves after all attributes came and went."""
    there, back = (attributes.change(dict.fromkeys(attributes.names, by)) for by in (strength, -strength))
    return float(np.abs(latents + there + back - latents).max())


def search_share(found: Rows, has: NDArray[np.float64], read: Floats) -> tuple[float, float | None]:
    """Return the share of hits with an attribute, and that of the hits with a label; None without any.

    Args:
        found: (M, 10) rows of the hits.
        has: (N,) labels: over 0 it is there, under 0 it is not, NaN or 0 unknown.
        read: (N,) log-odds by the model, which stand where there is no label.
    """
    known = np.isfinite(has) & (has != 0)
    there = np.where(known, has > 0, read > 0)
    labelled = known[found]
    return float(there[found].mean()), float(there[found][labelled].mean()) if labelled.any() else None


def _usable(attributes: Attributes, scored: ScoredImages) -> list[str]:
    """Return the attributes with enough labels of both kinds, of people who are tested and of the others."""

    def enough(name: str) -> bool:
        sides = (scored.scores[name][side] for side in (scored.tested, ~scored.tested))
        return all(min((scores > 0).sum(), (scores < 0).sum()) >= FEWEST for scores in sides)

    names = [name for name in attributes.names if name in scored.scores and enough(name)]
    if not names:
        raise DataError(
            f"figures need {FEWEST} labelled pictures with an attribute and {FEWEST} without, of held-out "
            f"people and of others; {scored.images.name} has them for none of {', '.join(attributes.names)}"
        )
    return names


def _figures(of: _Gallery, name: str, faces: int, seed: Sequence[int], steps: Progress) -> AttributeResult:
    examples, judge = of.examples, of.judges[name]
    scores = examples.scores[name]
    known = examples.tested & np.isfinite(scores) & (scores != 0)
    read = of.attributes[name].read(examples.embeddings)
    edits: list[EditResult] = []
    for sign in (-1, 1):
        rng = np.random.default_rng([*seed, sign + 1])
        lacking = known & (sign * scores < 0) & (sign * judge(of.seen) <= 0)
        chosen = rng.permutation(np.flatnonzero(lacking))[:faces]
        if chosen.size:
            with steps(f"editing {name} {sign:+d}", chosen.size) as advance:
                edits += _edits(of, name, sign, chosen, advance)
    asking = np.random.default_rng([*seed, 1]).permutation(np.flatnonzero(known & (scores < 0)))[:faces]
    searches = [_search(of, name, by, asking, read) for by in (0.0, *of.strengths)]
    return AttributeResult(
        name,
        roc_auc(read[known], scores[known] > 0),
        int(known.sum()),
        judge.auc,
        judge.accuracy,
        tuple(sorted(edits, key=lambda each: each.strength)),
        tuple(searches),
    )


def _edits(of: _Gallery, name: str, sign: int, chosen: Rows, advance: Any) -> list[EditResult]:
    """Edit some faces at a time, and measure what was drawn."""
    seen: list[Floats] = []
    drawn: list[Floats] = []
    for start in range(0, len(chosen), _TOGETHER):
        rows = chosen[start : start + _TOGETHER]
        made = edit_steps(of.model, of.pixels[rows], {name: sign}, of.strengths)  # (m, S, H, W, C)
        flat = made.reshape(-1, *made.shape[2:])
        seen.append(appearance_features(flat).reshape(*made.shape[:2], -1))
        drawn.append(of.model.embed(flat).reshape(*made.shape[:2], -1))
        advance(len(rows))
    looks, embedded = np.concatenate(seen), np.concatenate(drawn)  # (M, S, F), (M, S, E)
    return [
        _edited(of, name, sign * strength, chosen, looks[:, place], embedded[:, place])
        for place, strength in enumerate(of.strengths)
    ]


def _edited(
    of: _Gallery, name: str, strength: float, chosen: Rows, looks: Floats, embedded: Floats
) -> EditResult:
    now = of.judges[name](looks) > 0
    first = (embedded @ of.examples.embeddings.T).argmax(1)
    before, others = of.examples.embeddings[chosen], {}
    for other, judge in of.judges.items():
        if other == name:
            continue
        attribute = of.attributes[other]
        judged = (judge(looks) - judge(of.seen[chosen])).mean() / judge.deviation
        read = (attribute.read(embedded) - attribute.read(before)).mean() / attribute.deviation
        others[other] = Shift(float(judged), float(read))
    success = float((now == (strength > 0)).mean())
    return EditResult(strength, len(chosen), success, float((first == chosen).mean()), others)


def _search(of: _Gallery, name: str, strength: float, asking: Rows, read: Floats) -> AttributeSearchResult:
    """Search all pictures with moved latents, each query's own picture left out."""
    examples = of.examples
    moved = examples.latents[asking] + of.attributes.change({name: strength})
    likeness = of.model.bundle.affine(moved) @ examples.embeddings.T  # (M, N)
    likeness[np.arange(len(asking)), asking] = -np.inf
    found = np.argsort(-likeness, axis=1, kind="stable")[:, :HITS]
    share, labelled = search_share(found, examples.scores[name], read)
    plain = np.take_along_axis(examples.embeddings[asking] @ examples.embeddings.T, found, 1)
    people = np.array(examples.people)
    same = people[found] == people[asking][:, None]
    return AttributeSearchResult(
        strength, len(asking), share, labelled, float(plain.mean()), float(same.mean())
    )


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list | tuple) else value
