"""How good a generative model of digits is: likelihood, accuracy, diversity, Fréchet distance, k-NN.

Generated digits are judged by an independent classifier: a model whose latents are features followed by a
logit for each class (``trainer/recipes/classifier.py`` trains one). It sees the decoder's means, in gray.

Legend: N images, K classes, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lookalike.deploy.evaluation.data import DigitImages, MnistData
from lookalike.deploy.evaluation.likelihood import PROTOCOLS, LikelihoodResult, measure_likelihood
from lookalike.deploy.evaluation.retrieval import KnnResult, stored_knn
from lookalike.deploy.evaluation.vectors import Progress, no_progress
from lookalike.encoder.errors import InvalidArgumentError, MissingExtraError, printable
from lookalike.encoder.metrics import frechet_distance, mean_distance, precision_recall
from lookalike.encoder.runtime import Model, Provider
from lookalike.searcher.generation import Sampler, sample

Part = Literal["likelihood", "accuracy", "diversity", "distance", "neighbours"]
PARTS: Final[tuple[Part, ...]] = get_args(Part)
_NEED_CLASSIFIER: Final = frozenset({"accuracy", "diversity", "distance"})
_MANIFOLD_K: Final = 3  # neighbors of precision and recall, as published
_MISTAKES: Final = 6


@dataclass(frozen=True, eq=False, slots=True)
class Predictions:
    """The classifier's output for N images.

    Attributes:
        features: float32 (N, F).
        classes: int64 (N,), the most likely.
    """

    features: NDArray[np.float32]
    classes: NDArray[np.int64]


def classify(classifier: Model, images: NDArray[np.uint8]) -> Predictions:
    """Classify uint8 (N, H, W, C).

    Raises:
        InvalidArgumentError: the model is not a classifier, or takes other images.
    """
    spec = classifier.bundle.spec
    features = spec.latent - len(spec.classes)
    if not spec.classes or features < 1 or spec.embedding != features:
        raise InvalidArgumentError(
            "a classifier gives features and a logit for each class, "
            f"{printable(classifier.bundle.name)} does not"
        )
    output = classifier.encode(images)
    return Predictions(output[:, :features], output[:, features:].argmax(axis=1))


def digit_classifier(digits: MnistData, provider: Provider, *, log: Callable[[str], None]) -> Model:
    """Return the classifier of digits from the cache, trained first where it is not there.

    Raises:
        MissingExtraError: PyTorch is not installed.
    """
    try:
        from lookalike.trainer.recipes import cached_classifier
    except ImportError as error:
        raise MissingExtraError(
            "the classifier is trained with PyTorch; pip install 'lookalike[train]', or measure "
            "--only likelihood,neighbours"
        ) from error
    bundle = cached_classifier(digits.train.images, digits.train.labels, digits.classes, log=log)
    return Model(bundle, provider=provider)


@dataclass(frozen=True, slots=True)
class ClassAccuracy:
    """How often the classifier predicts the requested class.

    Attributes:
        count: N.
        overall: Share of all, in [0, 1].
        by_class: Share of each class, by name.
        worst: The class with the lowest.
        mistakes: Requested class, predicted class, count: the most frequent mistakes first.
    """

    count: int
    overall: float
    by_class: dict[str, float]
    worst: str
    mistakes: tuple[tuple[str, str, int], ...]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self) | {"mistakes": [list(mistake) for mistake in self.mistakes]}

    def mistakes_line(self) -> str:
        """Return the most frequent mistakes as ``4 seen as 9: 12, ...``."""
        mistakes = [f"{label} seen as {predicted}: {count}" for label, predicted, count in self.mistakes]
        return ", ".join(mistakes) or "no mistakes"


def class_accuracy(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: Sequence[str]
) -> ClassAccuracy:
    """Compare requested with predicted classes, int64 (N,) each, indices of ``classes``.

    Raises:
        InvalidArgumentError: N is 0.
    """
    if not len(labels):
        raise InvalidArgumentError("accuracy needs at least one image, got none")
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    counts, right = confusion.sum(axis=1), confusion.diagonal()
    shares = {name: float(right[k] / counts[k]) for k, name in enumerate(classes) if counts[k]}
    wrong = confusion - np.diag(right)
    most = np.argsort(-wrong, axis=None, kind="stable")[:_MISTAKES]
    cells = [divmod(int(place), len(classes)) for place in most]
    return ClassAccuracy(
        count=len(labels),
        overall=float(right.sum() / len(labels)),
        by_class=shares,
        worst=min(shares, key=shares.__getitem__),
        mistakes=tuple((classes[a], classes[b], int(wrong[a, b])) for a, b in cells if wrong[a, b]),
    )


@dataclass(frozen=True, slots=True)
class Diversity:
    """How much generated images of a class differ, compared with real ones of that class.

    For each class: the mean Euclidean distance of all pairs of generated images over that of all pairs of
        real
    ones. 1 is as diverse as the real ones, 0 is all the same.

    Attributes:
        space: Where distances are measured: the classifier's ``features``, or ``pixels``.
        mean: Of the classes' ratios.
        lowest: The lowest of them.
        lowest_class: Its class.
        by_class: All ratios, by name.
    """

    space: str
    mean: float
    lowest: float
    lowest_class: str
    by_class: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def diversity(
    space: str,
    generated: tuple[NDArray[np.float32], NDArray[np.int64]],
    real: tuple[NDArray[np.float32], NDArray[np.int64]],
    classes: Sequence[str],
) -> Diversity:
    """Measure it in a space, of rows (N, F) and classes int64 (N,) of both.

    Classes with fewer than two generated or real images are left out.

    Raises:
        InvalidArgumentError: none is left.
    """
    ratios: dict[str, float] = {}
    for k, name in enumerate(classes):
        mine, theirs = (rows[labels == k] for rows, labels in (generated, real))
        if min(len(mine), len(theirs)) >= 2:
            ratios[name] = mean_distance(mine) / mean_distance(theirs)
    if not ratios:
        raise InvalidArgumentError("diversity needs a class with two images or more, there is none")
    lowest = min(ratios, key=ratios.__getitem__)
    return Diversity(space, float(np.mean([*ratios.values()])), ratios[lowest], lowest, ratios)


@dataclass(frozen=True, slots=True)
class FidResult:
    """How close images are to test digits in the classifier's features.

    Attributes:
        source: Where they come from: a sampler, or ``training digits``, the best that can be expected.
        count: Number of images, and of test digits.
        frechet: Squared Fréchet distance; 0 is best.
        precision: Share of the images among the test digits.
        recall: Share of the test digits among the images.
    """

    source: str
    count: int
    frechet: float
    precision: float
    recall: float

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def compare_to_real(source: str, images: Predictions, real: Predictions) -> FidResult:
    """Compare images that come from ``source`` with real ones, by the classifier's features."""
    precision, recall = precision_recall(real.features, images.features, k=_MANIFOLD_K)
    frechet = frechet_distance(real.features, images.features)
    return FidResult(source, len(images.features), frechet, precision, recall)


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationPlan:
    """What is measured, and on how much.

    Attributes:
        parts: Which metrics.
        images: Most test digits whose likelihood is measured.
        samples: For each of them.
        drawn: Images generated by each sampler; as many real ones are compared.
        neighbours: Neighbors that vote.
        seed: Of all random choices.
    """

    parts: tuple[Part, ...] = PARTS
    images: int = 10_000
    samples: int = 5_000
    drawn: int = 10_000
    neighbours: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InvalidArgumentError: one is out of range.
        """
        unknown = set(self.parts) - set(PARTS)
        if unknown or not self.parts:
            raise InvalidArgumentError(
                f"--only takes {', '.join(PARTS)}, not {', '.join(sorted(unknown)) or 'nothing'}"
            )
        if min(self.images, self.samples, self.neighbours) < 1 or self.drawn < 50:
            raise InvalidArgumentError(
                "images, samples and neighbors are 1 or more, generated images 50 or more, "
                f"got {self.images}, {self.samples}, {self.neighbours} and {self.drawn}"
            )

    @property
    def needs_classifier(self) -> bool:
        """Whether a part needs the classifier."""
        return bool(_NEED_CLASSIFIER & set(self.parts))

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self) | {"parts": list(self.parts)}


@dataclass(frozen=True, eq=False, slots=True)
class ReferenceClassifier:
    """The classifier and its output for real digits.

    Attributes:
        model: The classifier.
        test: The test digits that generated images are compared with.
        predictions: Its output for them.
        accuracy: On all test digits.
    """

    model: Model
    test: DigitImages
    predictions: Predictions
    accuracy: ClassAccuracy

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        validation = self.model.bundle.spec.figures.get("validation_accuracy")
        return {
            "model_id": self.model.model_id,
            "validation_accuracy": validation,
            "test": self.accuracy.to_json(),
        }


@dataclass(frozen=True, eq=False, slots=True)
class GenerationBenchmark:
    """What all models are measured with.

    Attributes:
        plan: What is measured.
        digits: The data.
        reference: The classifier, where a part needs it.
        floor: Training digits in place of generated ones.
    """

    plan: GenerationPlan
    digits: MnistData
    reference: ReferenceClassifier | None = None
    floor: FidResult | None = None

    @classmethod
    def prepare(
        cls, plan: GenerationPlan, digits: MnistData, classifier: Model | None
    ) -> GenerationBenchmark:
        """Measure once what all models are compared with.

        Raises:
            InvalidArgumentError: there is no classifier and a part needs one.
        """
        reference = floor = None
        if plan.needs_classifier:
            if classifier is None:
                parts = ", ".join(sorted(_NEED_CLASSIFIER & set(plan.parts)))
                raise InvalidArgumentError(f"{parts} need a classifier, there is none")
            test = digits.test.sample(plan.drawn, seed=plan.seed)
            predicted = classify(classifier, digits.test.images).classes
            accuracy = class_accuracy(digits.test.labels, predicted, digits.classes)
            reference = ReferenceClassifier(classifier, test, classify(classifier, test.images), accuracy)
            if "distance" in plan.parts:
                training = digits.train.sample(len(test), seed=plan.seed)
                floor = compare_to_real(
                    "training digits", classify(classifier, training.images), reference.predictions
                )
        return cls(plan, digits, reference, floor)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "data": self.digits.name,
            "plan": self.plan.to_json(),
            "judge": None if self.reference is None else self.reference.to_json(),
            "floor": None if self.floor is None else self.floor.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Generation:
    """The metrics of one model; None and empty where they were not requested or cannot be measured.

    Attributes:
        name: Of the model.
        model_id: Its digest.
        kind: ``ae``, ``vae`` or ``cvae``.
        likelihood: By protocol.
        conditioned: How it generates a class: by ``label``, or from a ``Gaussian`` for each class.
        accuracy: Of images generated by class.
        diversity: Of the same images.
        distance: By sampler.
        neighbours: Of its embeddings.
        remarks: Why a metric is missing, a line each.
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


