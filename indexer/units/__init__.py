"""Units of work on many images, planned once and done by any number of processes and machines."""

from lookalike.indexer.units.folder import Folder, is_url
from lookalike.indexer.units.images import UnitImage, UnitImages
from lookalike.indexer.units.listing import Listing
from lookalike.indexer.units.plan import (
    PLAN,
    Plan,
    Settings,
    filter_from_json,
    filter_to_json,
    open_plan,
    read_plan,
    wait_for_plan,
)
from lookalike.indexer.units.ray_engine import run_on_ray
from lookalike.indexer.units.run import LocalRun, Run
from lookalike.indexer.units.status import UnitsStatus, finished_parts, read_manifest, units_status
from lookalike.indexer.units.unit import Done, Shard, Unit, UnitSize
from lookalike.indexer.units.work import UnitsReport, do_units

__all__ = [
    "PLAN",
    "Done",
    "Folder",
    "Listing",
    "LocalRun",
    "Plan",
    "Run",
    "Settings",
    "Shard",
    "Unit",
    "UnitImage",
    "UnitImages",
    "UnitSize",
    "UnitsReport",
    "UnitsStatus",
    "do_units",
    "filter_from_json",
    "filter_to_json",
    "finished_parts",
    "is_url",
    "open_plan",
    "read_manifest",
    "read_plan",
    "run_on_ray",
    "units_status",
    "wait_for_plan",
]
