"""The training loop: optimizers, checkpoints, progress, start and end of a run."""

from lookalike.trainer.loop.loop import EpochLog, Objective, Run, run_epochs
from lookalike.trainer.loop.optim import muon
from lookalike.trainer.loop.setup import RunInputs, prepare_run

__all__ = ["EpochLog", "Objective", "Run", "RunInputs", "muon", "prepare_run", "run_epochs"]
