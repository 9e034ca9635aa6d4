"""A bundle running on onnxruntime: pixels to latents, embeddings and back.

Legend: N images, H = W = S pixels, C channels, D latent size, Z numbers of it that are drawn,
E embedding size.
"""

from __future__ import annotations

import os
from functools import cached_property
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.bundle.bundle import Bundle
from lookalike.encoder.bundle.ood import reconstruction_errors
from lookalike.encoder.errors import BundleCorruptError, InvalidArgumentError
from lookalike.encoder.runtime.session import Provider, Runtime, Session, compare_golden
from lookalike.encoder.text import one_line, printable

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]

_BATCH: Final = 256


class Model:
    """A model that answers. Safe for several threads at once: onnxruntime sessions are.

    Attributes:
        bundle: What it was opened from.
    """

    def __init__(self, bundle: Bundle, *, provider: Provider = "auto", threads: int | None = None) -> None:
        self._runtime = Runtime(provider=provider, threads=threads)
        self.bundle = bundle

    @classmethod
    def open(
        cls, where: str | os.PathLike[str], *, provider: Provider = "auto", threads: int | None = None
    ) -> Self:
        """Open a bundle's folder, or a shipped bundle by name.

        Each graph is loaded on first use and checked then against the golden values.

        Args:
            where: Folder or shipped name.
            provider: ``auto`` takes CUDA where onnxruntime has it, else the CPU; ``cuda`` is never
                silently the CPU.
            threads: Threads within one call; None lets onnxruntime choose.

        Raises:
            InvalidArgumentError: no such provider or number of threads.
            BundleError: the bundle cannot be used.
            ProviderError: the provider is not to be had; raised when the first graph is loaded.
        """
        return cls(Bundle.open(where), provider=provider, threads=threads)

    @property
    def model_id(self) -> str:
        """SHA-256 over all of the bundle, 64 hex digits."""
        return self.bundle.model_id

    @property
    def provider(self) -> str:
        """The execution provider that really runs, in onnxruntime's words."""
        return str(self._encoder.get_providers()[0])

    def encode(self, pixels: Pixels) -> Floats:
        """Return latents float32 (N, D) of uint8 (N, H, W, C), N >= 0.

        Raises:
            InvalidArgumentError: another dtype or shape.
        """
        self._check_pixels(pixels)
        return self._run(self._encoder, pixels, self.bundle.spec.latent)

    def posterior(self, pixels: Pixels) -> tuple[Floats, Floats]:
        """Return mean and deviation of q(z|x), both float32 (N, Z), of uint8 (N, H, W, C).

        Raises:
            InvalidArgumentError: another dtype or shape, or a model that says nothing of deviations.
        """
        self._check_pixels(pixels)
        if len(self._encoder.get_outputs()) < 2:
            raise InvalidArgumentError(
                f"model {printable(self.bundle.name)} ({self.bundle.spec.kind}) gives no deviations; "
                "take a vae or cvae"
            )
        drawn = self.bundle.spec.drawn
        latents = self._run(self._encoder, pixels, self.bundle.spec.latent)
        return latents[:, :drawn], self._run(self._encoder, pixels, drawn, output=1)

    def compared(self, pixels: Pixels) -> Floats:
        """Return the latents that embeddings are made of, float32 (N, D), of uint8 (N, H, W, C).

        Those of the pictures or, where the model says so, the mean with those of their mirror images.

        Raises:
            InvalidArgumentError: another dtype or shape.
        """
        latents = self.encode(pixels)
        if self.bundle.spec.mirror:
            latents = (latents + self.encode(pixels[:, :, ::-1])) * np.float32(0.5)
        return latents

    def embed(self, pixels: Pixels, change: Floats | None = None) -> Floats:
        """Return embeddings float32 (N, E) of unit length of uint8 (N, H, W, C).

        They are what is stored and compared (cosine).

        Args:
            pixels: The pictures.
            change: float32 (D,), added to their latents first; see :meth:`Attributes.change`.

        Raises:
            InvalidArgumentError: another dtype or shape.
        """
        latents = self.compared(pixels)
        return self.bundle.affine(latents if change is None else latents + change)

    def decode(self, latents: Floats) -> Floats:
        """Return images float32 (N, H, W, C) in [0, 1] of latents float32 (N, D).

        Raises:
            InvalidArgumentError: another dtype or shape, values that are not finite, or the model has no decoder.
        """
        spec = self.bundle.spec
        if latents.dtype.kind != "f" or latents.ndim != 2 or latents.shape[1] != spec.latent:
            raise InvalidArgumentError(
                f"model {printable(self.bundle.name)} takes latents float32 (N, {spec.latent}), "
                f"got {latents.dtype} {latents.shape}"
            )
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
            latents = latents.astype(np.float32)
        if not np.isfinite(latents).all():
            raise InvalidArgumentError(
                "latents must be finite, these hold NaN or infinity; make smaller steps"
            )
        return self._run(self._decoder, latents, *spec.image.shape)

    def reconstruct(self, pixels: Pixels) -> Floats:
        """Return what the model keeps of uint8 (N, H, W, C): float32 (N, H, W, C) in [0, 1]."""
        return self.decode(self.encode(pixels))

    @property
    def draws(self) -> bool:
        """Whether it has a decoder."""
        return "decoder.onnx" in self.bundle.graphs

    def errors(self, pixels: Pixels) -> NDArray[np.float64]:
        """Return how far off its drawing of each picture is, float64 (N, 2), of uint8 (N, H, W, C).

        See :func:`reconstruction_errors`.

        Raises:
            InvalidArgumentError: another dtype or shape, or the model has no decoder.
        """
        return reconstruction_errors(pixels, self.reconstruct(pixels))

    def check(self) -> None:
        """Load every graph and compare it with the golden values.

        Raises:
            GoldenMismatchError: this machine does not reproduce them.
        """
        for graph in self.bundle.graphs:
            _ = self._encoder if graph == "encoder.onnx" else self._decoder

    @cached_property
    def _encoder(self) -> Session:
        golden = self.bundle.golden
        return self._proven("encoder", golden.pixels, golden.latents)

    @cached_property
    def _decoder(self) -> Session:
        golden = self.bundle.golden
        if golden.decoded is None:
            self.bundle.graph("decoder")  # says that there is none
            raise AssertionError("a bundle with a decoder has golden pictures")
        return self._proven("decoder", golden.latents, golden.decoded)

    def _proven(self, graph: str, rows: NDArray[Any], golden: Floats) -> Session:
        """Load a graph and compare what it makes of ``rows`` with ``golden``."""
        # A decoder's threads, spinning on after a run, would take the cores from the encoder and the search.
        data, folder = self.bundle.graph(graph), self.bundle.folder
        session = self._runtime.session(data, graph=graph, folder=folder, spinning=graph != "decoder")
        try:
            got = self._run(session, rows, *golden.shape[1:])
        except Exception as error:  # onnxruntime's own types, and ValueError from other inputs or outputs
            raise BundleCorruptError(
                f"bundle {printable(str(folder))} is damaged: {graph}.onnx does not run ({one_line(error)}); "
                "fetch or export it again"
            ) from error
        compare_golden(got, golden, graph=graph, folder=folder)
        return session

    def _run(self, session: Session, rows: NDArray[Any], *shape: int, output: int = 0) -> Floats:
        """Run in batches of a size whose activations stay in cache; (N, ...) to (N, *shape)."""
        (feed,) = session.get_inputs()
        wanted = session.get_outputs()[output].name
        out = np.empty((len(rows), *shape), np.float32)
        for start in range(0, len(rows), _BATCH):
            batch = np.ascontiguousarray(rows[start : start + _BATCH])
            (made,) = session.run([wanted], {feed.name: batch})
            if made.shape != (len(batch), *shape):
                raise ValueError(f"its output has shape {made.shape}, not {(len(batch), *shape)}")
            out[start : start + _BATCH] = made
        return out

    def _check_pixels(self, pixels: Pixels) -> None:
        shape = self.bundle.spec.image.shape
        if pixels.dtype != np.uint8 or pixels.shape[1:] != shape:
            raise InvalidArgumentError(
                f"model {printable(self.bundle.name)} takes uint8 (N, {', '.join(map(str, shape))}), "
                f"got {pixels.dtype} {pixels.shape}"
            )
