"""One network of the parts that were trained apart: what a picture looks like, and what it is searched by.

Legend: N images, C channels, H = W = S pixels, A size of the appearance, E of the descriptor, D = A + E.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from trainer.descriptor import Descriptor
from trainer.networks import AE

__all__ = ["Joined"]


@final
class Joined(nn.Module):
    """The autoencoder with a descriptor beside it: latent = appearance, then descriptor.

    Pictures are drawn of the appearance alone; the descriptor is what is compared.

    Attributes:
        latent: D.
        descriptor: None: the latent is the appearance alone.
        encoder: float32 (N, C, S, S) in [0, 1] to (N, D).
        decoder: float32 (N, D) to (N, C, S, S).
    """

    def __init__(self, network: AE, descriptor: Descriptor | None = None) -> None:
        super().__init__()
        self.descriptor = descriptor
        numbers = 0 if descriptor is None else descriptor.project.out_features
        self.latent = network.spec.latent + numbers
        self.encoder = _Encoder(network.encoder, descriptor)
        self.decoder = _Decoder(network.decoder, network.spec.latent)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, S, S) -> (N, D) -> (N, C, S, S)."""
        back: Tensor = self.decoder(self.encoder(images))
        return back


class _Encoder(nn.Module):
    def __init__(self, appearance: nn.Module, descriptor: Descriptor | None) -> None:
        super().__init__()
        self.appearance = appearance
        self.descriptor = descriptor

    def forward(self, images: Tensor) -> Tensor:
        appearance: Tensor = self.appearance(images)  # (N, A)
        if self.descriptor is None:
            return appearance
        return torch.cat([appearance, self.descriptor(images)], 1)  # (N, A + E)


class _Decoder(nn.Module):
    def __init__(self, decoder: nn.Module, appearance: int) -> None:
        super().__init__()
        self.decoder = decoder
        self.appearance = appearance

    def forward(self, latent: Tensor) -> Tensor:
        image: Tensor = self.decoder(latent[:, : self.appearance])
        return image
