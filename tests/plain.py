"""The plain autoencoder of 45 x 45 pixels, untrained: a network whose speed is compared, not its pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from lookalike.encoder.bundle.manifest import BundleSpec
from lookalike.encoder.bundle.whitening import AffineMap, LatentStatistics
from lookalike.encoder.export.torch_export import OPSET, export_graphs, save_bundle
from lookalike.encoder.images.preprocess import LFW_CROP, ImageSpec
from lookalike.trainer.models.autoencoder import AE, AESpec

__all__ = ["SPEC", "plain_autoencoder", "save_plain"]

SPEC = AESpec(size=45, channels=3, latent=128, hidden=(1024, 512))


def plain_autoencoder() -> AE:
    """Return 6075-1024-512-128 and back, in evaluation mode."""
    torch.manual_seed(0)
    return AE(SPEC).eval()


def save_plain(folder: Path, network: AE) -> None:
    """Write it as a bundle: the latent as it is, no mirror image, as one would write by hand."""
    exported = export_graphs(
        network.encoder, network.decoder, size=SPEC.size, channels=SPEC.channels, latent=SPEC.latent
    )
    spec = BundleSpec(
        kind="ae",
        image=ImageSpec(size=SPEC.size, channels=3, crop=LFW_CROP, quick_jpeg=True),
        latent=SPEC.latent,
        embedding=SPEC.latent,
        mirror=False,
        opset=OPSET,
    )
    eye = np.eye(SPEC.latent, dtype=np.float32)
    zero = np.zeros(SPEC.latent, np.float32)
    save_bundle(folder, exported, spec, statistics=LatentStatistics(zero, eye), affine=AffineMap(eye, zero))