def evaluate_generation(
    model: Model, benchmark: GenerationBenchmark, *, progress: Progress = no_progress
) -> Generation:
    """Measure a model; what it cannot do becomes a remark.

    Raises:
        InvalidArgumentError: the model takes other images.
    """
    benchmark.digits.require(model)
    plan, spec, name = benchmark.plan, model.bundle.spec, model.bundle.name
    reference, digits = benchmark.reference, benchmark.digits
    remarks: list[str] = []
    values: dict[str, Any] = {}
    if "likelihood" in plan.parts:
        if spec.has_prior:
            values["likelihood"] = _likelihoods(model, benchmark, progress)
        else:
            remarks.append(f"{name}: no likelihood, the model ({spec.kind}) is not variational")
    if reference is not None and {"accuracy", "diversity"} & set(plan.parts):
        prior = model.bundle.sampling
        if spec.classes != digits.classes:
            remarks.append(f"{name}: no metrics by class, its classes are not those of {digits.name}")
        elif not spec.conditional and (prior is None or prior.by_class is None):
            remarks.append(f"{name}: no metrics by class, it has no Gaussian for each class")
        else:
            values |= _class_metrics(model, benchmark, reference)
    if reference is not None and "distance" in plan.parts:
        values["distance"] = tuple(
            compare_to_real(
                sampler,
                classify(
                    reference.model, sample(model, len(reference.test), sampler=sampler, seed=plan.seed)
                ),
                reference.predictions,
            )
            for sampler in _samplers(model)
        )
    if "neighbours" in plan.parts:
        values["neighbours"] = stored_knn(model, digits, digits.test, k=plan.neighbours, progress=progress)
    return Generation(name, model.model_id, spec.kind, **values, remarks=tuple(remarks))


