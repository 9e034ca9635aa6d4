"""Attributes of images such as Smiling: an edit direction in latents and a probe on embeddings each.

They lie in ``attributes.npz`` in a bundle's folder and are not part of the model: fitting them again changes
no vector, so ``model_id`` and collections stay valid. Fitted by ``trainer/fitting/attributes.py``.

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

from lookalike.encoder.bundle.storage import ATTRIBUTES, json_float, json_int, npz_bytes, read_npz
from lookalike.encoder.errors import InvalidArgumentError, printable
from lookalike.encoder.files import parse_json

Floats = NDArray[np.float32]

_FORMAT: Final = 2
_MAX_ATTRIBUTES: Final = 1000
_FORBIDDEN: Final = frozenset('.,=<>!~"')
"""Characters a name cannot hold: it is written in conditions (``Smiling>0``) and names a payload field."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Attribute:
    """One attribute.

    Attributes:
        name: As people write it: ``Smiling``.
        edit_direction: float32 (D,). Added to a latent, it raises the log-odds by one standard deviation.
        probe: float32 (E,). The inner product with an embedding, plus ``offset``, is the log-odds of the
            attribute: over 0 the image more likely has it than not.
        offset: Of the probe.
        deviation: Standard deviation of the log-odds over the images it was fitted to; over 0.
        positive: Number of images with the attribute that it was fitted to.
        negative: Number of images without it.
        auc: Area under the ROC of the probe on people left out of the fit; None where there were none.
        tested: Number of their images.
    """

    name: str
    edit_direction: Floats
    probe: Floats
    offset: float
    deviation: float
    positive: int
    negative: int
    auc: float | None = None
    tested: int = 0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InvalidArgumentError: One is invalid.
        """
        name = self.name
        if not name.strip() or name != name.strip() or not name.isprintable() or _FORBIDDEN & set(name):
            raise InvalidArgumentError(
                f"an attribute's name must not hold any of . , = < > ! ~ \", '{printable(name)}' does"
            )
        for what, array in (("edit direction", self.edit_direction), ("probe", self.probe)):
            if array.dtype != np.float32 or array.ndim != 1 or not np.isfinite(array).all():
                raise InvalidArgumentError(f"the {what} of {printable(name)} must be a finite float32 vector")
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
                raise InvalidArgumentError(f"invalid {what} of {printable(name)}: {getattr(self, what)!r}")

    def read(self, embeddings: Floats) -> Floats:
        """Return the log-odds, float32 (N,), of the attribute in embeddings float32 (N, E) of unit length."""
        odds: Floats = (embeddings @ self.probe + np.float32(self.offset)).astype(np.float32)
        return odds

    def to_json(self) -> dict[str, Any]:
        """Return JSON values: all but the arrays."""
        arrays = ("edit_direction", "probe")
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in arrays}


@dataclass(frozen=True, eq=False, slots=True)
class Attributes:
    """The attributes of a model, at least one.

    Attributes:
        each: Each with a name of its own.
    """

    each: tuple[Attribute, ...]

    def __post_init__(self) -> None:
        """Check that they fit each other.

        Raises:
            InvalidArgumentError: They do not.
        """
        if not 0 < len(set(self.names)) == len(self.each) <= _MAX_ATTRIBUTES:
            raise InvalidArgumentError(
                f"a model has 1 to {_MAX_ATTRIBUTES} attributes, each name once, not "
                f"{reprlib.repr(self.names)}"
            )
        if len({(len(one.edit_direction), len(one.probe)) for one in self.each}) > 1:
            raise InvalidArgumentError("all edit directions must have one length, and all probes")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all attributes."""
        return tuple(one.name for one in self.each)

    def __getitem__(self, name: str) -> Attribute:
        """Return the attribute of this name.

        Raises:
            InvalidArgumentError: There is none.
        """
        for one in self.each:
            if one.name == name:
                return one
        raise InvalidArgumentError(f"no attribute '{printable(name)}'; the model has {', '.join(self.names)}")

    def change(self, strengths: Mapping[str, float]) -> Floats:
        """Return the edit to add to a latent, float32 (D,).

        Args:
            strengths: Name to standard deviations, may be negative.

        Raises:
            InvalidArgumentError: There is no such attribute, or a strength is not finite.
        """
        total = np.zeros(len(self.each[0].edit_direction), np.float64)
        for name, strength in strengths.items():
            if not np.isfinite(strength):
                raise InvalidArgumentError(
                    f"a strength must be a finite number, not {printable(name)}={strength}"
                )
            total += strength * self[name].edit_direction.astype(np.float64)
        return total.astype(np.float32)

    def check(self, *, latent: int, embedding: int) -> None:
        """Check that the lengths fit a model.

        Raises:
            InvalidArgumentError: They do not.
        """
        got = len(self.each[0].edit_direction), len(self.each[0].probe)
        if got != (latent, embedding):
            raise InvalidArgumentError(
                f"attributes of this model have {latent} and {embedding} dimensions, these have {got}"
            )

    def joined(self, others: Attributes) -> Attributes:
        """Return these and others; where both have a name, the other's."""
        named = {one.name: one for one in (*self.each, *others.each)}
        return Attributes(tuple(named[name] for name in sorted(named)))

    def to_bytes(self, model_id: str) -> bytes:
        """Return ``attributes.npz``: what :meth:`from_bytes` reads back equal."""
        directions = np.stack([one.edit_direction for one in self.each])
        probes = np.stack([one.probe for one in self.each])
        about = {
            "format": _FORMAT,
            "model_id": model_id,
            "attributes": [one.to_json() for one in self.each],
        }
        text = json.dumps(about, allow_nan=False, ensure_ascii=False, sort_keys=True)
        encoded = np.frombuffer(text.encode(), np.uint8)
        digest = np.frombuffer(_digest(encoded, directions, probes), np.uint8)
        return npz_bytes(about=encoded, edit_directions=directions, probes=probes, sha256=digest)

    @classmethod
    def from_bytes(cls, data: bytes, *, model_id: str) -> Self:
        """Read ``attributes.npz`` of the model.

        Raises:
            ValueError: It does not hold the arrays.
            InvalidArgumentError: It is damaged, of another format, or belongs to another model.
        """
        parts = read_npz(ATTRIBUTES, {ATTRIBUTES: data}, "about", "edit_directions", "probes", "sha256")
        about, directions, probes, digest = parts
        if digest.tobytes() != _digest(about, directions, probes):
            raise InvalidArgumentError("it does not match its SHA-256")
        try:
            content = parse_json(about.tobytes())
            version, owner, records = content["format"], content["model_id"], list(content["attributes"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise InvalidArgumentError("its description cannot be read") from error
        if version != _FORMAT:
            raise InvalidArgumentError(f"it has format {reprlib.repr(version)}, not {_FORMAT}")
        if owner != model_id:
            raise InvalidArgumentError(f"it belongs to model {str(owner)[:12]}, this one is {model_id[:12]}")
        if not directions.ndim == probes.ndim == 2 or not len(directions) == len(probes) == len(records):
            raise InvalidArgumentError("it does not hold two rows for each attribute")
        try:
            return cls(tuple(map(_attribute, records, directions, probes)))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidArgumentError(f"its values are invalid ({error})") from error


def _attribute(record: Mapping[str, Any], edit_direction: Floats, probe: Floats) -> Attribute:
    return Attribute(
        name=str(record["name"]),
        edit_direction=edit_direction,
        probe=probe,
        offset=json_float(record["offset"]),
        deviation=json_float(record["deviation"]),
        positive=json_int(record["positive"]),
        negative=json_int(record["negative"]),
        auc=None if record["auc"] is None else json_float(record["auc"]),
        tested=json_int(record["tested"]),
    )


def _digest(*arrays: NDArray[Any]) -> bytes:
    """Return the SHA-256 of arrays, their types and shapes included."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()
