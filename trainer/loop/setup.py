"""Start and end of a training: check the output, read and split the images, start or resume the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lookalike.encoder.bundle import check_target
from lookalike.encoder.errors import DataError, TrainingError, printable
from lookalike.encoder.images import ImageSpec
from lookalike.trainer.config import Device, TrainingSpec
from lookalike.trainer.data import Dataset, Pixels, Split, read_pixel_cache
from lookalike.trainer.loop.loop import NetworkT, Run, pick_device
from lookalike.trainer.loop.optim import adamw


@dataclass(frozen=True, slots=True)
class RunInputs:
    """Inputs of a training.

    Attributes:
        out: Folder of the bundle.
        folder: Of the run: checkpoint, log.csv and sample images.
        resume: Whether an interrupted run is there, to be resumed.
        device: Where to train.
        pixels: All images.
        split: The parts they belong to.
        record: Description of the data, part of the run's record.
        log: Called with each line of text.
    """

    out: Path
    folder: Path
    resume: bool
    device: torch.device
    pixels: Pixels
    split: Split
    record: dict[str, Any]
    log: Callable[[str], None]

    def start(
        self,
        network: NetworkT,
        spec: TrainingSpec,
        record: Mapping[str, Any],
        *,
        optimizer: Callable[[nn.Module, TrainingSpec], torch.optim.Optimizer] = adamw,
    ) -> Run[NetworkT]:
        """Start the run, or resume the interrupted one.

        Raises:
            TrainingError: the interrupted run had another record.
        """
        run = Run(self.folder, network, spec, record=record, device=self.device, optimizer=optimizer)
        if self.resume:
            run.resume()
            self.log(f"resuming after epoch {run.done} of {spec.epochs}")
        return run

    def finish(self, model_id: str) -> None:
        """Remove the run's checkpoints once the bundle is written, and log where it is."""
        Run.finish(self.folder)
        self.log(f"model {model_id[:12]} is in {printable(str(self.out))}")


def prepare_run(
    dataset: Dataset,
    out: Path,
    image: ImageSpec,
    *,
    device: Device,
    resume: bool,
    log: Callable[[str], None],
    labelled: bool = False,
) -> RunInputs:
    """Read and split the images of a run whose bundle goes to ``out``.

    Args:
        dataset: The training data.
        out: Folder of the bundle; the run's folder is ``out.run`` beside it.
        image: How images become pixels.
        device: Where to train.
        resume: Whether to resume an interrupted run there.
        log: Called with each line of text.
        labelled: Whether images of unknown class are left out.

    Raises:
        TrainingError: an unfinished run is in the way.
        InvalidArgumentError: ``out`` is something other than a bundle, or the device is not available.
        DataError: too few images or people, or a class without training image.
    """
    where = pick_device(device)
    check_target(out)
    folder = out.resolve()
    folder = folder.with_name(f"{folder.name}.run")
    interrupted = Run.unfinished(folder)
    if interrupted and not resume:
        raise TrainingError(
            f"a run was interrupted in {printable(str(folder))}; pass --resume to go on, or remove that "
            "folder to start again"
        )
    pixels = read_pixel_cache(dataset, image, progress=True)
    for reason in pixels.failures.values():
        log(f"left out: {reason}")
    split = dataset.split(row for row in pixels.usable if not labelled or dataset.labels[row] >= 0)
    _check_classes(dataset, split)
    record = {
        "data": dataset.name,
        "data_fingerprint": pixels.fingerprint,
        "images": {
            "train": len(split.train),
            "validation": len(split.validation),
            "held_out": len(split.held_out),
        },
        "image": image.to_json(),
    }
    return RunInputs(out, folder, interrupted, where, pixels, split, record, log)


def _check_classes(dataset: Dataset, split: Split) -> None:
    if not dataset.classes:
        return
    present = {dataset.labels[row] for row in split.train}
    missing = [name for index, name in enumerate(dataset.classes) if index not in present]
    if missing:
        raise DataError(
            f"every class needs an image to train on, {printable(', '.join(missing[:5]))} of {dataset.name} "
            f"{'has' if len(missing) == 1 else 'have'} none; add images or leave the class out"
        )
