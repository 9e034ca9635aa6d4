"""A model on disk: a folder that any machine can open, check and trust.

::

    faces/
      bundle.json     what the model is, how it was made, its figures, SHA-256 of the files below, model_id
      encoder.onnx    pixels  uint8 (N, H, W, C)  ->  latent  float32 (N, D)
      decoder.onnx    latent  float32 (N, D)      ->  image   float32 (N, H, W, C) in [0, 1]
      latents.npz     mean, covariance of the training latents; matrix, offset of the map to embeddings
      golden.npz      inputs and what they gave where the bundle was made

Nothing in it is executable: JSON, ONNX, and arrays read with ``allow_pickle=False``.

Legend: N images, H = W = S pixels, C channels, D latent size, E embedding size.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from encoder.affine import AffineMap, LatentStatistics
from encoder.errors import BundleCorruptError, BundleError, BundleNotFoundError, OptionError
from encoder.images import shown
from encoder.manifest import FORMAT, KNOWN, BundleSpec, Manifest, one_line
from encoder.replacing import replacing

__all__ = [
    "FORMAT",
    "AffineMap",
    "Bundle",
    "BundleSpec",
    "Golden",
    "LatentStatistics",
    "check_target",
    "shipped_bundles",
]

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Golden:
    """Inputs and what they gave where the bundle was made: pictures the model drew itself.

    Attributes:
        pixels: uint8 (N, H, W, C).
        latents: float32 (N, D), of ``pixels``.
        decoded: float32 (N, H, W, C) in [0, 1], of ``latents``.
    """

    pixels: NDArray[np.uint8]
    latents: Floats
    decoded: Floats


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle: everything but the running graphs."""

    folder: Path
    manifest: Manifest
    statistics: LatentStatistics
    affine: AffineMap
    golden: Golden

    def __post_init__(self) -> None:
        """Check that the parts fit each other.

        Raises:
            OptionError: they do not.
        """
        latent, count, image = self.spec.latent, self.golden.pixels.shape[:1], self.spec.image.shape
        for name, array, dtype, shape in (
            ("mean", self.statistics.mean, np.float32, (latent,)),
            ("covariance", self.statistics.covariance, np.float32, (latent, latent)),
            ("matrix", self.affine.matrix, np.float32, (self.spec.embedding, latent)),
            ("offset", self.affine.offset, np.float32, (latent,)),
            ("golden pixels", self.golden.pixels, np.uint8, (*(count or (1,)), *image)),
            ("golden latents", self.golden.latents, np.float32, (*count, latent)),
            ("golden decoded", self.golden.decoded, np.float32, (*count, *image)),
        ):
            if array.dtype != dtype or array.shape != shape or not np.isfinite(array).all() or not array.size:
                raise OptionError(
                    f"{name} must be finite {np.dtype(dtype)} {shape}, got {array.dtype} {array.shape}"
                )

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
        shipped = shipped_bundles().get(self.name)
        return self.name if shipped is not None and shipped.resolve() == self.folder else str(self.folder)

    def graph(self, name: str) -> bytes:
        """Return the ONNX bytes of ``encoder`` or ``decoder``.

        Raises:
            OptionError: this model has no such graph.
            BundleCorruptError: the file is no longer what it was when the bundle was opened.
        """
        file = f"{name}.onnx"
        if file not in self.graphs:
            raise OptionError(f"model {self.name} has no {shown(name)}; it has {', '.join(self.graphs)}")
        try:
            return _intact(self.folder, file, self.manifest.digests[file])
        except ValueError as error:
            raise BundleCorruptError(
                f"bundle {shown(str(self.folder))} has changed since it was opened: {error}; open it again"
            ) from error

    @classmethod
    def open(cls, where: str | os.PathLike[str]) -> Self:
        """Open a folder, or a shipped bundle by its name, and check every file against its digest.

        Raises:
            BundleNotFoundError: neither a folder nor a shipped name.
            BundleTooNewError: written by a later format.
            BundleCorruptError: a file is missing, changed or malformed.
        """
        folder = _locate(where)
        try:
            manifest = Manifest.read(_read(folder, "bundle.json"), folder=folder)
            data = {name: _intact(folder, name, digest) for name, digest in manifest.digests.items()}
            mean, covariance, matrix, offset = _arrays(
                "latents.npz", data, "mean", "covariance", "matrix", "offset"
            )
            return cls(
                folder=folder,
                manifest=manifest,
                statistics=LatentStatistics(mean, covariance),
                affine=AffineMap(matrix, offset),
                golden=Golden(*_arrays("golden.npz", data, "pixels", "latents", "decoded")),
            )
        except (ValueError, OptionError) as error:
            raise BundleCorruptError(
                f"bundle {shown(str(folder))} is damaged: {one_line(error)}; fetch or export it again"
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

        Raises:
            OptionError: the parts do not fit each other, or the folder holds something that is no bundle.
            BundleError: the folder cannot be written.
        """
        target = _resolved(folder)
        check_target(target)
        contents = {f"{name}.onnx": data for name, data in graphs.items()}
        contents["latents.npz"] = _npz(
            mean=statistics.mean,
            covariance=statistics.covariance,
            matrix=affine.matrix,
            offset=affine.offset,
        )
        contents["golden.npz"] = _npz(pixels=golden.pixels, latents=golden.latents, decoded=golden.decoded)
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
        manifest, contents["bundle.json"] = Manifest.of(spec, digests)
        cls(folder=target, manifest=manifest, statistics=statistics, affine=affine, golden=golden)  # checks
        try:
            with replacing(target) as fresh:
                for name, data in contents.items():
                    (fresh / name).write_bytes(data)
                return replace(cls.open(fresh), folder=target)
        except OSError as error:
            raise BundleError(
                f"bundle {shown(str(target))} cannot be written ({error.strerror}); "
                "make room or name another folder"
            ) from error


def check_target(target: Path) -> None:
    """Refuse to replace anything but a bundle, also one to which something else was added.

    Raises:
        OptionError: something that is no bundle stands at ``target``.
    """
    try:
        inside = {path.name for path in target.iterdir()}
    except FileNotFoundError:
        return
    except OSError as error:
        raise OptionError(
            f"a bundle is a folder, {shown(str(target))} cannot be one ({error.strerror}); name another"
        ) from error
    odd = inside if "bundle.json" not in inside else inside - KNOWN - {"bundle.json"}
    if odd:
        raise OptionError(
            f"a bundle replaces only a bundle, {shown(str(target))} holds {shown(min(odd))} too; "
            "name another folder"
        )


def shipped_bundles() -> dict[str, Path]:
    """Return the bundles that come with the package, name to folder."""
    shelf = Path(str(files("encoder") / "shipped"))
    return {path.parent.name: path.parent for path in sorted(shelf.glob("*/bundle.json"))}


def _locate(where: str | os.PathLike[str]) -> Path:
    folder = Path(where)
    try:
        if (folder / "bundle.json").is_file():
            return folder.resolve()
        there = folder.is_dir()
    except OSError as error:
        raise BundleNotFoundError(f"model {shown(str(where))} cannot be opened ({error.strerror})") from error
    shipped = shipped_bundles()
    if str(where) in shipped:
        return shipped[str(where)].resolve()
    names = ", ".join(shipped) or "none"
    if there:
        raise BundleNotFoundError(
            f"a model is a folder with a bundle.json, {shown(str(where))} has none; shipped: {names}"
        )
    raise BundleNotFoundError(
        f"no model '{shown(str(where))}': no such folder and no shipped one; shipped: {names}"
    )


def _resolved(folder: str | os.PathLike[str]) -> Path:
    try:
        return Path(folder).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: links in a circle
        raise OptionError(f"no bundle can stand at {shown(str(folder))} ({one_line(error)})") from error


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise ValueError(f"{name} cannot be read ({error.strerror})") from error


def _intact(folder: Path, name: str, digest: object) -> bytes:
    data = _read(folder, name)
    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError(f"{name} does not match its SHA-256")
    return data


def _arrays(file: str, data: Mapping[str, bytes], *names: str) -> list[NDArray[Any]]:
    try:
        with np.load(io.BytesIO(data[file]), allow_pickle=False) as archive:
            return [np.asarray(archive[name]) for name in names]
    except Exception as error:  # zipfile, zlib, struct and numpy each raise their own
        raise ValueError(f"{file} does not hold the arrays {', '.join(names)} ({one_line(error)})") from error


def _npz(**arrays: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
