"""One network of the parts that were trained apart: what a picture looks like, and what it is searched by.

Legend: N images, C channels, H = W = S pixels, A size of the appearance, E of what is searched by, D = A + E.
"""

from __future__ import annotations

from typing import Final, final

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from lookalike.trainer.models.autoencoder import AE
from lookalike.trainer.models.descriptor import Descriptor
from lookalike.trainer.models.identity import Identity

_DESCRIPTOR: Final = 0.6
"""Length of the descriptor beside an identity of length 1: what tells validation people apart best
(EXPERIMENTS.md)."""


@final
class FaceModel(nn.Module):
    """The autoencoder with what is searched by beside it: latent = appearance, descriptor, identity.

    Pictures are drawn of the appearance alone; descriptor and identity are what is compared. Where there are
    both, each is brought to a length of its own: then likeness is a weighted mean of the two cosines.

    Attributes:
        appearance: A.
        latent: D.
        named: Whether names were used.
        encoder: float32 (N, C, S, S) in [0, 1] to (N, D).
        decoder: float32 (N, D) to (N, C, S, S).
    """

    def __init__(
        self, network: AE, descriptor: Descriptor | None = None, identity: Identity | None = None
    ) -> None:
        super().__init__()
        if descriptor is not None and identity is not None:
            identity.contrast = descriptor.contrast  # one and the same: onnxruntime sees that
        self.appearance = network.spec.latent
        numbers = 0 if descriptor is None else descriptor.project.out_features
        numbers += 0 if identity is None else identity.project.out_features
        self.latent = self.appearance + numbers
        self.named = identity is not None
        self.encoder = _Encoder(network.encoder, descriptor, identity)
        self.decoder = _Decoder(network.decoder, self.appearance)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, S, S) -> (N, D) -> (N, C, S, S)."""
        back: Tensor = self.decoder(self.encoder(images))
        return back


class _Encoder(nn.Module):
    def __init__(
        self, appearance: nn.Module, descriptor: Descriptor | None, identity: Identity | None
    ) -> None:
        super().__init__()
        self.appearance = appearance
        self.descriptor = descriptor
        self.identity = identity

    def forward(self, images: Tensor) -> Tensor:
        appearance: Tensor = self.appearance(images)  # (N, A)
        parts: list[Tensor] = [part(images) for part in (self.descriptor, self.identity) if part is not None]
        if len(parts) == 2:
            parts = [_DESCRIPTOR * normalize(parts[0]), normalize(parts[1])]
        return torch.cat([appearance, *parts], 1)  # (N, A + E)


class _Decoder(nn.Module):
    def __init__(self, decoder: nn.Module, appearance: int) -> None:
        super().__init__()
        self.decoder = decoder
        self.appearance = appearance

    def forward(self, latent: Tensor) -> Tensor:
        image: Tensor = self.decoder(latent[:, : self.appearance])
        return image
