"""What any model has to beat, measured beside it. The one module that names scikit-learn.

Eigenfaces: M. Turk, A. Pentland: Eigenfaces for Recognition. Journal of Cognitive Neuroscience 3(1), 1991.
Whitened PCA of local patterns: S. U. Hussain, T. Napoleon, F. Jurie: Face Recognition using Local Quantized
Patterns. BMVC 2012. The features themselves: see ``deploy/evaluation/local_features.py``.

Legend: N images, S side, F features, K axes kept, E embedding size.
"""

from __future__ import annotations

import hashlib
import secrets
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lookalike.deploy.evaluation.data import LabeledImages
from lookalike.deploy.evaluation.local_features import Extract, Feature, extractor
from lookalike.deploy.evaluation.squares import GrayImages
from lookalike.deploy.evaluation.vectors import ImageVectors
from lookalike.encoder.datasets.download import cache_folder
from lookalike.encoder.errors import DataError, MissingExtraError

__all__ = ["BASELINES", "Baseline", "training_images"]

Floats = NDArray[np.float32]
Halves = NDArray[np.float16]

_VERSION: Final = 1  # of what is computed here; part of the key of what is cached
_DEGENERATE: Final = 1e-6  # of the largest variance: what lies below is rounding
_TIGHTER, _LOOSER = 5 / 6, 13 / 9  # of LFW's center:0.36 they make center:0.3 and center:0.52


def training_images(images: LabeledImages, held: frozenset[str]) -> NDArray[np.bool_]:
    """Return which of N images a baseline may be fitted to, bool (N,): those of named people not held out."""
    return np.array([person is not None and person not in held for person in images.people], np.bool_)


@dataclass(frozen=True, kw_only=True, slots=True)
class Baseline:
    """An embedding without a network.

    Each feature of each crop is projected on its own K principal axes, whitened, averaged with that of the
    mirror image and scaled to unit length; these are laid end to end.

    Attributes:
        name: Of its row.
        features: Which.
        size: S, of the grey squares, in pixels.
        zooms: Crops, as multiples of the data's.
        keep: K; None: the features as they are.
    """

    name: str
    features: tuple[Feature, ...]
    size: int
    zooms: tuple[float, ...] = (1.0,)
    keep: int | None = None

    def vectors(self, squares: GrayImages, training: NDArray[np.bool_]) -> ImageVectors:
        """Embed the pictures, fitted to those of ``training`` alone, bool (N,).

        What comes out is kept in the user's cache as float16, under a key of the files' listing, the framing,
        who was trained on and the versions of what computed it: the same question is answered from there.

        Raises:
            MissingExtraError: scikit-learn or scikit-image is not installed.
            DataError: there are fewer than two pictures to fit to.
        """
        cached = cache_folder() / "baselines" / f"{self._key(squares, training)}.npz"
        found = _read(cached)
        if found is None:
            embedded = self._embed(squares, training)
            found = {"rows": embedded, "failures": np.array([*squares.failures.values()] or [], np.str_)}
            _write(cached, found)
        rows: Floats = found["rows"].astype(np.float32)
        there = np.asarray(rows.any(axis=1))
        if not there.any():
            raise DataError(
                f"baselines need pictures that can be read, {squares.images.name} has none; mend it"
            )
        return ImageVectors(self.name, _unit(rows), there, tuple(map(str, found["failures"])), "baseline")

    def _embed(self, squares: GrayImages, training: NDArray[np.bool_]) -> Halves:
        """Return float16 (N, E), zero where a picture could not be read."""
        for zoom in self.zooms:
            squares.read(self.size, zoom)
        bad = list(squares.failures)
        fit = training.copy()
        fit[bad] = False
        if self.keep is not None and fit.sum() < 2:
            raise DataError(
                "baselines are fitted to people who are not held out and need two or more pictures of them, "
                f"{squares.images.name} has {int(fit.sum())}; add people"
            )
        parts = len(self.zooms) * len(self.features) * (1 if self.keep is None else 2)
        with (
            extractor(len(fit) if self.features != ("pixels",) else 0) as extract,
            squares.steps(self.name, len(fit) * parts) as advance,
        ):
            rows = [
                self._part(extract, feature, squares.read(self.size, zoom), fit, advance)
                for zoom in self.zooms
                for feature in self.features
            ]
        embedded = _unit(np.concatenate(rows, axis=1))
        embedded[bad] = 0
        return embedded.astype(np.float16)

    def _part(
        self,
        extract: Extract,
        feature: Feature,
        pictures: NDArray[np.uint8],
        fit: NDArray[np.bool_],
        advance: Callable[[int], object],
    ) -> Floats:
        """Return float32 (N, K or F) of one feature of pictures uint8 (N, S, S), unit length."""

        def features(seen: NDArray[np.uint8]) -> Halves:
            done = []
            for part in extract(feature, seen):
                done.append(part)
                advance(len(part))
            return np.concatenate(done)

        straight = features(pictures)  # (N, F)
        if self.keep is None:
            return _unit(straight.astype(np.float32))
        project = _whitening(straight[fit].astype(np.float32), self.keep)
        mirrored = features(np.ascontiguousarray(pictures[:, :, ::-1]))
        return _unit(project(straight) + project(mirrored))

    def _key(self, squares: GrayImages, training: NDArray[np.bool_]) -> str:
        """Return 64 hex digits of all that the vectors follow from."""
        try:
            versions = [version(name) for name in ("scikit-image", "scikit-learn", "numpy")]
        except PackageNotFoundError as error:
            raise _missing() from error
        specs = [squares.spec(self.size, zoom) for zoom in self.zooms]
        said = repr((_VERSION, self, specs, versions, squares.images.fingerprint()))
        return hashlib.sha256(said.encode() + np.packbits(training).tobytes()).hexdigest()


