"""The handwritten digits that figures of generation are measured on.

Legend: N images, S side.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from lookalike.deploy.evaluation.data import LabeledImages
from lookalike.encoder.datasets.mnist import CLASSES, find_mnist
from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.runtime.model import Model
from lookalike.encoder.text import printable

__all__ = ["DigitImages", "MnistData"]


@dataclass(frozen=True, eq=False, slots=True)
class DigitImages:
    """N pictures and what they show.

    Attributes:
        images: uint8 (N, S, S, 1).
        labels: int64 (N,), places in the names of the classes.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        """Check that there are as many of both.

        Raises:
            InvalidArgumentError: there are not, or they are no grey squares.
        """
        if self.images.shape != (len(self.labels), *2 * self.images.shape[1:2], 1):
            raise InvalidArgumentError(
                f"digits are uint8 (N, S, S, 1) with N labels, got {self.images.shape} and {len(self.labels)}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def chosen(self, count: int, *, seed: int) -> NDArray[np.int64]:
        """Return ``count`` places drawn without replacement, rising; all when there are no more.

        Drawn, and not the first: the first half of MNIST's test digits is the easier one.
        """
        if count >= len(self):
            return np.arange(len(self))
        return np.sort(np.random.default_rng(seed).choice(len(self), count, replace=False))

    def of(self, rows: NDArray[np.int64]) -> Self:
        """Return those at these places."""
        return type(self)(self.images[rows], self.labels[rows])

    def some(self, count: int, *, seed: int) -> Self:
        """Return those at :meth:`chosen` places; itself when these are all."""
        return self if count >= len(self) else self.of(self.chosen(count, seed=seed))


@dataclass(frozen=True, eq=False, slots=True)
class MnistData:
    """A data set of digits in two parts.

    Attributes:
        name: What it is called.
        classes: Names of the classes.
        train: What may be learned from.
        test: What is measured on.
    """

    name: str
    classes: tuple[str, ...]
    train: DigitImages
    test: DigitImages

    @classmethod
    def mnist(cls, *, progress: bool = False) -> Self:
        """Read MNIST, found as :func:`find_mnist` does.

        Raises:
            DataError: it is nowhere, or cannot be fetched or read.
        """
        found = find_mnist(progress=progress)
        train, test = (
            DigitImages(found.images(split)[..., None], found.labels(split).astype(np.int64))
            for split in ("train", "test")
        )
        return cls("mnist", CLASSES, train, test)

    def require(self, model: Model) -> None:
        """Do nothing when the model takes these pictures as they are.

        Raises:
            InvalidArgumentError: it takes others.
        """
        shape, side = model.bundle.spec.image.shape, self.test.images.shape[1]
        if shape != self.test.images.shape[1:] or str(model.bundle.spec.image.crop) != "full":
            raise InvalidArgumentError(
                f"generation is measured on digits of {side}x{side}, grey and whole; model "
                f"{printable(model.bundle.name)} takes {shape[0]}x{shape[1]}x{shape[2]}, "
                f"crop {model.bundle.spec.image.crop}; name one trained with --data {self.name}"
            )

    def labelled(self, pictures: DigitImages) -> LabeledImages:
        """Return names for pictures as a collection has them; the class stands where the person does."""
        paths = tuple(f"{number:05d}" for number in range(len(pictures)))
        return LabeledImages(
            self.name,
            tuple(map(Path, paths)),
            paths,
            tuple(self.classes[label] for label in pictures.labels.tolist()),
        )
