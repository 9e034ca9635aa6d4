"""A model on disk: a folder that any machine can open, check and trust.

::

    faces/                                                            denoise/
      bundle.json       description, training, figures, digests, model_id
      golden.npz        reference inputs and outputs
      encoder.onnx      pixels  uint8 (N, H, W, C), whole  bool         denoiser.onnx    pixels, sigma
                        ->  latent  float32 (N, D)                                       ->  denoised pixels
      decoder.onnx      latent  float32 (N, D)                          estimator.onnx   pixels  ->  sigma
                        ->  image  float32 (N, H, W, C) in [0, 1]
      latents.npz       mean, covariance of the training latents; matrix, offset of the map to embeddings
      text.onnx         tokens, mask  int64 (N, T)
                        ->  latent  float32 (N, D); optional, with tokenizer.json of the library tokenizers
      sampling.npz      Gaussian mixtures to sample latents from; optional
      calibration.json  what a score means; optional, not part of the model_id
      calibration-faces.json  the same of faces that were found and turned upright; optional too
      attributes.npz    edit directions and probes of attributes; likewise

An encoder may take ``whole``, which may be left out: if it is false, the parts of the latent that embeddings
do not use are zero. A denoiser takes float32 (N, H, W, 3) in [0, 1] of any size and sigma float32 (N,),
returns float32 that is not clipped, and estimates sigma; gray images are given as three equal channels. An
imported ``encoder`` has no decoder.onnx. Nothing in a bundle is executable: JSON, ONNX, and arrays read with
``allow_pickle=False``.

Legend: N images, H = W = S pixels, C channels, D latent size, E embedding size.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self, TypeVar

import numpy as np

from lookalike.encoder.bundle.attributes import Attributes
from lookalike.encoder.bundle.calibration import Calibration
from lookalike.encoder.bundle.card import CARD
from lookalike.encoder.bundle.latent_space import AffineMap, LatentPrior, LatentStatistics
from lookalike.encoder.bundle.spec import (
    BUNDLE_FILES,
    LATENT_PRIOR,
    TOKENIZER,
    BundleSpec,
    DenoiserSpec,
    Manifest,
    Spec,
)
from lookalike.encoder.bundle.storage import (
    ATTRIBUTES,
    CALIBRATION,
    FACE_CALIBRATION,
    SIDECARS,
    Golden,
    absolute_path,
    check_array,
    digests_of,
    is_shipped,
    npz_bytes,
    read_file,
    read_golden,
    read_npz,
    read_verified,
    resolve_model,
    verify_digests,
    write_all,
    write_error,
)
from lookalike.encoder.detect import Frame
from lookalike.encoder.errors import (
    BundleCorruptError,
    BundleKindError,
    InvalidArgumentError,
    one_line,
    printable,
)
from lookalike.encoder.files import atomic_write

_Sidecar = TypeVar("_Sidecar")
_FITTED_BY: Final = {
    CALIBRATION: "calibrate",
    FACE_CALIBRATION: "calibrate --faces",
    ATTRIBUTES: "attributes fit",
}


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle of any kind: everything but the running graphs.

    Attributes:
        folder: Where it is.
        manifest: Content of ``bundle.json``.
        golden: Reference inputs and outputs by name.
        latent_map: Statistics of the training latents and the map to embeddings; None for a denoiser.
        calibration: None where none was fitted.
        face_calibration: The same, of faces found in photographs and turned upright.
        sampling: None where none was fitted.
        attributes: None where none were fitted.
    """

    folder: Path
    manifest: Manifest
    golden: Golden
    latent_map: tuple[LatentStatistics, AffineMap] | None = None
    calibration: Calibration | None = None
    sampling: LatentPrior | None = None
    attributes: Attributes | None = None
    face_calibration: Calibration | None = None

    def __post_init__(self) -> None:
        """Check that the parts fit each other.

        Raises:
            InvalidArgumentError: They do not.
        """
        self.manifest.spec.check_golden(self.golden, graphs=self.graphs)
        if self.is_denoiser:
            return
        latent, embedding = self.spec.latent, self.spec.embedding
        check_array("mean", self.statistics.mean, np.float32, (latent,))
        check_array("covariance", self.statistics.covariance, np.float32, (latent, latent))
        check_array("matrix", self.affine.matrix, np.float32, (embedding, latent))
        check_array("offset", self.affine.offset, np.float32, (latent,))
        if self.attributes is not None:
            self.attributes.check(latent=latent, embedding=embedding)
        if self.sampling is not None:
            self.sampling.check(prior_dim=self.spec.prior_dim, classes=len(self.spec.classes))

    @property
    def model_id(self) -> str:
        """SHA-256 over the whole bundle, 64 hex digits."""
        return self.manifest.model_id

    @property
    def is_denoiser(self) -> bool:
        """Whether it is a denoiser, which has no latents."""
        return isinstance(self.manifest.spec, DenoiserSpec)

    @property
    def spec(self) -> BundleSpec:
        """Description of a model that gives latents.

        Raises:
            BundleKindError: It is a denoiser.
        """
        if isinstance(self.manifest.spec, DenoiserSpec):
            raise BundleKindError(
                f"model {printable(self.name)} is a denoiser: it gives no latents to search or generate "
                "with; "
                "choose another --model, or use lookalike denoise"
            )
        return self.manifest.spec

    @property
    def denoiser_spec(self) -> DenoiserSpec:
        """Description of a denoiser.

        Raises:
            BundleKindError: It is another kind of model.
        """
        if isinstance(self.manifest.spec, BundleSpec):
            raise BundleKindError(
                f"model {printable(self.name)} ({self.manifest.spec.kind}) is not a denoiser; "
                "choose one with --model"
            )
        return self.manifest.spec

    @property
    def statistics(self) -> LatentStatistics:
        """Of the training latents; BundleKindError for a denoiser."""
        return self._latent_map()[0]

    @property
    def affine(self) -> AffineMap:
        """Latents to embeddings; BundleKindError for a denoiser."""
        return self._latent_map()[1]

    @property
    def face_frame(self) -> Frame:
        """Where the landmarks of a face lie in its input.

        Raises:
            InvalidArgumentError: That is not known.
        """
        if self.spec.frame is None:
            raise InvalidArgumentError(
                f"model {printable(self.name)} does not say where faces lie in its pictures, so none can be "
                "cut out for it; choose another --model, or import one with --frame"
            )
        return self.spec.frame

    def calibration_of(self, *, faces: bool) -> Calibration | None:
        """Return the calibration of faces found in photographs, or of pictures as they are."""
        return (self.face_calibration or self.calibration) if faces else self.calibration

    def _latent_map(self) -> tuple[LatentStatistics, AffineMap]:
        if self.latent_map is None:
            _ = self.spec  # raises for a denoiser
            raise InvalidArgumentError(
                "a model that gives latents must have statistics and a map to embeddings"
            )
        return self.latent_map

    @property
    def graphs(self) -> tuple[str, ...]:
        """The names of its graphs: ``encoder`` for encoder.onnx."""
        names = sorted(name for name in self.manifest.digests if name.endswith(".onnx"))
        return tuple(name.removesuffix(".onnx") for name in names)

    @property
    def name(self) -> str:
        """The folder's name: what people call the model."""
        return self.folder.name

    @property
    def address(self) -> str:
        """What opens it again: the name of a shipped bundle, else the folder."""
        return self.name if is_shipped(self.folder) else str(self.folder)

    @property
    def tokenizer(self) -> bytes:
        """The content of ``tokenizer.json``.

        Raises:
            InvalidArgumentError: The model has no text tower.
            BundleCorruptError: The file has changed since the bundle was opened.
        """
        if self.spec.text is None or TOKENIZER not in self.manifest.digests:
            raise InvalidArgumentError(
                f"model {printable(self.name)} takes no text, images only; use one with a text tower, for"
                " example that of lookalike models add clip-vit-b-32"
            )
        return self._read(TOKENIZER)

    def graph(self, name: str) -> bytes:
        """Return the ONNX bytes of a graph.

        Raises:
            InvalidArgumentError: The model has no such graph.
            BundleCorruptError: The file has changed since the bundle was opened.
        """
        if name not in self.graphs:
            hint = "; it can search, not generate" if self.graphs == ("encoder",) else ""
            raise InvalidArgumentError(
                f"model {self.name} has no {printable(name)}; it has {', '.join(self.graphs)}{hint}"
            )
        return self._read(f"{name}.onnx")

    @classmethod
    def open(cls, where: str | os.PathLike[str]) -> Self:
        """Open a folder, or a shipped bundle by its name, and check every file against its digest.

        Raises:
            BundleNotFoundError: Neither a folder nor a shipped name.
            BundleTooNewError: Written in a later format.
            BundleError: Written in an earlier format.
            BundleCorruptError: A file is missing, changed, malformed, or belongs to another model.
        """
        folder = resolve_model(where)
        try:
            manifest = Manifest.read(read_file(folder, "bundle.json"), folder=folder)
            data = verify_digests(folder, manifest.digests)
            golden = read_golden(data)
            if isinstance(manifest.spec, DenoiserSpec):
                return cls(folder, manifest, golden)
            mean, covariance, matrix, offset = read_npz(
                "latents.npz", data, "mean", "covariance", "matrix", "offset"
            )
            return cls(
                folder,
                manifest,
                golden,
                latent_map=(LatentStatistics(mean, covariance), AffineMap(matrix, offset)),
                calibration=_read_sidecar(folder, CALIBRATION, Calibration.from_bytes, manifest.model_id),
                sampling=LatentPrior.from_npz(data),
                attributes=_read_sidecar(folder, ATTRIBUTES, Attributes.from_bytes, manifest.model_id),
                face_calibration=_read_sidecar(
                    folder, FACE_CALIBRATION, Calibration.from_bytes, manifest.model_id
                ),
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
        spec: Spec,
        graphs: Mapping[str, bytes],
        golden: Golden,
        statistics: LatentStatistics | None = None,
        affine: AffineMap | None = None,
        calibration: Calibration | None = None,
        sampling: LatentPrior | None = None,
        tokenizer: bytes | None = None,
    ) -> Self:
        """Write a bundle whole or not at all, and open it again.

        An existing bundle is replaced; a folder that holds anything else is refused. A denoiser is saved with
        :func:`~lookalike.encoder.runtime.denoiser.save_denoiser`, which tries the graphs first.

        Args:
            folder: Where to.
            spec: Description, goes into bundle.json.
            graphs: Name of each graph to ONNX bytes.
            golden: Reference inputs and outputs by name.
            statistics: Of the training latents.
            affine: Latents to embeddings.
            calibration: What a score of this model means.
            sampling: What latents are sampled from besides N(0, I).
            tokenizer: Content of ``tokenizer.json``, for a graph ``text``.

        Raises:
            InvalidArgumentError: The parts do not fit each other, or the folder holds something else than a
                bundle.
            BundleError: The folder cannot be written.
        """
        target = absolute_path(folder)
        check_target(target)
        contents = {f"{name}.onnx": data for name, data in graphs.items()}
        latent_map = None
        if statistics is not None and affine is not None:
            latent_map = statistics, affine
            contents["latents.npz"] = npz_bytes(
                mean=statistics.mean,
                covariance=statistics.covariance,
                matrix=affine.matrix,
                offset=affine.offset,
            )
        contents["golden.npz"] = npz_bytes(**golden)
        if sampling is not None:
            contents[LATENT_PRIOR] = sampling.to_npz()
        if tokenizer is not None:
            contents[TOKENIZER] = tokenizer
        manifest, contents["bundle.json"] = Manifest.create(spec, digests_of(contents))
        cls(target, manifest, golden, latent_map, sampling=sampling)  # checks
        if calibration is not None:
            contents[CALIBRATION] = calibration.to_bytes(manifest.model_id)
        return cls._write(target, contents)

    def recalibrated(
        self, calibration: Calibration, folder: str | os.PathLike[str], *, faces: bool = False
    ) -> Self:
        """Write this bundle with another calibration, and open it: same files, same model_id.

        Into its own folder, only the calibration is written.

        Args:
            calibration: What a score means.
            folder: Where to.
            faces: Whether it is that of faces found in photographs.

        Raises:
            InvalidArgumentError: It is a shipped bundle's own folder, or holds something else than a bundle.
            BundleKindError: It is a denoiser.
            BundleError: The folder cannot be written.
        """
        name = FACE_CALIBRATION if faces else CALIBRATION
        return self._with_sidecar(name, calibration.to_bytes(self.model_id), folder)

    def with_attributes(self, attributes: Attributes, folder: str | os.PathLike[str]) -> Self:
        """Write this bundle with other attributes, like :meth:`recalibrated`.

        Raises:
            InvalidArgumentError: Also when the attributes do not fit the model.
        """
        attributes.check(latent=self.spec.latent, embedding=self.spec.embedding)
        return self._with_sidecar(ATTRIBUTES, attributes.to_bytes(self.model_id), folder)

    def _with_sidecar(self, name: str, data: bytes, folder: str | os.PathLike[str]) -> Self:
        _ = self.spec  # raises for a denoiser
        target = absolute_path(folder)
        if target != self.folder:
            check_target(target)
            return self._write(target, self.contents() | {name: data})
        if is_shipped(target):
            raise InvalidArgumentError(
                f"shipped bundle {printable(self.name)} cannot be changed; name another folder with --out"
            )
        try:
            atomic_write(target / name, data)
        except OSError as error:
            raise write_error(target, error) from error
        return self.open(target)

    def contents(self) -> dict[str, bytes]:
        """Return every file of the bundle by its name, checked against its digest again.

        Raises:
            BundleCorruptError: One has changed since the bundle was opened.
        """
        try:
            contents = {file: self._read(file) for file in self.manifest.digests}
            sidecars = [file for file in SIDECARS if os.path.lexists(self.folder / file)]
            return contents | {file: read_file(self.folder, file) for file in ("bundle.json", *sidecars)}
        except ValueError as error:
            raise BundleCorruptError(
                f"bundle {printable(str(self.folder))} has changed since it was opened: {one_line(error)}; "
                "open it again"
            ) from error

    def copied(self, folder: str | os.PathLike[str], *, card: bytes | None = None) -> Self:
        """Write this bundle into another folder, and open it there: same files, same model_id.

        Args:
            folder: Where to; a bundle that is there is replaced.
            card: A card to lie beside it, unless there is one already; None: none.

        Raises:
            InvalidArgumentError: The folder holds something else than a bundle.
            BundleError: The folder cannot be written.
        """
        target = absolute_path(folder)
        check_target(target, card=card is not None)
        contents = self.contents()
        if card is not None:
            try:
                contents[CARD] = read_file(target, CARD) if (target / CARD).exists() else card
            except ValueError as error:
                raise InvalidArgumentError(f"{printable(str(target))}: {one_line(error)}") from error
        return self._write(target, contents)

    @classmethod
    def _write(cls, target: Path, contents: Mapping[str, bytes]) -> Self:
        return write_all(target, contents, lambda fresh: replace(cls.open(fresh), folder=target))

    def _read(self, name: str) -> bytes:
        return read_verified(self.folder, name, self.manifest.digests[name])


