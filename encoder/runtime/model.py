"""A model with latents on onnxruntime: pixels to latents, embeddings and back.

Legend: N images, H = W = S pixels, C channels, D latent size, Z dimensions of it that have a prior,
E embedding size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.bundle import Bundle, Tokenizer, reconstruction_errors
from lookalike.encoder.errors import InvalidArgumentError, printable
from lookalike.encoder.runtime.session import OnnxModel, Provider

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]
_FEW: Final = 8
"""Up to so many images go through the encoder together with their mirror images: reading the weights takes
longer than computing. With many, both are slower together, as they no longer fit into the caches."""
_OFF_AXIS: Final = "its latent is {:.1f} times as far off as those of the training"


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
        return self.encode_with_mean(pixels)[1]

    def encode_with_mean(self, pixels: Pixels) -> tuple[Floats, Floats]:
        """Return what :meth:`encode` and :meth:`mean_latents` do, in as few runs as pay.

        Raises:
            InvalidArgumentError: Another dtype or shape.
        """
        return self._with_mean(pixels, self.encode)

    def _with_mean(self, pixels: Pixels, encode: Callable[[Pixels], Floats]) -> tuple[Floats, Floats]:
        if not self._spec.mirror:
            latents = encode(pixels)
            return latents, latents
        self._check_pixels(pixels)
        mirror = pixels[:, :, ::-1]
        if len(pixels) > _FEW:
            latents, mirrored = encode(pixels), encode(mirror)
        else:
            latents, mirrored = np.split(encode(np.concatenate([pixels, mirror])), 2)
        return latents, (latents + mirrored) * np.float32(0.5)

    def _encode_compared(self, pixels: Pixels) -> Floats:
        """Return what :meth:`encode` does; what embeddings do not use may be zero."""
        self._check_pixels(pixels)
        return self._run("encoder", pixels, shape=(self._spec.latent,), whole=False)

    def embed(self, pixels: Pixels, change: Floats | None = None) -> Floats:
        """Return embeddings float32 (N, E) of unit length of uint8 (N, H, W, C).

        They are what is stored and compared (cosine).

        Args:
            pixels: The images.
            change: float32 (D,), added to their latents first; see :meth:`Attributes.change`.

        Raises:
            InvalidArgumentError: Another dtype or shape.
        """
        latents = self._with_mean(pixels, self._encode_compared)[1]
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

    @property
    def takes_text(self) -> bool:
        """Whether it embeds text, too, in the space of its images."""
        return "text" in self.bundle.graphs

    def embed_text(self, text: str) -> Floats:
        """Return the embedding of a text, float32 (E,) of unit length, to compare with those of images.

        Raises:
            InvalidArgumentError: The model takes no text, or the text holds no word.
            MissingExtraError: The extra ``text`` is not installed.
        """
        tokens, mask = self._tokenizer(text)
        embedding: Floats = self.bundle.affine(self._run("text", tokens, mask, shape=(self._spec.latent,)))[0]
        return embedding

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer(self.bundle.tokenizer, self._spec.text)

    def off_axis(self, latents: Floats) -> NDArray[np.float64]:
        """Return how far latents, float32 (N, D), lie off the axes of the training images, float64 (N,).

        The root mean square along the axes with the least variance, in standard deviations: about 1 in the
        training, more where an image varies in another way.
        """
        along = (latents.astype(np.float64) - self.bundle.statistics.mean) @ self._minor_axes
        distances: NDArray[np.float64] = np.sqrt(np.square(along).mean(axis=1))
        return distances

    @cached_property
    def _minor_axes(self) -> NDArray[np.float64]:
        return self.bundle.statistics.minor_axes()

    def can_judge(self, *, faces: bool = False) -> bool:
        """Whether it was measured what images like those of the training are; see :meth:`why_unlike`."""
        calibration = self.bundle.calibration_of(faces=faces)
        return calibration is not None and self.has_decoder and calibration.reconstruction_errors is not None

    def why_unlike(
        self, pixels: Pixels, *, faces: bool = False, latents: Floats | None = None
    ) -> list[str | None]:
        """Return for each of uint8 (N, H, W, C) why it is unlike what the model was trained on, or None.

        None for all where :meth:`can_judge` is false.

        Args:
            pixels: The images.
            faces: Whether they are faces that were found in pictures and turned upright.
            latents: What :meth:`encode` returns for them, if it is known.

        Raises:
            InvalidArgumentError: Another dtype or shape.
        """
        calibration = self.bundle.calibration_of(faces=faces)
        usual = None if calibration is None else calibration.reconstruction_errors
        if calibration is None or usual is None or not self.has_decoder:
            return [None] * len(pixels)
        if latents is None:
            latents = self.encode(pixels)
        scores = usual.ood_scores(reconstruction_errors(pixels, self.decode(latents)))
        reasons = [None if s is None else f"reconstruction error {s:.1f} times the usual" for s in scores]
        if calibration.most_off_axis is None:
            return reasons
        distances = self.off_axis(latents)
        return [
            _OFF_AXIS.format(distance) if reason is None and distance > calibration.most_off_axis else reason
            for reason, distance in zip(reasons, distances, strict=True)
        ]

    def _check_pixels(self, pixels: Pixels) -> None:
        shape = self._spec.image.shape
        if pixels.dtype != np.uint8 or pixels.shape[1:] != shape:
            raise InvalidArgumentError(
                f"model {printable(self.bundle.name)} takes uint8 (N, {', '.join(map(str, shape))}), "
                f"got {pixels.dtype} {pixels.shape}"
            )
