"""All figures of generation of one model: how likely it finds digits, and what those it draws are worth.

Legend: N images, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from lookalike.deploy.evaluation.judging import ClassAccuracy, Diversity, class_accuracy, classify, diversity
from lookalike.deploy.evaluation.nats import PROTOCOLS, LikelihoodResult, measure_likelihood
from lookalike.deploy.evaluation.neighbours import KnnResult, stored_knn
from lookalike.deploy.evaluation.vectors import Progress, no_progress
from lookalike.deploy.evaluation.yardstick import (
    FidResult,
    GenerationBenchmark,
    ReferenceClassifier,
    compare_to_real,
)
from lookalike.encoder.runtime.model import Model
from lookalike.searcher.generation.sample import Sampler, sample

__all__ = ["Generation", "generation"]


@dataclass(frozen=True, slots=True)
class Generation:
    """The figures of one model; None and empty where they were not asked for or cannot be.

    Attributes:
        name: Of the model.
        model_id: Its digest.
        kind: ``ae``, ``vae`` or ``cvae``.
        likelihood: By protocol.
        conditioned: How it draws by class: its ``label``, or a ``Gaussian`` for each class.
        accuracy: Of pictures drawn by class.
        diversity: Of the same pictures.
        distance: By sampler.
        neighbours: Of its embeddings.
        remarks: Why a figure is missing, a line each.
    """

    name: str
    model_id: str
    kind: str
    likelihood: tuple[LikelihoodResult, ...] = ()
    conditioned: str | None = None
    accuracy: ClassAccuracy | None = None
    diversity: tuple[Diversity, ...] = ()
    distance: tuple[FidResult, ...] = ()
    neighbours: KnnResult | None = None
    remarks: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "name": self.name,
            "model_id": self.model_id,
            "kind": self.kind,
            "likelihood": [row.to_json() for row in self.likelihood],
            "conditioned": self.conditioned,
            "accuracy": None if self.accuracy is None else self.accuracy.to_json(),
            "diversity": [row.to_json() for row in self.diversity],
            "distance": [row.to_json() for row in self.distance],
            "neighbours": None if self.neighbours is None else self.neighbours.to_json(),
            "remarks": list(self.remarks),
        }


def generation(model: Model, beside: GenerationBenchmark, *, steps: Progress = no_progress) -> Generation:
    """Measure a model; what it cannot do is a remark.

    Raises:
        LookalikeError: as what it calls does.
    """
    plan, spec = beside.plan, model.bundle.spec
    remarks: list[str] = []
    values: dict[str, Any] = {}
    if "likelihood" in plan.parts:
        if spec.has_prior:
            values["likelihood"] = _likelihood(model, beside, steps)
        else:
            remarks.append(
                f"{model.bundle.name}: no likelihood, for an {spec.kind} says how likely nothing is"
            )
    jury = beside.jury
    if jury is not None and {"accuracy", "diversity"} & set(plan.parts):
        sampling = model.bundle.sampling
        if spec.classes != beside.digits.classes:
            remarks.append(f"{model.bundle.name}: not judged by class, for its classes are not the digits'")
        elif not spec.conditional and (sampling is None or sampling.by_class is None):
            remarks.append(f"{model.bundle.name}: not judged by class, for it has no Gaussian of each class")
        else:
            values |= _by_class(model, beside, jury)
    if jury is not None and "distance" in plan.parts:
        values["distance"] = _distances(model, jury, seed=plan.seed)
    if "neighbours" in plan.parts:
        values["neighbours"] = stored_knn(
            model, beside.digits, beside.digits.test, k=plan.neighbours, steps=steps
        )
    return Generation(model.bundle.name, model.model_id, spec.kind, **values, remarks=tuple(remarks))


def _likelihood(model: Model, beside: GenerationBenchmark, steps: Progress) -> tuple[LikelihoodResult, ...]:
    plan = beside.plan
    return tuple(
        row
        for protocol in PROTOCOLS
        for row in measure_likelihood(
            model,
            beside.digits.test,
            protocol,
            samples=plan.samples,
            count=plan.images,
            few=plan.few,
            seed=plan.seed,
            steps=steps,
        )
    )


def _by_class(model: Model, beside: GenerationBenchmark, jury: ReferenceClassifier) -> dict[str, Any]:
    """Draw as many of each class as make up the pictures, and let the judge look."""
    plan, spec, classes = beside.plan, model.bundle.spec, beside.digits.classes
    each = -(-plan.drawn // len(classes))
    drawn = np.concatenate(
        [sample(model, each, of_class=name, seed=plan.seed + place) for place, name in enumerate(classes)]
    )
    asked = np.arange(len(classes)).repeat(each)
    made = classify(jury.judge, drawn)
    values: dict[str, Any] = {"conditioned": "label" if spec.conditional else "Gaussian"}
    if "accuracy" in plan.parts:
        values["accuracy"] = class_accuracy(asked, made.classes, classes)
    if "diversity" in plan.parts:
        real = jury.test
        values["diversity"] = (
            diversity("features", (made.features, asked), (jury.seen.features, real.labels), classes),
            diversity("pixels", (_flat(drawn), asked), (_flat(real.images), real.labels), classes),
        )
    return values


def _distances(model: Model, jury: ReferenceClassifier, *, seed: int) -> tuple[FidResult, ...]:
    return tuple(
        compare_to_real(
            sampler,
            classify(jury.judge, sample(model, len(jury.test), sampler=sampler, seed=seed)),
            jury.seen,
        )
        for sampler in _samplers(model)
    )


def _samplers(model: Model) -> list[Sampler]:
    """Return those that the model has."""
    sampling = model.bundle.sampling
    mixture = sampling is not None and sampling.mixture is not None
    there = {"normal": model.bundle.spec.has_prior, "gaussian": True, "gmm": mixture}
    return [sampler for sampler in get_args(Sampler) if there[sampler]]


def _flat(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    flat: NDArray[np.float32] = images.reshape(len(images), -1).astype(np.float32)
    return flat
