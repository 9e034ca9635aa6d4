"""Progress of a run: a bar on a terminal, and a line of text now and then."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

from tqdm import tqdm

from lookalike.trainer.loop.loop import EpochLog, NetworkT, Objective, Run

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
