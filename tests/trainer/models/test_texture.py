"""The texture descriptor: what an image shows, wherever it lies, from few images, with classes or without."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lookalike.encoder.errors import InvalidArgumentError
from lookalike.trainer.config import AESpec
from lookalike.trainer.data import to_floats
from lookalike.trainer.models import AE, Descriptor, DescriptorSpec, FaceModel, TextureDescriptor, TextureSpec

pytestmark = pytest.mark.trains
SIDE, EACH, KINDS = 32, 14, 4
Images = NDArray[np.uint8]


def surfaces(seed: int) -> tuple[Images, NDArray[np.int64]]:
    """Stripes, checks, dots and noise of random size and colors: uint8 (56, 32, 32, 3), and the kind."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    images = []
    for index in range(KINDS * EACH):
        period, right, down = rng.uniform(4, 7), rng.uniform(0, SIDE), rng.uniform(0, SIDE)
        across, along = np.sin(2 * np.pi * (x + right) / period), np.sin(2 * np.pi * (y + down) / period)
        pattern = (across, np.sign(across * along), (across + along > 1.2), rng.normal(size=(SIDE, SIDE)))
        gray = np.asarray(pattern[index % KINDS], float)
        gray = (gray - gray.min()) / np.ptp(gray)
        low, high = rng.uniform(0, 0.4, 3), rng.uniform(0.6, 1, 3)
        colors = low + (high - low) * gray[..., None] + rng.normal(0, 0.02, (SIDE, SIDE, 1))
        images.append((colors.clip(0, 1) * 255).astype(np.uint8))
    return np.stack(images), np.arange(KINDS * EACH) % KINDS


IMAGES, LABELS = surfaces(0)
ROWS = np.arange(len(IMAGES))


def spec(**changes: Any) -> TextureSpec:
    return TextureSpec(**({"size": SIDE, "dim": 24, "filters": 8, "patch": 5} | changes))


@torch.no_grad()
def vectors(descriptor: torch.nn.Module, images: Images) -> torch.Tensor:
    found: torch.Tensor = torch.nn.functional.normalize(descriptor(to_floats(images)))
    return found


def share_found(descriptor: torch.nn.Module) -> float:
    images, labels = surfaces(1)
    similarity = vectors(descriptor, images) @ vectors(descriptor, IMAGES).T
    return float((LABELS[similarity.argmax(1).numpy()] == labels).mean())


@pytest.mark.parametrize("seed", [0, 1])
def test_surfaces_are_found_better_than_by_cells(seed: int) -> None:
    cells = DescriptorSpec(size=SIDE, dim=32, components=32, filters=8, patch=5)
    texture = share_found(TextureDescriptor.fit(spec(), IMAGES, ROWS, seed=seed))
    assert texture > 0.95
    assert texture > share_found(Descriptor.fit(cells, IMAGES, ROWS, seed=seed))


def test_the_place_does_not_matter() -> None:
    fitted = TextureDescriptor.fit(spec(), IMAGES, ROWS)
    noise = IMAGES[3::KINDS]  # without a border where it is rolled
    rolled = np.roll(noise, (9, 5), (1, 2))
    assert (vectors(fitted, noise) * vectors(fitted, rolled)).sum(1).mean() > 0.9


def test_classes_draw_their_images_together() -> None:
    images, labels = surfaces(2)

    def contrast(descriptor: TextureDescriptor) -> float:
        similarity = (vectors(descriptor, images) @ vectors(descriptor, images).T).numpy()
        same = labels[:, None] == labels
        return float(similarity[same].mean() - similarity[~same].mean())

    plain = TextureDescriptor.fit(spec(), IMAGES, ROWS)
    taught = TextureDescriptor.fit(spec(), IMAGES, ROWS, labels=LABELS)
    unknown = TextureDescriptor.fit(spec(), IMAGES, ROWS, labels=np.full(len(LABELS), -1))
    assert contrast(taught) > contrast(plain)
    assert torch.equal(unknown.project.weight, plain.project.weight)


def test_labels_of_other_rows_are_not_read() -> None:
    rows = ROWS[:40]
    changed = LABELS.copy()
    changed[40:] = 0
    one, other = (TextureDescriptor.fit(spec(), IMAGES, rows, labels=each) for each in (LABELS, changed))
    assert torch.equal(one.project.weight, other.project.weight)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [16, 17, 33, 64])
def test_any_size_and_number_of_channels(size: int, channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 255, (12, size, size, channels)).astype(np.uint8)
    fitted = TextureDescriptor.fit(spec(size=size, channels=channels, dim=30), images, np.arange(12))
    assert fitted(to_floats(images)).shape == (12, 11)  # twelve images span eleven dimensions
    assert torch.isfinite(fitted(to_floats(images))).all()


def test_equal_images_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="images that vary"):
        TextureDescriptor.fit(spec(), np.repeat(IMAGES[:1], 9, axis=0), np.arange(9))


@pytest.mark.parametrize("changes", [{"size": 15}, {"dim": 0}, {"ridge": 0.0}, {"patch": 4}, {"patch": 17}])
def test_shapes_that_cannot_be_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        spec(**changes)


def test_beside_the_descriptor_it_counts_more() -> None:
    network = AE(AESpec(size=SIDE, channels=3, latent=4, hidden=(16,)))
    cells = Descriptor.fit(DescriptorSpec(size=SIDE, dim=6, components=8, filters=4, patch=5), IMAGES, ROWS)
    joined = FaceModel(network, cells, texture=TextureDescriptor.fit(spec(dim=8), IMAGES, ROWS)).eval()
    with torch.no_grad():
        latents = joined.encoder(to_floats(IMAGES))
    assert (joined.latent, joined.appearance, joined.supervised) == (18, 4, False)
    torch.testing.assert_close(latents[:, 4:10].norm(dim=1), torch.full((len(IMAGES),), 0.3))
    torch.testing.assert_close(latents[:, 10:].norm(dim=1), torch.ones(len(IMAGES)))
