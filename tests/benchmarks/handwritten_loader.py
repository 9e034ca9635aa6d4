"""What one would write without us: Pillow, a torch DataLoader, eager torch, qdrant-client's local mode.

With what their documentation asks for: workers that decode, batches, inference mode, ``upload_points``. In a
process of its own: ``python -m tests.benchmarks.handwritten_loader FOLDER`` prints seconds and count.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import uuid
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from qdrant_client import QdrantClient, models
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tests.fixtures.plain_ae import SPEC, plain_autoencoder

_EDGE = 80
"""Pixels that LFW's crop leaves out on each side of 250."""


class Faces(Dataset[tuple[Tensor, int]]):
    """Decoded, cropped, resized pictures."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with Image.open(self.files[index]) as image:
            box = (_EDGE, _EDGE, image.width - _EDGE, image.height - _EDGE)
            small = image.convert("RGB").crop(box).resize((SPEC.size, SPEC.size), Image.Resampling.BILINEAR)
        pixels: NDArray[np.uint8] = np.array(small)
        return torch.from_numpy(pixels).permute(2, 0, 1), index


def index(folder: Path, store: str) -> int:
    """Index a folder of person folders and return how many pictures."""
    files = sorted(folder.glob("*/*.jpg"))
    network = plain_autoencoder()
    client = QdrantClient(path=store)
    client.create_collection("lfw", models.VectorParams(size=SPEC.latent, distance=models.Distance.COSINE))
    loader = DataLoader(Faces(files), batch_size=256, num_workers=os.cpu_count() or 1)
    for pixels, rows in loader:
        with torch.inference_mode():
            latents = network.encoder(pixels.float() / 255)
        points = [
            models.PointStruct(
                id=str(uuid.uuid5(uuid.NAMESPACE_URL, str(files[row]))),
                vector=latent.tolist(),
                payload={"path": str(files[row].relative_to(folder)), "person": files[row].parent.name},
            )
            for row, latent in zip(rows.tolist(), latents.numpy(), strict=True)
        ]
        client.upload_points("lfw", points)
    count = client.count("lfw").count
    client.close()
    return count


def main() -> None:
    """Print seconds and count."""
    with tempfile.TemporaryDirectory() as store:
        began = time.perf_counter()
        count = index(Path(sys.argv[1]), store)
        click.echo(f"{time.perf_counter() - began} {count}")


if __name__ == "__main__":
    main()
