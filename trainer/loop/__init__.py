"""The training loop: optimizers, checkpoints, progress, start and end of a run."""
