"""Latents of many images in a folder of parts, made and read by any number of processes and machines."""

from lookalike.indexer.parts.embed import PartsReport, embed_parts, make_plan, wait_for_plan
from lookalike.indexer.parts.folder import Folder, is_url
from lookalike.indexer.parts.load import LoadReport, load_parts
from lookalike.indexer.parts.plan import PLAN, Plan
from lookalike.indexer.parts.ray_engine import run_on_ray
from lookalike.indexer.parts.run import LocalRun, Run
from lookalike.indexer.parts.status import PartsStatus, is_parts, parts_status, require_plan
from lookalike.indexer.parts.unit import Shard

__all__ = [
    "PLAN",
    "Folder",
    "LoadReport",
    "LocalRun",
    "PartsReport",
    "PartsStatus",
    "Plan",
    "Run",
    "Shard",
    "embed_parts",
    "is_parts",
    "is_url",
    "load_parts",
    "make_plan",
    "parts_status",
    "require_plan",
    "run_on_ray",
    "wait_for_plan",
]
