"""A model on disk: a folder that any machine can open, check and trust.

::

    faces/
      bundle.json     what the model is, how it was made, its figures, SHA-256 of the files below, model_id
      encoder.onnx    pixels  uint8 (N, H, W, C)  ->  latent  float32 (N, D)
      decoder.onnx    latent  float32 (N, D)      ->  image   float32 (N, H, W, C) in [0, 1]
      latents.npz     mean, covariance of the training latents; matrix, offset of the map to embeddings
      golden.npz      inputs and what they gave where the bundle was made
      sampling.npz    mixtures of Gaussians to draw pictures from; not there in every bundle
      calibration.json  what a score is worth; not there in every bundle, and no part of the model_id
      attributes.npz  directions to move and read Smiling and so on; likewise

A model that cannot draw (kind ``encoder``) has no decoder.onnx and no decoded golden pictures. A model that
cleans pictures has none of this but golden.npz: ``encoder/bundle/denoiser.py``. Nothing in a bundle
is executable: JSON, ONNX, and arrays read with ``allow_pickle=False``.

Legend: N images, H = W = S pixels, C channels, D latent size, E embedding size.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self, TypeVar

import numpy as np

from lookalike.encoder.bundle.attributes import ATTRIBUTES, Attributes
from lookalike.encoder.bundle.calibration import Calibration
from lookalike.encoder.bundle.latent_prior import LatentPrior
from lookalike.encoder.bundle.manifest import LATENT_PRIOR, BundleSpec, Manifest
from lookalike.encoder.bundle.registry import (
    CALIBRATION,
    SIDECARS,
    absolute_path,
    check_target,
    is_shipped,
    resolve_model,
)
from lookalike.encoder.bundle.storage import (
    Golden,
    check_writable,
    digests_of,
    npz_bytes,
    read_file,
    read_npz,
    read_verified,
    verify_digests,
    write_all,
)
from lookalike.encoder.bundle.whitening import AffineMap, LatentStatistics
from lookalike.encoder.errors import BundleCorruptError, InvalidArgumentError
from lookalike.encoder.files import atomic_write
from lookalike.encoder.text import one_line, printable

_Beside = TypeVar("_Beside")
_FITTED: Final = {CALIBRATION: "calibrate", ATTRIBUTES: "attributes fit"}


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle: everything but the running graphs.

    ``calibration``, ``sampling`` and ``attributes`` are None where nobody has fitted one.
    """

    folder: Path
    manifest: Manifest
    statistics: LatentStatistics
    affine: AffineMap
    golden: Golden
    calibration: Calibration | None = None
    sampling: LatentPrior | None = None
    attributes: Attributes | None = None

    def __post_init__(self) -> None:
        """Check that the parts fit each other.

        Raises:
            InvalidArgumentError: they do not.
        """
        latent, count, image = self.spec.latent, self.golden.pixels.shape[:1], self.spec.image.shape
        if self.golden.decoded is None and "decoder.onnx" in self.graphs:
            raise InvalidArgumentError("a model with a decoder must have golden decoded")
        for name, array, dtype, shape in (
            ("mean", self.statistics.mean, np.float32, (latent,)),
            ("covariance", self.statistics.covariance, np.float32, (latent, latent)),
            ("matrix", self.affine.matrix, np.float32, (self.spec.embedding, latent)),
            ("offset", self.affine.offset, np.float32, (latent,)),
            ("golden pixels", self.golden.pixels, np.uint8, (*(count or (1,)), *image)),
            ("golden latents", self.golden.latents, np.float32, (*count, latent)),
            ("golden decoded", self.golden.decoded, np.float32, (*count, *image)),
        ):
            if array is None:
                continue
            if array.dtype != dtype or array.shape != shape or not np.isfinite(array).all() or not array.size:
                raise InvalidArgumentError(
                    f"{name} must be finite {np.dtype(dtype)} {shape}, got {array.dtype} {array.shape}"
                )
        if self.attributes is not None:
            self.attributes.check(latent=latent, embedding=self.spec.embedding)
        if self.sampling is not None:
            self.sampling.check(drawn=self.spec.drawn, classes=len(self.spec.classes))

    @property
    def model_id(self) -> str:
        """SHA-256 over all of the bundle, 64 hex digits."""
        return self.manifest.model_id

    @property
    def spec(self) -> BundleSpec:
        """The description of the model."""
        return self.manifest.spec

    @property
    def graphs(self) -> tuple[str, ...]:
        """The names of its ONNX files."""
        return tuple(sorted(name for name in self.manifest.digests if name.endswith(".onnx")))

    @property
    def name(self) -> str:
        """The folder's name: what people call the model."""
        return self.folder.name

    @property
    def address(self) -> str:
        """What opens it again: the name of a shipped bundle, else the folder."""
        return self.name if is_shipped(self.folder) else str(self.folder)

    def graph(self, name: str) -> bytes:
        """Return the ONNX bytes of ``encoder`` or ``decoder``.

        Raises:
            InvalidArgumentError: this model has no such graph.
            BundleCorruptError: the file is no longer what it was when the bundle was opened.
        """
        file = f"{name}.onnx"
        if file not in self.graphs:
            only = "; it can search, not draw" if self.spec.kind == "encoder" else ""
            raise InvalidArgumentError(
                f"model {self.name} has no {printable(name)}; it has {', '.join(self.graphs)}{only}"
            )
        return self._intact(file)

    @classmethod
    def open(cls, where: str | os.PathLike[str]) -> Self:
        """Open a folder, or a shipped bundle by its name, and check every file against its digest.

        Raises:
            BundleNotFoundError: neither a folder nor a shipped name.
            BundleTooNewError: written by a later format.
            BundleKindError: it is a cleaner.
            BundleCorruptError: a file is missing, changed, malformed, or of another model.
        """
        folder = resolve_model(where)
        try:
            manifest = Manifest.read(read_file(folder, "bundle.json"), folder=folder)
            data = {name: verify_digests(folder, name, digest) for name, digest in manifest.digests.items()}
            mean, covariance, matrix, offset = read_npz(
                "latents.npz", data, "mean", "covariance", "matrix", "offset"
            )
            return cls(
                folder=folder,
                manifest=manifest,
                statistics=LatentStatistics(mean, covariance),
                affine=AffineMap(matrix, offset),
                golden=Golden.from_npz(data),
                calibration=_beside(folder, CALIBRATION, Calibration.from_bytes, manifest.model_id),
                sampling=LatentPrior.from_npz(data),
                attributes=_beside(folder, ATTRIBUTES, Attributes.from_bytes, manifest.model_id),
            )
        except (ValueError, InvalidArgumentError) as error:
            raise BundleCorruptError(
                f"bundle {printable(str(folder))} is damaged: {one_line(error)}; fetch or export it again"
            ) from error

    @classmethod
    def save(
        cls,
        folder: str | os.PathLike[str],
        *,
        spec: BundleSpec,
        graphs: Mapping[str, bytes],
        statistics: LatentStatistics,
        affine: AffineMap,
        golden: Golden,
        calibration: Calibration | None = None,
        sampling: LatentPrior | None = None,
    ) -> Self:
        """Write a bundle whole or not at all, and open it again.

        A bundle that stands there is replaced; anything else that stands there is left alone.

        Args:
            folder: Where to.
            spec: What goes into bundle.json.
            graphs: ``encoder`` and ``decoder`` to ONNX bytes.
            statistics: Of the training latents.
            affine: Latent to embedding.
            golden: Inputs and outputs.
            calibration: What a score of this model is worth.
            sampling: What its pictures are drawn from.

        Raises:
            InvalidArgumentError: the parts do not fit each other, or the folder holds something that is no bundle.
            BundleError: the folder cannot be written.
        """
        target = absolute_path(folder)
        check_target(target)
        contents = {f"{name}.onnx": data for name, data in graphs.items()}
        contents["latents.npz"] = npz_bytes(
            mean=statistics.mean,
            covariance=statistics.covariance,
            matrix=affine.matrix,
            offset=affine.offset,
        )
        contents["golden.npz"] = golden.to_npz()
        if sampling is not None:
            contents[LATENT_PRIOR] = sampling.to_npz()
        manifest, contents["bundle.json"] = Manifest.of(spec, digests_of(contents))
        cls(target, manifest, statistics, affine, golden, sampling=sampling)  # checks
        if calibration is not None:
            contents[CALIBRATION] = calibration.to_bytes(manifest.model_id)
        return cls._written(target, contents)

    def recalibrated(self, calibration: Calibration, folder: str | os.PathLike[str]) -> Self:
        """Write this bundle with another calibration, and open it: same files, same model_id.

        Into its own folder, only calibration.json is written.

        Raises:
            InvalidArgumentError: it is a shipped bundle's own folder, or holds something that is no bundle.
            BundleError: the folder cannot be written.
        """
        return self._with(CALIBRATION, calibration.to_bytes(self.model_id), folder)

    def with_attributes(self, attributes: Attributes, folder: str | os.PathLike[str]) -> Self:
        """Write this bundle with other attributes; as :meth:`recalibrated` does, and it raises.

        Raises:
            InvalidArgumentError: also when the attributes do not fit the model.
        """
        attributes.check(latent=self.spec.latent, embedding=self.spec.embedding)
        return self._with(ATTRIBUTES, attributes.to_bytes(self.model_id), folder)

    def _with(self, name: str, data: bytes, folder: str | os.PathLike[str]) -> Self:
        target = absolute_path(folder)
        if target != self.folder:
            check_target(target)
            contents = {file: self._intact(file) for file in self.manifest.digests}
            beside = [file for file in SIDECARS if os.path.lexists(self.folder / file)]
            contents |= {file: read_file(self.folder, file) for file in ("bundle.json", *beside)}
            return type(self)._written(target, contents | {name: data})
        if is_shipped(target):
            raise InvalidArgumentError(
                f"a shipped bundle stays as it is, {printable(self.name)} is one; name another folder with --out"
            )
        try:
            atomic_write(target / name, data)
        except OSError as error:
            raise check_writable(target, error) from error
        return type(self).open(target)

    @classmethod
    def _written(cls, target: Path, contents: Mapping[str, bytes]) -> Self:
        return write_all(target, contents, lambda fresh: replace(cls.open(fresh), folder=target))

    def _intact(self, name: str) -> bytes:
        return read_verified(self.folder, name, self.manifest.digests[name])


def _beside(folder: Path, name: str, read: Callable[..., _Beside], model_id: str) -> _Beside | None:
    if not os.path.lexists(folder / name):
        return None
    try:
        return read(read_file(folder, name), model_id=model_id)
    except (ValueError, InvalidArgumentError) as error:
        raise BundleCorruptError(
            f"bundle {printable(str(folder))} is damaged: {name}: {one_line(error)}; "
            f"remove that file, and fit it again with lookalike {_FITTED[name]}"
        ) from error
