"""One unit to one part: what a worker process does, wherever it runs."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from lookalike.encoder.detect import parse_framing
from lookalike.encoder.embed import embed_files, worker_model
from lookalike.encoder.errors import one_line
from lookalike.indexer.parquet import ROWS, Rows, concatenate, regroup, rows_of, write_rows
from lookalike.indexer.parts.settings import EmbedSettings
from lookalike.indexer.sync import drop_degenerate
from lookalike.indexer.units import Done, Folder, Unit, UnitImages


@dataclass(frozen=True, slots=True)
class EmbedJob:
    """What all units of a run have in common; it can be pickled.

    Attributes:
        folder: The folder of parts.
        settings: As in the plan.
        model: Shipped name or folder of the model, on each machine that works.
    """

    folder: Folder
    settings: EmbedSettings
    model: str

    def __call__(self, task: tuple[str, Unit]) -> Done:
        """Embed the images of a unit and write its part.

        Nothing is written for a unit that cannot be read now and may be read later; the result says why.

        Raises:
            BundleError: the model is not on this machine, or is another one.
            DataError: the part cannot be written.
        """
        part, unit = task
        model = worker_model(self.model, self.settings.spec.model_id)
        spec = self.settings.spec
        images = UnitImages(unit, spec.roots[unit.root], self.settings.filter)
        crop = parse_framing(self.settings.spec.crop)
        stream = embed_files(model, iter(images), crop=crop, max_pixels=self.settings.max_pixels, threads=1)
        groups: list[Rows] = []
        try:
            with closing(stream):
                for batch in map(drop_degenerate, stream):
                    images.failed += [(each.name, reason) for each, reason in batch.failures]
                    keys = [(each.path, each.root, each.person) for each in batch.keys]
                    groups.append(rows_of(batch, keys))
        except OSError as error:  # it may be there again in an hour: no part says that it is done
            return Done(part, error=f"{images.where(unit.name)}: cannot be read ({one_line(error)[:300]})")
        rows = _without_repeated(groups)
        spec = replace(spec, roots={unit.root: spec.roots[unit.root]})  # others may come, go or move
        with self.folder.writing(part) as file:
            write_rows(file, spec, regroup(rows, count=ROWS), payload=spec.has_faces, failed=images.failed)
            size = file.tell()
        return Done(part, sum(len(some.entries) for some in rows), tuple(images.failed), size)


def _without_repeated(groups: Iterable[Rows]) -> list[Rows]:
    """Return the rows without those whose path comes again in a later group or row, as tar unpacks."""
    kept: list[Rows] = []
    seen: set[str] = set()
    for rows in reversed([*groups]):
        paths = [entry.path for entry in rows.entries]
        last = {path: place for place, path in enumerate(paths)}
        # Rows of one image that follow each other are its faces.
        keep = [
            path not in seen and all(other == path for other in paths[place : last[path]])
            for place, path in enumerate(paths)
        ]
        seen.update(last)
        kept.append(rows if all(keep) else rows.select(np.array(keep, np.bool_)))
    return [concatenate(kept[::-1])] if kept else []
