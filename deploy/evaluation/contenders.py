"""Models that take noise off: cleaners, blind and told, and autoencoders that draw pictures without it.

Legend: N pictures, H height, W width, C channels (1 grey, 3 RGB).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Self

import numpy as np
from numpy.typing import NDArray

from lookalike.deploy.evaluation.exhibits import DenoisingTestSet
from lookalike.deploy.evaluation.rivals import Method
from lookalike.encoder.errors import BundleKindError, InvalidArgumentError
from lookalike.encoder.images.preprocess import to_uint8
from lookalike.encoder.runtime.denoiser import Denoiser
from lookalike.encoder.runtime.model import Model
from lookalike.encoder.runtime.session import Provider
from lookalike.encoder.text import printable

__all__ = ["AutoencoderMethod", "DenoiserMethod", "DenoisingModel"]

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class DenoiserMethod:
    """A cleaner, told the true sigma or finding its own.

    Attributes:
        name: What its row is called.
        cleaner: The model.
        blind: Whether it finds sigma itself.
    """

    name: str
    cleaner: Denoiser
    blind: bool

    @property
    def told(self) -> str:
        """What it knows."""
        return "nothing" if self.blind else "true sigma"

    def clean(self, noisy: Sequence[Floats], sigma: float) -> list[Floats]:
        """As :meth:`Method.clean` says."""
        made: list[Floats] = []
        for _, alike in groupby(noisy, key=np.shape):
            pixels = np.stack(list(alike))  # (N, H, W, C)
            told = None if self.blind else np.full(len(pixels), sigma, np.float32)
            made += list(self.cleaner.denoise(pixels, told).clip(0, 1))
        return made


@dataclass(frozen=True, slots=True)
class AutoencoderMethod:
    """An autoencoder: what it draws of a noisy picture, which it sees in 256 levels as it does any other.

    Attributes:
        name: What its row is called.
        model: The model.
    """

    name: str
    model: Model

    @property
    def told(self) -> str:
        """What it was taught to clean."""
        noise = self.model.bundle.spec.denoises
        return "nothing; not taught to clean" if noise is None else f"nothing; taught noise {noise}"

    def clean(self, noisy: Sequence[Floats], sigma: float) -> list[Floats]:  # noqa: ARG002  # it is not told
        """As :meth:`Method.clean` says."""
        return list(self.model.reconstruct(to_uint8(np.stack(noisy))))


@dataclass(frozen=True, slots=True)
class DenoisingModel:
    """A bundle that takes part.

    Attributes:
        cleans: The cleaner or the autoencoder.
        name: Of the bundle.
    """

    cleans: Denoiser | Model
    name: str

    @classmethod
    def open(cls, where: str, *, threads: int | None, provider: Provider) -> Self:
        """Open a bundle, by folder or shipped name.

        Raises:
            BundleError: it cannot be opened.
            InvalidArgumentError: it can do neither.
        """
        try:
            cleaner = Denoiser.open(where, provider=provider, threads=threads)
        except BundleKindError:
            model = Model.open(where, provider=provider, threads=threads)
        else:
            return cls(cleaner, cleaner.bundle.name)
        if not model.has_decoder:
            raise InvalidArgumentError(
                f"model {printable(model.bundle.name)} neither cleans nor draws; name a cleaner or an autoencoder"
            )
        return cls(model, model.bundle.name)

    def rivals(self, exhibit: DenoisingTestSet) -> tuple[list[Method], str | None]:
        """Return its rows for these pictures, or none and why not, in one line."""
        if isinstance(self.cleans, Denoiser):
            return [
                DenoiserMethod(f"{self.name}, blind", self.cleans, blind=True),
                DenoiserMethod(f"{self.name}, told", self.cleans, blind=False),
            ], None
        shape = self.cleans.bundle.spec.image.shape
        if any(picture.shape != shape for picture in exhibit.clean):
            height, width, channels = shape
            return [], (
                f"model {printable(self.name)} draws pictures of {height}x{width}x{channels}, those of "
                f"{exhibit.name} are others: left out there"
            )
        return [AutoencoderMethod(self.name, self.cleans)], None
