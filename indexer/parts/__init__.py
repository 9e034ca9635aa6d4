"""Latents of many images in a folder of parts, one for each unit of work."""

from lookalike.indexer.parts.embed import embed_job, is_parts, make_plan, require_plan
from lookalike.indexer.parts.load import LoadReport, load_parts
from lookalike.indexer.parts.settings import EmbedSettings

__all__ = [
    "EmbedSettings",
    "LoadReport",
    "embed_job",
    "is_parts",
    "load_parts",
    "make_plan",
    "require_plan",
]
