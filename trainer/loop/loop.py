"""The training loop, its checkpoints and its progress. It knows neither the network nor the objective.

Legend: B images in a batch.
"""

from __future__ import annotations

import copy
import csv
import hashlib
import io
import math
import os
import pickle
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, Self, TypeVar, cast, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from lookalike.encoder.errors import InvalidArgumentError, TrainingError, one_line, printable
from lookalike.trainer.config import Device, TrainingSpec
from lookalike.trainer.loop.optim import adamw

_DIGEST_SIZE: Final = 32


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors, numbers, strings and containers of them, and a SHA-256 of it all.

    A kill leaves the old file or the new one.
    """
    part = path.with_name(f"{path.name}.part")
    with part.open("w+b") as file:
        torch.save(dict(state), file)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").digest()
        file.seek(0, os.SEEK_END)
        file.write(digest)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _checked_content(path: Path) -> bytes:
    content = path.read_bytes()
    data, digest = content[:-_DIGEST_SIZE], content[-_DIGEST_SIZE:]
    if hashlib.sha256(data).digest() != digest:
        raise ValueError("its bytes are not those that were written")
    return data


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a file of :func:`save_checkpoint`, onto the CPU.

    Raises:
        TrainingError: the file is damaged or holds anything but plain values and tensors.
    """
    try:
        data = io.BytesIO(_checked_content(path))
        state: dict[str, Any] = dict(torch.load(data, map_location="cpu", weights_only=True))
    except (MemoryError, RecursionError):
        raise  # they say nothing of the input
    except Exception as error:  # torch, zipfile and pickle each raise their own
        # torch's own message advises to load objects anyway, which would execute them.
        holds_objects = isinstance(error, pickle.UnpicklingError)
        reason = "it holds more than tensors and plain values" if holds_objects else one_line(error)[:200]
        raise TrainingError(
            f"checkpoint {printable(str(path))} cannot be read ({reason}); remove its folder and train again"
        ) from error
    return state


NetworkT = TypeVar("NetworkT", bound=nn.Module)

