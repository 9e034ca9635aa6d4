"""What models of digits are measured with and beside: the plan, the judge, real digits, baselines.

Legend: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, get_args

from lookalike.deploy.evaluation.handwriting import DigitImages, MnistData
from lookalike.deploy.evaluation.judging import ClassAccuracy, Predictions, class_accuracy, classify
from lookalike.deploy.evaluation.neighbours import KnnResult, baseline_knn
from lookalike.deploy.evaluation.vectors import Progress, no_progress
from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.metrics import frechet_distance, precision_recall
from lookalike.encoder.runtime.model import Model

__all__ = [
    "PARTS",
    "FidResult",
    "GenerationBenchmark",
    "GenerationPlan",
    "Part",
    "ReferenceClassifier",
    "compare_to_real",
    "prepare_benchmark",
]

Part = Literal["likelihood", "accuracy", "diversity", "distance", "neighbours"]
PARTS: Final[tuple[Part, ...]] = get_args(Part)
_JUDGED: Final = frozenset({"accuracy", "diversity", "distance"})
_MANIFOLD: Final = 3  # neighbours of precision and recall, as published


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationPlan:
    """What is measured, and on how much.

    Attributes:
        parts: Which figures.
        images: Test digits whose likelihood is measured, at most.
        samples: For each of them.
        few: Samples for all other test digits, when the likelihood is to speak of all; 0: of ``images`` only.
        drawn: DigitImages that the judge sees of each sampler, and real ones beside them; a multiple of the
            classes.
        neighbours: That vote.
        seed: Of everything that is drawn.
    """

    parts: tuple[Part, ...] = PARTS
    images: int = 10_000
    samples: int = 5_000
    few: int = 0
    drawn: int = 10_000
    neighbours: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InvalidArgumentError: one cannot be.
        """
        unknown = set(self.parts) - set(PARTS)
        if unknown or not self.parts:
            raise InvalidArgumentError(
                f"--only takes {', '.join(PARTS)}, not {', '.join(sorted(unknown)) or 'nothing'}"
            )
        if min(self.images, self.samples, self.neighbours) < 1 or self.few < 0 or self.drawn < 50:
            raise InvalidArgumentError(
                "images, samples and neighbours are 1 or more, few 0 or more, drawn pictures 50 or more, "
                f"got {self.images}, {self.samples}, {self.neighbours}, {self.few} and {self.drawn}"
            )

    @property
    def judged(self) -> bool:
        """Whether a judge is needed."""
        return bool(_JUDGED & set(self.parts))

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self) | {"parts": list(self.parts)}


@dataclass(frozen=True, slots=True)
class FidResult:
    """How near pictures come to test digits in the judge's features.

    Attributes:
        source: Where they come from: a sampler, or ``training digits``, beyond which nobody need get.
        count: DigitImages, and as many test digits.
        frechet: Squared Fréchet distance; 0 is best.
        precision: Share of the pictures among the test digits.
        recall: Share of the test digits among the pictures.
    """

    source: str
    count: int
    frechet: float
    precision: float
    recall: float

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


@dataclass(frozen=True, eq=False, slots=True)
class ReferenceClassifier:
    """The judge, and what it says of real digits.

    Attributes:
        judge: The classifier.
        test: The test digits that drawn pictures are compared with.
        seen: What it says of them.
        accuracy: How often it is right on all test digits.
    """

    judge: Model
    test: DigitImages
    seen: Predictions
    accuracy: ClassAccuracy

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        validation = self.judge.bundle.spec.figures.get("validation_accuracy")
        return {
            "model_id": self.judge.model_id,
            "validation_accuracy": validation,
            "test": self.accuracy.to_json(),
        }


@dataclass(frozen=True, eq=False, slots=True)
class GenerationBenchmark:
    """What every model is measured with and beside.

    Attributes:
        plan: What is measured.
        digits: The data.
        jury: Where a part needs it.
        floor: Training digits in place of drawn ones.
        baselines: KnnResult of pixels and PCA.
    """

    plan: GenerationPlan
    digits: MnistData
    jury: ReferenceClassifier | None = None
    floor: FidResult | None = None
    baselines: tuple[KnnResult, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "data": self.digits.name,
            "plan": self.plan.to_json(),
            "judge": None if self.jury is None else self.jury.to_json(),
            "floor": None if self.floor is None else self.floor.to_json(),
            "baselines": [row.to_json() for row in self.baselines],
        }


def prepare_benchmark(
    plan: GenerationPlan,
    digits: MnistData,
    judge: Model | None,
    models: Sequence[Model],
    *,
    steps: Progress = no_progress,
) -> GenerationBenchmark:
    """Measure once what all models are compared with.

    Raises:
        InvalidArgumentError: a model takes other pictures, or there is no judge and a part needs one.
    """
    for model in models:
        digits.require(model)
    jury = floor = None
    if plan.judged:
        if judge is None:
            raise InvalidArgumentError(
                f"{', '.join(sorted(_JUDGED & set(plan.parts)))} need a judge, there is none"
            )
        test = digits.test.some(plan.drawn, seed=plan.seed)
        every = class_accuracy(
            digits.test.labels, classify(judge, digits.test.images).classes, digits.classes
        )
        jury = ReferenceClassifier(judge, test, classify(judge, test.images), every)
        if "distance" in plan.parts:
            training = digits.train.some(len(test), seed=plan.seed)
            floor = compare_to_real("training digits", classify(judge, training.images), jury.seen)
    baselines: list[KnnResult] = []
    if "neighbours" in plan.parts:
        sizes = [model.bundle.spec.embedding for model in models]
        baselines = baseline_knn(digits, digits.test, sizes, k=plan.neighbours, steps=steps)
    return GenerationBenchmark(plan, digits, jury, floor, tuple(baselines))


def compare_to_real(source: str, made: Predictions, real: Predictions) -> FidResult:
    """Measure pictures that come from ``source`` beside real ones, as the judge sees both."""
    precision, recall = precision_recall(real.features, made.features, k=_MANIFOLD)
    frechet = frechet_distance(real.features, made.features)
    return FidResult(source, len(made.features), frechet, precision, recall)
