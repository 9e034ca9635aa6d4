"""What a collection remembers about itself, and how it may be called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, Self

from lookalike.encoder.errors import InvalidArgumentError, ModelMismatchError, StoreError

SPEC_FORMAT: Final = 1
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, kw_only=True, slots=True)
class CollectionSpec:
    """What a collection remembers about itself.

    Attributes:
        model_id: Digest of the one model whose embeddings it holds.
        model_name: Shipped name or folder that opens that model again.
        dimension: D, the length of every vector.
        crop: How its pictures were framed, as ``lookalike.encoder.images.preprocess.Crop`` writes it.
        metric: Always ``cosine``: embeddings have unit length.
        roots: Root name -> folder that item paths are relative to.
        format: Version of this record.
    """

    model_id: str
    model_name: str
    dimension: int
    crop: str
    metric: Literal["cosine"] = "cosine"
    roots: Mapping[str, str] = field(default_factory=dict)
    format: int = SPEC_FORMAT

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON values that :meth:`from_json` reads back equal."""
        return asdict(self) | {"roots": dict(self.roots)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], *, where: str) -> Self:
        """Read what :meth:`to_json` wrote.

        Raises:
            StoreError: it is no such record, or a later version's; the message names ``where``.
        """
        version = value.get("format")
        if isinstance(version, int) and version > SPEC_FORMAT:
            raise StoreError(
                f"{where} was written by a later lookalike (format {version}); upgrade to read it"
            )
        try:
            spec = cls(**value)
        except TypeError:
            spec = None
        if spec is None or not spec._typed():
            raise StoreError(f"{where} is not a lookalike collection; index into another name")
        return spec

    def _typed(self) -> bool:
        """Whether the values read from outside have the types they are declared with."""
        texts = (self.model_id, self.model_name, self.crop, *self.roots, *self.roots.values())
        return (
            all(isinstance(text, str) for text in texts)
            and type(self.dimension) is int
            and self.dimension > 0
            and self.metric == "cosine"
        )

    def check_model(self, name: str, *, model_id: str, crop: str) -> None:
        """Refuse any model but the one that made this collection, also one of the same dimension.

        Raises:
            ModelMismatchError: another model, or the same one with another crop.
        """
        if model_id != self.model_id:
            raise ModelMismatchError(
                f"collection {name!r} holds vectors of model {self.model_name} ({self.model_id[:12]}), "
                f"this one is {model_id[:12]}; use that model or index into another collection"
            )
        if crop != self.crop:
            raise ModelMismatchError(
                f"collection {name!r} was indexed with --crop {self.crop}, this run uses {crop}; "
                f"pass --crop {self.crop} or index into another collection"
            )

    def check_successor(self, name: str, new: CollectionSpec) -> None:
        """Refuse a record that would make the stored vectors mean something else.

        Raises:
            ModelMismatchError: model_id, dimension, crop or metric differ.
        """
        self.check_model(name, model_id=new.model_id, crop=new.crop)
        if (new.dimension, new.metric) != (self.dimension, self.metric):
            raise ModelMismatchError(
                f"collection {name!r} has {self.dimension} dimensions and metric {self.metric}, not "
                f"{new.dimension} and {new.metric}; index into another collection"
            )


def is_name(name: str) -> bool:
    """Whether ``name`` can name a collection (and so neither leave a folder nor a URL)."""
    return _NAME.fullmatch(name) is not None


def check_name(name: str) -> str:
    """Return ``name`` when it can name a collection in every store.

    Raises:
        InvalidArgumentError: it cannot (1 to 64 of A-Z a-z 0-9 . _ -, a letter or digit first).
    """
    if not is_name(name):
        raise InvalidArgumentError(
            f"a collection name is 1 to 64 letters, digits, '.', '_' or '-', a letter or digit first; "
            f"{name!r} is not"
        )
    return name
