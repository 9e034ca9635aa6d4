"""The loop. It knows neither the network nor what it is taught.

Legend: N images, B of them in a batch, C channels, H = W = S pixels.
"""

from __future__ import annotations

import copy
import csv
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lookalike.encoder.errors import InvalidArgumentError, TrainingError
from lookalike.encoder.text import one_line, printable
from lookalike.trainer.config import Device, TrainingSpec
from lookalike.trainer.loop import checkpoint
from lookalike.trainer.loop.optim import adamw

Images = NDArray[np.uint8]
_CHECKPOINT: Final = "checkpoint.pt"
_SPANS: Final = 5
"""A training is at least so many times as long as its average reaches back, or the start would be kept."""
_WRITE_EVERY: Final = 15.0
"""Seconds: so writing costs little however short an epoch is, and a kill little work."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Objective:
    """What a network is taught.

    Attributes:
        batches: Epoch, from 0, to its batches of inputs and targets, the same whenever they are drawn. An
            input is a tensor, or several that the network is called with.
        steps: Batches in an epoch.
        loss: Outputs, targets and the share of the training that is done, to a scalar. Outputs are what the
            network returns, a tensor or a named tuple of tensors, as float32.
        measure: Network to the figure of the validation and of the held-out people, higher is better; the
            first chooses the best checkpoint.
        figure: What it is called in log.csv.
    """

    batches: Callable[[int], Iterable[tuple[Tensor | tuple[Tensor, ...], Tensor]]]
    steps: int
    loss: Callable[[Any, Tensor, float], Tensor]
    measure: Callable[[nn.Module], tuple[float, float]]
    figure: str


@dataclass(frozen=True, slots=True)
class EpochLog:
    """What an epoch came to: number from 1, mean training loss, figure of validation and held-out people."""

    number: int
    loss: float
    validation: float
    held_out: float
    best: bool


def pick_device(asked: Device) -> torch.device:
    """Return the device to train on; ``auto`` takes CUDA where it works.

    Raises:
        InvalidArgumentError: CUDA was asked for and is not there.
    """
    if asked not in get_args(Device):
        raise InvalidArgumentError(f"--device is auto, cpu or cuda; {asked!r} is not")
    there = torch.cuda.is_available()
    if asked == "cuda" and not there:
        raise InvalidArgumentError(
            "--device cuda was asked for and torch finds no CUDA device; use auto or cpu"
        )
    return torch.device("cuda" if there and asked != "cpu" else "cpu")


class Run:
    """One training run with its folder: checkpoints, a CSV log, and whatever the caller adds.

    Each epoch draws its randomness from (seed, epoch) alone, so a run that was killed and resumed ends
    where an uninterrupted one ends.

    Args:
        optimizer: Makes what teaches the network, of ``trainer/loop/optim.py``.

    Attributes:
        folder: Where the checkpoints and log.csv are.
        average: The moving average of the network's weights: what is evaluated and kept.
    """

    def __init__(
        self,
        folder: Path,
        network: nn.Module,
        spec: TrainingSpec,
        *,
        device: torch.device,
        optimizer: Callable[[nn.Module, TrainingSpec], torch.optim.Optimizer] = adamw,
    ) -> None:
        self.folder = folder
        self.spec = spec
        self.device = device
        self.network = network.to(device)
        self.average = AveragedModel(self.network, multi_avg_fn=_average(spec.averaging), use_buffers=True)
        self.optimizer = optimizer(self.network, spec)
        self.half = spec.precision == "bfloat16" or (spec.precision == "auto" and device.type == "cuda")
        self.best: dict[str, Any] = {}
        self.history: list[tuple[float, float, float]] = []  # loss, validation and held-out figure by epoch
        self.step = 0
        self.written = -math.inf

    @property
    def done(self) -> int:
        """Epochs finished so far."""
        return len(self.history)

    @classmethod
    def unfinished(cls, folder: Path) -> bool:
        """Whether a run in ``folder`` can be resumed."""
        return (folder / _CHECKPOINT).is_file()

    def resume(self, identity: Mapping[str, Any]) -> Self:
        """Take up the state in the folder.

        Args:
            identity: What the run is (configuration, data); it must be what the folder's run was.

        Raises:
            TrainingError: no checkpoint, a damaged one, or one of another configuration or data.
        """
        state = checkpoint.load(self.folder / _CHECKPOINT)
        if state.get("identity") != dict(identity):
            raise TrainingError(
                f"a run resumes with the options and data it began with, {printable(str(self.folder))} had "
                f"{', '.join(_changes(state.get('identity', {}), identity))}; give the same, or remove that "
                "folder to start again"
            )
        try:
            self.network.load_state_dict(state["network"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.history = [tuple(row) for row in state["history"]]
            self.best, self.step = state["best"], state["step"]
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise TrainingError(
                f"another version of lookalike wrote {printable(str(self.folder / _CHECKPOINT))} "
                f"({one_line(error)[:200]}); remove its folder to start again"
            ) from error
        return self

    def fit(
        self,
        task: Objective,
        *,
        identity: Mapping[str, Any],
        on_step: Callable[[float], None] = lambda _: None,
    ) -> Iterator[EpochLog]:
        """Train to the last epoch, yielding each as it ends.

        The state is written after an epoch when the last writing is 15 seconds old, and after the last.

        Args:
            task: What to teach.
            identity: What :meth:`resume` must be given again.
            on_step: Called with each batch's loss.

        Raises:
            TrainingError: the loss is no longer finite.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        total = task.steps * self.spec.epochs
        self.average.multi_avg_fn = _average(min(self.spec.averaging, max(0.0, 1 - _SPANS / total)))
        while self.done < self.spec.epochs:
            torch.manual_seed(_seed_of(self.spec.seed, self.done))  # of dropout, where there is some
            losses = []
            for inputs, target in task.batches(self.done):
                losses.append(self._learn(inputs, target, task))
                on_step(losses[-1])
            validation, held_out = task.measure(self.average.module)
            best = not any(validation <= earlier for _, earlier, _ in self.history)  # of NaN the last
            if best:
                self.best = copy.deepcopy(self.average.module.state_dict())
            self.history.append((float(np.mean(losses)), validation, held_out))
            if self.done == self.spec.epochs or time.monotonic() - self.written > _WRITE_EVERY:
                self._write(identity, task.figure)
            yield EpochLog(self.done, *self.history[-1], best)

    def take_best(self) -> nn.Module:
        """Return the averaged network as it was at its best epoch, on the CPU, for evaluation."""
        self.average.module.load_state_dict(self.best)
        return self.average.module.cpu().eval()

    @classmethod
    def finish(cls, folder: Path) -> None:
        """Remove the checkpoints of the run in ``folder`` and of those in folders of it; the logs stay."""
        for left in (folder / _CHECKPOINT, *folder.glob(f"*/{_CHECKPOINT}")):
            left.unlink(missing_ok=True)

    def _learn(self, inputs: Tensor | tuple[Tensor, ...], target: Tensor, task: Objective) -> float:
        total = task.steps * self.spec.epochs
        for group in self.optimizer.param_groups:
            group["lr"] = self.spec.learning_rate * schedule(self.step, total, warmup=self.spec.warmup)
        self.network.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            given = inputs if isinstance(inputs, tuple) else (inputs,)
            back = self.network(*(each.to(self.device) for each in given))
        loss = task.loss(_as_floats(back), target.to(self.device), self.step / total)
        value = loss.item()
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss must stay finite, it is {value} at step {self.step}; lower --learning-rate "
                "and train again"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.optimizer.step()
        self.average.update_parameters(self.network)
        self.step += 1
        return value

    def _write(self, identity: Mapping[str, Any], figure: str) -> None:
        with (self.folder / "log.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["epoch", "loss", f"validation_{figure}", f"held_out_{figure}"])
            writer.writerows((number, *row) for number, row in enumerate(self.history, start=1))
        checkpoint.save(
            self.folder / _CHECKPOINT,
            {
                "identity": dict(identity),
                "network": self.network.state_dict(),
                "average": self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "best": self.best,
                "history": [list(row) for row in self.history],
                "step": self.step,
            },
        )
        self.written = time.monotonic()


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name each value that differs: the one recorded and, in brackets, the one given."""
    changes = []
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            changes += _changes(old, new)
        elif old != new:
            changes.append(f"{key} {str(old)[:16]} (now {str(new)[:16]})")
    return changes


def _as_floats(outputs: Any) -> Any:
    """Bring outputs that autocast left in bfloat16 to float32; a named tuple keeps its names."""
    if isinstance(outputs, tuple):
        return type(outputs)(*map(_as_floats, outputs))
    return outputs.float() if isinstance(outputs, Tensor) and outputs.is_floating_point() else outputs


def _average(decay: float) -> Any:
    """Return how the average goes on: in the first steps it forgets sooner, or the start would stay in it."""

    def update(averaged: Any, current: Any, count: Any) -> None:
        steps = int(count)
        step = get_ema_multi_avg_fn(min(decay, (1 + steps) / (10 + steps)))  # type: ignore[no-untyped-call]  # torch's
        step(averaged, current, count)

    return update


def _seed_of(seed: int, epoch: int) -> int:
    return int(np.random.default_rng((seed, epoch, 1)).integers(2**62))


def schedule(step: int, total: int, *, warmup: int) -> float:
    """Return the share of the peak learning rate: linear from 0 over ``warmup``, then a half cosine to 0."""
    warmup = min(warmup, total // 4)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
