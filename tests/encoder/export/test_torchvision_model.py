"""Networks of torchvision lose their last layer, and prepare images as the metadata of their weights say."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import models

from lookalike.encoder.bundle import Bundle
from lookalike.encoder.errors import InvalidArgumentError, OnnxImportError
from lookalike.encoder.export import torchvision_model
from lookalike.encoder.export.torchvision_model import export_torchvision
from lookalike.encoder.images import Crop, ImageSpec, encode_png, read_pixels
from lookalike.encoder.runtime import Model
from tests.fixtures.command import lookalike, one_line

without_last_layer = torchvision_model._without_last_layer
preprocessing = torchvision_model._preprocessing


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("squeezenet1_1", 512),
        ("mobilenet_v3_small", 1024),
        ("shufflenet_v2_x0_5", 1024),
        ("mnasnet0_5", 1280),
    ],
)
def test_what_is_left_are_the_features_before_the_classes(name: str, size: int) -> None:
    torch.manual_seed(0)
    network = models.get_model(name, weights=None).eval()
    with torch.inference_mode():
        features = without_last_layer(network, 1000)(torch.rand(2, 3, 64, 64))
        assert features.shape == (2, size)
        assert network(torch.rand(2, 3, 64, 64)).shape == (2, 1000)  # itself it is unchanged


@pytest.mark.parametrize(
    "name", ["resnet50", "vit_b_16", "swin_t", "efficientnet_b1", "convnext_tiny", "googlenet"]
)
def test_images_are_prepared_as_for_the_weights(name: str) -> None:
    weights = models.get_model_weights(name).DEFAULT
    transforms = weights.transforms()
    read = preprocessing(transforms)
    coarse = np.random.default_rng(0).integers(0, 256, (15, 15, 3), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(coarse).resize((300, 300), Image.Resampling.BICUBIC)).copy()
    size = read.size
    assert size is not None
    spec = ImageSpec(size=size, crop=read.crop, resampling=read.resampling)
    pixels = read_pixels(encode_png(picture), spec, name="a.png").astype(np.float64)
    ours = (pixels - read.normalization.mean) / read.normalization.std
    theirs = transforms(torch.from_numpy(picture).permute(2, 0, 1)).permute(1, 2, 0).numpy()
    assert ours.shape == theirs.shape
    # They resize, then cut at whole pixels; we do both at once.
    assert float(np.corrcoef(ours.ravel(), theirs.ravel())[0, 1]) > 0.99


def test_a_name_that_torchvision_does_not_have_is_refused(tmp_path: Path) -> None:
    done = lookalike("models", "import", "torchvision:resnet5000", cwd=tmp_path)
    assert done.returncode == 2
    assert "torchvision has no classification network 'resnet5000'; it has alexnet, " in one_line(done)
    with pytest.raises(InvalidArgumentError, match="no classification network"):
        export_torchvision("raft_large", tmp_path)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"no weights")
    with pytest.raises(OnnxImportError, match=r"w\.pth cannot be read .* --weights"):
        export_torchvision("squeezenet1_1", tmp_path, weights=tmp_path / "w.pth")
    torch.save({"a": torch.zeros(2)}, tmp_path / "w.pth")
    with pytest.raises(OnnxImportError, match="do not fit"):
        export_torchvision("squeezenet1_1", tmp_path, weights=tmp_path / "w.pth")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["squeezenet1_1", "resnet18", "vit_b_16"])
def test_a_network_becomes_a_model(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_MODELS", str(tmp_path))
    torch.manual_seed(0)
    network = models.get_model(name, weights=None).eval()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    done = lookalike("models", "import", f"torchvision:{name}", "--weights", "w.pth", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    bundle = Bundle.open(name)
    assert str(bundle.spec.image.crop) == str(Crop(fraction=0.875))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    values = torch.from_numpy(((pixels / 255 - mean) / std).astype(np.float32)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        wanted = without_last_layer(network, 1000)(values).numpy()
    latents = Model(bundle).encode(pixels)
    np.testing.assert_allclose(latents, wanted, rtol=1e-3, atol=1e-3 * float(wanted.std()))
