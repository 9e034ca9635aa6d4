"""Generating, interpolating and editing images."""

from lookalike.searcher.generation.edit import attributes_of, edit, edit_steps, parse_steps, parse_strengths
from lookalike.searcher.generation.sample import (
    MAX_IMAGES,
    Interpolation,
    Sampler,
    classes_of,
    interpolate,
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
    "classes_of",
    "edit",
    "edit_steps",
    "interpolate",
    "parse_steps",
    "parse_strengths",
    "read_all",
    "reconstruct",
    "sample",
    "sample_classes",
    "sample_latents",
]
