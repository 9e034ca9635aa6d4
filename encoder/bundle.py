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
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from encoder.errors import BundleCorruptError, BundleNotFoundError, BundleTooNewError, OptionError
from encoder.images import ImageSpec

__all__ = ["FORMAT", "AffineMap", "Bundle", "BundleSpec", "Golden", "LatentStatistics", "shipped_bundles"]

FORMAT: Final = 1
Kind = Literal["ae", "vae", "cvae", "cleaner"]
Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class BundleSpec:
    """What ``bundle.json`` says of a model, the digests excepted.

    Attributes:
        kind: Which of the autoencoders it is; the rooms after the encoder never ask.
        image: How bytes become this model's pixels.
        latent: D.
        embedding: E, the length of the vectors that are compared.
        mirror: Whether an embedding averages the latents of the image and of its mirror image.
        opset: ONNX opset of the graphs.
        classes: Names of the classes it can be asked for; empty when it has none.
        metric: How embeddings are compared.
        training: Configuration, data fingerprint, seed and versions that made it.
        figures: What was measured on it, by name.
    """

    kind: Kind
    image: ImageSpec
    latent: int
    embedding: int
    mirror: bool
    opset: int
    classes: tuple[str, ...] = ()
    metric: Literal["cosine"] = "cosine"
    training: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values that :meth:`from_json` reads back equal."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return values | {"image": self.image.to_json(), "classes": list(self.classes)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_json` wrote.

        Raises:
            TypeError, ValueError, KeyError, OptionError: it is not that; the caller names the file.
        """
        if value["kind"] not in get_args(Kind):
            raise ValueError(f"kind {value['kind']!r}")
        known = {"image": ImageSpec.from_json(value["image"]), "classes": tuple(value["classes"])}
        return cls(**{**value, **known})


@dataclass(frozen=True, slots=True)
class LatentStatistics:
    """Mean float32 (D,) and covariance float32 (D, D) of the training latents, for sampling."""

    mean: Floats
    covariance: Floats

    @classmethod
    def of(cls, latents: Floats) -> Self:
        """Measure float32 (N, D) latents, N > 1."""
        covariance = np.cov(latents.astype(np.float64), rowvar=False).reshape(2 * (latents.shape[1],))
        return cls(latents.mean(axis=0, dtype=np.float64).astype(np.float32), covariance.astype(np.float32))


@dataclass(frozen=True, slots=True)
class AffineMap:
    """Latent to embedding: ``e = M (z - offset)`` scaled to unit length.

    Attributes:
        matrix: M, float32 (E, D).
        offset: float32 (D,).
    """

    matrix: Floats
    offset: Floats

    @classmethod
    def whitening(cls, statistics: LatentStatistics, *, keep: int | None = None) -> Self:
        """Rotate to the principal axes, keep the first ``keep``, give each unit variance.

        Axes whose variance is under a millionth of the largest carry rounding only and are dropped.
        (PCA whitening; Kessy, Lewin & Strimmer, The American Statistician 72, 2018.)
        """
        variance, axes = np.linalg.eigh(statistics.covariance.astype(np.float64))
        order = np.argsort(variance)[::-1][:keep]
        order = order[variance[order] > 1e-6 * variance.max()]
        matrix = (axes[:, order] / np.sqrt(variance[order])).T
        return cls(np.ascontiguousarray(matrix, dtype=np.float32), statistics.mean)

    def __call__(self, latents: Floats) -> Floats:
        """Map float32 (N, D) to float32 (N, E) of unit length; a latent at the offset stays zero."""
        mapped = (latents - self.offset) @ self.matrix.T
        length = np.linalg.norm(mapped, axis=1, keepdims=True)
        unit: Floats = np.divide(mapped, length, out=np.zeros_like(mapped), where=length > 0)
        return unit


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
    model_id: str
    spec: BundleSpec
    statistics: LatentStatistics
    affine: AffineMap
    golden: Golden
    graphs: tuple[str, ...]

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
        """
        if f"{name}.onnx" not in self.graphs:
            raise OptionError(f"model {self.name} has no {name}; it has {', '.join(self.graphs)}")
        return (self.folder / f"{name}.onnx").read_bytes()

    @classmethod
    def open(cls, where: str | os.PathLike[str]) -> Self:
        """Open a folder, or a shipped bundle by its name, and check every file against its digest.

        Raises:
            BundleNotFoundError: neither a folder nor a shipped name.
            BundleTooNewError: written by a later format.
            BundleCorruptError: a file is missing, changed or malformed.
        """
        folder = _locate(where)
        text = _read(folder / "bundle.json")
        try:
            content = json.loads(text)
            version = content["format"]
            if version > FORMAT:
                raise BundleTooNewError(
                    f"bundle {folder} has format {version}, this lookalike reads up to {FORMAT}; upgrade it"
                )
            digests = dict(content["files"])
            spec = BundleSpec.from_json(content["model"])
            intact = content.pop("model_id") == (model_id := _digest(content))
        except (ValueError, KeyError, TypeError, AttributeError, OptionError) as error:
            raise BundleCorruptError(_damaged(folder, f"bundle.json cannot be read ({error})")) from error
        if not intact:
            raise BundleCorruptError(_damaged(folder, "bundle.json does not match its model_id"))
        for name, digest in digests.items():
            if Path(name).name != name or hashlib.sha256(_read(folder / name)).hexdigest() != digest:
                raise BundleCorruptError(_damaged(folder, f"{name} does not match its SHA-256"))
        latents, golden = (_arrays(folder / name) for name in ("latents.npz", "golden.npz"))
        try:
            return cls(
                folder=folder,
                model_id=model_id,
                spec=spec,
                statistics=LatentStatistics(latents["mean"], latents["covariance"]),
                affine=AffineMap(latents["matrix"], latents["offset"]),
                golden=Golden(golden["pixels"], golden["latents"], golden["decoded"]),
                graphs=tuple(sorted(name for name in digests if name.endswith(".onnx"))),
            )
        except KeyError as error:
            raise BundleCorruptError(_damaged(folder, f"array {error} is missing")) from error

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
            OptionError: the folder holds something that is no bundle.
        """
        target = Path(folder).resolve()
        check_target(target)
        contents = {f"{name}.onnx": data for name, data in graphs.items()}
        contents["latents.npz"] = _npz(
            mean=statistics.mean,
            covariance=statistics.covariance,
            matrix=affine.matrix,
            offset=affine.offset,
        )
        contents["golden.npz"] = _npz(pixels=golden.pixels, latents=golden.latents, decoded=golden.decoded)
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(contents.items())}
        body = {"format": FORMAT, "model": spec.to_json(), "files": digests}
        body = json.loads(json.dumps(body))  # tuples become lists: the digest is over what a reader will see
        text = json.dumps({"model_id": _digest(body), **body}, indent=2, ensure_ascii=False) + "\n"
        contents["bundle.json"] = text.encode()
        _replace_folder(target, contents)
        return cls.open(target)


def check_target(target: Path) -> None:
    """Refuse to replace anything but a bundle.

    Raises:
        OptionError: something that is no bundle stands at ``target``.
    """
    if (
        target.exists()
        and not (target / "bundle.json").is_file()
        and (not target.is_dir() or any(target.iterdir()))
    ):
        raise OptionError(f"a bundle replaces only a bundle, {target} is something else; name another folder")


def shipped_bundles() -> dict[str, Path]:
    """Return the bundles that come with the package, name to folder."""
    shelf = Path(str(files("encoder") / "shipped"))
    return {path.parent.name: path.parent for path in sorted(shelf.glob("*/bundle.json"))}


def _locate(where: str | os.PathLike[str]) -> Path:
    folder = Path(where)
    if (folder / "bundle.json").is_file():
        return folder.resolve()
    shipped = shipped_bundles()
    if str(where) in shipped:
        return shipped[str(where)].resolve()
    names = ", ".join(shipped) or "none"
    if folder.is_dir():
        raise BundleNotFoundError(
            f"a model is a folder with a bundle.json, {folder} has none; shipped: {names}"
        )
    raise BundleNotFoundError(f"no model {str(where)!r}: no such folder and no shipped one; shipped: {names}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleCorruptError(
            _damaged(path.parent, f"{path.name} cannot be read ({error.strerror})")
        ) from error


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(io.BytesIO(_read(path)), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise BundleCorruptError(_damaged(path.parent, f"{path.name} holds no arrays ({error})")) from error


def _npz(**arrays: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON: sorted keys, no spaces, UTF-8."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _damaged(folder: Path, reason: str) -> str:
    return f"bundle {folder} is damaged: {reason}; fetch or export it again"


def _replace_folder(target: Path, contents: Mapping[str, bytes]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        for name, data in contents.items():
            (fresh / name).write_bytes(data)
        fresh.chmod(0o755)
        if target.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent))
            target.rename(old / target.name)
            fresh.rename(target)
            shutil.rmtree(old)
        else:
            fresh.rename(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
