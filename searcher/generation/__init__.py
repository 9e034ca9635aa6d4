"""Generating, interpolating and editing images."""

from lookalike.searcher.generation.edit import attributes_of, edit, edit_steps, parse_steps, parse_strengths
from lookalike.searcher.generation.sample import (
    MAX_IMAGES,
    Interpolation,
    Sampler,
    interpolate,
    most_likely_classes,
    read_all,
    reconstruct,
    sample,
    sample_classes,
    sample_latents,
)

__all__ = [
    "MAX_IMAGES",
    "Interpolation",
    "Sampler",
    "attributes_of",
    "edit",
    "edit_steps",
    "interpolate",
    "most_likely_classes",
    "parse_steps",
    "parse_strengths",
    "read_all",
    "reconstruct",
    "sample",
    "sample_classes",
    "sample_latents",
]
