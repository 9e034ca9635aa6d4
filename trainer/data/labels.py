"""Class labels of a data set, from subfolders or from an attribute.

Legend: K classes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from lookalike.encoder.datasets import LFW, person_from_folder, select, share_of
from lookalike.encoder.errors import DataError, InvalidArgumentError, printable
from lookalike.trainer.data.dataset import HELD_OUT_SHARE, Dataset

_MAX_CLASSES: Final = 1000
_FEW_CLASSES: Final = 100
_IMAGES_OF_CLASS: Final = 10


def subfolders_are_classes(dataset: Dataset) -> bool:
    """Return whether the subfolders look like classes: 2 to 100 of them, with 10 images or more on average.

    Those of LFW are people, and digits have their classes already.
    """
    if dataset.classes or dataset.faces or dataset.name == "lfw":
        return False
    folders = {person_from_folder(dataset.root / path, dataset.root) for path in dataset.paths} - {None}
    return 2 <= len(folders) <= min(_FEW_CLASSES, len(dataset.paths) // _IMAGES_OF_CLASS)


def by_subfolder(dataset: Dataset) -> Dataset:
    """Label each image with its subfolder, and split by image; with less than two subfolders, do nothing.

    A data set that already has classes keeps them. LFW has none: its subfolders are people.

    Raises:
        DataError: more than 1,000 classes: the subfolders are probably people.
    """
    if dataset.classes or dataset.name == "lfw":
        return dataset
    folders = [person_from_folder(dataset.root / path, dataset.root) for path in dataset.paths]
    classes = tuple(sorted({printable(folder) for folder in folders if folder is not None}))
    if len(classes) < 2:
        return dataset
    if len(classes) > _MAX_CLASSES:
        raise DataError(
            f"subfolders are classes, at most {_MAX_CLASSES:,} of them, {printable(str(dataset.root))} has "
            f"{len(classes):,}; are they people? then take --subfolders person"
        )
    index_of = {name: index for index, name in enumerate(classes)}
    people = tuple(path.as_posix() for path in dataset.paths)
    return replace(
        dataset,
        people=people,
        held_out=select({person: share_of(person) for person in people}, HELD_OUT_SHARE),
        classes=classes,
        labels=tuple(-1 if folder is None else index_of[printable(folder)] for folder in folders),
    )


def by_attribute(dataset: Dataset, attribute: str) -> Dataset:
    """Label LFW's images by an attribute's score: above 0 with it, up to 0 without it, missing unknown.

    The held-out people stay the same.

    Raises:
        InvalidArgumentError: another data set, or no such attribute.
        DataError: the table of attributes is missing or malformed, or all images are of one class.
    """
    if dataset.name != "lfw":
        raise InvalidArgumentError(
            f"--class-attribute reads the table of lfw, {printable(dataset.name)} has none; "
            "sort the images into subfolders instead"
        )
    table = LFW(dataset.root.parent, dataset.root.name).attributes()
    known = sorted({name for scores in table.values() for name in scores})
    if attribute not in known:
        raise InvalidArgumentError(
            f"no attribute {printable(attribute)!r}; there are {', '.join(map(printable, known))}"
        )
    scores = [table.get(path.as_posix(), {}).get(attribute) for path in dataset.paths]
    labels = tuple(-1 if score is None else int(score > 0) for score in scores)
    if len(set(labels) - {-1}) < 2:
        raise DataError(f"two classes need images with and without {attribute}, all known are of one class")
    return replace(dataset, classes=(f"not {attribute}", attribute), labels=labels)
