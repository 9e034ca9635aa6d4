"""Tiny real models for tests: exported as any other, in seconds. Not a test.

The fixture ``tiny_model`` in ``conftest.py`` makes one for the whole run; what changes it works on a copy.
"""

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.bundle.bundle import AffineMap, Bundle, BundleSpec, LatentStatistics
from lookalike.encoder.images.preprocess import Crop, ImageSpec

SIZE, CHANNELS, LATENT = 16, 3, 4
"""16 x 16 x 3 values times 16 hidden features are weights large enough to be stored as float16."""

FILES = ("bundle.json", "decoder.onnx", "encoder.onnx", "golden.npz", "latents.npz")
"""All that lies in a bundle."""


def pictures(count: int, *, size: int = SIZE, channels: int = CHANNELS, seed: int = 0) -> NDArray[np.uint8]:
    """Random blotches, uint8 (N, H, W, C): smooth enough for four numbers to say something of them."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 2, 2, channels), dtype=np.uint8)
    return coarse.repeat(size // 2, axis=1).repeat(size // 2, axis=2)


def make_bundle(
    folder: Path, *, size: int = SIZE, channels: int = CHANNELS, latent: int = LATENT, seed: int = 0
) -> Bundle:
    """Start an autoencoder from PCA of random pictures, export it, save it. Needs torch; takes seconds."""
    import torch

    from lookalike.encoder.export.torch_export import OPSET, export_graphs, round_weights, save_bundle
    from lookalike.trainer.models.autoencoder import AE, AESpec

    pixels = pictures(256, size=size, channels=channels, seed=seed)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    spec = AESpec(size=size, channels=channels, latent=latent, hidden=(4 * latent,))
    network = AE.from_pca(spec, images, seed=seed).eval()
    round_weights(network)
    exported = export_graphs(network.encoder, network.decoder, size=size, channels=channels, latent=latent)
    with torch.no_grad():
        statistics = LatentStatistics.of(network.encoder(images).numpy())
    affine = AffineMap.whitening(statistics)
    description = BundleSpec(
        kind="ae",
        image=ImageSpec(size=size, channels=3 if channels == 3 else 1, crop=Crop(fraction=0.5)),
        latent=latent,
        embedding=len(affine.matrix),
        mirror=True,
        opset=OPSET,
        training={"data": "blotches", "seed": seed},
        figures={"parity": exported.parity},
    )
    return save_bundle(folder, exported, description, statistics=statistics, affine=affine)


def save_again(bundle: Bundle, folder: Path, **changes: Any) -> Bundle:
    """Save the parts of an opened bundle elsewhere, some of them changed."""
    parts: dict[str, Any] = {
        "spec": bundle.spec,
        "graphs": {name.removesuffix(".onnx"): (bundle.folder / name).read_bytes() for name in bundle.graphs},
        "statistics": bundle.statistics,
        "affine": bundle.affine,
        "golden": bundle.golden,
        "sampling": bundle.sampling,
    }
    return Bundle.save(folder, **(parts | changes))


def forge(
    folder: Path,
    *,
    files: Mapping[str, bytes] | None = None,
    change: Callable[[dict[str, Any]], object] = lambda _: None,
) -> None:
    """Change a bundle and make its digests and model_id fit again: damage that no digest can show.

    Args:
        folder: The bundle, changed in place.
        files: New contents by name.
        change: Edits the content of bundle.json in place.
    """
    content = json.loads((folder / "bundle.json").read_bytes())
    del content["model_id"]
    for name, data in (files or {}).items():
        (folder / name).write_bytes(data)
        content["files"][name] = hashlib.sha256(data).hexdigest()
    change(content)
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    model_id = hashlib.sha256(canonical.encode()).hexdigest()
    (folder / "bundle.json").write_text(json.dumps({"model_id": model_id, **content}), encoding="utf-8")


def negated(graph: bytes) -> bytes:
    """A graph that runs and gives other numbers. Needs onnx."""
    import onnx

    loaded = onnx.load_from_string(graph)
    for tensor in loaded.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float16:
            tensor.CopyFrom(onnx.numpy_helper.from_array(-values, tensor.name))
    other: bytes = loaded.SerializeToString()
    return other


def npz(**arrays: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=True, **arrays)
    return buffer.getvalue()


def arrays_of(folder: Path, name: str) -> dict[str, NDArray[Any]]:
    with np.load(folder / name) as archive:
        return dict(archive)


def assert_same(one: Bundle, other: Bundle) -> None:
    assert (one.model_id, one.spec, one.graphs) == (other.model_id, other.spec, other.graphs)
    for part in ("statistics", "affine", "golden"):
        for name in getattr(one, part).__slots__:
            ours, theirs = getattr(getattr(one, part), name), getattr(getattr(other, part), name)
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)
    for graph in one.graphs:
        name = graph.removesuffix(".onnx")
        assert one.graph(name) == other.graph(name)


def nothing_left(folder: Path, *, but: set[str]) -> None:
    assert {path.name for path in folder.iterdir()} == but
