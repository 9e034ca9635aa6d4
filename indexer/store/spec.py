"""What a collection remembers about itself, and which names are allowed."""

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
        model_id: Digest of the model whose embeddings it holds.
        model_name: Shipped name or folder that opens the model again.
        dimension: D, the length of every vector.
        crop: How its images are framed, as ``lookalike.encoder.images.preprocess.Crop`` writes it.
        metric: Always ``cosine``: embeddings have unit length.
        roots: Root name -> folder that item paths are relative to.
        format: Version of this record's format.
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
            StoreError: it is not such a record, or of a later version; the message names ``where``.
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
        """Whether values read from outside have their declared types."""
        texts = (self.model_id, self.model_name, self.crop, *self.roots, *self.roots.values())
        return (
            all(isinstance(text, str) for text in texts)
            and type(self.dimension) is int
            and self.dimension > 0
            and self.metric == "cosine"
        )

    def same_embedding(self, other: CollectionSpec) -> bool:
        """Whether vectors of both are comparable: the same model, dimension and crop."""
        return (self.model_id, self.dimension, self.crop) == (other.model_id, other.dimension, other.crop)

    def check_model(self, name: str, *, model_id: str, crop: str) -> None:
        """Check that a model is the one whose vectors this collection holds.

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
        """Check that a new spec does not change what the stored vectors mean.

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
    """Whether ``name`` is allowed for a collection (so it stays inside a folder or URL)."""
    return _NAME.fullmatch(name) is not None


def check_name(name: str) -> str:
    """Return ``name`` when it is allowed for a collection in every store.

    Raises:
        InvalidArgumentError: it is not (1 to 64 of A-Z a-z 0-9 . _ -, a letter or digit first).
    """
    if not is_name(name):
        raise InvalidArgumentError(
            f"a collection name is 1 to 64 letters, digits, '.', '_' or '-', a letter or digit first; "
            f"{name!r} is not"
        )
    return name
