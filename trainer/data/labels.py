"""Which class each image of a data set is of.

Legend: K classes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Final

from lookalike.encoder.datasets.lfw import LFW, person_from_folder
from lookalike.encoder.errors import DataError, InvalidArgumentError
from lookalike.encoder.text import printable
from lookalike.trainer.data.dataset import HELD_OUT_SHARE, Dataset, select, share_of

_MOST: Final = 1000


def by_subfolder(dataset: Dataset) -> Dataset:
    """Take the subfolder that holds an image for its class, and split by picture; without two: as it is.

    What has classes already keeps them. LFW has none: its subfolders are people.

    Raises:
        DataError: more than 1,000 classes: these will be people.
    """
    if dataset.classes or dataset.name == "lfw":
        return dataset
    folders = [person_from_folder(dataset.root / path, dataset.root) for path in dataset.paths]
    classes = tuple(sorted({printable(folder) for folder in folders if folder is not None}))
    if len(classes) < 2:
        return dataset
    if len(classes) > _MOST:
        raise DataError(
            f"subfolders are classes, at most {_MOST:,} of them, {printable(str(dataset.root))} has "
            f"{len(classes):,}; are they people? then take --classes none"
        )
    place = {name: index for index, name in enumerate(classes)}
    people = tuple(path.as_posix() for path in dataset.paths)
    return replace(
        dataset,
        people=people,
        held_out=select({person: share_of(person) for person in people}, HELD_OUT_SHARE),
        classes=classes,
        labels=tuple(-1 if folder is None else place[printable(folder)] for folder in folders),
    )


def by_attribute(dataset: Dataset, attribute: str) -> Dataset:
    """Sort LFW into two classes by an attribute's score: above 0 it is there, up to 0 not, unknown neither.

    Who is held out stays as it is.

    Raises:
        InvalidArgumentError: another data set, or no such attribute.
        DataError: the table of attributes is missing or malformed, or all images are of one class.
    """
    if dataset.name != "lfw":
        raise InvalidArgumentError(
            f"--class-attribute reads the table of lfw, {printable(dataset.name)} has none; "
            "sort the pictures into subfolders instead"
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
        raise DataError(f"two classes need images with and without {attribute}, all known are alike")
    return replace(dataset, classes=(f"not {attribute}", attribute), labels=labels)


def count_by_class(dataset: Dataset, rows: list[int]) -> str:
    """Say how many of the images at ``rows`` are of each class, the first ten classes."""
    counts = Counter(dataset.labels[row] for row in rows)
    told = [f"{name} {counts[index]}" for index, name in enumerate(dataset.classes[:10])]
    return ", ".join(told) + (", ..." if len(dataset.classes) > 10 else "")
