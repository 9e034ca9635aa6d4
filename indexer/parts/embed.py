"""Images to a folder of parts of latents, by as many processes and machines as there are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lookalike.encoder.detect import Framing
from lookalike.encoder.embed import keep_model
from lookalike.encoder.errors import DataError
from lookalike.encoder.runtime import Model
from lookalike.indexer.parts.embed_unit import EmbedJob
from lookalike.indexer.parts.settings import EmbedSettings
from lookalike.indexer.sources import SourceList
from lookalike.indexer.sync import check_faces, new_spec
from lookalike.indexer.units import PLAN, Folder, Listing, Plan, is_url, open_plan, read_plan


def make_plan(
    folder: Folder,
    model: Model,
    sources: SourceList,
    *,
    crop: Framing | None = None,
    max_pixels: int | None = None,
    overwrite: bool = False,
) -> Plan[EmbedSettings]:
    """Return the plan of a folder; it is written where there is none, or with ``overwrite``.

    Args:
        folder: The folder of parts.
        model: The model.
        sources: The images, without a table of payload.
        crop: How the images are framed, or which faces; None: the model's own crop.
        max_pixels: Larger images fail; None: the default limit.
        overwrite: List the sources again; parts whose unit has not changed stay.

    Raises:
        InvalidArgumentError: the folder has a plan with another model, crop, source or filter, or a source
            cannot be split into units.
        DataError: a source cannot be listed, or the folder not be written.
    """
    spec = new_spec(model.bundle, crop=crop)
    if spec.has_faces:
        check_faces(model.bundle)
    listing = Listing.of(sources)
    settings = EmbedSettings(replace(spec, roots=listing.roots), sources.filter, max_pixels)
    return open_plan(folder, settings, listing, overwrite=overwrite)


def embed_job(model: Model, plan: Plan[EmbedSettings]) -> EmbedJob:
    """Return what embeds the units of a plan, for :func:`lookalike.indexer.units.do_units`.

    The model is kept for the units of this process, and of those that are forked from it.
    """
    keep_model(model)
    return EmbedJob(plan.folder, plan.settings, model.bundle.address)


def is_parts(source: str) -> bool:
    """Whether a source of ``lookalike index`` is meant as a folder of parts: it has a plan, or is a URL."""
    return is_url(source) or (Path(source) / PLAN).is_file()


def require_plan(folder: Folder) -> Plan[EmbedSettings]:
    """Return the plan of a folder of parts.

    Raises:
        DataError: it has none.
    """
    plan = read_plan(folder, EmbedSettings)
    if plan is None:
        raise DataError(
            f"a folder of parts is written by lookalike embed SOURCE --out {folder}/, this one has no "
            f"{PLAN}; check the address"
        )
    return plan
