"""The face model: autoencoder, descriptors and identity network, trained separately, as one network.

Legend: N images, C channels, H = W = S pixels, A dimensions of the appearance, E of the part used for search,
D = A + E.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, final

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from lookalike.trainer.models.autoencoder import AE
from lookalike.trainer.models.descriptor import Descriptor
from lookalike.trainer.models.identity import Identity
from lookalike.trainer.models.texture import TextureDescriptor

_DESCRIPTOR_LENGTH: Final = 0.6
"""Length of the descriptor next to an identity vector of length 1: the best on validation people
(docs/experiments.md)."""
_BESIDE_TEXTURE: Final = 0.3
"""Length of the descriptor next to a texture descriptor of length 1: more harms textures, less aligned faces
(docs/experiments.md)."""


@final
class FaceModel(nn.Module):
    """The autoencoder with the part used for search: latent = appearance, descriptor, texture, identity.

    The decoder sees the appearance alone; the others are what is compared. Where there are several, each is
    scaled to a fixed length, so that the similarity is a weighted mean of their cosines.

    Attributes:
        appearance: A.
        latent: D.
        supervised: Whether it was trained with people's names.
        encoder: float32 (N, C, S, S) in [0, 1] to (N, D).
        decoder: float32 (N, D) to (N, C, S, S).
    """

    def __init__(
        self,
        network: AE,
        descriptor: Descriptor | None = None,
        identity: Identity | None = None,
        texture: TextureDescriptor | None = None,
    ) -> None:
        super().__init__()
        if descriptor is not None and identity is not None:
            identity.contrast = descriptor.contrast  # the same module, computed once by onnxruntime
        self.appearance = network.spec.latent
        short = _DESCRIPTOR_LENGTH if texture is None else _BESIDE_TEXTURE
        lengths = {descriptor: short, texture: 1.0, identity: 1.0}
        parts = [part for part in (descriptor, texture, identity) if part is not None]
        self.latent = self.appearance + sum(part.project.out_features for part in parts)
        self.supervised = identity is not None
        self.encoder = _Encoder(network.encoder, parts, [lengths[part] for part in parts])
        self.decoder = _Decoder(network.decoder, self.appearance)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, S, S) -> (N, D) -> (N, C, S, S)."""
        image: Tensor = self.decoder(self.encoder(images))
        return image


class _Encoder(nn.Module):
    """(N, C, S, S) -> (N, D)."""

    def __init__(self, appearance: nn.Module, parts: Sequence[nn.Module], lengths: Sequence[float]) -> None:
        super().__init__()
        self.appearance = appearance
        self.parts = nn.ModuleList(parts)
        self.lengths = tuple(lengths)

    def forward(self, images: Tensor) -> Tensor:
        vectors: list[Tensor] = [part(images) for part in self.parts]
        if len(vectors) > 1:
            vectors = [length * normalize(each) for length, each in zip(self.lengths, vectors, strict=True)]
        return torch.cat([self.appearance(images), *vectors], 1)  # (N, A + E)


class _Decoder(nn.Module):
    """(N, D) -> (N, C, S, S), of the appearance alone."""

    def __init__(self, decoder: nn.Module, appearance: int) -> None:
        super().__init__()
        self.decoder = decoder
        self.appearance = appearance

    def forward(self, latent: Tensor) -> Tensor:
        image: Tensor = self.decoder(latent[:, : self.appearance])
        return image
