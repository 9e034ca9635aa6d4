"""Public data sets: LFW, MNIST, sample faces, and the downloads they need."""

from lookalike.encoder.datasets.download import RemoteFile, cache_folder, fetch, only_one
from lookalike.encoder.datasets.lfw import LFW, find_lfw, person_from_folder, read_scores
from lookalike.encoder.datasets.mnist import CLASSES, MNIST, SIDE, SPLITS, Split, find_mnist
from lookalike.encoder.datasets.sample_faces import write_sample_faces
from lookalike.encoder.datasets.split import select, share_of, validation_people

__all__ = [
    "CLASSES",
    "LFW",
    "MNIST",
    "SIDE",
    "SPLITS",
    "RemoteFile",
    "Split",
    "cache_folder",
    "fetch",
    "find_lfw",
    "find_mnist",
    "only_one",
    "person_from_folder",
    "read_scores",
    "select",
    "share_of",
    "validation_people",
    "write_sample_faces",
]
