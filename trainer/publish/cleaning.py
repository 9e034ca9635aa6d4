"""What a network that was taught to clean makes of noisy images.

Legend: N images, S side, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lookalike.encoder.images.noise import NoiseSpec
from lookalike.trainer.loop.loop import reconstruction_psnr

__all__ = ["DenoisingMetrics"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DenoisingMetrics:
    """PSNR in dB of the mean squared error of held-out images under the noise of the training.

    Attributes:
        noise: What was put on them, as it is written on a command line.
        noisy: Of the images with the noise.
        cleaned: Of what the network gives back of them.
    """

    noise: str
    noisy: float
    cleaned: float

    @classmethod
    def measure(
        cls,
        network: nn.Module,
        images: NDArray[np.uint8],
        indices: NDArray[np.int64],
        noise: NoiseSpec | None,
        *,
        device: torch.device,
    ) -> Self | None:
        """Measure it on ``images[indices]``, uint8 (N, S, S, C); None where there is no noise."""
        if noise is None:
            return None
        noisy, cleaned = (
            reconstruction_psnr(each, images, indices, device=device, noise=noise)
            for each in (nn.Identity(), network)
        )
        return cls(noise=str(noise), noisy=noisy, cleaned=cleaned)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, rounded to what they are good for."""
        return {
            "held_out_noisy_psnr_db": round(self.noisy, 2),
            "held_out_cleaned_psnr_db": round(self.cleaned, 2),
        }

    def line(self) -> str:
        """Return a line for people."""
        return f"held-out PSNR under noise {self.noise}: {self.noisy:.2f} dB, cleaned {self.cleaned:.2f} dB"
