"""Attributes that a picture can be given, asked for and read by: a direction in a model's latents each.

They lie in ``attributes.npz`` beside a bundle's files and are no part of the model: to fit them again changes
no vector, so ``model_id`` and what is indexed stay. Fitted by ``trainer/fitting/attributes.py``.

Legend: N images, D latent size, E embedding size, A attributes.
"""

from __future__ import annotations

import hashlib
import json
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.bundle.ood import count_of, real_of
from lookalike.encoder.bundle.storage import npz_bytes, read_npz
from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.text import printable

Floats = NDArray[np.float32]

ATTRIBUTES: Final = "attributes.npz"
"""May lie in a bundle's folder and is no part of the model."""
_FORMAT: Final = 1
_MOST: Final = 1000
_FORBIDDEN: Final = frozenset('.,=<>!~"')
"""What a name cannot hold, for it is written in conditions (``Smiling>0``) and names a payload field."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Attribute:
    """One attribute.

    Attributes:
        name: As people write it: ``Smiling``.
        direction: float32 (D,). Added to a latent, it raises what is read of it by one standard deviation.
        reading: float32 (E,). The inner product with an embedding, plus ``offset``, is the log-odds of the
            attribute: over 0 it is more likely there than not.
        offset: Of the reading.
        deviation: Standard deviation of what is read, over the pictures it was fitted to; over 0.
        positive: Pictures with the attribute that it was fitted to.
        negative: Pictures without it.
        auc: Area under the ROC of the reading on people left out of the fit; None where there were none.
        tested: Their pictures.
    """

    name: str
    direction: Floats
    reading: Floats
    offset: float
    deviation: float
    positive: int
    negative: int
    auc: float | None = None
    tested: int = 0

    def __post_init__(self) -> None:
        """Check that it can be.

        Raises:
            InvalidArgumentError: it cannot.
        """
        name = self.name
        if not name.strip() or name != name.strip() or not name.isprintable() or _FORBIDDEN & set(name):
            raise InvalidArgumentError(
                f"an attribute's name has none of . , = < > ! ~ \" in it, '{printable(name)}' has"
            )
        for what, array in (("direction", self.direction), ("reading", self.reading)):
            if array.dtype != np.float32 or array.ndim != 1 or not np.isfinite(array).all():
                raise InvalidArgumentError(
                    f"the {what} of {printable(name)} must be finite float32 of one dimension"
                )
        rules = {
            "deviation": np.isfinite(self.deviation) and self.deviation > 0,
            "offset": np.isfinite(self.offset),
            "positive": self.positive > 0,
            "negative": self.negative > 0,
            "tested": self.tested >= 0,
            "auc": self.auc is None or 0 <= self.auc <= 1,
        }
        for what, holds in rules.items():
            if not holds:
                raise InvalidArgumentError(
                    f"the {what} of {printable(name)} cannot be {getattr(self, what)!r}"
                )

    def read(self, embeddings: Floats) -> Floats:
        """Return the log-odds, float32 (N,), that embeddings float32 (N, E) of unit length have it."""
        odds: Floats = (embeddings @ self.reading + np.float32(self.offset)).astype(np.float32)
        return odds

    def to_json(self) -> dict[str, Any]:
        """Return JSON values: all but the arrays."""
        arrays = ("direction", "reading")
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in arrays}


@dataclass(frozen=True, eq=False, slots=True)
class Attributes:
    """The attributes of a model, at least one, by their names in order.

    Attributes:
        each: They; no two of one name.
    """

    each: tuple[Attribute, ...]

    def __post_init__(self) -> None:
        """Check that they fit each other.

        Raises:
            InvalidArgumentError: they do not.
        """
        if not 0 < len(set(self.names)) == len(self.each) <= _MOST:
            raise InvalidArgumentError(
                f"attributes are 1 to {_MOST}, each once, not {reprlib.repr(self.names)}"
            )
        if len({(len(one.direction), len(one.reading)) for one in self.each}) > 1:
            raise InvalidArgumentError(
                "the directions and the readings of attributes must have one length each"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Of all."""
        return tuple(one.name for one in self.each)

    def __getitem__(self, name: str) -> Attribute:
        """Return the attribute of this name.

        Raises:
            InvalidArgumentError: there is none.
        """
        for one in self.each:
            if one.name == name:
                return one
        raise InvalidArgumentError(f"no attribute '{printable(name)}'; the model has {', '.join(self.names)}")

    def change(self, strengths: Mapping[str, float]) -> Floats:
        """Return what is added to a latent, float32 (D,): an edit.

        Args:
            strengths: Name to standard deviations, which may be under 0.

        Raises:
            InvalidArgumentError: there is no such attribute, or a strength is not finite.
        """
        total = np.zeros(len(self.each[0].direction), np.float64)
        for name, strength in strengths.items():
            if not np.isfinite(strength):
                raise InvalidArgumentError(
                    f"a strength is a finite number, {printable(name)}={strength} has none"
                )
            total += strength * self[name].direction.astype(np.float64)
        return total.astype(np.float32)

    def check(self, *, latent: int, embedding: int) -> None:
        """Check that they fit a model.

        Raises:
            InvalidArgumentError: they do not.
        """
        got = len(self.each[0].direction), len(self.each[0].reading)
        if got != (latent, embedding):
            raise InvalidArgumentError(
                f"attributes of this model have {latent} and {embedding} numbers each, these {got}"
            )

    def joined(self, others: Attributes) -> Attributes:
        """Return these and others; of one name, the other's."""
        named = {one.name: one for one in (*self.each, *others.each)}
        return Attributes(tuple(named[name] for name in sorted(named)))

    def to_bytes(self, model_id: str) -> bytes:
        """Return ``attributes.npz``: what :meth:`from_bytes` reads back equal."""
        directions = np.stack([one.direction for one in self.each])
        readings = np.stack([one.reading for one in self.each])
        about = {
            "format": _FORMAT,
            "model_id": model_id,
            "attributes": [one.to_json() for one in self.each],
        }
        text = json.dumps(about, allow_nan=False, ensure_ascii=False, sort_keys=True)
        told = np.frombuffer(text.encode(), np.uint8)
        digest = np.frombuffer(_digest(told, directions, readings), np.uint8)
        return npz_bytes(about=told, directions=directions, readings=readings, sha256=digest)

    @classmethod
    def from_bytes(cls, data: bytes, *, model_id: str) -> Self:
        """Read ``attributes.npz`` of the model.

        Raises:
            ValueError: it does not hold the arrays.
            InvalidArgumentError: it is damaged, of a later format, or belongs to another model.
        """
        parts = read_npz(ATTRIBUTES, {ATTRIBUTES: data}, "about", "directions", "readings", "sha256")
        about, directions, readings, digest = parts
        if digest.tobytes() != _digest(about, directions, readings):
            raise InvalidArgumentError("it does not match its SHA-256")
        try:
            content = json.loads(about.tobytes())
            version, owner, told = content["format"], content["model_id"], list(content["attributes"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise InvalidArgumentError("it does not say what it holds") from error
        if version != _FORMAT:
            raise InvalidArgumentError(f"it has format {reprlib.repr(version)}, not {_FORMAT}")
        if owner != model_id:
            raise InvalidArgumentError(f"it belongs to model {str(owner)[:12]}, this one is {model_id[:12]}")
        if not directions.ndim == readings.ndim == 2 or not len(directions) == len(readings) == len(told):
            raise InvalidArgumentError("it does not hold two rows for each attribute")
        try:
            return cls(tuple(map(_attribute, told, directions, readings)))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidArgumentError(f"its values cannot be ({error})") from error


def _attribute(told: Mapping[str, Any], direction: Floats, reading: Floats) -> Attribute:
    return Attribute(
        name=str(told["name"]),
        direction=direction,
        reading=reading,
        offset=real_of(told["offset"]),
        deviation=real_of(told["deviation"]),
        positive=count_of(told["positive"]),
        negative=count_of(told["negative"]),
        auc=None if told["auc"] is None else real_of(told["auc"]),
        tested=count_of(told["tested"]),
    )


def _digest(*arrays: NDArray[Any]) -> bytes:
    """Return the SHA-256 of arrays, their types and shapes included."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()
