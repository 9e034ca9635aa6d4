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
from lookalike.searcher.denoising.units import (
    LOG,
    DenoiseJob,
    DenoiseOptions,
    DenoiseSettings,
    keep_denoiser,
    plan_denoising,
)

__all__ = [
    "LOG",
    "AutoencoderDenoiser",
    "BatchReport",
    "Change",
    "DenoiseJob",
    "DenoiseOptions",
    "DenoiseSettings",
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
    "keep_denoiser",
    "make_file_denoiser",
    "open_file_denoiser",
    "plan_denoising",
    "resolve_destination",
    "uniform_map",
]
