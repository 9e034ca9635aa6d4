"""Train a denoiser, from images to bundle: the network that removes noise, then the one that estimates it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from lookalike.encoder.bundle import Bundle
from lookalike.encoder.errors import DataError
from lookalike.trainer.config import DenoiserShape, Device, PatchSpec, TrainingSpec
from lookalike.trainer.data import (
    Dataset,
    NoiseMix,
    Photographs,
    Source,
    Split,
    noisy_batches,
    read_photographs,
    sample_photographs,
    sources_of,
    views_of,
)
from lookalike.trainer.loop import Objective, Run, RunInputs, muon, prepare_run, run_epochs
from lookalike.trainer.models import CELL, UNIT, DenoiserNet, NoiseEstimator, reflect_pad
from lookalike.trainer.objectives import denoising_loss, estimation_loss, level_to_tell
from lookalike.trainer.publish.denoiser import DenoiserMetrics, export_bundle, psnr

_MEASURED: Final = 8
"""Batches that an epoch's metric is measured on; the bundle's is measured on more."""
_MAX_MEASURED: Final = 50.0
"""dB: clean patches, which nothing may change, would outweigh all others."""
_MIN_PATCHES: Final = 1024
"""Patches in an epoch at least: many can be cut from a few large images."""
_SAMPLES: Final = 0.1
"""Share of scikit-learn's photographs beside one of LFW's faces."""
_PHOTOGRAPHS: Final = 1.3
"""The same of photographs that are given beside another data set."""
_VALIDATION_EVERY: Final = 5
_SPREAD: Final = 0.2
"""The denoiser sees a sigma that is wrong by this much, as estimates are."""
_ESTIMATOR_SIDE: Final = 256
"""Largest side of the patches for the estimator, which needs more of an image to tell noise from texture."""
_ESTIMATOR_HALVINGS: Final = 2
"""Its batches have half and a quarter of that by turns: small images are sharp, and have no smooth places."""
_ESTIMATOR_EPOCHS: Final = 1 / 3
"""Of those of the denoiser: it is a small network."""
_ESTIMATOR_CLEAN: Final = 0.33
_ESTIMATOR_CAMERA: Final = 0.42
_ESTIMATOR_GRAIN: Final = 0.07
_ESTIMATOR_DRAWN: Final = 0.12
_ESTIMATOR_RELIT: Final = 0.3
_ESTIMATOR_GRAY: Final = 0.15
"""Share of its patches that are gray, at most: without colors, noise and texture are hard to tell apart."""
_OVER: Final = 0.6


@dataclass(frozen=True, slots=True)
class DenoiserData:
    """The images of a run, by part.

    Attributes:
        train: Sources of the patches.
        validation: Sources that the best epoch is chosen on.
        held_out: Sources that are reported, of the data set alone.
        fingerprints: Of all images.
    """

    train: list[Source]
    validation: list[Source]
    held_out: list[Source]
    fingerprints: list[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class DenoiserPlan:
    """How one of the two networks is trained. Saved in the bundle.

    Attributes:
        shape: Sizes of the networks.
        patches: How patches are cut.
        noise: Added to them.
        spec: How to train; its ``noise`` and ``shift`` are not used.
    """

    shape: DenoiserShape
    patches: PatchSpec
    noise: NoiseMix
    spec: TrainingSpec

    def for_estimator(self, data: DenoiserData) -> DenoiserPlan:
        """Return the plan of the estimator: larger patches, fewer epochs, more of them without noise."""
        if self.noise.white_only:
            patches, noise = self.patches, self.noise
        else:
            side = _largest_side(data, max(self.patches.side, _ESTIMATOR_SIDE))
            gray = min(self.patches.gray, _ESTIMATOR_GRAY)
            patches = replace(
                self.patches, side=side, gray=gray, drawn=_ESTIMATOR_DRAWN, relit=_ESTIMATOR_RELIT
            )
            noise = replace(
                self.noise,
                camera=_ESTIMATOR_CAMERA,
                grain=_ESTIMATOR_GRAIN,
                clean=_ESTIMATOR_CLEAN,
                partial=2 * self.noise.partial,
            )
        return replace(
            self,
            patches=patches,
            noise=noise,
            spec=replace(self.spec, epochs=max(1, round(self.spec.epochs * _ESTIMATOR_EPOCHS))),
        )

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "network": self.shape.to_json(),
            "patches": asdict(self.patches),
            "noise": asdict(self.noise),
            "training": self.spec.to_json(),
        }


def train_denoiser(
    dataset: Dataset,
    out: Path,
    *,
    shape: DenoiserShape,
    patches: PatchSpec,
    noise: NoiseMix,
    spec: TrainingSpec,
    photographs: Sequence[Path] | None = None,
    device: Device = "auto",
    resume: bool = False,
    log: Callable[[str], None] = lambda _: None,
) -> tuple[Bundle, DenoiserMetrics]:
    """Train both networks, keep the best epoch of each on the validation images, write the bundle.

    Args:
        dataset: The training data.
        out: Folder of the bundle; ``out.run`` beside it holds the checkpoints and log.csv.
        shape: Sizes of the networks.
        patches: How patches are cut.
        noise: Added to them.
        spec: How to train; its ``noise`` and ``shift`` are not used.
        photographs: More images to train on, used whole; every fifth by name is for validation.
        device: Where to train.
        resume: Whether to resume the run in ``out.run``; if there is none, it starts.
        log: Called with each line of text.

    Raises:
        TrainingError: an unfinished run is in the way, or cannot be resumed, or the loss is not finite.
        InvalidArgumentError: ``out`` is something other than a bundle, or a patch is larger than the images.
        DataError: too few images.
        ExportError: ONNX and torch disagree.
    """
    inputs = prepare_run(dataset, out, next(iter(views_of(dataset))), device=device, resume=resume, log=log)
    data = denoiser_data(dataset, inputs.split, photographs, side=patches.side, log=log)
    plan = DenoiserPlan(shape=shape, patches=patches, noise=noise, spec=spec)
    estimation = plan.for_estimator(data)
    record = inputs.record | {
        "sources": data.fingerprints,
        "photographs": len(photographs or ()),
        **plan.to_json(),
    }
    record |= {"estimator": estimation.to_json() | {"over": _OVER}}
    denoiser = fit_denoiser(inputs, data, plan, record)
    estimator = fit_estimator(inputs, data, estimation, record)
    bundle, metrics = export_bundle(
        denoiser,
        estimator,
        out,
        images=inputs.pixels.images,
        split=inputs.split,
        low=noise.low,
        high=noise.high,
        training=record,
        device=inputs.device,
    )
    for level in metrics.levels:
        log(level.summary())
    inputs.finish(bundle.model_id)
    return bundle, metrics


def denoiser_data(
    dataset: Dataset,
    split: Split,
    photographs: Sequence[Path] | None,
    *,
    side: int,
    log: Callable[[str], None] = lambda _: None,
) -> DenoiserData:
    """Read the images of a run into memory.

    Raises:
        InvalidArgumentError: a patch is larger than the images.
        DataError: no photograph can be read, or there are too few of them.
    """
    parts: list[list[Source]] = []
    fingerprints: list[str] = []
    for rows in (split.train, split.validation, split.held_out):
        if dataset.name in ("lfw", "mnist"):
            sources, fingerprints = sources_of(dataset, views_of(dataset), rows, side=side)
        else:
            read = read_photographs([dataset.root / dataset.paths[row] for row in rows], log=log)
            sources = read.sources(1.0, side=side)
            fingerprints.append(read.fingerprint)
        parts.append(sources)
    if dataset.name == "lfw":
        samples = sample_photographs()
        parts[0] += samples.sources(_SAMPLES, side=side)
        fingerprints.append(samples.fingerprint)
    if photographs is not None:
        for part, read in zip(parts, _read_photographs(photographs, log), strict=False):
            part += read.sources(_PHOTOGRAPHS, side=side)
            fingerprints.append(read.fingerprint)
    train, validation, held_out = parts
    return DenoiserData(train, validation, held_out, fingerprints)


def _read_photographs(files: Sequence[Path], log: Callable[[str], None]) -> tuple[Photographs, Photographs]:
    ordered = sorted(files, key=lambda file: file.name)
    validation = ordered[_VALIDATION_EVERY - 1 :: _VALIDATION_EVERY]
    training = [file for file in ordered if file not in set(validation)]
    if not validation:
        raise DataError(
            f"every fifth photograph is for validation, so {_VALIDATION_EVERY} or more are needed, "
            f"got {len(files)}; add some"
        )
    return read_photographs(training, log=log), read_photographs(validation, log=log)


def fit_denoiser(
    inputs: RunInputs, data: DenoiserData, plan: DenoiserPlan, record: dict[str, Any]
) -> DenoiserNet:
    """Train the network that removes noise, which is given sigma; return its best epoch.

    The metric is the mean PSNR in dB of noisy patches, given sigma.
    """
    spec = plan.spec
    torch.manual_seed(spec.seed)
    # With the channels last a step on small patches takes half the time in bfloat16; on large ones the same.
    start = DenoiserNet(plan.shape).to(memory_format=torch.channels_last)
    inputs.log(
        f"denoiser: {_parameters(start):,} weights; {_steps(inputs, spec) * spec.epochs:,} steps of "
        f"{spec.batch} patches; training on {inputs.device.type}"
    )

    def batches(epoch: int) -> Iterator[tuple[tuple[Tensor, Tensor], Tensor]]:
        for noisy, sigma, clean in noisy_batches(
            data.train,
            plan.patches,
            plan.noise,
            size=spec.batch,
            steps=_steps(inputs, spec),
            seed=spec.seed,
            epoch=epoch,
            spread=_SPREAD,
        ):
            yield _padded(noisy, sigma), torch.cat([clean, sigma[:, None]], 1)

    def loss(denoised: Tensor, target: Tensor, _: float) -> Tensor:
        height, width = target.shape[2:]
        return denoising_loss(denoised[:, :, :height, :width], target[:, :-1], target[:, -1])

    @torch.no_grad()
    def measure(network: DenoiserNet) -> tuple[float, float]:
        network.eval()
        validation, held_out = (
            np.mean(
                [
                    _mean_psnr(network, noisy, sigma, clean, inputs.device)
                    for noisy, sigma, clean in _fixed(sources, plan)
                ]
            )
            for sources in (data.validation, data.held_out)
        )
        return float(validation), float(held_out)

    objective = Objective(
        batches=batches, steps=_steps(inputs, spec), loss=loss, measure=measure, metric="psnr_db"
    )
    run = inputs.start(start, spec, record, optimizer=muon)
    return run_epochs(run, objective, metric="{:.2f} dB", log=inputs.log)


def fit_estimator(
    inputs: RunInputs, data: DenoiserData, plan: DenoiserPlan, record: dict[str, Any]
) -> NoiseEstimator:
    """Train the network that estimates sigma, in the run's subfolder ``estimator``; return its best epoch.

    It learns what to tell the other network: of correlated noise that is more than the true sigma.

    The metric is the negative loss.
    """
    spec, sides = plan.spec, _sides_of(plan)
    steps = -(-_steps(inputs, spec) // len(sides))
    torch.manual_seed(spec.seed)
    start = NoiseEstimator(plan.shape.estimator, plan.shape.dilations).to(memory_format=torch.channels_last)
    folder = inputs.folder / "estimator"
    run = Run(folder, start, spec, record=record, device=inputs.device, optimizer=muon)
    if Run.unfinished(folder):
        run.resume()
    inputs.log(
        f"estimator of the noise: {_parameters(start):,} weights; {run.done} of {spec.epochs} epochs done"
    )

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        parts = [
            noisy_batches(
                _at_least(data.train, side),
                replace(plan.patches, side=side),
                plan.noise,
                size=batch,
                steps=steps,
                seed=spec.seed,
                epoch=epoch,
            )
            for side, batch in sides.items()
        ]
        for noisy, sigma, clean in itertools.chain.from_iterable(zip(*parts, strict=True)):
            yield _channels_last(reflect_pad(noisy)), _target(level_to_tell(noisy, clean, sigma))

    def loss(estimated: Tensor, target: Tensor, progress: float) -> Tensor:
        return estimation_loss(estimated, target, over=0.5 + (_OVER - 0.5) * min(1, 3 * progress))

    @torch.no_grad()
    def measure(network: NoiseEstimator) -> tuple[float, float]:
        network.eval()
        validation, held_out = (
            -np.mean(
                [
                    loss(
                        network.logarithm(reflect_pad(noisy).to(inputs.device)).cpu(),
                        _target(level_to_tell(noisy, clean, sigma)),
                        1,
                    ).item()
                    for side in sides
                    for noisy, sigma, clean in _fixed(
                        _at_least(sources, side), replace(plan, patches=replace(plan.patches, side=side))
                    )
                ]
            )
            for sources in (data.validation, data.held_out)
        )
        return float(validation), float(held_out)

    objective = Objective(
        batches=batches, steps=len(sides) * steps, loss=loss, measure=measure, metric="negative_loss"
    )
    return run_epochs(run, objective, metric="{:.3f}", log=inputs.log)


def _mean_psnr(
    network: DenoiserNet, noisy: Tensor, sigma: Tensor, clean: Tensor, device: torch.device
) -> float:
    pixels, levels = (each.to(device) for each in _padded(noisy, sigma))
    denoised = network(pixels, levels).cpu()[:, :, : clean.shape[2], : clean.shape[3]]
    return psnr(denoised, clean).clamp_max(_MAX_MEASURED).mean().item()


def _padded(noisy: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Pad (B, 3, S, S) and (B, S, S) to the size that the network takes."""
    return _channels_last(reflect_pad(noisy)), reflect_pad(sigma[:, None])[:, 0]


