"""Ways to remove noise that are measured: denoisers as files are denoised by them, and autoencoders.

Legend: N images, H height, W width, C channels (1 gray, 3 RGB).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np

from lookalike.deploy.evaluation.denoising.noisy_images import DenoisingTestSet, Pixels
from lookalike.encoder.errors import BundleKindError, InvalidArgumentError, printable
from lookalike.encoder.images import to_uint8
from lookalike.encoder.runtime import Denoiser, Model, Provider
from lookalike.searcher.denoising import denoise_pixels


class Method(Protocol):
    """A way to remove noise."""

    @property
    def name(self) -> str:
        """Of its row."""
        ...

    @property
    def told(self) -> str:
        """What it is given besides the image, or how it is set."""
        ...

    @property
    def needs_sigma(self) -> bool:
        """Whether it is left out where the noise has no single sigma."""
        ...

    def denoise(self, noisy: Sequence[Pixels], sigma: float | None) -> list[Pixels]:
        """Return images uint8 (H, W, C), denoised.

        Args:
            noisy: uint8 (H, W, C) each.
            sigma: Standard deviation of the noise in [0, 1]; None: unknown.
        """
        ...


@dataclass(frozen=True, slots=True)
class DenoiserMethod:
    """A denoiser, blind or with known sigma: what ``lookalike denoise`` makes of files with these pixels.

    Attributes:
        name: Of its row.
        denoiser: The model.
        blind: Whether it estimates the noise; else it is told one sigma for the whole image.
    """

    name: str
    denoiser: Denoiser
    blind: bool

    @property
    def told(self) -> str:
        """What it is given besides the image."""
        return "nothing" if self.blind else "true sigma"

    @property
    def needs_sigma(self) -> bool:
        """Whether it is not blind."""
        return not self.blind

    def denoise(self, noisy: Sequence[Pixels], sigma: float | None) -> list[Pixels]:
        """See :meth:`Method.denoise`."""
        return [self.denoise_one(image, None if self.blind else sigma)[0] for image in noisy]

    def denoise_one(self, image: Pixels, sigma: float | None = None) -> tuple[Pixels, bool]:
        """Return one image, uint8 (H, W, C), and whether it was left as it is.

        Args:
            image: uint8 (H, W, C).
            sigma: Standard deviation of the noise in [0, 1]; None: it is estimated.
        """
        denoised = image.copy()
        return denoised, denoise_pixels(self.denoiser, denoised, sigma=sigma).left


@dataclass(frozen=True, slots=True)
class AutoencoderMethod:
    """An autoencoder: its reconstruction of the noisy image.

    Attributes:
        name: Of its row.
        model: The model.
    """

    name: str
    model: Model

    @property
    def told(self) -> str:
        """The noise it was trained to remove."""
        noise = self.model.bundle.spec.denoises
        return "nothing; not trained to denoise" if noise is None else f"nothing; trained with noise {noise}"

    @property
    def needs_sigma(self) -> bool:
        """It is blind."""
        return False

    def denoise(self, noisy: Sequence[Pixels], sigma: float | None) -> list[Pixels]:  # noqa: ARG002  # it is blind
        """See :meth:`Method.denoise`."""
        return list(to_uint8(self.model.reconstruct(np.stack(noisy))))


@dataclass(frozen=True, slots=True)
class DenoisingModel:
    """A bundle that is evaluated.

    Attributes:
        model: The denoiser or the autoencoder.
        name: Of the bundle.
    """

    model: Denoiser | Model
    name: str

    @classmethod
    def open(cls, where: str, *, threads: int | None, provider: Provider) -> Self:
        """Open a bundle, by folder or shipped name.

        Raises:
            BundleError: it cannot be opened.
            InvalidArgumentError: it is neither a denoiser nor an autoencoder.
        """
        try:
            denoiser = Denoiser.open(where, provider=provider, threads=threads)
        except BundleKindError:
            model = Model.open(where, provider=provider, threads=threads)
        else:
            return cls(denoiser, denoiser.bundle.name)
        if not model.has_decoder:
            raise InvalidArgumentError(
                f"model {printable(model.bundle.name)} is neither a denoiser nor has a decoder; "
                "name a denoiser or an autoencoder"
            )
        return cls(model, model.bundle.name)

    def methods(self, images: DenoisingTestSet) -> tuple[list[Method], str | None]:
        """Return its rows for these images, or none and why not, in one line."""
        if isinstance(self.model, Denoiser):
            return [
                DenoiserMethod(f"{self.name}, blind", self.model, blind=True),
                DenoiserMethod(f"{self.name}, non-blind", self.model, blind=False),
            ], None
        shape = self.model.bundle.spec.image.shape
        if any(image.shape != shape for image in images.clean):
            height, width, channels = shape
            return [], (
                f"model {printable(self.name)} takes images of {height}x{width}x{channels}, those of "
                f"{images.name} differ: left out there"
            )
        return [AutoencoderMethod(self.name, self.model)], None