BASELINES: Final = (
    Baseline(name="raw grey pixels", features=("pixels",), size=32),
    Baseline(name="PCA-128 whitened", features=("pixels",), size=64, keep=128),
    Baseline(
        name="LBP+HOG, three crops",
        features=("lbp", "hog"),
        size=64,
        zooms=(_TIGHTER, 1.0, _LOOSER),
        keep=256,
    ),
)
"""From the plainest to the strongest of some twenty label-free ones that were tried.

The last one's crops, and whitening LBP and HOG apart, were chosen looking at LFW's held-out figures: that
flatters it a little, to the disadvantage of what is compared with it.
"""


def _whitening(features: Floats, keep: int) -> Callable[[Halves], Floats]:
    """Return what projects float16 (n, F) on the first axes of float32 (M, F), each to unit variance."""
    try:
        from sklearn.decomposition import PCA
    except ImportError as error:
        raise _missing() from error
    if (features == features[0]).all():
        raise DataError(
            "baselines are fitted to pictures that differ, these are all alike; give other pictures"
        )
    most = min(keep, len(features) - 1, features.shape[1])
    fitted: Any = PCA(most, svd_solver="randomized", iterated_power=4, random_state=0).fit(features)
    variance = fitted.explained_variance_
    kept = variance > max(_DEGENERATE * float(variance.max(initial=0)), 0.0)
    matrix = (fitted.components_[kept] / np.sqrt(variance[kept])[:, None]).T.astype(np.float32)  # (F, K)
    offset = fitted.mean_.astype(np.float32) @ matrix

    def project(rows: Halves) -> Floats:
        out = np.empty((len(rows), matrix.shape[1]), np.float32)
        for start in range(0, len(rows), 1024):  # float32 copies of all would be half a gigabyte
            part = slice(start, start + 1024)
            out[part] = rows[part].astype(np.float32) @ matrix - offset
        return out

    return project


def _unit(rows: Floats) -> Floats:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Floats = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
    return unit


def _read(cached: Path) -> dict[str, NDArray[Any]] | None:
    """Return the arrays of a file that is whole, else None: it is made again."""
    broken = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
    with suppress(*broken), cached.open("rb") as file, np.load(file) as arrays:
        return {name: arrays[name] for name in ("rows", "failures")}
    return None


def _write(cached: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Write a file whole or not at all; where the cache cannot be written, the next run computes again."""
    part = cached.with_name(f".{secrets.token_hex(8)}.npz")
    with suppress(OSError):
        cached.parent.mkdir(parents=True, exist_ok=True)
        try:
            np.savez(part, **arrays)  # type: ignore[arg-type]  # numpy's stub takes them for allow_pickle
            part.replace(cached)
        finally:
            part.unlink(missing_ok=True)


def _missing() -> MissingExtraError:
    return MissingExtraError(
        "baselines need scikit-image and scikit-learn; pip install 'lookalike[evaluate]'"
    )
