"""Denoising image files of any size, one by one and in batches."""

from lookalike.searcher.denoising.batch import (
    BatchReport,
    Destination,
    Outcome,
    Task,
    check_tasks,
    denoise_all,
    find_tasks,
    resolve_destination,
)
from lookalike.searcher.denoising.denoiser import (
    AutoencoderDenoiser,
    DenoisedFile,
    FileDenoiser,
    UNetDenoiser,
    denoise_in_place,
    estimate_sigma,
    make_file_denoiser,
    open_file_denoiser,
)

__all__ = [
    "AutoencoderDenoiser",
    "BatchReport",
    "DenoisedFile",
    "Destination",
    "FileDenoiser",
    "Outcome",
    "Task",
    "UNetDenoiser",
    "check_tasks",
    "denoise_all",
    "denoise_in_place",
    "estimate_sigma",
    "find_tasks",
    "make_file_denoiser",
    "open_file_denoiser",
    "resolve_destination",
]
