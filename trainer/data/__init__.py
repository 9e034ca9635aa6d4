"""Training data: data sets, splits, batches, augmentation and noise."""

from lookalike.trainer.data.augment import AugmentConfig, augment
from lookalike.trainer.data.dataset import (
    EVAL_BATCH,
    Dataset,
    Pixels,
    Split,
    batches,
    chunked,
    default_shape,
    labelled_batches,
    open_dataset,
    read_pixel_cache,
    subsample,
    to_floats,
)
from lookalike.trainer.data.labels import by_attribute, by_subfolder
from lookalike.trainer.data.noise import add_noise, make_noisy
from lookalike.trainer.data.patches import Source, noisy_batches, photographs, sources_of, views_of

__all__ = [
    "EVAL_BATCH",
    "AugmentConfig",
    "Dataset",
    "Pixels",
    "Source",
    "Split",
    "add_noise",
    "augment",
    "batches",
    "by_attribute",
    "by_subfolder",
    "chunked",
    "default_shape",
    "labelled_batches",
    "make_noisy",
    "noisy_batches",
    "open_dataset",
    "photographs",
    "read_pixel_cache",
    "sources_of",
    "subsample",
    "to_floats",
    "views_of",
]