_CHECKPOINT: Final = "checkpoint.pt"
_MIN_AVERAGING_SPANS: Final = 5
"""A training lasts at least this many averaging windows; else the average would hold the initial weights."""
_WRITE_EVERY: Final = 15.0
"""Seconds between checkpoints: writing costs little with short epochs, and a kill loses little work."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Objective(Generic[NetworkT]):
    """The task of a training.

    Attributes:
        batches: Epoch, from 0, to its batches of inputs and targets, always the same. An input is a tensor,
            or a tuple of tensors, the network's arguments.
        steps: Batches in an epoch.
        loss: Outputs, targets and the share of the training that is done, to a scalar. Outputs are what the
            network returns, a tensor or a named tuple of tensors, as float32.
        measure: Network to the metric on the validation and on the held-out part, higher is better; the first
            chooses the best checkpoint. NaN: not measured.
        metric: Name of the metric in log.csv.
    """

    batches: Callable[[int], Iterable[tuple[Tensor | tuple[Tensor, ...], Tensor]]]
    steps: int
    loss: Callable[[Any, Tensor, float], Tensor]
    measure: Callable[[NetworkT], tuple[float, float]]
    metric: str


@dataclass(frozen=True, slots=True)
class EpochLog:
    """Result of an epoch: its number from 1, mean training loss, validation and held-out metric."""

    epoch: int
    loss: float
    validation: float
    held_out: float
    best: bool


def pick_device(device: Device) -> torch.device:
    """Return the device to train on; ``auto`` is CUDA where it works.

    Raises:
        InvalidArgumentError: CUDA was requested and is not available.
    """
    if device not in get_args(Device):
        raise InvalidArgumentError(f"--device is auto, cpu or cuda; {device!r} is not")
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise InvalidArgumentError("--device cuda: torch finds no CUDA device; use auto or cpu")
    return torch.device("cuda" if available and device != "cpu" else "cpu")


class Run(Generic[NetworkT]):
    """One training run with its folder: a checkpoint, log.csv, and whatever the caller adds.

    Each epoch takes its randomness from (seed, epoch) alone, so a run that was killed and resumed ends like
    an uninterrupted one.

    Args:
        folder: Where the checkpoint and log.csv go.
        network: The network to train.
        spec: How to train.
        record: Configuration and data of the run, JSON values; a run resumes with the same only.
        device: Where to train.
        optimizer: Makes the optimizer, from ``trainer/loop/setup.py``.

    Attributes:
        average: The moving average of the network's weights: what is evaluated and kept.
    """

    def __init__(
        self,
        folder: Path,
        network: NetworkT,
        spec: TrainingSpec,
        *,
        record: Mapping[str, Any],
        device: torch.device,
        optimizer: Callable[[nn.Module, TrainingSpec], torch.optim.Optimizer] = adamw,
    ) -> None:
        self.folder = folder
        self.spec = spec
        self.record = dict(record)
        self.device = device
        self.network = network.to(device)
        self._averaged = AveragedModel(self.network, multi_avg_fn=_average(spec.averaging), use_buffers=True)
        self.optimizer = optimizer(self.network, spec)
        self._bfloat16 = spec.precision == "bfloat16" or (spec.precision == "auto" and device.type == "cuda")
        self._best: dict[str, Any] = {}
        self.history: list[tuple[float, float, float]] = []  # loss, validation and held-out metric by epoch
        self.step = 0
        self._written = -math.inf

    @property
    def average(self) -> NetworkT:
        """The averaged network."""
        return cast(NetworkT, self._averaged.module)

    @property
    def done(self) -> int:
        """Epochs finished so far."""
        return len(self.history)

    @classmethod
    def unfinished(cls, folder: Path) -> bool:
        """Whether a run in ``folder`` can be resumed."""
        return (folder / _CHECKPOINT).is_file()

    def resume(self) -> Self:
        """Load the checkpoint in the folder.

        Raises:
            TrainingError: no checkpoint, a damaged one, or one of another configuration or data.
        """
        state = load_checkpoint(self.folder / _CHECKPOINT)
        if state.get("record") != self.record:
            raise TrainingError(
                f"a run resumes with the options and data it began with, {printable(str(self.folder))} had "
                f"{', '.join(_changes(state.get('record', {}), self.record))}; give the same, or remove that "
                "folder to start again"
            )
        try:
            self.network.load_state_dict(state["network"])
            self._averaged.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.history = [tuple(row) for row in state["history"]]
            self._best, self.step = state["best"], state["step"]
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise TrainingError(
                f"another version of lookalike wrote {printable(str(self.folder / _CHECKPOINT))} "
                f"({one_line(error)[:200]}); remove its folder to start again"
            ) from error
        return self

    def fit(
        self, objective: Objective[NetworkT], *, on_step: Callable[[float], None] = lambda _: None
    ) -> Iterator[EpochLog]:
        """Train to the last epoch, yielding the result of each.

        The checkpoint is written after an epoch if the last one is 15 seconds old, and after the last epoch.

        Args:
            objective: The task.
            on_step: Called with each batch's loss.

        Raises:
            TrainingError: the loss is no longer finite.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        total = objective.steps * self.spec.epochs
        averaging = min(self.spec.averaging, max(0.0, 1 - _MIN_AVERAGING_SPANS / total))
        self._averaged.multi_avg_fn = _average(averaging)
        while self.done < self.spec.epochs:
            torch.manual_seed(_seed_of(self.spec.seed, self.done))  # for dropout and samples
            losses = []
            for inputs, target in objective.batches(self.done):
                losses.append(self._train_step(inputs, target, objective))
                on_step(losses[-1])
            validation, held_out = objective.measure(self.average)
            best = not any(validation <= earlier for _, earlier, _ in self.history)  # of NaNs the last
            if best:
                self._best = copy.deepcopy(self.average.state_dict())
            self.history.append((float(np.mean(losses)), validation, held_out))
            if self.done == self.spec.epochs or time.monotonic() - self._written > _WRITE_EVERY:
                self._write(objective.metric)
            yield EpochLog(self.done, *self.history[-1], best)

    def take_best(self) -> NetworkT:
        """Return the averaged network of the best epoch, on the CPU, for evaluation."""
        network = self.average
        network.load_state_dict(self._best)
        return network.cpu().eval()

    @classmethod
    def finish(cls, folder: Path) -> None:
        """Remove the checkpoints in ``folder`` and in its subfolders; the logs stay."""
        for leftover in (folder / _CHECKPOINT, *folder.glob(f"*/{_CHECKPOINT}")):
            leftover.unlink(missing_ok=True)

    def _train_step(
        self, inputs: Tensor | tuple[Tensor, ...], target: Tensor, objective: Objective[NetworkT]
    ) -> float:
        total = objective.steps * self.spec.epochs
        for group in self.optimizer.param_groups:
            group["lr"] = self.spec.learning_rate * schedule(self.step, total, warmup=self.spec.warmup)
        self.network.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bfloat16):
            args = inputs if isinstance(inputs, tuple) else (inputs,)
            outputs = self.network(*(each.to(self.device) for each in args))
        loss = objective.loss(_as_float32(outputs), target.to(self.device), self.step / total)
        value = loss.item()
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss must stay finite, it is {value} at step {self.step}; lower --learning-rate "
                "and train again"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.optimizer.step()
        self._averaged.update_parameters(self.network)
        self.step += 1
        return value

    def _write(self, metric: str) -> None:
        with (self.folder / "log.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["epoch", "loss", f"validation_{metric}", f"held_out_{metric}"])
            writer.writerows((epoch, *row) for epoch, row in enumerate(self.history, start=1))
        save_checkpoint(
            self.folder / _CHECKPOINT,
            {
                "record": self.record,
                "network": self.network.state_dict(),
                "average": self._averaged.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "best": self._best,
                "history": [list(row) for row in self.history],
                "step": self.step,
            },
        )
        self._written = time.monotonic()


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """List the values that differ: the recorded one and, in brackets, the one given now."""
    changes = []
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            changes += _changes(old, new)
        elif old != new:
            changes.append(f"{key} {str(old)[:16]} (now {str(new)[:16]})")
    return changes


def _as_float32(outputs: Any) -> Any:
    """Convert outputs that autocast left in bfloat16; a named tuple keeps its type."""
    if isinstance(outputs, tuple):
        return type(outputs)(*map(_as_float32, outputs))
    return outputs.float() if isinstance(outputs, Tensor) and outputs.is_floating_point() else outputs


def _average(decay: float) -> Any:
    """Return the update of the moving average; the decay is lower in the first steps, to forget the start."""

    def update(averaged: Any, current: Any, count: Any) -> None:
        steps = int(count)
        ema = get_ema_multi_avg_fn(min(decay, (1 + steps) / (10 + steps)))  # type: ignore[no-untyped-call]  # torch's
        ema(averaged, current, count)

    return update


def _seed_of(seed: int, epoch: int) -> int:
    return int(np.random.default_rng((seed, epoch, 1)).integers(2**62))


def schedule(step: int, total: int, *, warmup: int) -> float:
    """Return the share of the peak learning rate: linear from 0 over ``warmup``, then a half cosine to 0."""
    warmup = min(warmup, total // 4)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


_LINES: Final = 30
"""About this many epochs get a line of text; log.csv has them all."""


def run_epochs(
    run: Run[NetworkT],
    objective: Objective[NetworkT],
    *,
    metric: str,
    log: Callable[[str], None],
    on_epoch: Callable[[EpochLog], None] = lambda _: None,
) -> NetworkT:
    """Train to the last epoch, report progress, and return the network of the best epoch.

    Args:
        run: The run.
        objective: The task.
        metric: Format of the metric, as ``{:.2f} dB``.
        log: Called with each line of text.
        on_epoch: Called with the result of each epoch.
    """
    began, epochs = time.monotonic(), run.spec.epochs
    every = max(1, epochs // _LINES)
    total = objective.steps * epochs
    with tqdm(total=total, initial=run.step, unit="step", disable=None, leave=False) as bar:

        def on_step(loss: float) -> None:
            bar.set_postfix(loss=f"{loss:.5f}", refresh=False)
            bar.update()

        for result in run.fit(objective, on_step=on_step):
            if result.epoch % every == 0 or result.epoch in (1, epochs):
                held_out = (
                    "" if math.isnan(result.held_out) else f"held-out {metric.format(result.held_out)}  "
                )
                log(
                    f"epoch {result.epoch}/{epochs}  loss {result.loss:.5f}  "
                    f"validation {metric.format(result.validation)}  {held_out}"
                    f"{time.monotonic() - began:.0f} s{'  best' if result.best else ''}"
                )
            on_epoch(result)
    return run.take_best()
