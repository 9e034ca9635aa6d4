"""Before a training begins: nothing is in the way, the pictures are read, and it is known who is where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lookalike.encoder.bundle.registry import check_target
from lookalike.encoder.errors import DataError, TrainingError
from lookalike.encoder.images.preprocess import ImageSpec
from lookalike.encoder.text import printable
from lookalike.trainer.data.dataset import Dataset, Pixels, Split, read_pixel_cache
from lookalike.trainer.loop.loop import Run


@dataclass(frozen=True, slots=True)
class RunInputs:
    """What a training stands on.

    Attributes:
        folder: Of the run: checkpoints, log.csv and pictures.
        going_on: Whether an interrupted run is there, to be resumed.
        pixels: All images.
        split: Which of them are on which side.
        identity: What the run is, as far as its data tell: to be the same on --resume, and recorded.
    """

    folder: Path
    going_on: bool
    pixels: Pixels
    split: Split
    identity: dict[str, Any]


def prepare_run(
    dataset: Dataset,
    out: Path,
    image: ImageSpec,
    *,
    resume: bool,
    say: Callable[[str], None],
    labelled: bool = False,
) -> RunInputs:
    """Read and split the images of a run whose bundle goes to ``out``.

    Args:
        dataset: What to learn from.
        out: Folder of the bundle; ``out.run`` beside it is the run's.
        image: How images become pixels.
        resume: Whether a run there is gone on with.
        say: Takes a line for people.
        labelled: Whether images of no known class are left out.

    Raises:
        TrainingError: an unfinished run is in the way.
        OptionError: something that is no bundle stands at ``out``.
        DataError: too few images or people, or a class without training image.
    """
    check_target(out)
    folder = out.resolve()
    folder = folder.with_name(f"{folder.name}.run")
    going_on = Run.unfinished(folder)
    if going_on and not resume:
        raise TrainingError(
            f"a run was interrupted in {printable(str(folder))}; pass --resume to go on, or remove that folder "
            "to start again"
        )
    pixels = read_pixel_cache(dataset, image, progress=True)
    for reason in pixels.failures.values():
        say(f"left out: {reason}")
    split = dataset.split(row for row in pixels.usable if not labelled or dataset.labels[row] >= 0)
    _check_classes(dataset, split)
    identity = {
        "data": dataset.name,
        "data_fingerprint": pixels.fingerprint,
        "images": {
            "train": len(split.train),
            "validation": len(split.validation),
            "held_out": len(split.held_out),
        },
        "image": image.to_json(),
    }
    return RunInputs(folder, going_on, pixels, split, identity)


def _check_classes(dataset: Dataset, split: Split) -> None:
    if not dataset.classes:
        return
    there = {dataset.labels[row] for row in split.train}
    missing = [name for index, name in enumerate(dataset.classes) if index not in there]
    if missing:
        raise DataError(
            f"every class needs an image to train on, {printable(', '.join(missing[:5]))} of {dataset.name} "
            f"{'has' if len(missing) == 1 else 'have'} none; add images or leave the class out"
        )