def _steps(inputs: RunInputs, spec: TrainingSpec) -> int:
    return -(-max(len(inputs.split.train), _MIN_PATCHES) // spec.batch)


def _parameters(network: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def _fixed(sources: Sequence[Source], plan: DenoiserPlan) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield the batches that every epoch is measured on: of one seed, so that epochs can be compared."""
    return noisy_batches(
        sources, plan.patches, plan.noise, size=plan.spec.batch, steps=_MEASURED, seed=0, epoch=0
    )


def _sides(source: Source) -> NDArray[np.int64]:
    """Return the smaller side of each image of a source."""
    return np.array([min(source.images[int(row)].shape[:2]) for row in source.rows], np.int64)


def _largest_side(data: DenoiserData, wanted: int) -> int:
    """Return the wanted side of patches, or less where all images of a part are smaller."""
    parts = (data.train, data.validation, data.held_out)
    return min(wanted, *(max(int(_sides(source).max()) for source in part) for part in parts))


def _sides_of(plan: DenoiserPlan) -> dict[int, int]:
    """Return the sides of the estimator's patches, and how many of each are in a batch."""
    if plan.noise.white_only:
        return {plan.patches.side: plan.spec.batch}
    sides = [plan.patches.side >> halving for halving in range(_ESTIMATOR_HALVINGS + 1)]
    least = min(plan.patches.side, 4 * CELL)
    return {side: max(1, plan.spec.batch * 128 // side) for side in sides if side >= least}


def _at_least(sources: Sequence[Source], side: int) -> list[Source]:
    """Return the sources without images that are too small for a patch."""
    large = (replace(source, rows=source.rows[_sides(source) >= side]) for source in sources)
    return [source for source in large if len(source.rows)]


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)


def _target(sigma: Tensor) -> Tensor:
    """(B, S, S) -> (B, S/8, S/8): what the estimator learns, after the padding that the images get."""
    return (functional.avg_pool2d(reflect_pad(sigma[:, None]), CELL)[:, 0] / UNIT).log1p()
