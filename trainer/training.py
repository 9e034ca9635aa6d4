"""The loop. It does not know the network.

Legend: N images, B of them in a batch, C channels, H = W = S pixels.
"""

from __future__ import annotations

import copy
import csv
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from encoder.errors import OptionError, TrainingError
from trainer import checkpoint
from trainer.batches import batches
from trainer.losses import mean_squared_error, psnr

__all__ = ["Device", "Epoch", "Precision", "Run", "TrainingSpec", "pick_device", "reconstruction_psnr"]

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "bfloat16"]
Images = NDArray[np.uint8]
_CHECKPOINT: Final = "checkpoint.pt"
_WRITE_EVERY: Final = 15.0
"""Seconds: so writing costs little however short an epoch is, and a kill little work."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSpec:
    """How to train. Saved in the bundle.

    Attributes:
        epochs: Passes over the training images; each pass shows an image or its mirror image.
        batch: B.
        learning_rate: Of AdamW at its peak; a linear warm-up, then a half cosine to zero.
        weight_decay: Of AdamW.
        warmup: Steps until the peak.
        averaging: Decay of the moving average of the weights that is evaluated and kept.
        shift: Each image is moved by up to this many pixels each way.
        noise: Highest deviation of the Gaussian noise on the input (of 1; the target stays clean); each
            image draws its own between zero and this.
        precision: Of the large products: ``auto`` is bfloat16 on CUDA and float32 on the CPU, where only
            processors with bfloat16 arithmetic (AVX512-BF16, AMX) gain from it, about 2.5 times.
        seed: Of everything random.
    """

    epochs: int = 150
    batch: int = 512
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    warmup: int = 200
    averaging: float = 0.998
    shift: int = 1
    noise: float = 0.0
    precision: Precision = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 2:
            raise OptionError(
                f"epochs must be at least 1 and the batch at least 2 (BatchNorm), "
                f"got {self.epochs} and {self.batch}"
            )

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Epoch:
    """What an epoch came to: number from 1, mean training loss, PSNR in dB of validation and held-out."""

    number: int
    loss: float
    validation: float
    held_out: float
    best: bool


def pick_device(asked: Device) -> torch.device:
    """Return the device to train on; ``auto`` takes CUDA where it works.

    Raises:
        OptionError: CUDA was asked for and is not there.
    """
    if asked not in get_args(Device):
        raise OptionError(f"--device is auto, cpu or cuda; {asked!r} is not")
    there = torch.cuda.is_available()
    if asked == "cuda" and not there:
        raise OptionError("--device cuda was asked for and torch finds no CUDA device; use auto or cpu")
    return torch.device("cuda" if there and asked != "cpu" else "cpu")


class Run:
    """One training run with its folder: checkpoints, a CSV log, and whatever the caller adds.

    Each epoch draws its randomness from (seed, epoch) alone, so a run that was killed and resumed ends
    where an uninterrupted one ends.

    Attributes:
        folder: Where the checkpoints and log.csv are.
        average: The moving average of the network's weights: what is evaluated and kept.
    """

    def __init__(self, folder: Path, network: nn.Module, spec: TrainingSpec, *, device: torch.device) -> None:
        self.folder = folder
        self.spec = spec
        self.device = device
        self.network = network.to(device)
        self.average = AveragedModel(
            self.network,
            multi_avg_fn=get_ema_multi_avg_fn(spec.averaging),  # type: ignore[no-untyped-call]  # torch leaves it untyped
            use_buffers=True,
        )
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=spec.learning_rate, weight_decay=spec.weight_decay
        )
        self.half = spec.precision == "bfloat16" or (spec.precision == "auto" and device.type == "cuda")
        self.best: dict[str, Any] = {}
        self.history: list[tuple[float, float, float]] = []  # loss, validation and held-out PSNR by epoch
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
        if state["identity"] != dict(identity):
            odd = sorted(key for key in identity if state["identity"].get(key) != identity[key]) or [
                "what is recorded"
            ]
            raise TrainingError(
                f"a run resumes with the options and data it began with, {', '.join(odd)} differ from "
                f"those of {self.folder}; give the same options, or remove that folder to start again"
            )
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history = [tuple(row) for row in state["history"]]
        self.best, self.step = state["best"], state["step"]
        return self

    def fit(
        self,
        images: Images,
        train: NDArray[np.int64],
        *,
        measure: Callable[[nn.Module], tuple[float, float]],
        identity: Mapping[str, Any],
        on_step: Callable[[float], None] = lambda _: None,
    ) -> Iterator[Epoch]:
        """Train to the last epoch, yielding each as it ends.

        The state is written after an epoch when the last writing is 15 seconds old, and after the last.

        Args:
            images: uint8 (N, S, S, C).
            train: Indices to train on.
            measure: Network to (validation, held-out) PSNR; the first chooses the best checkpoint.
            identity: What :meth:`resume` must be given again.
            on_step: Called with each batch's loss.

        Raises:
            TrainingError: the loss is no longer finite.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        steps = -(-len(train) // self.spec.batch)
        while self.done < self.spec.epochs:
            losses = []
            shown = batches(
                images,
                train,
                size=self.spec.batch,
                shift=self.spec.shift,
                noise=self.spec.noise,
                seed=self.spec.seed,
                epoch=self.done,
            )
            for image, target in shown:
                losses.append(self._learn(image, target, total=steps * self.spec.epochs))
                on_step(losses[-1])
            validation, held_out = measure(self.average.module)
            best = all(validation > earlier for _, earlier, _ in self.history)
            if best:
                self.best = copy.deepcopy(self.average.module.state_dict())
            self.history.append((float(np.mean(losses)), validation, held_out))
            if self.done == self.spec.epochs or time.monotonic() - self.written > _WRITE_EVERY:
                self._write(identity)
            yield Epoch(self.done, *self.history[-1], best)

    def take_best(self) -> nn.Module:
        """Return the averaged network as it was at its best epoch, on the CPU, for evaluation."""
        self.average.module.load_state_dict(self.best)
        return self.average.module.cpu().eval()

    def finish(self) -> None:
        """Remove the checkpoint; the log stays."""
        (self.folder / _CHECKPOINT).unlink(missing_ok=True)

    def _learn(self, image: Tensor, target: Tensor, *, total: int) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = self.spec.learning_rate * schedule(self.step, total, warmup=self.spec.warmup)
        self.network.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            back = self.network(image.to(self.device))
        loss = mean_squared_error(back.float(), target.to(self.device))
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

    def _write(self, identity: Mapping[str, Any]) -> None:
        with (self.folder / "log.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["epoch", "loss", "validation_psnr", "held_out_psnr"])
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


def schedule(step: int, total: int, *, warmup: int) -> float:
    """Return the share of the peak learning rate: linear from 0 over ``warmup``, then a half cosine to 0."""
    warmup = min(warmup, total // 4)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


@torch.no_grad()
def reconstruction_psnr(
    network: nn.Module, images: Images, indices: NDArray[np.int64], *, device: torch.device
) -> float:
    """Return the PSNR in dB of the mean squared error over ``images[indices]``, output clipped to [0, 1]."""
    network.eval()
    total = 0.0
    for rows in np.array_split(indices, -(-len(indices) // 1024)):
        batch = torch.from_numpy(images[rows]).permute(0, 3, 1, 2).to(device).float() / 255
        total += mean_squared_error(network(batch).clamp(0, 1), batch).item() * len(rows)
    return psnr(total / len(indices))
