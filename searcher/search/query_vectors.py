"""How a query becomes a vector: read, framed, denoised, checked against the model's training, embedded.

Legend: N images, S side of a model's input, C channels, E embedding size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.errors import InvalidArgumentError, VectorError, printable
from lookalike.encoder.images import Crop
from lookalike.encoder.runtime import Model
from lookalike.indexer.sync import DEGENERATE
from lookalike.searcher.generation import attributes_of
from lookalike.searcher.search.query_denoiser import QueryDenoiser
from lookalike.searcher.search.query_images import (
    LoadedQuery,
    Query,
    QueryFaces,
    TextQuery,
    Timer,
    load_query,
)

Pixels = NDArray[np.uint8]
Vector = NDArray[np.float32]
OUT_OF_DISTRIBUTION: Final = "this image is unlike what the model was trained on ({}); results mean little"
_TRY_FACES: Final = "; if it is a whole photograph with a face, search with --faces"


def untimed(_step: str) -> AbstractContextManager[object]:
    """Time nothing."""
    return nullcontext()


class QueryEmbedder:
    """Turns query images into embeddings of one model.

    Args:
        model: The model.
        crop: How images are framed, unless a query says otherwise; None: to their faces.
        timer: Called for each step.
        max_pixels: Larger queries are refused; None: the default limit.
    """

    def __init__(
        self, model: Model, crop: Crop | None, *, timer: Timer = untimed, max_pixels: int | None = None
    ) -> None:
        self.model, self.timer, self.max_pixels = model, timer, max_pixels
        self._usual_crop = crop
        if model.can_judge(faces=crop is None):
            # Loads the decoder now, so that the first query does not wait.
            model.why_unlike(np.empty((0, *model.bundle.spec.image.shape), np.uint8), faces=crop is None)

    def framing(self, crop: Crop | None, faces: QueryFaces | None) -> Crop | None:
        """Return how queries are cropped: as usual, unless it is given; None: to their faces.

        Raises:
            InvalidArgumentError: both are given.
        """
        if crop is not None and faces is not None:
            raise InvalidArgumentError(f"a query is cut to {crop} or to its faces; leave one of the two out")
        if faces is not None:
            return None
        return self._usual_crop if crop is None else crop

    def load(
        self,
        query: Query | TextQuery,
        crop: Crop | None,
        faces: QueryFaces | None,
        denoiser: QueryDenoiser | None,
    ) -> list[LoadedQuery]:
        """Read a query, framed as :meth:`framing` says: one image, or each face asked for; or an error."""
        if isinstance(query, TextQuery):
            with self.timer("embed"):
                return [LoadedQuery(name=query.text, vector=self.model.embed_text(query.text), is_text=True)]
        return load_query(
            self.model,
            query,
            crop,
            faces=faces or QueryFaces(),
            denoiser=denoiser,
            max_pixels=self.max_pixels,
            timer=self.timer,
        )

    def change(self, add: Mapping[str, float] | None) -> Vector | None:
        """Return the change of latents, float32 (D,), that adds attributes; None where there are none.

        Raises:
            InvalidArgumentError: the model has no such attribute.
        """
        return attributes_of(self.model).change(add) if add else None

    def vectors(
        self, loaded: Sequence[LoadedQuery], change: Vector | None = None, *, judge: bool = True
    ) -> tuple[list[Vector | None], list[str | None]]:
        """Return the vector of each query and its warning, as :meth:`embed` does; items and text have one."""
        embedded, warnings = self.embed([each.pixels for each in loaded], change, judge=judge)
        vectors = [
            vector if each.vector is None else each.vector
            for each, vector in zip(loaded, embedded, strict=True)
        ]
        return vectors, warnings

    def embed(
        self, images: Sequence[Pixels | None], change: Vector | None = None, *, judge: bool = True
    ) -> tuple[list[Vector | None], list[str | None]]:
        """Return for each image, uint8 (S, S, C), a vector, float32 (E,), and perhaps a warning.

        The vector is None also where it is zero or not finite; :func:`no_vector` is the error. The warning is
        a line where the image is unlike those that the model was trained on.

        Args:
            images: The images; None: one that could not be read, and gets neither.
            change: float32 (D,), added to their latents; the warnings are of the images as they are.
            judge: Whether warnings are wanted; without them it is quicker.
        """
        good = [pixels for pixels in images if pixels is not None]
        if not good:
            return [None] * len(images), [None] * len(images)
        pixels = np.stack(good)
        judge = judge and self.model.can_judge(faces=self._usual_crop is None)
        with self.timer("embed"):
            if judge:
                latents, means = self.model.encode_with_mean(pixels)
                rows = self.model.bundle.affine(means if change is None else means + change)
            else:
                rows = self.model.embed(pixels, change)
        usable: list[bool] = np.asarray(np.isfinite(rows).all(axis=1) & rows.any(axis=1)).tolist()
        judged = self._warnings(pixels, latents) if judge else [None] * len(pixels)
        found = iter(zip(rows, usable, judged, strict=True))
        vectors: list[Vector | None] = []
        warnings: list[str | None] = []
        for image in images:
            row, is_usable, warning = (None, False, None) if image is None else next(found)
            vectors.append(row if is_usable else None)
            warnings.append(warning)
        return vectors, warnings

    def _warnings(self, pixels: Pixels, latents: Vector) -> list[str | None]:
        faces = self._usual_crop is None
        with self.timer("check"):
            reasons = self.model.why_unlike(pixels, faces=faces, latents=latents)
        hint = "" if faces or self.model.bundle.spec.frame is None else _TRY_FACES
        return [None if reason is None else OUT_OF_DISTRIBUTION.format(reason) + hint for reason in reasons]


def no_vector(query: object) -> VectorError:
    """Return the error for a query without a usable vector."""
    return VectorError(f"{printable(str(query))}: {DEGENERATE}")
