"""Images are prepared as the files of exports say, without a flag; presets are those of the families."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lookalike.encoder.errors import OnnxImportError
from lookalike.encoder.export.preprocessing import PRESETS, read_config
from lookalike.encoder.images import Crop, ImageSpec, encode_png, read_pixels

CLIP: dict[str, Any] = {
    "crop_size": 224,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": 224,
}
DINO: dict[str, Any] = {
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_rescale": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_processor_type": "BitImageProcessor",
    "image_std": [0.229, 0.224, 0.225],
    "rescale_factor": 1 / 255,
    "size": {"shortest_edge": 256},
}
VIT: dict[str, Any] = {
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "image_processor_type": "ViTFeatureExtractor",
    "size": {"height": 384, "width": 384},
}
WHOLE = Crop(window=(0, 0, 1, 1))


def write(folder: Path, config: Any) -> Path:
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(config))
    return file


@pytest.mark.parametrize(
    ("config", "size", "crop", "resampling"),
    [
        (CLIP, 224, Crop(), "bicubic"),
        (CLIP | {"size": {"shortest_edge": 256}, "resample": 2}, 224, Crop(fraction=0.875), "bilinear"),
        (DINO, 224, Crop(fraction=0.875), "bicubic"),
        (DINO | {"resample": 1}, 224, Crop(fraction=0.875), "lanczos"),
        (VIT, 384, WHOLE, "bilinear"),
        (VIT | {"size": 224}, 224, WHOLE, "bilinear"),
        (
            VIT | {"size": {"height": 256, "width": 256}, "do_center_crop": True, "crop_size": 128},
            128,
            Crop(window=(0.25, 0.25, 0.5, 0.5)),
            "bilinear",
        ),
        (VIT | {"size": {"shortest_edge": 224}, "crop_pct": 0.875}, 224, Crop(fraction=0.875), "bilinear"),
        (VIT | {"size": {"shortest_edge": 384}, "crop_pct": 0.875}, 384, Crop(), "bilinear"),
    ],
)
def test_files_of_exports_are_understood(
    tmp_path: Path, config: Any, size: int, crop: Crop, resampling: str
) -> None:
    read = read_config(write(tmp_path, config))
    assert (read.size, read.crop, read.resampling, read.mirror) == (size, crop, resampling, False)
    np.testing.assert_allclose(read.normalization.mean, [255 * each for each in config["image_mean"]])
    np.testing.assert_allclose(read.normalization.std, [255 * each for each in config["image_std"]])


def test_scale_and_channel_order_are_read(tmp_path: Path) -> None:
    raw = read_config(write(tmp_path, VIT | {"do_rescale": False})).normalization
    assert (raw.mean, raw.std, raw.rgb) == ((0.5,) * 3, (0.5,) * 3, True)
    plain = read_config(write(tmp_path, VIT | {"do_normalize": False, "do_flip_channel_order": True}))
    assert plain.normalization.mean == (0,)
    np.testing.assert_allclose(plain.normalization.std, [255])
    assert not plain.normalization.rgb


def test_presets_are_what_the_files_of_their_families_say(tmp_path: Path) -> None:
    for name, config in (("clip", CLIP), ("dinov2", DINO)):
        read, preset = read_config(write(tmp_path, config)), PRESETS[name]
        assert (read.size, read.crop, read.resampling) == (preset.size, preset.crop, preset.resampling)
        np.testing.assert_allclose(read.normalization.mean, preset.normalization.mean)
        np.testing.assert_allclose(read.normalization.std, preset.normalization.std)


@pytest.mark.parametrize(
    "config",
    [
        [],
        {},
        VIT | {"size": {"height": 224, "width": 256}},
        VIT | {"size": {"longest_edge": 224}},
        VIT | {"resample": 0},
        VIT | {"image_mean": ["a", "b", "c"]},
        VIT | {"image_std": [0, 0, 0]},
        VIT | {"size": "big"},
        {key: value for key, value in VIT.items() if key != "image_mean"},
    ],
)
def test_what_is_not_understood_is_one_line(tmp_path: Path, config: Any) -> None:
    with pytest.raises(OnnxImportError, match=r"prepares images in a way .* name a --preset") as caught:
        read_config(write(tmp_path, config))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(OnnxImportError, match="cannot be read"):
        read_config(tmp_path / "preprocessor_config.json")


@pytest.mark.parametrize("resampling", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [16, 200])
def test_images_are_resized_with_the_filter_of_the_model(resampling: Any, size: int) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)
    spec = ImageSpec(size=size, resampling=resampling)
    assert ImageSpec.from_json(spec.to_json()) == spec
    wanted = Image.fromarray(picture).resize((size, size), Image.Resampling[resampling.upper()])
    np.testing.assert_array_equal(read_pixels(encode_png(picture), spec, name="a.png"), np.asarray(wanted))
