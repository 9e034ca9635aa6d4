"""The data that models are evaluated on: labeled images, and MNIST.

Legend: N images, S side.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.datasets import CLASSES, LFW, find_lfw, find_mnist, person_from_folder
from lookalike.encoder.errors import DataError, InvalidArgumentError, printable
from lookalike.encoder.images import IMAGE_SUFFIXES, LFW_CROP, Crop, find_images
from lookalike.encoder.runtime import Model
from lookalike.indexer.sources import as_text, file_below
from lookalike.indexer.store import CollectionSpec, Record, VectorStore


@dataclass(frozen=True, slots=True)
class LabeledImages:
    """N images and the person in each.

    Attributes:
        name: ``lfw``, or the name of the folder or collection.
        files: Their files.
        paths: Their names: relative to their root, with ``/``; unique.
        people: The person in each; None where unknown.
        crop: How they are framed, where known.
        lfw: The data set, when it is Labeled Faces in the Wild.
    """

    name: str
    files: tuple[Path, ...]
    paths: tuple[str, ...]
    people: tuple[str | None, ...]
    crop: Crop | None = None
    lfw: LFW | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def by_person(self) -> dict[str, list[int]]:
        """Return each person's images by index, in order, without images of unknown people."""
        groups: dict[str, list[int]] = defaultdict(list)
        for index, person in enumerate(self.people):
            if person is not None:
                groups[person].append(index)
        return dict(groups)


def open_labeled(source: str, *, progress: bool = False) -> LabeledImages:
    """Open ``lfw``, or a folder with a subfolder of images for each person.

    Raises:
        DataError: the folder does not exist or holds no image.
    """
    if source == "lfw":
        return _from_lfw(find_lfw(progress=progress))
    root = Path(source)
    if not root.is_dir():
        raise DataError(f"--data is lfw or a folder of person folders, '{printable(source)}' is neither")
    paths = list(find_images(root))
    if not paths:
        raise DataError(
            f"--data needs images ({', '.join(sorted(IMAGE_SUFFIXES))}), '{printable(source)}' holds none; "
            "check the path"
        )
    people = (person_from_folder(root / path, root) for path in paths)
    return LabeledImages(
        printable(root.resolve().name),
        tuple(root / path for path in paths),
        tuple(as_text(path) for path in paths),
        tuple(person and as_text(Path(person)) for person in people),
    )


def collection_images(store: VectorStore, name: str) -> LabeledImages:
    """Return the images of a collection, as its payloads name them.

    Raises:
        CollectionNotFoundError: there is no such collection.
    """
    spec = store.info(name)
    if spec.has_faces:
        raise InvalidArgumentError(
            f"collection {name!r} holds faces, an evaluation of a collection is for whole pictures; "
            "name the data set, with --faces"
        )
    records = list(store.scroll(name))
    return LabeledImages(
        name,
        tuple(_file(record, spec) for record in records),
        tuple(item_path(record, spec) for record in records),
        tuple(record.payload.get("person") for record in records),
        None if spec.crop == "none" else Crop.parse(spec.crop),
    )


def item_path(record: Record, spec: CollectionSpec) -> str:
    """Return an item's name in :attr:`LabeledImages.paths`; with its root where there are several."""
    path = record.payload.get("path")
    if not isinstance(path, str):
        return record.id
    return path if len(spec.roots) < 2 else f"{record.payload.get('root')}/{path}"


def lfw_behind(store: VectorStore, name: str) -> LabeledImages | None:
    """Return Labeled Faces in the Wild when the collection holds it, else None.

    Raises:
        DataError: the collection holds it, and the data set is not on this machine.
    """
    spec = store.info(name)
    if "lfw" not in spec.roots:
        return None
    lfw = _from_lfw(find_lfw(download=False))
    paths = set(lfw.paths)
    return lfw if any(record.payload.get("path") in paths for record in store.scroll(name)) else None


def _from_lfw(lfw: LFW) -> LabeledImages:
    files = lfw.images()
    return LabeledImages(
        "lfw",
        tuple(files),
        tuple(file.relative_to(lfw.root).as_posix() for file in files),
        tuple(lfw.person_of(file) for file in files),
        LFW_CROP,
        lfw,
    )


def _file(record: Record, spec: CollectionSpec) -> Path:
    values: dict[str, Any] = dict(record.payload)
    return file_below(spec.folder_of(values.get("root")) or "", str(values.get("path", record.id)))


@dataclass(frozen=True, eq=False, slots=True)
class DigitImages:
    """N images of digits and their classes.

    Attributes:
        images: uint8 (N, S, S, 1).
        labels: int64 (N,), indices of the class names.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        """Check the shapes.

        Raises:
            InvalidArgumentError: the images are not gray squares, or there is not one label for each.
        """
        if self.images.shape != (len(self.labels), *2 * self.images.shape[1:2], 1):
            raise InvalidArgumentError(
                f"digits are uint8 (N, S, S, 1) with N labels, got {self.images.shape} and {len(self.labels)}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def sample_rows(self, count: int, *, seed: int) -> NDArray[np.int64]:
        """Return ``count`` random indices without replacement, ascending; all when there are no more.

        Random, not the first: the first half of MNIST's test digits is the easier one.
        """
        if count >= len(self):
            return np.arange(len(self))
        return np.sort(np.random.default_rng(seed).choice(len(self), count, replace=False))

    def take(self, rows: NDArray[np.int64]) -> Self:
        """Return the digits at these indices."""
        return type(self)(self.images[rows], self.labels[rows])

    def sample(self, count: int, *, seed: int) -> Self:
        """Return the digits at :meth:`sample_rows`; itself when these are all."""
        return self if count >= len(self) else self.take(self.sample_rows(count, seed=seed))


@dataclass(frozen=True, eq=False, slots=True)
class MnistData:
    """A data set of digits.

    Attributes:
        name: Of the data set.
        classes: Names of the classes.
        train: Training digits.
        test: Test digits.
    """

    name: str
    classes: tuple[str, ...]
    train: DigitImages
    test: DigitImages

    @classmethod
    def load(cls, *, progress: bool = False) -> Self:
        """Read MNIST, found as :func:`find_mnist` does.

        Raises:
            DataError: it is not found, or cannot be downloaded or read.
        """
        mnist = find_mnist(progress=progress)
        train, test = (
            DigitImages(mnist.images(split)[..., None], mnist.labels(split).astype(np.int64))
            for split in ("train", "test")
        )
        return cls("mnist", CLASSES, train, test)

    def require(self, model: Model) -> None:
        """Check that the model takes these images as they are.

        Raises:
            InvalidArgumentError: its input differs.
        """
        shape, side = model.bundle.spec.image.shape, self.test.images.shape[1]
        if shape != self.test.images.shape[1:] or str(model.bundle.spec.image.crop) != "full":
            raise InvalidArgumentError(
                f"generation is measured on digits of {side}x{side}, gray and whole; model "
                f"{printable(model.bundle.name)} takes {shape[0]}x{shape[1]}x{shape[2]}, "
                f"crop {model.bundle.spec.image.crop}; name one trained with --data {self.name}"
            )

    def labeled(self, digits: DigitImages) -> LabeledImages:
        """Return digits as labeled images, the class in place of the person."""
        paths = tuple(f"{number:05d}" for number in range(len(digits)))
        return LabeledImages(
            self.name,
            tuple(map(Path, paths)),
            paths,
            tuple(self.classes[label] for label in digits.labels.tolist()),
        )
