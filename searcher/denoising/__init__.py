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
    Change,
    DenoisedFile,
    DenoisedPixels,
    FileDenoiser,
    UNetDenoiser,
    denoise_in_place,
    denoise_pixels,
    make_file_denoiser,
    open_file_denoiser,
)
from lookalike.searcher.denoising.noise_map import NoiseMap, estimate_noise, uniform_map
from lookalike.searcher.denoising.tiles import Workload

__all__ = [
    "AutoencoderDenoiser",
    "BatchReport",
    "Change",
    "DenoisedFile",
    "DenoisedPixels",
    "Destination",
    "FileDenoiser",
    "NoiseMap",
    "Outcome",
    "Task",
    "UNetDenoiser",
    "Workload",
    "check_tasks",
    "denoise_all",
    "denoise_in_place",
    "denoise_pixels",
    "estimate_noise",
    "find_tasks",
    "make_file_denoiser",
    "open_file_denoiser",
    "resolve_destination",
    "uniform_map",
]
