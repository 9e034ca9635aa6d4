"""Generating, interpolating and editing images."""

from lookalike.searcher.generation.edit import (
    attributes_of,
    edit,
    edit_photograph,
    edit_steps,
    editing_attributes,
    parse_steps,
    parse_strengths,
)
from lookalike.searcher.generation.inputs import InputFraming, cut_face, read_all, read_input
from lookalike.searcher.generation.sample import (
    MAX_IMAGES,
    Interpolation,
    Sampler,
    interpolate,
    most_likely_classes,
    reconstruct,
    sample,
    sample_classes,
    sample_latents,
)

__all__ = [
    "MAX_IMAGES",
    "InputFraming",
    "Interpolation",
    "Sampler",
    "attributes_of",
    "cut_face",
    "edit",
    "edit_photograph",
    "edit_steps",
    "editing_attributes",
    "interpolate",
    "most_likely_classes",
    "parse_steps",
    "parse_strengths",
    "read_all",
    "read_input",
    "reconstruct",
    "sample",
    "sample_classes",
    "sample_latents",
]