def read_manifest(folder: Path) -> Manifest:
    """Return what a bundle says of itself, without reading its other files.

    Raises:
        BundleError: It is damaged, or of another format.
    """
    try:
        return Manifest.read(read_file(folder, "bundle.json"), folder=folder)
    except (ValueError, InvalidArgumentError) as error:
        raise BundleCorruptError(
            f"bundle {printable(str(folder))} is damaged: {one_line(error)}; fetch or export it again"
        ) from error


def _read_sidecar(folder: Path, name: str, read: Callable[..., _Sidecar], model_id: str) -> _Sidecar | None:
    if not os.path.lexists(folder / name):
        return None
    try:
        return read(read_file(folder, name), model_id=model_id)
    except (ValueError, InvalidArgumentError) as error:
        raise BundleCorruptError(
            f"bundle {printable(str(folder))} is damaged: {name}: {one_line(error)}; "
            f"remove that file, and fit it again with lookalike {_FITTED_BY[name]}"
        ) from error


def check_target(target: Path, *, card: bool = False) -> None:
    """Refuse to replace anything but a bundle, including a bundle folder that holds other files.

    Args:
        target: The folder.
        card: Whether a model card may lie beside the bundle.

    Raises:
        InvalidArgumentError: Something else than a bundle is at ``target``.
    """
    try:
        names = {path.name for path in target.iterdir()}
    except FileNotFoundError:
        return
    except OSError as error:
        raise InvalidArgumentError(
            f"{printable(str(target))} cannot be the folder of a bundle ({error.strerror}); choose another"
        ) from error
    ours = BUNDLE_FILES if "bundle.json" in names else frozenset()
    if other := names - ours - ({CARD} if card else set()):
        raise InvalidArgumentError(
            f"only a bundle is replaced, {printable(str(target))} also holds {printable(min(other))}; "
            "choose another folder"
        )
