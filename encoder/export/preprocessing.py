"""How images are prepared for well-known networks: presets, and the ``preprocessor_config.json`` of exports.

The layout is that of the image processors of Hugging Face's transformers. Needs the [import] extra.

Legend: S side of a network's input.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from lookalike.encoder.detect import ARCFACE_FRAME, Frame
from lookalike.encoder.errors import InvalidArgumentError, OnnxImportError, one_line, printable
from lookalike.encoder.export.onnx_graph import Normalization
from lookalike.encoder.files import read_bounded
from lookalike.encoder.images import Crop, Resampling


@dataclass(frozen=True, kw_only=True, slots=True)
class Preprocessing:
    """How images are prepared for a network.

    Attributes:
        normalization: Of values of 0..255, and the channel order.
        size: S, for a network that takes any.
        crop: How images are framed.
        resampling: Filter of the resize.
        mirror: Whether the vectors of an image and its mirror image are averaged.
        frame: Where the network expects the landmarks of a face; None: it is not for faces.
    """

    normalization: Normalization
    size: int | None = None
    crop: Crop = field(default_factory=Crop)
    resampling: Resampling = "bilinear"
    mirror: bool = False
    frame: Frame | None = None


def _scaled(values: tuple[float, ...]) -> tuple[float, ...]:
    """Return numbers of 0..1 for values of 0..255."""
    return tuple(255 * value for value in values)


_IMAGENET: Final = Normalization(mean=_scaled((0.485, 0.456, 0.406)), std=_scaled((0.229, 0.224, 0.225)))
_CLIP: Final = Normalization(
    mean=_scaled((0.48145466, 0.4578275, 0.40821073)), std=_scaled((0.26862954, 0.26130258, 0.27577711))
)
_OF_256: Final = Crop(fraction=0.875)
"""224 of 256 pixels."""
PRESETS: Final = {
    "clip": Preprocessing(normalization=_CLIP, size=224, resampling="bicubic"),
    "imagenet": Preprocessing(normalization=_IMAGENET, size=224, crop=_OF_256),
    "arcface": Preprocessing(
        normalization=Normalization(mean=(127.5,), std=(127.5,)), size=112, mirror=True, frame=ARCFACE_FRAME
    ),
    "sface": Preprocessing(
        normalization=Normalization(mean=(0.0,), std=(1.0,)), size=112, mirror=True, frame=ARCFACE_FRAME
    ),
    "dinov2": Preprocessing(normalization=_IMAGENET, size=224, crop=_OF_256, resampling="bicubic"),
}
"""By the name that ``models import --preset`` takes."""

CONFIG: Final = "preprocessor_config.json"
_RESAMPLING: Final[Mapping[int, Resampling]] = {1: "lanczos", 2: "bilinear", 3: "bicubic"}
_BICUBIC: Final = ("CLIP", "Siglip", "Bit", "DeiT", "Blip", "Chinese")
"""Processors whose filter is bicubic where the file does not name one."""


def read_config(file: Path) -> Preprocessing:
    """Read a ``preprocessor_config.json``.

    Raises:
        OnnxImportError: It cannot be read, or prepares images in a way that bundles do not.
    """
    where = printable(str(file))
    try:
        config = json.loads(read_bounded(file, most=1 << 20))
    except (OSError, ValueError, RecursionError) as error:
        reason = one_line(error)
        raise OnnxImportError(f"{where}: cannot be read ({reason}); name a --preset instead") from error
    try:
        return _parsed(config)
    except (InvalidArgumentError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise OnnxImportError(
            f"{where}: prepares images in a way that is not known here ({one_line(error)[:200]}); name a "
            "--preset, or --mean and --std"
        ) from error


def _parsed(config: Mapping[str, Any]) -> Preprocessing:
    size, crop = _framing(config)
    factor = 1.0 if config.get("do_rescale") is False else float(config.get("rescale_factor", 1 / 255))
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    if config.get("do_normalize", True):
        mean, std = tuple(map(float, config["image_mean"])), tuple(map(float, config["image_std"]))
    flipped = bool(config.get("do_flip_channel_order"))
    normalization = Normalization(
        mean=tuple(value / factor for value in mean),
        std=tuple(value / factor for value in std),
        rgb=not flipped,
    )
    return Preprocessing(normalization=normalization, size=size, crop=crop, resampling=_resampling(config))


def _resampling(config: Mapping[str, Any]) -> Resampling:
    kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    number = config.get("resample", 3 if kind.startswith(_BICUBIC) else 2)
    if number not in _RESAMPLING:
        raise InvalidArgumentError(f"resample {number} is none of 1 (lanczos), 2 (bilinear), 3 (bicubic)")
    return _RESAMPLING[number]


def _framing(config: Mapping[str, Any]) -> tuple[int, Crop]:
    """Return the side of the input, and the part of an image that becomes it."""
    size = config["size"]
    cropped = config.get("do_center_crop", False) and config.get("crop_size") is not None
    side = _square(config["crop_size"]) if cropped else None
    if isinstance(size, Mapping) and "shortest_edge" in size:
        shortest = int(size["shortest_edge"])
        if side is not None:
            return side, Crop(fraction=min(1.0, side / shortest))
        share = float(config.get("crop_pct") or 1.0) if shortest < 384 else 1.0
        return shortest, Crop(fraction=min(1.0, share))
    if isinstance(size, int) and side is not None:  # earlier files: the shortest edge
        return side, Crop(fraction=min(1.0, side / size))
    whole = _square(size)  # stretched to a square
    share = 1.0 if side is None else min(1.0, side / whole)
    start = (1 - share) / 2
    return side or whole, Crop(window=(start, start, share, share))


def _square(size: Any) -> int:
    height, width = (size, size) if isinstance(size, int) else (size["height"], size["width"])
    if height != width:
        raise InvalidArgumentError(f"images of {width}x{height} pixels are not square")
    return int(height)
