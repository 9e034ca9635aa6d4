"""A bundle running on onnxruntime: pixels to latents, embeddings and back.

Legend: N images, H = W = S pixels, C channels, D latent size, Z numbers of it that are drawn,
E embedding size.
"""

from __future__ import annotations

import os
from functools import cached_property
from typing import Any, Final, Literal, Self, get_args

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from encoder.bundle import Bundle
from encoder.errors import BundleCorruptError, GoldenMismatchError, OptionError, ProviderError
from encoder.fidelity import picture_errors
from encoder.images import shown
from encoder.manifest import one_line

__all__ = ["Model", "Provider"]

Provider = Literal["auto", "cpu", "cuda"]
Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]

_BATCH: Final = 256
_MOST_THREADS: Final = 1024
_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
_GOLDEN_TOLERANCE: Final = 2e-3
"""Relative to the spread of the values: far above float32 rounding, far below what would change a ranking."""
_QUIET: Final = 3  # onnxruntime's ERROR level: what it would warn of on stderr is raised here instead


class Model:
    """A model that answers. Safe for several threads at once: onnxruntime sessions are.

    Attributes:
        bundle: What it was opened from.
    """

    def __init__(self, bundle: Bundle, *, provider: Provider = "auto", threads: int | None = None) -> None:
        if provider not in get_args(Provider):
            raise OptionError(f"a provider is auto, cpu or cuda; {provider!r} is not")
        if threads is not None and not 1 <= threads <= _MOST_THREADS:
            raise OptionError(
                f"threads must be 1 to {_MOST_THREADS}, not {threads}; leave it out to let onnxruntime choose"
            )
        self.bundle = bundle
        self._asked: Provider = provider
        self._threads = threads

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
            OptionError: no such provider or number of threads.
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
            OptionError: another dtype or shape.
        """
        self._check_pixels(pixels)
        return self._run(self._encoder, pixels, self.bundle.spec.latent)

    def posterior(self, pixels: Pixels) -> tuple[Floats, Floats]:
        """Return mean and deviation of q(z|x), both float32 (N, Z), of uint8 (N, H, W, C).

        Raises:
            OptionError: another dtype or shape, or a model that says nothing of deviations.
        """
        self._check_pixels(pixels)
        if len(self._encoder.get_outputs()) < 2:
            raise OptionError(
                f"model {shown(self.bundle.name)} ({self.bundle.spec.kind}) gives no deviations; "
                "take a vae or cvae"
            )
        drawn = self.bundle.spec.drawn
        latents = self._run(self._encoder, pixels, self.bundle.spec.latent)
        return latents[:, :drawn], self._run(self._encoder, pixels, drawn, output=1)

    def compared(self, pixels: Pixels) -> Floats:
        """Return the latents that embeddings are made of, float32 (N, D), of uint8 (N, H, W, C).

        Those of the pictures or, where the model says so, the mean with those of their mirror images.

        Raises:
            OptionError: another dtype or shape.
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
            OptionError: another dtype or shape.
        """
        latents = self.compared(pixels)
        return self.bundle.affine(latents if change is None else latents + change)

    def decode(self, latents: Floats) -> Floats:
        """Return images float32 (N, H, W, C) in [0, 1] of latents float32 (N, D).

        Raises:
            OptionError: another dtype or shape, values that are not finite, or the model has no decoder.
        """
        spec = self.bundle.spec
        if latents.dtype.kind != "f" or latents.ndim != 2 or latents.shape[1] != spec.latent:
            raise OptionError(
                f"model {shown(self.bundle.name)} takes latents float32 (N, {spec.latent}), "
                f"got {latents.dtype} {latents.shape}"
            )
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
            latents = latents.astype(np.float32)
        if not np.isfinite(latents).all():
            raise OptionError("latents must be finite, these hold NaN or infinity; make smaller steps")
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

        See :func:`encoder.fidelity.picture_errors`.

        Raises:
            OptionError: another dtype or shape, or the model has no decoder.
        """
        return picture_errors(pixels, self.reconstruct(pixels))

    def check(self) -> None:
        """Load every graph and compare it with the golden values.

        Raises:
            GoldenMismatchError: this machine does not reproduce them.
        """
        for graph in self.bundle.graphs:
            _ = self._encoder if graph == "encoder.onnx" else self._decoder

    @cached_property
    def _encoder(self) -> ort.InferenceSession:
        golden = self.bundle.golden
        return self._proven("encoder", golden.pixels, golden.latents)

    @cached_property
    def _decoder(self) -> ort.InferenceSession:
        golden = self.bundle.golden
        if golden.decoded is None:
            self.bundle.graph("decoder")  # says that there is none
            raise AssertionError("a bundle with a decoder has golden pictures")
        return self._proven("decoder", golden.latents, golden.decoded)

    def _proven(self, graph: str, rows: NDArray[Any], golden: Floats) -> ort.InferenceSession:
        """Load a graph and compare what it makes of ``rows`` with ``golden``."""
        session = self._session(graph)
        try:
            got = self._run(session, rows, *golden.shape[1:])
        except Exception as error:  # as below, and ValueError from a graph of other inputs or outputs
            raise BundleCorruptError(
                f"bundle {self._where} is damaged: {graph}.onnx does not run ({one_line(error)}); "
                "fetch or export it again"
            ) from error
        self._compare(graph, got, golden)
        return session

    def _session(self, graph: str) -> ort.InferenceSession:
        data = self.bundle.graph(graph)
        options = ort.SessionOptions()
        options.log_severity_level = _QUIET
        if graph == "decoder":
            # Its threads, spinning on after a run, would take the cores from the encoder and the search.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if self._threads is not None:
            options.intra_op_num_threads = self._threads
        wanted = self._providers()
        try:
            session = ort.InferenceSession(data, options, providers=wanted)
        except Exception as error:  # onnxruntime raises its own types from C++, RuntimeError and ValueError
            raise BundleCorruptError(
                f"bundle {self._where} is damaged: onnxruntime cannot load {graph}.onnx "
                f"({one_line(error)}); fetch or export it again"
            ) from error
        if self._asked == "cuda" and session.get_providers()[0] != _CUDA:
            raise ProviderError(
                "provider cuda was asked for and could not start; check the driver or use cpu"
            )
        return session

    def _providers(self) -> list[str]:
        there = ort.get_available_providers()
        if self._asked == "cuda" and _CUDA not in there:
            raise ProviderError(
                f"provider cuda was asked for, this onnxruntime has {', '.join(there)}; "
                "install onnxruntime-gpu or use cpu"
            )
        return [_CUDA, _CPU] if self._asked != "cpu" and _CUDA in there else [_CPU]

    def _run(self, session: ort.InferenceSession, rows: NDArray[Any], *shape: int, output: int = 0) -> Floats:
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

    @property
    def _where(self) -> str:
        return shown(str(self.bundle.folder))

    def _check_pixels(self, pixels: Pixels) -> None:
        shape = self.bundle.spec.image.shape
        if pixels.dtype != np.uint8 or pixels.shape[1:] != shape:
            raise OptionError(
                f"model {shown(self.bundle.name)} takes uint8 (N, {', '.join(map(str, shape))}), "
                f"got {pixels.dtype} {pixels.shape}"
            )

    def _compare(self, graph: str, got: Floats, golden: Floats) -> None:
        apart = float(np.abs(got - golden).max() / max(float(golden.std()), 1e-6))
        if not apart <= _GOLDEN_TOLERANCE:
            raise GoldenMismatchError(
                f"bundle {self._where} does not reproduce its golden values here: {graph} is "
                f"{apart:.1e} of a deviation off (limit {_GOLDEN_TOLERANCE:.0e}); "
                "fetch it again, or try provider cpu"
            )