def _likelihoods(
    model: Model, benchmark: GenerationBenchmark, progress: Progress
) -> tuple[LikelihoodResult, ...]:
    plan = benchmark.plan
    return tuple(
        row
        for protocol in PROTOCOLS
        for row in measure_likelihood(
            model,
            benchmark.digits.test,
            protocol,
            samples=plan.samples,
            count=plan.images,
            seed=plan.seed,
            progress=progress,
        )
    )


def _class_metrics(
    model: Model, benchmark: GenerationBenchmark, reference: ReferenceClassifier
) -> dict[str, Any]:
    """Generate equally many images of each class, and classify them."""
    plan, spec, classes = benchmark.plan, model.bundle.spec, benchmark.digits.classes
    count = -(-plan.drawn // len(classes))
    images = np.concatenate(
        [sample(model, count, of_class=name, seed=plan.seed + k) for k, name in enumerate(classes)]
    )
    labels = np.arange(len(classes)).repeat(count)
    predictions = classify(reference.model, images)
    values: dict[str, Any] = {"conditioned": "label" if spec.conditional else "Gaussian"}
    if "accuracy" in plan.parts:
        values["accuracy"] = class_accuracy(labels, predictions.classes, classes)
    if "diversity" in plan.parts:
        real = reference.test
        features = (predictions.features, labels), (reference.predictions.features, real.labels)
        pixels = (_flat(images), labels), (_flat(real.images), real.labels)
        values["diversity"] = (
            diversity("features", *features, classes),
            diversity("pixels", *pixels, classes),
        )
    return values


def _samplers(model: Model) -> list[Sampler]:
    """Return those that the model has."""
    prior = model.bundle.sampling
    mixture = prior is not None and prior.mixture is not None
    available = {"normal": model.bundle.spec.has_prior, "gaussian": True, "gmm": mixture}
    return [sampler for sampler in get_args(Sampler) if available[sampler]]


def _flat(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    flat: NDArray[np.float32] = images.reshape(len(images), -1).astype(np.float32)
    return flat
