"""A model with latents on onnxruntime: pixels to latents, embeddings and back.

Legend: N images, H = W = S pixels, C channels, D latent size, Z dimensions of it that have a prior,
E embedding size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.bundle import Bundle, reconstruction_errors
from lookalike.encoder.errors import InvalidArgumentError, printable
from lookalike.encoder.runtime.session import OnnxModel, Provider

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]


class Model(OnnxModel):
    """A model that encodes, embeds and decodes images.

    Raises:
        BundleKindError: The bundle is a denoiser.
    """

    def __init__(self, bundle: Bundle, *, provider: Provider = "auto", threads: int | None = None) -> None:
        super().__init__(bundle, provider=provider, threads=threads)
        self._spec = bundle.spec

    @property
    def has_decoder(self) -> bool:
        """Whether it can decode latents."""
        return "decoder" in self.bundle.graphs

    def encode(self, pixels: Pixels) -> Floats:
        """Return latents float32 (N, D) of uint8 (N, H, W, C), N >= 0.

        Raises:
            InvalidArgumentError: Another dtype or shape.
        """
        self._check_pixels(pixels)
        return self._run("encoder", pixels, shape=(self._spec.latent,))

    def posterior(self, pixels: Pixels) -> tuple[Floats, Floats]:
        """Return mean and standard deviation of q(z|x), both float32 (N, Z), of uint8 (N, H, W, C).

        Raises:
            InvalidArgumentError: Another dtype or shape, or a model whose encoder gives no deviations.
        """
        self._check_pixels(pixels)
        if len(self._session("encoder").get_outputs()) < 2:
            raise InvalidArgumentError(
                f"model {printable(self.bundle.name)} ({self._spec.kind}) gives no deviations; "
                "use a vae or cvae"
            )
        size = self._spec.prior_dim
        means = self.encode(pixels)[:, :size]
        return means, self._run("encoder", pixels, shape=(size,), output=1)

    def mean_latents(self, pixels: Pixels) -> Floats:
        """Return the latents that embeddings are made from, float32 (N, D), of uint8 (N, H, W, C).

        Those of the images or, if the model says so, the mean with those of their mirror images.

        Raises:
            InvalidArgumentError: Another dtype or shape.
        """
        latents = self.encode(pixels)
        if self._spec.mirror:
            latents = (latents + self.encode(pixels[:, :, ::-1])) * np.float32(0.5)
        return latents

    def embed(self, pixels: Pixels, change: Floats | None = None) -> Floats:
        """Return embeddings float32 (N, E) of unit length of uint8 (N, H, W, C).

        They are what is stored and compared (cosine).

        Args:
            pixels: The images.
            change: float32 (D,), added to their latents first; see :meth:`Attributes.change`.

        Raises:
            InvalidArgumentError: Another dtype or shape.
        """
        latents = self.mean_latents(pixels)
        return self.bundle.affine(latents if change is None else latents + change)

    def decode(self, latents: Floats) -> Floats:
        """Return images float32 (N, H, W, C) in [0, 1] of latents float32 (N, D).

        Raises:
            InvalidArgumentError: Another dtype or shape, values that are not finite, or a model without a
                decoder.
        """
        spec = self._spec
        if latents.dtype.kind != "f" or latents.ndim != 2 or latents.shape[1] != spec.latent:
            raise InvalidArgumentError(
                f"model {printable(self.bundle.name)} takes latents float32 (N, {spec.latent}), "
                f"got {latents.dtype} {latents.shape}"
            )
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
            latents = latents.astype(np.float32)
        if not np.isfinite(latents).all():
            raise InvalidArgumentError("latents must be finite, got NaN or infinity; take smaller steps")
        return self._run("decoder", latents, shape=spec.image.shape)

    def reconstruct(self, pixels: Pixels) -> Floats:
        """Return the reconstruction of uint8 (N, H, W, C): float32 (N, H, W, C) in [0, 1]."""
        return self.decode(self.encode(pixels))

    def reconstruction_errors(self, pixels: Pixels) -> NDArray[np.float64]:
        """Return the errors of reconstructing each image, float64 (N, 2), of uint8 (N, H, W, C).

        See :func:`~lookalike.encoder.bundle.calibration.reconstruction_errors`.

        Raises:
            InvalidArgumentError: Another dtype or shape, or a model without a decoder.
        """
        return reconstruction_errors(pixels, self.reconstruct(pixels))

    def _check_pixels(self, pixels: Pixels) -> None:
        shape = self._spec.image.shape
        if pixels.dtype != np.uint8 or pixels.shape[1:] != shape:
            raise InvalidArgumentError(
                f"model {printable(self.bundle.name)} takes uint8 (N, {', '.join(map(str, shape))}), "
                f"got {pixels.dtype} {pixels.shape}"
            )
