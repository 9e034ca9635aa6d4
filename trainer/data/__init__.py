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
from lookalike.trainer.data.degradation import NoiseMix, noise_mix
from lookalike.trainer.data.labels import by_attribute, by_subfolder, subfolders_are_classes
from lookalike.trainer.data.noise import add_noise, make_noisy
from lookalike.trainer.data.patches import (
    Photographs,
    Source,
    noisy_batches,
    read_photographs,
    sample_photographs,
    sources_of,
    views_of,
)

__all__ = [
    "EVAL_BATCH",
    "AugmentConfig",
    "Dataset",
    "NoiseMix",
    "Photographs",
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
    "noise_mix",
    "noisy_batches",
    "open_dataset",
    "read_photographs",
    "read_pixel_cache",
    "sample_photographs",
    "sources_of",
    "subfolders_are_classes",
    "subsample",
    "to_floats",
    "views_of",
]
