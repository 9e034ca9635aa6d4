"""What decides on the content of a part of latents, beside its unit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar

from lookalike.encoder.errors import DataError, one_line, printable
from lookalike.indexer.parquet import LatentsFile
from lookalike.indexer.sources import SourceFilter
from lookalike.indexer.store import CollectionSpec
from lookalike.indexer.units import Done, Folder, UnitSize, filter_from_json, filter_to_json


@dataclass(frozen=True, slots=True)
class EmbedSettings:
    """See :class:`lookalike.indexer.units.Settings`.

    Attributes:
        spec: The model, crop and roots.
        filter: Which images are taken, without a table of payload.
        max_pixels: Larger images fail; None: the default limit.
    """

    command: ClassVar[str] = "lookalike embed"
    compares: ClassVar[str] = "model, --crop, source or filter"
    unit_size: ClassVar[UnitSize] = UnitSize()

    spec: CollectionSpec
    filter: SourceFilter = field(default_factory=SourceFilter)
    max_pixels: int | None = None

    @property
    def roots(self) -> Mapping[str, str]:
        """Root name to folder, path or URL."""
        return self.spec.roots

    def part_name(self, digest: bytes) -> str:
        """Return the file name of the part of a unit, by its digest."""
        spec = self.spec
        options = [spec.model_id, spec.crop, filter_to_json(self.filter), self.max_pixels]
        text = json.dumps(options).encode()
        return f"{blake2b(text + digest, digest_size=16).hexdigest()}.parquet"

    def read_part(self, folder: Folder, part: str) -> Done:
        """Return what became of a finished unit, as its part tells.

        Raises:
            DataError: the part cannot be read.
        """
        source = open_part(folder, part)
        size = source.size()
        with LatentsFile.open(Path(part), source) as opened:
            return Done(part, opened.count, tuple(opened.failed), size)

    def is_same(self, other: EmbedSettings) -> bool:
        """Whether a plan with these settings is one with the others; the model may be called otherwise."""
        renamed = replace(self, spec=replace(self.spec, model_name=other.spec.model_name))
        return renamed.to_json() == other.to_json()

    def to_json(self) -> dict[str, Any]:
        """Return JSON values that :meth:`from_json` reads back equal."""
        return {
            "spec": self.spec.to_json(),
            "filter": filter_to_json(self.filter),
            "max_pixels": self.max_pixels,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any], *, where: str) -> EmbedSettings:
        """Read what :meth:`to_json` wrote.

        Raises:
            StoreError: the spec is none; the message names ``where``.
            InvalidArgumentError, KeyError, TypeError: it is not such a record.
        """
        spec = CollectionSpec.from_json(value["spec"], where=where)
        return cls(spec, filter_from_json(value["filter"]), value["max_pixels"])


def open_part(folder: Folder, part: str) -> Any:
    """Open a part, as a ``pyarrow.NativeFile`` for :meth:`LatentsFile.open`.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return folder.open(part)
    except OSError as error:
        raise DataError(
            f"{printable(folder.join(part))} cannot be read ({one_line(error)[:300]}); run it again"
        ) from error
