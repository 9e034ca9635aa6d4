"""What people see of a run: a bar on a terminal, and a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from tqdm import tqdm

from lookalike.trainer.loop.loop import EpochLog, Objective, Run

_LINES: Final = 30
"""About so many epochs get a line for people; log.csv has them all."""


def run_epochs(
    run: Run,
    task: Objective,
    *,
    identity: Mapping[str, Any],
    written: str,
    say: Callable[[str], None],
) -> Iterator[EpochLog]:
    """Train to the last epoch and tell of it, yielding each epoch as it ends.

    Args:
        run: What is trained.
        task: What it is taught.
        identity: Of the run, for :meth:`Run.resume`.
        written: How the figure is written, as ``{:.2f} dB``.
        say: Takes a line for people.
    """
    began, epochs = time.monotonic(), run.spec.epochs
    every = max(1, epochs // _LINES)
    with _bar(run, task.steps) as on_step:
        for epoch in run.fit(task, identity=identity, on_step=on_step):
            if epoch.number % every == 0 or epoch.number in (1, epochs):
                say(
                    f"epoch {epoch.number}/{epochs}  loss {epoch.loss:.5f}  "
                    f"validation {written.format(epoch.validation)}  "
                    f"held-out {written.format(epoch.held_out)}  "
                    f"{time.monotonic() - began:.0f} s{'  best' if epoch.best else ''}"
                )
            yield epoch


@contextmanager
def _bar(run: Run, steps: int) -> Iterator[Callable[[float], None]]:
    total = steps * run.spec.epochs
    with tqdm(total=total, initial=run.step, unit="step", disable=None, leave=False) as bar:

        def on_step(loss: float) -> None:
            bar.set_postfix(loss=f"{loss:.5f}", refresh=False)
            bar.update()

        yield on_step
