"""A cleaner on disk: the bundle of a model that takes noise from pictures of any size.

::

    clean/
      bundle.json     as that of other bundles, with a DenoiserSpec for a model
      cleaner.onnx    pixels  float32 (N, H, W, 3) in [0, 1], sigma  float32 (N,)
                      ->  cleaned  float32 (N, H, W, 3), not clipped
      estimator.onnx  pixels  ->  sigma  float32 (N,)
      golden.npz      inputs and what they gave where the bundle was made

Grey pictures are three equal channels. It gives no latents, so nothing can be indexed, searched or drawn with
it.

Legend: N images, H, W height and width in pixels, sigma the deviation of the noise where white is 1 (25/255
is what people call "sigma 25").
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.bundle.manifest import DENOISER, RawManifest
from lookalike.encoder.bundle.registry import absolute_path, check_target, is_shipped, resolve_model
from lookalike.encoder.bundle.storage import (
    digests_of,
    npz_bytes,
    read_file,
    read_npz,
    read_verified,
    verify_digests,
    write_all,
)
from lookalike.encoder.errors import BundleCorruptError, BundleKindError, InvalidArgumentError
from lookalike.encoder.text import one_line, printable

_FORMAT: Final = 4
_MOST_MULTIPLE: Final = 256
_MOST_REACH: Final = 1024

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class DenoiserSpec:
    """What ``bundle.json`` says of a cleaner, the digests excepted.

    It takes pictures of any size, grey or RGB: sides are padded to a multiple, and cut again.

    Attributes:
        multiple: What H and W must be multiples of, 1..256.
        reach: How far away, in pixels, something can be that changes a cleaned pixel, 0..1024: tiles that
            overlap by this much show no seams.
        deviations: The least and the greatest sigma it was trained for, in [0, 1].
        clean_below: Estimated sigma below which a picture is as good as clean, in [0, 1].
        opset: ONNX opset of the graphs.
        kind: Always ``cleaner``.
        training: Configuration, data fingerprint, seed and versions that made it.
        figures: What was measured on it, by name.

    Raises:
        InvalidArgumentError: a value cannot be.
    """

    multiple: int
    reach: int
    deviations: tuple[float, float]
    clean_below: float
    opset: int
    kind: Literal["cleaner"] = "cleaner"
    training: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rules = {
            "kind": self.kind == "cleaner",
            "multiple": type(self.multiple) is int and 1 <= self.multiple <= _MOST_MULTIPLE,
            "reach": type(self.reach) is int and 0 <= self.reach <= _MOST_REACH,
            "deviations": _is_range(self.deviations),
            "clean_below": _is_deviation(self.clean_below),
            "opset": type(self.opset) is int and self.opset > 0,
            "training": isinstance(self.training, Mapping),
            "figures": isinstance(self.figures, Mapping),
        }
        for name, holds in rules.items():
            if not holds:
                raise InvalidArgumentError(
                    f"the {name} of a cleaner cannot be {printable(repr(getattr(self, name)))[:100]}"
                )

    def to_json(self) -> dict[str, Any]:
        """Return JSON values that :meth:`from_json` reads back equal."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return values | {"deviations": list(self.deviations)}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read what :meth:`to_json` wrote.

        Raises:
            InvalidArgumentError: a key is unknown or missing, or a value cannot be.
        """
        names = {f.name for f in fields(cls)}
        if not isinstance(value, dict) or set(value) != names:
            odd = printable(", ".join(sorted(set(value) ^ names))) if isinstance(value, dict) else "all"
            raise InvalidArgumentError(
                f"a cleaner is described by its {len(names)} keys; unknown or missing: {odd}"
            )
        deviations = value["deviations"]
        return cls(
            **{**value, "deviations": tuple(deviations) if isinstance(deviations, list) else deviations}
        )


@dataclass(frozen=True, slots=True)
class DenoiserGolden:
    """Inputs and what they gave where the bundle was made.

    Attributes:
        pixels: float32 (N, H, W, 3), H and W multiples of what the model wants.
        sigma: float32 (N,), what ``cleaned`` was told.
        cleaned: float32 (N, H, W, 3).
        estimated: float32 (N,), what the estimator said of ``pixels``.
    """

    pixels: Floats
    sigma: Floats
    cleaned: Floats
    estimated: Floats

    def to_npz(self) -> bytes:
        """Return ``golden.npz``."""
        return npz_bytes(**{f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def from_npz(cls, files: Mapping[str, bytes]) -> Self:
        """Read ``golden.npz`` of the files of a bundle.

        Raises:
            ValueError: it does not hold the arrays.
        """
        return cls(*read_npz("golden.npz", files, *(f.name for f in fields(cls))))

    def check(self, multiple: int) -> None:
        """Hold the arrays against each other and against what the model takes.

        Raises:
            InvalidArgumentError: they do not fit.
        """
        shape = self.pixels.shape
        if len(shape) != 4 or shape[3] != 3 or any(side % multiple for side in shape[1:3]):
            raise InvalidArgumentError(
                f"golden pixels must be (N, H, W, 3), H and W multiples of {multiple}, got {shape}"
            )
        for name, wanted in (
            ("pixels", shape),
            ("sigma", shape[:1]),
            ("cleaned", shape),
            ("estimated", shape[:1]),
        ):
            array = getattr(self, name)
            fits = array.dtype == np.float32 and array.shape == wanted and array.size
            if not fits or not np.isfinite(array).all():
                raise InvalidArgumentError(
                    f"golden {name} must be finite float32 {wanted}, got {array.dtype} {array.shape}"
                )


@dataclass(frozen=True, slots=True)
class DenoiserBundle:
    """An opened bundle of a cleaner: everything but the running graphs."""

    folder: Path
    model_id: str
    spec: DenoiserSpec
    digests: Mapping[str, str]
    golden: DenoiserGolden

    @property
    def name(self) -> str:
        """The folder's name: what people call the model."""
        return self.folder.name

    @property
    def address(self) -> str:
        """What opens it again: the name of a shipped bundle, else the folder."""
        return self.name if is_shipped(self.folder) else str(self.folder)

    def graph(self, name: str) -> bytes:
        """Return the ONNX bytes of ``cleaner`` or ``estimator``.

        Raises:
            BundleCorruptError: the file is no longer what it was when the bundle was opened.
        """
        return read_verified(self.folder, f"{name}.onnx", self.digests[f"{name}.onnx"])

    @classmethod
    def open(cls, where: str | os.PathLike[str]) -> Self:
        """Open a folder, or a shipped bundle by its name, and check every file against its digest.

        Raises:
            BundleNotFoundError: neither a folder nor a shipped name.
            BundleTooNewError: written by a later format.
            BundleKindError: it is no cleaner.
            BundleCorruptError: a file is missing, changed or malformed.
        """
        folder = resolve_model(where)
        try:
            sealed = RawManifest.read(read_file(folder, "bundle.json"), folder=folder)
            if not sealed.cleans:
                kind = sealed.model.get("kind") if isinstance(sealed.model, dict) else None
                raise BundleKindError(
                    f"model {printable(folder.name)} ({printable(str(kind))[:20]}) is no cleaner; "
                    "take one with --model"
                )
            spec, digests = DenoiserSpec.from_json(sealed.model), _checked(sealed.files)
            data = {name: verify_digests(folder, name, digest) for name, digest in digests.items()}
            golden = DenoiserGolden.from_npz(data)
            golden.check(spec.multiple)
            return cls(folder, sealed.model_id, spec, digests, golden)
        except (ValueError, InvalidArgumentError) as error:
            raise BundleCorruptError(
                f"bundle {printable(str(folder))} is damaged: {one_line(error)}; fetch or export it again"
            ) from error

    @classmethod
    def save(
        cls,
        folder: str | os.PathLike[str],
        *,
        spec: DenoiserSpec,
        graphs: Mapping[str, bytes],
        golden: DenoiserGolden,
    ) -> Self:
        """Write a bundle whole or not at all, and open it again.

        A bundle that stands there is replaced; anything else that stands there is left alone. To have the
        golden values made and the graphs tried: :func:`save_cleaner`.

        Args:
            folder: Where to.
            spec: What goes into bundle.json.
            graphs: ``cleaner`` and ``estimator`` to ONNX bytes.
            golden: Inputs and outputs.

        Raises:
            InvalidArgumentError: the parts do not fit each other, or the folder holds something that is no bundle.
            BundleError: the folder cannot be written.
        """
        target = absolute_path(folder)
        check_target(target)
        golden.check(spec.multiple)
        contents = {f"{name}.onnx": data for name, data in graphs.items()}
        contents["golden.npz"] = golden.to_npz()
        sealed, contents["bundle.json"] = RawManifest.of(
            spec.to_json(), digests_of(contents), version=_FORMAT
        )
        DenoiserSpec.from_json(sealed.model)
        _checked(sealed.files)
        return write_all(target, contents, lambda fresh: replace(cls.open(fresh), folder=target))


def _is_deviation(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and 0 <= value <= 1  # type: ignore[arg-type, operator]


def _is_range(value: object) -> bool:
    if not isinstance(value, tuple) or len(value) != 2:
        return False
    return all(map(_is_deviation, value)) and bool(value[0] <= value[1])


def _checked(digests: Any) -> dict[str, str]:
    if not isinstance(digests, dict) or set(digests) != DENOISER:
        got = printable(", ".join(sorted(digests))) if isinstance(digests, dict) else "something else"
        raise InvalidArgumentError(f"the files of a cleaner are {', '.join(sorted(DENOISER))}, not {got}")
    return digests
